"""Writing a stream-optimised VMDK, front to back, without ever going back: what an import lease takes.

Zero grains are left out, so a thin disk stays thin, and a thick one that holds little takes little of the network.
"""

import zlib
from array import array
from collections.abc import Callable

import numpy as np

from proxy.errors import FormatError
from proxy.transport.vmdk import stream_format as fmt
from proxy.transport.vmdk.descriptor import SECTOR, SIZE_LIMIT
from proxy.transport.vmdk.stream_format import GRAIN, TABLE_ENTRIES, Marker, StreamHeader
from proxy.units import KiB

LEVEL = 1
"""Of zlib: the fastest. 6 saves about a tenth of the bytes and takes three times as long."""

STORED = 0
"""For what does not get smaller (encrypted, packed already): as it is, thirty times as fast."""

SAMPLE = 4 * KiB
"""Packed first to see whether the grain is worth it."""

WORTH = 0.9

_ZERO = bytes(GRAIN)


def pack_grain(start: int, data: memoryview) -> bytes | None:
    """A grain as it stands in the stream, ``None`` if it is all zero. May be called from any thread.

    ``start``: a multiple of ``GRAIN``; ``data``: one grain, or what there is of the disk's last one.
    """
    if start % GRAIN or not 0 < len(data) <= GRAIN:
        raise ValueError(f"{len(data)} bytes at {start} are no grain")
    if _ZERO.startswith(data):
        return None
    whole = data if len(data) == GRAIN else bytes(data).ljust(GRAIN, b"\0")
    middle = len(whole) // 2  # the beginnings of files say less of what is in them
    sample = zlib.compress(whole[middle : middle + SAMPLE], LEVEL)
    return fmt.pack_grain(start, zlib.compress(whole, LEVEL if len(sample) < WORTH * SAMPLE else STORED))


class StreamWriter:
    """Writes the header at once, ``put`` the grains in ascending order, ``finish`` the rest. Not for several threads.

    ``size``: of the disk, whole sectors. ``write``: takes the stream's next bytes, all of them, or raises. Raises
    ``FormatError`` when the disk cannot be put into the format.
    """

    def __init__(self, write: Callable[[bytes], object], size: int, name: str) -> None:
        if size % SECTOR or not 0 < size <= SIZE_LIMIT:
            raise FormatError(name, f"a disk of {size} bytes cannot be a VMDK")
        self._header = StreamHeader(size, GRAIN)
        self._name = name
        self._write = write
        self._sector = 0
        self._position = 0
        self._number = -1
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._directory = array("I", bytes(4 * self._header.tables))
        self._put(fmt.pack_header(self._header))
        self._put(fmt.pack_descriptor(self._header, name))
        self._put(bytes((self._header.overhead - self._sector) * SECTOR))

    def put(self, start: int, packed: bytes) -> None:
        """A grain from ``pack_grain``, behind all others so far."""
        if start < self._position or start >= self._header.size:
            raise ValueError(f"a grain at {start}, after {self._position} of {self._header.size} bytes")
        number, index = divmod(start // GRAIN, TABLE_ENTRIES)
        if number != self._number:
            self._end_table()
            self._number = number
        if self._sector >= fmt.ENTRY_LIMIT:
            raise FormatError(self._name, "its stream needs more than 2 TiB, which the format cannot count")
        self._table[index] = self._sector
        self._position = start + GRAIN
        self._put(packed)

    def finish(self) -> None:
        """The last table, the directory, the footer, the end."""
        self._end_table()
        directory_at = self._sector + 1
        self._put(fmt.pack_metadata(Marker.DIRECTORY, _little(self._directory)))
        self._put(fmt.pack_metadata(Marker.FOOTER, fmt.pack_header(self._header.at(directory_at))))
        self._put(fmt.pack_metadata(Marker.END))

    def _end_table(self) -> None:
        if self._number < 0:
            return
        self._directory[self._number] = (self._sector + 1) % fmt.ENTRY_LIMIT
        self._put(fmt.pack_metadata(Marker.TABLE, _little(self._table)))
        self._table = array("I", bytes(4 * TABLE_ENTRIES))

    def _put(self, raw: bytes) -> None:
        self._write(raw)
        self._sector += len(raw) // SECTOR


def _little(entries: "array[int]") -> bytes:
    """32-bit entries as they stand in the stream, whatever the machine's byte order."""
    return np.asarray(entries, "<u4").tobytes()
