"""The change-tracking audit: a sample of what tracking calls unchanged is read all the same, and compared.

::

    disk       |CC|uuuuuuuuuu|..|uuuu|CC|     C changed since the parent, u said to be unchanged, . zero
    read       |CC|    u     |  | u  |CC|     the sample rides along in the one ascending pass over what changed

Every kind of tracking has lost changes without a word (snapshot consolidation and grown disks in vSphere: VMware KB 2136854
and 2090639), and an incremental built on that is wrong for ever, unnoticed until it is restored. Each incremental that reads
``k`` random chunks finds a loss of the share ``p`` with the probability 1 - (1 - p)^k; night after night that adds up.

The writer stores a sampled chunk that differs, as any other. That it differed at all means that nothing which tracking said
since the disk was read whole can be trusted: the rest is then read in the same run, and restore points in between are
marked (``suspect``).
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.extents import Extent
from proxy.model import Level, Reason, ReasonCode, RestorePoint, RestorePointId
from proxy.ports import ImageReader
from proxy.transfer import Judge, Sink

SAMPLE = 64
"""Chunks of a disk that are compared at most: 16 MiB at the default chunk size, about a second for a SAN."""

SHARE = 256
"""One in so many chunks is enough on small disks, so that the sample never becomes what an incremental mostly reads."""

_TELLING = 0.01
"""The loss, as a share of the unchanged chunks, for which the probability of being found is told."""

_RANDOM = random.SystemRandom()

Choose = Callable[[range, int], Sequence[int]]
"""Picks that many different numbers of a range."""


@dataclass(frozen=True, slots=True)
class Sample:
    """``extents``: whole chunks, normal, DATA; ``chunks``: how many, of ``population`` that were to choose from."""

    extents: tuple[Extent, ...]
    chunks: int
    population: int


def choose(
    unchanged: Sequence[Extent],
    granularity: int,
    most: int = SAMPLE,
    pick: Choose = _RANDOM.sample,
) -> Sample:
    """``unchanged``: normal, DATA, whole chunks of ``granularity`` bytes but at the disk's end."""
    starts: list[int] = []
    population = sum(-(-each.length // granularity) for each in unchanged)
    count = min(most, -(-population // SHARE))
    wanted = iter(sorted(pick(range(population), count)))
    number, before = next(wanted, None), 0
    for each in unchanged:
        chunks = -(-each.length // granularity)
        while number is not None and number < before + chunks:
            starts.append(each.start + (number - before) * granularity)
            number = next(wanted, None)
        before += chunks
    end = unchanged[-1].end if unchanged else 0
    return Sample(tuple(Extent(start, min(granularity, end - start)) for start in starts), count, population)


class AuditedSink:
    """A ``Sink`` in front of an image's writer, which compares the sampled chunks with the parent's image on their way. It
    may be called from several threads."""

    def __init__(self, sink: Sink, parent: ImageReader, sample: Sample) -> None:
        self._sink = sink
        self._judge = Judge(parent)
        self._granularity = parent.granularity
        self._sampled = frozenset(each.start for each in sample.extents)
        self._lock = threading.Lock()
        self._wrong: list[int] = []

    @property
    def wrong(self) -> Sequence[int]:
        """Offsets of sampled chunks that are not the parent's, in order."""
        with self._lock:
            return sorted(self._wrong)

    def write(self, offset: int, data: memoryview) -> None:
        for start in range(offset, offset + len(data), self._granularity):
            if start in self._sampled:
                piece = data[start - offset : start - offset + self._granularity]
                if any(self._judge.differing(start, piece)):
                    with self._lock:
                        self._wrong.append(start)
        self._sink.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._sink.zero(offset, length)


def passed(disk: str, sample: Sample) -> Reason:
    """What a sample without a difference says, and how much that is worth."""
    found = 1 - (1 - _TELLING) ** sample.chunks
    if sample.chunks == sample.population:
        found = 1.0
    detail = (
        f"{disk}: {sample.chunks} of {sample.population} unchanged chunks compared, none differs "
        f"(one wrong in a hundred would have been found with {found:.0%})"
    )
    return Reason(ReasonCode.CHANGES_AUDITED, detail)


def failed(disk: str, sample: Sample, wrong: Sequence[int]) -> Reason:
    """Why the rest of the disk was read."""
    detail = (
        f"{disk}: {len(wrong)} of {sample.chunks} chunks that tracking calls unchanged differ from the parent's, the first at "
        f"offset {wrong[0]}: the whole disk was compared"
    )
    return Reason(ReasonCode.TRACKING_LIED, detail)


def suspects(points: Sequence[RestorePoint], disk: str) -> list[RestorePointId]:
    """``points``: of the machine, oldest first. Those whose image of the disk rests on what tracking said: all since it was
    read whole the last time."""
    found: list[RestorePointId] = []
    for point in reversed(points):
        image = point.image(disk)
        if image is None:
            continue
        if image.level is Level.FULL:
            break
        found.append(point.id)
    return list(reversed(found))
