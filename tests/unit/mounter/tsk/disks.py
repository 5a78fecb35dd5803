"""Disks in memory, and the structures that are put on them."""

import struct
import zlib
from collections.abc import Sequence

from mounter.tsk.image import Disk, Region
from proxy.extents import Extent
from proxy.units import MiB


class Bytes:
    """What a ``Disk`` reads from; ``reads`` tells every request."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []

    def extents(self) -> Sequence[Extent]:
        """All of it."""
        return [Extent(0, self.size)]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As the port."""
        self.reads.append((offset, len(buffer)))
        buffer[:] = self.data[offset : offset + len(buffer)]

    def close(self) -> None:
        """Nothing to close."""


def disk(data: bytes | bytearray) -> Disk:
    return Disk(Bytes(data))


def region(marks: dict[int, bytes], size: int = 4 * MiB) -> Region:
    """Zeroes with some bytes set."""
    data = bytearray(size)
    for at, mark in marks.items():
        data[at : at + len(mark)] = mark
    made = disk(data)
    return Region(made, 0, made.size)


def mbr(*entries: tuple[int, int, int], signature: int = 0xCAFE1234) -> bytes:
    """``entries``: type, first sector, sectors."""
    table = b"".join(struct.pack("<B3xB3xII", 0, kind, start, count) for kind, start, count in entries)
    return struct.pack("<440xI2x", signature) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*entries: tuple[bytes, bytes, int, int]) -> bytes:
    """Sectors 0 to 33. ``entries``: type and own GUID as stored, first and last sector."""
    table = b"".join(struct.pack("<16s16sQQ80x", kind, own, first, last) for kind, own, first, last in entries)
    table = table.ljust(128 * 128, b"\0")
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 34, 0, b"", 2, 128, 128, zlib.crc32(table)
    )
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    return mbr((0xEE, 1, 0xFFFFFFFF)) + head.ljust(512, b"\0") + table


def ext_superblock(
    *, compat: int = 0, incompat: int = 0x2, read_only: int = 0, label: bytes = b"", flags: int = 0
) -> bytes:
    """At byte 1024 of a volume; recognised, not more."""
    block = bytearray(1024)
    block[56:58] = b"\x53\xef"
    struct.pack_into("<III", block, 92, compat, incompat, read_only)
    block[104:120] = bytes(range(16))
    block[120 : 120 + len(label)] = label
    struct.pack_into("<I", block, 352, flags)
    return bytes(block)
