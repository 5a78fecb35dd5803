"""Where two images of one disk differ, by their chunks' ids: nothing of the disk itself is read."""

from collections.abc import Iterator

from proxy.extents import Extent, normal
from proxy.ports import ImageReader
from proxy.repository.reader import RepositoryImageReader


def differing(before: ImageReader, now: ImageReader) -> list[Extent]:
    """Extents of ``now``, in whole chunks, that may hold other bytes than ``before``; what lies behind the end of
    ``before`` is among them. Both are images of one repository."""
    if before.granularity != now.granularity:
        return [Extent(0, now.size)]
    step = now.granularity
    found = normal(
        Extent(a * step, min(b * step, now.size) - a * step) for a, b in _runs(before, now) if a * step < now.size
    )
    if before.size >= now.size:
        return found
    # The last chunk of the shorter one is cut off there, so it has another id already if anything follows it.
    return normal([*found, Extent(before.size, now.size - before.size)])


def _runs(before: ImageReader, now: ImageReader) -> Iterator[tuple[int, int]]:
    """Ranges of chunk numbers."""
    if isinstance(before, RepositoryImageReader) and isinstance(now, RepositoryImageReader):
        yield from now.differing(before)
        return
    step = now.granularity
    for number in range(-(-min(before.size, now.size) // step)):
        if before.digest_at(number * step) != now.digest_at(number * step):
            yield number, number + 1
