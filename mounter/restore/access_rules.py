"""POSIX access control lists: the kernel's form into the text of POSIX.1e, which archives carry.

Format: linux/posix_acl_xattr.h, version 2: a 32-bit version, then entries of tag (16), permissions (16), id (32), all
little-endian. Ids stay numbers: the guest's names mean nothing here.
"""

import struct

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")

_TAGS = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask", 0x20: "other"}
_NAMED = {0x02, 0x08}


def text_of(value: bytes) -> bytes | None:
    """``user::rw-,user:1000:r--,group::r--,mask::rw-,other::---``; ``None`` for what is not such a list."""
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        return None
    if _HEADER.unpack_from(value)[0] != _VERSION:
        return None
    entries: list[str] = []
    for tag, permissions, who in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _TAGS or permissions > 7:
            return None
        bits = "".join(c if permissions & bit else "-" for c, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{_TAGS[tag]}:{who if tag in _NAMED else ''}:{bits}")
    return ",".join(entries).encode() or None
