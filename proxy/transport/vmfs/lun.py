"""Where bytes come from: a LUN, a part of one, and a cache in front of it for metadata.

::

    LUN          |mbr|gpt|   partition                 |   |      anything with ``size`` and ``read_into``
    Window                   |lvm header |extents      |          offset 0 is the partition's first byte
    Metadata     pages of 64 KiB, the last few hundred of them    only for what the file system says of itself
"""

from typing import Protocol

from proxy.transport.qcow2_cluster import Lru
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import KiB, MiB

PAGE = 64 * KiB
"""One pointer block of VMFS 6; 16 of VMFS 5. Smaller pages cost more round trips, larger ones read what nobody asks for."""

CACHED_PAGES = 16 * MiB // PAGE
"""All pointer blocks of 2 TiB on VMFS 6. Ten disks of one datastore share one cache."""

LONGEST_READ = 4 * MiB
"""No structure of VMFS is read in larger pieces; a length above it comes from a damaged field."""


class Lun(Protocol):
    """What this package needs of a ``BlockSource``. Reads may come from many threads at once."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer or raises ``ReadFailed``."""
        ...


class Window:
    """Bytes ``[start, start + size)`` of a LUN as a LUN of their own."""

    def __init__(self, lun: Lun, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > lun.size:
            raise ValueError(f"window of {size} bytes at {start} of a LUN of {lun.size}")
        self.lun = lun
        self.start = start
        self.size = size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As ``Lun``. A range outside is the caller's mistake: what comes from disk was checked before."""
        if offset < 0 or offset + len(buffer) > self.size:
            raise ValueError(f"{len(buffer)} bytes at {offset} of a window of {self.size}")
        self.lun.read_into(self.start + offset, buffer)


class Metadata:
    """Reads of file system structures, page by page, the pages kept. Bounded in memory; safe from many threads."""

    def __init__(self, lun: Lun, subject: Subject, pages: int = CACHED_PAGES) -> None:
        self._lun = lun
        self._subject = subject
        self._limit = pages
        self._pages: Lru[int, bytes] = Lru(pages)
        self.size = lun.size

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes of ``what``. Refuses what does not lie within the device; raises ``ReadFailed``."""
        if not 0 <= length <= LONGEST_READ or offset < 0 or offset + length > self.size:
            where = f"{what}: {length} bytes at {offset} of {self.size}"
            raise self._subject.refuse(VmfsReason.BLOCK_OUTSIDE, where)
        parts: list[bytes] = []
        end = offset + length
        while offset < end:
            page, skip = divmod(offset, PAGE)
            part = self._page(page)[skip : skip + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def forget(self) -> None:
        """Read everything anew from now on: another host may have changed it."""
        self._pages = Lru(self._limit)

    def _page(self, number: int) -> bytes:
        pages = self._pages  # what is read before ``forget`` and comes after it goes into the cache that was forgotten
        page = pages.get(number)
        if page is None:
            start = number * PAGE
            data = bytearray(min(PAGE, self.size - start))
            self._lun.read_into(start, memoryview(data))
            page = bytes(data)
            pages.put(number, page)
        return page
