"""Directories of VMFS 5 and 6, parsed from their whole contents.

::

    VMFS 5   140 bytes an entry, nothing else
    VMFS 6   |header, 64 KiB: counts, ".", "..", hash table|map block|block|block|…      blocks of 4 KiB
             map:   64 bytes, then 4 bits a block, high half first: its kind, + 4 if slots are free; 8: not in use
             block: 64 bytes (state, kind, slots, free, bits of the free slots), then 14 slots of 288 bytes
             slot:  type, address, generation, hash, its own offset in the directory, name

The hash table is not followed: all blocks are looked at, and as many entries must be found as the header counts. So a
broken link cannot hide a file, and a directory that a host changes meanwhile is noticed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import KiB, MiB

DIRECTORY_LIMIT = 32 * MiB
"""100,000 entries: what one map block of VMFS 6 covers, and more than ESXi allows to one directory."""

ENTRY_5 = struct.Struct("<III128s")

HEADER_6_SIZE = 64 * KiB
HEADER_6 = struct.Struct("<HHIIII")
"""Version, magic, entries, entries again, map blocks, number of the first map block."""
BLOCK_6 = 4096
BLOCK_6_HEADER = struct.Struct("<HHHHQ")
BLOCK_6_HEADER_SIZE = 64
ENTRY_6 = struct.Struct("<IIIIQ264s")
SLOTS_6 = (BLOCK_6 - BLOCK_6_HEADER_SIZE) // ENTRY_6.size
KIND_ENTRIES, KIND_MAP = 1, 3
KIND_MASK, NOT_IN_USE = 3, 8
BLOCKS_PER_MAP = (BLOCK_6 - BLOCK_6_HEADER_SIZE) * 2
DOTS = 2
"""Entries "." and "..", counted, but in the header."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory. ``type``: a ``FileType`` value, unchecked; ``generation``: that of the descriptor it means."""

    name: str
    type: int
    address: int
    generation: int


def parse_directory_5(data: bytes, subject: Subject) -> list[Entry]:
    """The entries of a VMFS 5 directory, "." and ".." left out."""
    if len(data) % ENTRY_5.size:
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"{len(data)} bytes are no whole entries")
    entries = [Entry(_name(name), *rest) for *rest, name in ENTRY_5.iter_unpack(data)]
    return _checked([e for e in entries if e.type and e.name not in {".", ".."}], subject)


def parse_directory_6(data: bytes, subject: Subject) -> list[Entry]:
    """The entries of a VMFS 6 directory, "." and ".." left out."""
    if len(data) < HEADER_6_SIZE or len(data) % BLOCK_6:
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"a directory of {len(data)} bytes")
    _version, _magic, count, _again, maps, first_map = HEADER_6.unpack_from(data)
    blocks = (len(data) - HEADER_6_SIZE) // BLOCK_6
    if maps != 1 or blocks > BLOCKS_PER_MAP:
        raise subject.refuse(VmfsReason.DIRECTORY_TOO_LARGE, f"{maps} map blocks for {blocks} blocks")
    if first_map >= blocks:
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"the map is block {first_map} of {blocks}")
    kinds = _map(data, HEADER_6_SIZE + first_map * BLOCK_6, blocks)
    entries = [
        entry
        for number, kind in enumerate(kinds)
        if kind != NOT_IN_USE and kind & KIND_MASK == KIND_ENTRIES
        for entry in _block(data, HEADER_6_SIZE + number * BLOCK_6, subject)
    ]
    if len(entries) + DOTS != count:
        detail = f"{len(entries)} entries where the header tells of {count - DOTS}"
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, detail, hint="a host may be changing it; try again")
    return _checked(entries, subject)


def _map(data: bytes, at: int, blocks: int) -> list[int]:
    """The four bits of each block."""
    packed = data[at + BLOCK_6_HEADER_SIZE : at + BLOCK_6_HEADER_SIZE + (blocks + 1) // 2]
    return [half for byte in packed for half in (byte >> 4, byte & 0xF)][:blocks]


def _block(data: bytes, at: int, subject: Subject) -> Iterator[Entry]:
    """The entries in use of one block."""
    block = data[at : at + BLOCK_6]
    _state, kind, slots, _free, free_bits = BLOCK_6_HEADER.unpack_from(block)
    if kind != KIND_ENTRIES or slots != SLOTS_6:
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"a block of kind {kind} with {slots} slots at {at}")
    for slot in range(SLOTS_6):
        if free_bits >> slot & 1:
            continue
        where = BLOCK_6_HEADER_SIZE + slot * ENTRY_6.size
        kind, address, generation, _hash, own, name = ENTRY_6.unpack_from(block, where)
        if own != at + where:
            raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, f"the entry at {at + where} says that it is at {own}")
        yield Entry(_name(name), kind, address, generation)


def _checked(entries: list[Entry], subject: Subject) -> list[Entry]:
    names = {entry.name for entry in entries}
    if len(names) != len(entries) or any(not name or "/" in name for name in names):
        raise subject.refuse(VmfsReason.DIRECTORY_DAMAGED, "names that are empty, twice there or hold a slash")
    return entries


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="surrogateescape")
