"""Sparse LUNs in memory with what lies under VMFS: partition table and volume manager. Written from the layout's facts.

::

    LUN       |MBR|GPT| 1 MiB |partition: … LVM header … |extents of 256 MiB …|GPT's copy|
    volume                                                |E0 E1 E2 of LUN 0|E3 E4 of LUN 1|
"""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.units import KiB, MiB

PAGE = 64 * KiB
SECTOR = 512
PARTITION_AT = MiB
EXTENT = 256 * MiB
DATA_AT = 0x1100000
LVM_AT = 0x100000

VMFS_GUID = uuid.UUID("aa31e02a-400f-11db-9590-000c2911d1b8")
VOLUME_UUID = bytes.fromhex("2d6f62680831 4786e1d4bc2411b17e28")


class SparseLun:
    """A LUN that takes memory only where something was written. ``reads``: (offset, length) of every read."""

    identity = "sparse"

    def __init__(self, size: int) -> None:
        self.size = size
        self.pages: dict[int, bytearray] = {}
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert 0 <= offset <= offset + len(buffer) <= self.size, "a read outside of the LUN"
        self.reads.append((offset, len(buffer)))
        done = 0
        while done < len(buffer):
            page, skip = divmod(offset + done, PAGE)
            part = min(PAGE - skip, len(buffer) - done)
            held = self.pages.get(page)
            buffer[done : done + part] = held[skip : skip + part] if held else bytes(part)
            done += part

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= self.size, "a write outside of the LUN"
        done = 0
        while done < len(data):
            page, skip = divmod(offset + done, PAGE)
            part = min(PAGE - skip, len(data) - done)
            self.pages.setdefault(page, bytearray(PAGE))[skip : skip + part] = data[done : done + part]
            done += part

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def save(self, path: Path) -> Path:
        """As a sparse file."""
        with path.open("wb") as file:
            file.truncate(self.size)
            for page, data in sorted(self.pages.items()):
                file.seek(page * PAGE)
                file.write(data[: self.size - page * PAGE])
        return path


@dataclass
class VolumeOnLuns:
    """A volume of ``extents[i]`` extents on LUN ``i``. ``table``: "gpt", "mbr", or "" for none; ``version``: LVM's.

    ``names``: of the LUNs, as the volume manager writes them down (``naa.…``); ``lun_name`` where none are given.
    """

    extents: Sequence[int] = (1,)
    version: int = 6
    table: str = "gpt"
    names: Sequence[str] = ()
    luns: list[SparseLun] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index, count in enumerate(self.extents):
            size = self.start + DATA_AT + count * EXTENT + MiB
            lun = SparseLun(size)
            self.luns.append(lun)
            if self.table == "gpt":
                lun.write(0, gpt(size, [(VMFS_GUID, self.start, size - self.start - 64 * SECTOR)]))
            elif self.table == "mbr":
                lun.write(0, mbr([(0xFB, self.start, size - self.start)]))
            header = lvm_header(self.version, index, self.extents, self.names)
            for offset, data in header.items():
                lun.write(self.start + offset, data)

    @property
    def start(self) -> int:
        """Where the partition begins on each LUN."""
        return PARTITION_AT if self.table else 0

    @property
    def size(self) -> int:
        """Of the volume, bytes."""
        return sum(self.extents) * EXTENT

    def place(self, offset: int) -> tuple[int, int]:
        """(LUN, offset on it) of a byte of the volume."""
        for index, count in enumerate(self.extents):
            if offset < count * EXTENT:
                return index, self.start + DATA_AT + offset
            offset -= count * EXTENT
        raise AssertionError("behind the volume")

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            part = min(len(data) - done, EXTENT - (offset + done) % EXTENT)
            index, at = self.place(offset + done)
            self.luns[index].write(at, data[done : done + part])
            done += part

    def read(self, offset: int, length: int) -> bytes:
        """Within one extent."""
        index, at = self.place(offset)
        return self.luns[index].read(at, length)


def mbr(partitions: Sequence[tuple[int, int, int]]) -> bytes:
    """(type, first byte, bytes) as a master boot record."""
    entries = b"".join(
        struct.pack("<B3sB3sII", 0, bytes(3), kind, bytes(3), start // SECTOR, size // SECTOR)
        for kind, start, size in partitions
    )
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


def gpt(lun_size: int, partitions: Sequence[tuple[uuid.UUID, int, int]], sector: int = SECTOR) -> bytes:
    """Protective MBR, header and 128 entries of (type, first byte, bytes)."""
    table = b"".join(
        struct.pack(
            "<16s16sQQQ72s",
            kind.bytes_le,
            uuid.uuid5(kind, str(index)).bytes_le,
            start // sector,
            (start + size) // sector - 1,
            0,
            "vmfs".encode("utf-16-le"),
        )
        for index, (kind, start, size) in enumerate(partitions)
    ).ljust(128 * 128, b"\0")
    last = lun_size // sector - 1
    header = gpt_header(table, last)
    return (
        mbr([(0xEE, SECTOR, min(last, 2**32 - 1) * SECTOR)]).ljust(sector, b"\0") + header.ljust(sector, b"\0") + table
    )


def gpt_header(table: bytes, last: int, **changes: int) -> bytes:
    """The 92 bytes of a header. ``changes``: size, my_lba, table_lba, count, entry_size that it shall tell instead."""
    fields = {"size": 92, "my_lba": 1, "table_lba": 2, "count": 128, "entry_size": 128, **changes}

    def packed(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART",
            0x10000,
            fields["size"],
            crc,
            0,
            fields["my_lba"],
            last,
            34,
            last - 33,
            bytes(16),
            fields["table_lba"],
            fields["count"],
            fields["entry_size"],
            zlib.crc32(table),
        )

    return packed(zlib.crc32(packed(0)))


def lun_name(index: int) -> str:
    """What LUN ``index`` is called where nothing else is said."""
    return f"naa.6000c29{index:025x}"


def lvm_header(version: int, index: int, extents: Sequence[int], names: Sequence[str] = ()) -> dict[int, bytes]:
    """Offset in the partition -> bytes, for device ``index`` of those that have so many ``extents`` each."""
    count, first = extents[index], sum(extents[:index])
    total, devices = sum(extents), len(extents)
    alignment = 4096 if version >= 6 else 512
    size = DATA_AT + count * EXTENT
    head = bytearray(512)
    entries = 1 if version >= 6 else count
    struct.pack_into("<II", head, 0, 0xC001D00D, version)
    struct.pack_into("<I", head, 0x5A, SECTOR)
    struct.pack_into("<QIII", head, 0x5E, size, 1, entries, entries - 1)
    struct.pack_into("<Q", head, 0x7A, DATA_AT)
    head[0x82:0x92] = bytes([index + 1]) * 16
    struct.pack_into("<I", head, 0xBE, 0 if version >= 6 else 1)
    if version >= 6:
        struct.pack_into("<II", head, 0xCA, alignment, 512 * KiB)
    volume = bytearray(512)
    struct.pack_into("<QQI", volume, 0, total * EXTENT, 2, 1)
    volume[0x14:0x37] = b"68626f2d-86473108-d4e1-bc2411b17e28"
    volume[0x54:0x64] = VOLUME_UUID
    struct.pack_into("<I", volume, 0x64, 1)
    struct.pack_into("<IQQ", volume, 0x74, count, first, first + count - 1)
    struct.pack_into("<I", volume, 0x90, devices)
    told = names or [lun_name(number) for number in range(devices)]
    raw_names = b"".join(f"{name}:1".encode().ljust(256, b"\0") for name in told)
    maps = alignment + 512 * KiB
    bitmap = max(alignment, 1024)
    step = count if version >= 6 else 1
    table = b"".join(_extent(number, first + number, step) for number in range(0, count, step))
    return {
        LVM_AT: bytes(head),
        LVM_AT + alignment: bytes(volume),
        LVM_AT + maps - 32 * 256: raw_names if index == 0 else b"",
        LVM_AT + maps: ((1 << entries) - 1).to_bytes(bitmap, "little"),
        LVM_AT + maps + bitmap: table,
    }


def _extent(number: int, logical: int, count: int) -> bytes:
    raw = bytearray(128)
    struct.pack_into("<BI", raw, 0, 1, number)
    struct.pack_into("<QQQB", raw, 9, DATA_AT + number * EXTENT, logical * EXTENT, count * EXTENT, 1)
    return bytes(raw)
