"""Vital product data (SPC-4 7.8, SBC-3 6.6): who a logical unit is, and what it can do. Pure.

Canonical names are written as vSphere and ``/dev/disk/by-id`` write them: ``naa.<hex>``, ``eui.<hex>``, ``t10.<text>``.
"""

import struct
from dataclasses import dataclass

from proxy.errors import FormatError

PAGE_HEADER = struct.Struct(">BBH")
"""SPC-4 7.8.1: peripheral qualifier and type, page code, page length."""
DESIGNATOR_HEADER = struct.Struct(">BBxB")
"""SPC-4 7.8.6.1: protocol and code set, association and type, designator length."""
BLOCK_LIMITS = struct.Struct(">BBHIIIIIIIQ")
"""SBC-3 6.6.4 from byte 4: flags, compare-and-write, granularity, transfer, optimal, prefetch, unmap count, unmap
descriptors, unmap granularity, unmap alignment, write same."""

IDENTIFICATION_PAGE = 0x83
BLOCK_LIMITS_PAGE = 0xB0
PROVISIONING_PAGE = 0xB2

NAA_LOCALLY_ASSIGNED = "3"
"""First digit of an NAA identifier that nobody promised to be unique outside its array."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Names of one logical unit, best first; all of them name the same unit.

    ``names`` are unique in the world. ``local`` are those that only seem to be: see ``is_local``. They are shown and
    compared on one and the same target, and never used to find a unit on another one.
    """

    names: tuple[str, ...]
    local: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The canonical name, empty when the unit has none at all."""
        return next(iter((*self.names, *self.local)), "")

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is one of all the unit's names."""
        return name in self.names or name in self.local

    def shares_name(self, other: "Identity") -> bool:
        """Whether both are the same unit, as far as names that are unique in the world tell."""
        return not set(self.names).isdisjoint(other.names)

    def is_still(self, other: "Identity") -> bool:
        """Whether ``other``, seen under the same number of the same target, is the same unit. Local names count only
        where there are no others: arrays make them of the number, so they stay when another unit is mapped there."""
        if self.names or other.names:
            return self.shares_name(other)
        return self.local == other.local


def _page(data: bytes, code: int) -> bytes:
    if len(data) < PAGE_HEADER.size:
        raise FormatError(f"VPD page {code:#04x}", f"only {len(data)} bytes")
    _, got, length = PAGE_HEADER.unpack_from(data)
    if got != code:
        raise FormatError(f"VPD page {code:#04x}", f"the device answered with page {got:#04x}")
    return data[PAGE_HEADER.size : PAGE_HEADER.size + length]


def parse_identity(data: bytes) -> Identity:
    """Page 0x83: the designators of the logical unit (association 0) that have a canonical name."""
    body = _page(data, IDENTIFICATION_PAGE)
    found: list[tuple[int, str]] = []
    at = 0
    while at + DESIGNATOR_HEADER.size <= len(body):
        code_set, kind, length = DESIGNATOR_HEADER.unpack_from(body, at)
        value = body[at + DESIGNATOR_HEADER.size : at + DESIGNATOR_HEADER.size + length]
        if len(value) < length:
            raise FormatError("VPD page 0x83", f"a designator of {length} bytes is cut off after {len(value)}")
        if kind >> 4 & 3 == 0 and (named := _canonical(code_set & 0x0F, kind & 0x0F, value)) is not None:
            found.append(named)
        at += DESIGNATOR_HEADER.size + length
    names = [name for _, name in sorted(set(found))]
    return Identity(tuple(n for n in names if not is_local(n)), tuple(n for n in names if is_local(n)))


def _canonical(code_set: int, kind: int, value: bytes) -> tuple[int, str] | None:
    """Rank (lower is better) and name of a designator; the order is that of ``/dev/disk/by-id/wwn-``: long NAA first."""
    if kind == 3 and code_set == 1 and len(value) in {8, 16}:
        return (0 if len(value) == 16 else 1), f"naa.{value.hex()}"
    if kind == 2 and code_set == 1 and len(value) in {8, 12, 16}:
        return 2, f"eui.{value.hex()}"
    if kind == 1 and (text := value.rstrip(b"\0 ")):
        return 3, "t10." + "".join(chr(c) if 0x20 < c < 0x7F else "_" for c in text)
    return None


def is_local(name: str) -> bool:
    """Names that are made of the target's and the LUN's number, and so are the same on every array of the kind.

    Locally assigned NAA; NAA 6 with company id 0, which is nobody's; the default T10 identifier of tgt and IET.
    """
    if name.startswith("naa."):
        return name[4] == NAA_LOCALLY_ASSIGNED or (name[4] == "6" and name[5:11] == "000000")
    return name.startswith("t10.IET_____")


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """Page 0xB0 in blocks; 0 means that the device says nothing."""

    transfer: int = 0
    unmap: int = 0
    unmap_descriptors: int = 0
    unmap_granularity: int = 0
    unmap_alignment: int = 0
    write_same: int = 0


def parse_block_limits(data: bytes) -> BlockLimits:
    """Page 0xB0. Devices of older standards send a shorter page: what is missing is 0."""
    body = _page(data, BLOCK_LIMITS_PAGE).ljust(BLOCK_LIMITS.size, b"\0")
    _, _, _, transfer, _, _, count, descriptors, granularity, alignment, same = BLOCK_LIMITS.unpack_from(body)
    has_alignment = bool(alignment & 0x8000_0000)  # UGAVALID
    return BlockLimits(transfer, count, descriptors, granularity, alignment & 0x7FFF_FFFF if has_alignment else 0, same)


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Page 0xB2: whether UNMAP and WRITE SAME(16) with its UNMAP bit deallocate blocks."""

    unmap: bool = False
    write_same: bool = False


def parse_provisioning(data: bytes) -> Provisioning:
    """Page 0xB2."""
    body = _page(data, PROVISIONING_PAGE).ljust(4, b"\0")
    return Provisioning(unmap=bool(body[1] & 0x80), write_same=bool(body[1] & 0x40))
