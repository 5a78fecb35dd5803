"""The disks of a machine as regions of bytes: what the parsers read, cached and counted.

The Sleuth Kit reads small pieces here and there. They are cut from blocks that are kept, least recently used first out;
what is read through once (contents of files) goes past them.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.closing import Closeable
from proxy.errors import LanfreeError, MountEnded, MountFailed
from proxy.extents import Extent
from proxy.model import NbdAddress
from proxy.transport.nbd import NbdSource
from proxy.units import KiB, MiB

# One request to the server. Smaller blocks cost a round trip each (0.1 ms and more), larger ones read what nobody wants:
# directories are seldom longer than this.
BLOCK = 32 * KiB

# Blocks kept: 64 MiB. The inodes of a directory's files lie together, so that little is read twice.
KEPT = 2048

# The third miss in a row, each right behind the one before: somebody reads on. So many blocks are then fetched at once:
# tables of inodes are long, and every request costs its server as much as 100 KiB.
AHEAD = 16

# Places where somebody may read on: directories are read in between the inodes of their files.
_FOLLOWED = 16

# Reads from here on go past the cache: they are contents.
DIRECT = 512 * KiB


class Reads(Protocol):
    """What a disk is read from: ``NbdSource``, or bytes in a test."""

    size: int

    def extents(self) -> Sequence[Extent]: ...
    def read_into(self, offset: int, buffer: memoryview) -> None: ...
    def close(self) -> None: ...


class Disk(Closeable):
    """One disk. ``bytes_read`` and ``requests`` count what was fetched from the server. One thread reads at a time.
    ``ahead``: blocks that are fetched at once where somebody reads on."""

    def __init__(self, source: Reads, *, ahead: int = AHEAD) -> None:
        self.size = source.size
        self.bytes_read = 0
        self.requests = 0
        self._source = source
        self._most = ahead
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._followed: OrderedDict[int, int] = OrderedDict()  # block that would be next -> misses in a row before it
        self._turn = threading.Lock()
        self._closed = False

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on, fewer at the end of the disk. Raises ``MountFailed``, ``MountEnded``."""
        length = max(0, min(length, self.size - offset))
        if offset < 0 or not length:
            return b""
        with self._turn:
            if length >= DIRECT:
                return self._fetch(offset, length)
            number, start = divmod(offset, BLOCK)
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                if start + length <= len(block):
                    return block[start : start + length]
            return self._gathered(number, start, length)

    def close(self) -> None:
        self._closed = True
        self._source.close()

    def _gathered(self, number: int, start: int, length: int) -> bytes:
        """A piece from block ``number`` on, of which not all is kept. One request for what is missing in a row: who asks for
        several blocks says how far; for who asks for one after the other, some are read ahead."""
        last = number + (start + length - 1) // BLOCK
        pieces: list[bytes] = []
        for n in range(number, last + 1):
            if n in self._blocks:
                self._blocks.move_to_end(n)
            else:
                self._fill(n, self._ahead(n) if number == last else last + 1 - n)
            pieces.append(self._blocks[n])
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        return b"".join(pieces)[start : start + length]

    def _ahead(self, number: int) -> int:
        in_a_row = self._followed.pop(number, 0) + 1
        count = self._most if in_a_row > 2 else 1
        self._followed[number + count] = in_a_row
        if len(self._followed) > _FOLLOWED:
            self._followed.popitem(last=False)
        return count

    def _fill(self, number: int, most: int) -> None:
        """Blocks from ``number`` on, up to one that is kept, the end of the disk, or ``most``."""
        count = next((n for n in range(1, most) if number + n in self._blocks), most)
        data = self._fetch(number * BLOCK, min(count * BLOCK, self.size - number * BLOCK))
        for index in range(-(-len(data) // BLOCK)):
            self._blocks[number + index] = data[index * BLOCK : (index + 1) * BLOCK]

    def _fetch(self, offset: int, length: int) -> bytes:
        if self._closed:
            raise MountEnded("it was closed")
        buffer = bytearray(length)
        try:
            self._source.read_into(offset, memoryview(buffer))
        except LanfreeError as error:
            raise MountFailed("a disk", f"reading {length} bytes at {offset}: {error.message}") from None
        self.bytes_read += length
        self.requests += 1
        return bytes(buffer)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a disk, or all of it; ``offset`` and ``size`` in bytes."""

    disk: Disk
    offset: int
    size: int

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes of this region, fewer at its end. Raises ``MountFailed``."""
        return self.disk.pread(self.offset + offset, min(length, self.size - offset)) if offset >= 0 else b""


def connect(socket: str) -> Disk:
    """The disk that is served at a Unix socket (NBD, default export). Raises ``MountFailed``."""
    try:
        return Disk(NbdSource(NbdAddress(f"nbd+unix:///?socket={socket}")))
    except LanfreeError as error:
        raise MountFailed("a disk", error.message) from None


# Bytes at both ends of a region where formats have their marks: all that ``blank`` looks at.
MARKED = 1 * MiB


def blank(region: Region) -> bool:
    """Whether no byte is set where a format could have a mark."""
    length = min(MARKED, region.size)
    return not any(region.pread(0, length)) and not any(region.pread(region.size - length, length))
