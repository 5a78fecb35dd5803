"""NTFS structures as they lie on disk: MFT records, their attributes, index blocks. No reading, only parsing.

Sources: Microsoft's "NTFS attribute types", and layout.h of libntfs for the offsets; names of fields as there.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mounter.tsk.native import Damaged

STANDARD_INFORMATION = 0x10
ATTRIBUTE_LIST = 0x20
VOLUME_NAME = 0x60
DATA = 0x80
INDEX_ROOT = 0x90
INDEX_ALLOCATION = 0xA0
BITMAP = 0xB0
REPARSE_POINT = 0xC0
_END = 0xFFFFFFFF

IN_USE = 0x1
IS_DIRECTORY = 0x2

FLAG_SYSTEM = 0x4
FLAG_REPARSE = 0x400

I30 = "$I30".encode("utf-16-le")
_DOS_NAME = 2
_ENTRY_END = 2
_REFERENCE = (1 << 48) - 1

# 100 ns between 1601 and 1970.
_EPOCH = 116_444_736_000_000_000

# usa_ofs, usa_count at 4; link_count, attrs_offset, flags at 18; then of an attribute: type, length, non_resident,
# name_length, name_offset, flags, id
_USA = struct.Struct("<HH")
_RECORD = struct.Struct("<HHH")
_ATTRIBUTE = struct.Struct("<IIBBHHH")
_HEAD = struct.Struct("<II")
_STRIDE = 512

# What nobody asks for here: names (the directories have them), object ids, security descriptors.
_SKIPPED = frozenset({0x30, 0x40, 0x50})


@dataclass(slots=True)
class Attribute:
    """One attribute, or its first part: ``value`` if it is resident; sizes in bytes."""

    type: int
    name: bytes
    id: int
    value: bytes | None
    size: int
    allocated: int


@dataclass(slots=True)
class Record:
    """An MFT record in use."""

    links: int
    flags: int
    attributes: list[Attribute]

    def find(self, kind: int, name: bytes = b"") -> Attribute | None:
        """The first attribute of a type and a name (UTF-16)."""
        for attribute in self.attributes:
            if attribute.type == kind and attribute.name == name:
                return attribute
        return None


def record_of(raw: bytes) -> Record:
    """Raises ``Damaged`` when it is not one, or not in use."""
    if raw[:4] != b"FILE":
        raise Damaged("an MFT record", "it has no mark")
    data = repaired(raw)
    links, at, flags = _RECORD.unpack_from(data, 18)
    if not flags & IN_USE:
        raise Damaged("an MFT record", "it is not in use")
    return Record(links, flags, list(_attributes(data, at)))


def repaired(raw: bytes) -> bytes | bytearray:
    """A record or index block with its sectors' last bytes put back. Raises ``Damaged`` when a write of it was torn."""
    at, count = _USA.unpack_from(raw, 4)
    if not 1 < count <= len(raw) // _STRIDE + 1 or at + 2 * count > len(raw):
        raise Damaged("an MFT record", "its update sequence makes no sense")
    mark = raw[at : at + 2]
    data = bytearray(raw)
    put = at + 2
    for end in range(_STRIDE, count * _STRIDE, _STRIDE):
        if raw[end - 2 : end] != mark:
            raise Damaged("an MFT record", "it was written in part")
        data[end - 2 : end] = raw[put : put + 2]
        put += 2
    return data


def _attributes(data: bytes | bytearray, at: int) -> Iterator[Attribute]:
    head, unpack, end = _HEAD.unpack_from, _ATTRIBUTE.unpack_from, len(data)
    while at + 24 <= end:
        kind, length = head(data, at)
        if kind == _END:
            return
        if length < 24 or at + length > end:
            raise Damaged("an MFT record", "an attribute ends behind it")
        if kind in _SKIPPED:
            at += length
            continue
        _, _, apart, name_length, name_at, flags, number = unpack(data, at)
        name = bytes(data[at + name_at : at + name_at + 2 * name_length]) if name_length else b""
        if not apart:
            size, where = struct.unpack_from("<IH", data, at + 16)
            value = bytes(data[at + where : at + where + size])
            yield Attribute(kind, name, number, value, size, (size + 7) & ~7)
        elif length >= 64 and struct.unpack_from("<Q", data, at + 16)[0] == 0:  # lowest_vcn: later parts tell no size
            allocated, size = struct.unpack_from("<QQ", data, at + 40)
            if flags & 0x8001 and length >= 72:  # sparse or compressed
                (allocated,) = struct.unpack_from("<Q", data, at + 64)
            yield Attribute(kind, name, number, None, size, allocated)
        at += length


def references(listed: bytes) -> list[int]:
    """MFT numbers of the records that an attribute list names, each once."""
    found: dict[int, None] = {}
    at = 0
    while at + 26 <= len(listed):
        (length,) = struct.unpack_from("<H", listed, at + 4)
        if length < 26:
            break
        found[struct.unpack_from("<Q", listed, at + 16)[0] & _REFERENCE] = None
        at += length
    return list(found)


def index_entries(data: bytes | bytearray, header: int) -> Iterator[tuple[bytes | bytearray, int]]:
    """(name in UTF-16, MFT number) of an index node whose header is at ``header``; short (DOS) names are left out."""
    first, used = struct.unpack_from("<II", data, header)
    at, end = header + first, min(header + used, len(data))
    while at + 16 <= end:
        reference, length, key, flags = struct.unpack_from("<QHHH", data, at)
        if flags & _ENTRY_END:
            return
        if length < 16 or at + length > end:
            raise Damaged("a directory", "an entry ends behind its block")
        if key >= 66:
            size, kind = data[at + 80], data[at + 81]
            if kind != _DOS_NAME:
                yield data[at + 82 : at + 82 + 2 * size], reference & _REFERENCE
        at += length


def nanoseconds(time: int) -> int:
    """Since 1970, of 100 ns since 1601."""
    return (time - _EPOCH) * 100


def text(name: bytes | bytearray) -> bytes:
    """UTF-8 of UTF-16; halves of surrogate pairs stay what they are, in three bytes each."""
    return name.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
