"""Partition tables: MBR with logical partitions, GPT, or none. The names are those of the appliance: /dev/sda1.

What Linux' kernel takes for a table is one here: a machine must have the same volumes whoever reads it. Sources: UEFI 2.10
chapter 5 (GPT), the kernel's block/partitions/msdos.c for what it accepts.
"""

import string
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mounter.tsk.image import Disk, Region
from proxy.errors import FastPathRefused

SECTOR = 512
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE = 0xEE
_LDM = 0x42

# Logical partitions are a chain on disk: a loop must end. The kernel stops at 255 partitions.
_MOST = 128

_GPT_HEAD = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")

# Types of a GPT that hold no files: Microsoft Reserved and BIOS boot; then the two of dynamic disks.
_NO_FILES = frozenset({"e3c9e316-0b5c-4db8-817d-f92df00215ae", "21686148-6449-6e6f-744e-656564454649"})
_LDM_TYPES = frozenset({"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad"})


@dataclass(frozen=True, slots=True)
class Partition:
    """``number`` 0: the whole disk. ``uuid``: PARTUUID as blkid spells it."""

    device: str
    number: int
    region: Region
    uuid: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """``kind``: ``dos``, ``gpt`` or empty. ``signature``: of the MBR, 0 for others."""

    kind: str
    partitions: tuple[Partition, ...]
    signature: int = 0


def holds_files(partition: Partition) -> bool:
    """Whether its type allows files: what holds nothing known is not listed otherwise."""
    return partition.type not in _NO_FILES


def device_name(number: int) -> str:
    """``/dev/sda`` for 0, ``/dev/sdaa`` for 26, as the kernel counts."""
    name = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = string.ascii_lowercase[letter] + name
    return f"/dev/sd{name}"


def table_of(disk: Disk, device: str) -> Table:
    """What a disk is divided into; itself when it is not. Raises ``FastPathRefused`` for dynamic disks and broken GPT."""
    whole = Table("", (Partition(device, 0, Region(disk, 0, disk.size)),))
    mbr = disk.pread(0, SECTOR)
    if len(mbr) < SECTOR or mbr[510:] != b"\x55\xaa":
        return whole
    entries = [mbr[446 + 16 * i : 462 + 16 * i] for i in range(4)]
    if any(entry[0] not in (0, 0x80) for entry in entries):
        return whole
    if any(entry[4] == _PROTECTIVE for entry in entries):
        return Table("gpt", tuple(_gpt(disk, device)))
    signature: int = struct.unpack_from("<I", mbr, 440)[0]
    found = tuple(_mbr(disk, device, entries, signature))
    return Table("dos", found, signature) if found else whole


def _mbr(disk: Disk, device: str, entries: list[bytes], signature: int) -> Iterator[Partition]:
    extended: list[int] = []
    for number, entry in enumerate(entries, 1):
        kind = entry[4]
        start, count = struct.unpack_from("<II", entry, 8)
        if not count:
            continue
        if not kind:
            raise FastPathRefused("partition-table", f"partition {number} of {device} has no type")
        if kind == _LDM:
            raise FastPathRefused("ldm", f"{device} is a Windows dynamic disk")
        if kind in _EXTENDED:
            extended.append(start)
            continue
        region = _region(disk, device, start * SECTOR, count * SECTOR)
        yield Partition(f"{device}{number}", number, region, f"{signature:08x}-{number:02x}", f"{kind:02x}")
    if len(extended) > 1:
        raise FastPathRefused("partition-table", f"{device} has {len(extended)} extended partitions")
    for first in extended:
        yield from _logical(disk, device, first, signature)


def _logical(disk: Disk, device: str, first: int, signature: int) -> Iterator[Partition]:
    """Each logical partition has a table of its own: itself, and where the next table is."""
    here, number = first, 5
    while number < 5 + _MOST:
        sector = disk.pread(here * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[510:] != b"\x55\xaa":
            return
        following = 0
        for i in range(4):
            entry = sector[446 + 16 * i : 462 + 16 * i]
            kind = entry[4]
            start, count = struct.unpack_from("<II", entry, 8)
            if kind in _EXTENDED and count:
                following = following or first + start
            elif kind and count and i < 2:
                if kind == _LDM:
                    raise FastPathRefused("ldm", f"{device} is a Windows dynamic disk")
                region = _region(disk, device, (here + start) * SECTOR, count * SECTOR)
                yield Partition(f"{device}{number}", number, region, f"{signature:08x}-{number:02x}", f"{kind:02x}")
                number += 1
        if not following:
            return
        here = following
    raise FastPathRefused("partition-table", f"{device} has more than {_MOST} logical partitions")


def _gpt(disk: Disk, device: str) -> Iterator[Partition]:
    head = disk.pread(SECTOR, SECTOR)
    if len(head) < SECTOR or not head.startswith(b"EFI PART"):
        raise FastPathRefused("partition-table", f"{device} has a protective MBR and no GPT of 512-byte sectors")
    _, _, size, check, _, _, _, _, _, _, table, count, length, table_check = _GPT_HEAD.unpack_from(head)
    plain = head[: max(0, min(size, SECTOR))]
    if zlib.crc32(plain[:16] + bytes(4) + plain[20:]) != check or length < 128 or count * length > 1 << 20:
        raise FastPathRefused("partition-table", f"the GPT of {device} is damaged")
    entries = disk.pread(table * SECTOR, count * length)
    if zlib.crc32(entries) != table_check:
        raise FastPathRefused("partition-table", f"the GPT of {device} is damaged")
    for number in range(1, count + 1):
        kind, own, first, last, _, _ = _GPT_ENTRY.unpack_from(entries, (number - 1) * length)
        if not any(kind):
            continue
        name = str(uuid.UUID(bytes_le=kind))
        if name in _LDM_TYPES:
            raise FastPathRefused("ldm", f"{device} is a Windows dynamic disk")
        region = _region(disk, device, first * SECTOR, (last + 1 - first) * SECTOR)
        yield Partition(f"{device}{number}", number, region, str(uuid.UUID(bytes_le=own)), name)


def _region(disk: Disk, device: str, start: int, size: int) -> Region:
    if size <= 0 or start + size > disk.size:
        raise FastPathRefused("partition-table", f"a partition of {device} ends behind the disk")
    return Region(disk, start, size)
