"""Windows dynamic disks made by hand: the database of the Logical Disk Manager, as the documentation of the Linux-NTFS
project ("LDM Documentation") draws it. The reader in the tests is ldmtool."""

import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
MiB = 1 << 20

FIRST = 63
"""Sector where the data of an MBR disk begins."""

DATABASE = MiB // SECTOR
"""Sectors at the end of each disk."""

GROUP = "Zoo-Dg0"
_VMDB = 17  # sectors into the database, as Windows has it
_VBLK = 128


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` sectors of a volume, on the disk with this number, from ``start`` in its data."""

    disk: int
    start: int
    size: int


def dynamic_disks(paths: Sequence[Path], size: int, volumes: dict[str, tuple[bytes, Sequence[Piece]]]) -> None:
    """Make disks of ``size`` bytes with simple and spanned volumes: name -> content and where it lies."""
    guids = [str(uuid.uuid4()) for _ in paths]
    group = str(uuid.uuid4())
    records = _records(guids, group, {name: pieces for name, (_, pieces) in volumes.items()})
    parts = sum(len(pieces) for _, pieces in volumes.values())
    counts = struct.pack(">4I12x", len(volumes), len(volumes), parts, len(paths))
    for number, path in enumerate(paths):
        with path.open("wb") as file:
            file.truncate(size)
            file.write(_mbr(size // SECTOR))
            head = _head(guids[number], group, size // SECTOR)
            for sector in (6, size // SECTOR - DATABASE + DATABASE - 1):
                file.seek(sector * SECTOR)
                file.write(head)
            _write_database(file, size - DATABASE * SECTOR, group, records, counts)
            for content, pieces in volumes.values():
                done = 0
                for piece in pieces:
                    if piece.disk == number:
                        file.seek((FIRST + piece.start) * SECTOR)
                        file.write(content[done * SECTOR : (done + piece.size) * SECTOR])
                    done += piece.size


def _mbr(sectors: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x42, b"\0\0\0", FIRST, sectors - FIRST)
    return bytes(440) + os.urandom(4) + bytes(2) + entry + bytes(48) + b"\x55\xaa"


def _head(disk: str, group: str, sectors: int) -> bytes:
    database = sectors - DATABASE
    head = b"PRIVHEAD" + struct.pack(">IHHQQQQ", 1, 2, 11, 0, 0, 0, 0)
    head += b"".join(text.encode().ljust(64, b"\0") for text in (disk, str(uuid.uuid4()), group))
    head += GROUP.encode().ljust(32, b"\0") + struct.pack(">H9x", 0)
    head += struct.pack(">QQQQ", FIRST, database - FIRST, database, DATABASE)
    return (head + struct.pack(">QQIIQQ", 2, 2, 1, 1, 1481, 224)).ljust(SECTOR, b"\0")


def _write_database(file: BinaryIO, at: int, group: str, records: Sequence[bytes], counts: bytes) -> None:
    bitmaps = (
        b"config\0\0"
        + struct.pack(">HQQQ", 0, _VMDB, 1481, 0)
        + b"log\0\0\0\0\0"
        + struct.pack(">HQQQ", 0, 1498, 224, 0)
    )
    toc = (b"TOCBLOCK" + struct.pack(">I4xI16x", 1, 1) + bitmaps).ljust(SECTOR, b"\0")
    vmdb = b"VMDB" + struct.pack(">III", len(records) + 4, _VBLK, SECTOR) + struct.pack(">HHH", 1, 4, 10)
    vmdb += GROUP.encode().ljust(31, b"\0") + group.encode().ljust(64, b"\0") + struct.pack(">QQ", 7, 7) + counts * 2
    for sector in (2, DATABASE - 2):
        file.seek(at + sector * SECTOR)
        file.write(toc)
    file.seek(at + _VMDB * SECTOR)
    file.write((vmdb + bytes(8)).ljust(SECTOR, b"\0"))
    for number, record in enumerate(records):
        file.write((b"VBLK" + struct.pack(">IIHH", number + 4, number + 1, 0, 1) + record).ljust(_VBLK, b"\0"))


def _records(guids: Sequence[str], group: str, volumes: dict[str, Sequence[Piece]]) -> list[bytes]:
    """Records of the database. Ids: the group 1, disks from 10, volumes from 100, components from 200, parts from 300."""
    records = [_record(0x35, _number(1) + _text(GROUP) + _text(group))]
    records += [_record(0x34, _number(10 + n) + _text(f"Disk{n + 1}") + _text(guid)) for n, guid in enumerate(guids)]
    part = 300
    for n, (name, pieces) in enumerate(volumes.items()):
        total = sum(piece.size for piece in pieces)
        volume = (
            _number(100 + n)
            + _text(name)
            + _text("gen")
            + _text("")
            + b"ACTIVE".ljust(14, b"\0")
            + bytes([3, 0, n + 1])
        )
        volume += bytes(4) + _number(1) + bytes(16) + _number(total) + bytes(4) + b"\x07" + uuid.uuid4().bytes
        component = _number(200 + n) + _text(f"{name}-01") + _text("ACTIVE") + b"\x02" + bytes(4) + _number(len(pieces))
        records += [_record(0x51, volume), _record(0x32, component + bytes(16) + _number(100 + n) + b"\0")]
        offset = 0
        for index, piece in enumerate(pieces):
            body = (
                _number(part)
                + _text(f"Disk{piece.disk + 1}-{part}")
                + bytes(12)
                + struct.pack(">QQ", piece.start, offset)
            )
            body += _number(piece.size) + _number(200 + n) + _number(10 + piece.disk) + _number(index)
            records.append(_record(0x33, body, flags=8))
            offset, part = offset + piece.size, part + 1
    return records


def _record(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HBBI", 0, flags, kind, len(body)) + body


def _number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")
    return bytes([len(data)]) + data


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()
