"""Grains of a disk that come in any order, given out in ascending order: what a stream needs."""

from proxy.transport.vmdk.stream_format import GRAIN
from proxy.transport.vmdk.stream_writer import pack_grain
from proxy.units import align_down, align_up

BATCH = 64
"""Grains given out at once, 4 MiB of the disk: others may put more in meanwhile, and who waits sees that it goes on."""


class GrainOrder:
    """What came in any order, given out in ascending order. Not for several threads.

    ``position``: everything below has come and was given out. ``waiting``: bytes kept of what
    has come and was not, packed where a grain is whole.
    """

    def __init__(self, size: int) -> None:
        self.position = 0
        self.waiting = 0
        self._size = size
        self._came: dict[int, int] = {}  # start -> end of what came behind ``position``
        self._packed: dict[int, bytes] = {}
        self._parts: dict[int, tuple[bytearray, int]] = {}  # grains that came in pieces, and how much of them came

    def whole(self, start: int, end: int, packed: bytes | None) -> None:
        """A grain; ``None``: all zero."""
        if packed is not None:
            self._packed[start] = packed
            self.waiting += len(packed)
        self._came[start] = end

    def part(self, start: int, data: memoryview) -> None:
        """Some bytes of a grain."""
        grain = align_down(start, GRAIN)
        buffer, came = self._part(grain)
        buffer[start - grain : start - grain + len(data)] = data
        self._count(grain, buffer, came + len(data))

    def zero(self, start: int, end: int) -> None:
        """Zeroes, within grains or over many of them."""
        low, high = align_up(start, GRAIN), end if end == self._size else align_down(end, GRAIN)
        if low < high:
            self._zero_part(start, low)
            self._came[low] = high
            self._zero_part(high, end)
        else:  # a part of one grain, or of two neighbours
            self._zero_part(start, min(low, end))
            self._zero_part(min(low, end), end)

    def ready(self) -> list[tuple[int, bytes]]:
        """The next grains that nothing is missing before: some of them, none when there are none."""
        found: list[tuple[int, bytes]] = []
        while len(found) < BATCH and (end := self._came.pop(self.position, None)) is not None:
            packed = self._packed.pop(self.position, None)
            if packed is not None:
                found.append((self.position, packed))
                self.waiting -= len(packed)
            self.position = end
        return found

    def no_more(self) -> None:
        """What never came is zero."""
        for grain, (buffer, _came) in list(self._parts.items()):
            self._count(grain, buffer, GRAIN)
        at = self.position
        for start, end in sorted(self._came.items()):
            if start > at:
                self._came[at] = start
            at = end
        if at < self._size:
            self._came[at] = self._size

    def _part(self, grain: int) -> tuple[bytearray, int]:
        return self._parts.get(grain) or (bytearray(min(GRAIN, self._size - grain)), 0)

    def _zero_part(self, start: int, end: int) -> None:
        if start < end:
            grain = align_down(start, GRAIN)
            buffer, came = self._part(grain)
            self._count(grain, buffer, came + end - start)

    def _count(self, grain: int, buffer: bytearray, came: int) -> None:
        if came < len(buffer):
            self.waiting += 0 if grain in self._parts else len(buffer)
            self._parts[grain] = (buffer, came)
            return
        if self._parts.pop(grain, None) is not None:
            self.waiting -= len(buffer)
        self.whole(grain, grain + len(buffer), pack_grain(grain, memoryview(buffer)))
