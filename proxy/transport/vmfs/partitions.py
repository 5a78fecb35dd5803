"""Partition tables of a LUN: GPT (UEFI 2.10, chapter 5) and MBR, as far as it takes to find VMFS partitions.

Only the primary GPT is read. Where it is damaged a host would repair it from the copy at the end; we do not guess which of
two tables holds, and refuse. ESXi lays VMFS on 512-byte sectors (512n, 512e) only.
"""

import struct
import uuid
import zlib
from dataclasses import dataclass

from proxy.transport.vmfs.lun import Lun, Metadata
from proxy.transport.vmfs.reasons import Subject, VmfsReason

SECTOR = 512
SECTOR_4KN = 4096

VMFS_GUID = uuid.UUID("aa31e02a-400f-11db-9590-000c2911d1b8")
VMFS_MBR_TYPE = 0xFB
PROTECTIVE_MBR_TYPE = 0xEE

GPT_SIGNATURE = b"EFI PART"
GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
GPT_ENTRY_LIMIT = 1024
"""UEFI asks for 128. More than 1,024 entries would be a damaged count."""

MBR_ENTRIES_AT = 446
MBR_ENTRY = struct.Struct("<B3sB3sII")
MBR_SIGNATURE = b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Partition:
    """A VMFS partition. ``number``: as hosts count, from 1; 0: the whole LUN. ``start``, ``size`` in bytes."""

    number: int
    start: int
    size: int


def vmfs_partitions(lun: Lun, subject: Subject) -> list[Partition]:
    """The VMFS partitions of a LUN; the whole of it where it has no partition table. Refuses damaged tables."""
    metadata = Metadata(lun, subject, pages=4)
    if lun.size < 4 * SECTOR_4KN:
        raise subject.refuse(VmfsReason.LUN_TOO_SMALL, f"a LUN of {lun.size} bytes")
    head = metadata.read(0, 2 * SECTOR_4KN, "partition table")
    types = [kind for kind, _start, _count in _mbr(head)]
    if head[SECTOR : SECTOR + 8] == GPT_SIGNATURE:
        return _gpt(metadata, head[SECTOR : 2 * SECTOR], subject)
    if head[SECTOR_4KN : SECTOR_4KN + 8] == GPT_SIGNATURE:
        raise subject.refuse(VmfsReason.SECTOR_SIZE, "a partition table in sectors of 4096 bytes")
    if PROTECTIVE_MBR_TYPE in types:
        raise subject.refuse(VmfsReason.PARTITION_TABLE_DAMAGED, "a protective MBR and no GPT behind it")
    if not types:
        return [Partition(0, 0, lun.size)]
    return [
        _checked(subject, lun.size, number, start * SECTOR, count * SECTOR)
        for number, (kind, start, count) in enumerate(_mbr(head), start=1)
        if kind == VMFS_MBR_TYPE
    ]


def _mbr(head: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four entries; empty where there is no MBR or nothing is in it."""
    if head[510:512] != MBR_SIGNATURE:
        return []
    entries = MBR_ENTRY.iter_unpack(head[MBR_ENTRIES_AT:510])
    found = [(kind, start, count) for _active, _chs, kind, _chs_end, start, count in entries]
    return found if any(kind for kind, _start, _count in found) else []


def _gpt(metadata: Metadata, header: bytes, subject: Subject) -> list[Partition]:
    def damaged(why: str) -> Exception:
        return subject.refuse(VmfsReason.PARTITION_TABLE_DAMAGED, f"GPT: {why}")

    fields = GPT_HEADER.unpack_from(header)
    size, crc, _reserved, my_lba, _other, first, last, _disk, table_lba, count, entry_size, table_crc = fields[2:]
    if not GPT_HEADER.size <= size <= SECTOR or my_lba != 1:
        raise damaged(f"a header of {size} bytes for sector {my_lba}")
    if zlib.crc32(header[:16] + bytes(4) + header[20:size]) != crc:
        raise damaged("the header's checksum is wrong")
    if count > GPT_ENTRY_LIMIT or entry_size not in (128, 256, 512):
        raise damaged(f"{count} entries of {entry_size} bytes")
    if (table_lba * SECTOR) + count * entry_size > metadata.size:
        raise damaged(f"the table lies at sector {table_lba}")
    table = metadata.read(table_lba * SECTOR, count * entry_size, "GPT")
    if zlib.crc32(table) != table_crc:
        raise damaged("the table's checksum is wrong")
    partitions: list[Partition] = []
    for index in range(count):
        kind, _id, begin, end, _flags, _name = GPT_ENTRY.unpack_from(table, index * entry_size)
        if kind != VMFS_GUID.bytes_le:
            continue
        if not first <= begin <= end <= last:
            raise damaged(f"partition {index + 1} from sector {begin} to {end}")
        length = (end - begin + 1) * SECTOR
        partitions.append(_checked(subject, metadata.size, index + 1, begin * SECTOR, length))
    return partitions


def _checked(subject: Subject, lun_size: int, number: int, start: int, size: int) -> Partition:
    if not start or not size or start + size > lun_size:
        detail = f"partition {number} has {size} bytes at {start} of a LUN of {lun_size}"
        raise subject.refuse(VmfsReason.LUN_TOO_SMALL, detail)
    return Partition(number, start, size)
