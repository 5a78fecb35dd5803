"""Registry hives made from values: as small as Windows' own structures allow."""

import struct
from collections.abc import Mapping
from typing import Union

Tree = Mapping[str, Union["Tree", tuple[int, bytes]]]
"""Keys hold keys, and values as (type, data)."""

_NONE = 0xFFFFFFFF


def text(value: str) -> tuple[int, bytes]:
    return 1, (value + "\0").encode("utf-16-le")


def number(value: int) -> tuple[int, bytes]:
    return 4, struct.pack("<I", value)


class _Cells:
    def __init__(self) -> None:
        self.data = bytearray(b"hbin" + bytes(28))

    def add(self, content: bytes) -> int:
        size = (len(content) + 4 + 7) & ~7
        at = len(self.data)
        self.data += struct.pack("<i", -size) + content.ljust(size - 4, b"\0")
        return at

    def key(self, name: str, tree: Tree, kind: bytes, *, root: bool = False) -> int:
        keys = {k: v for k, v in tree.items() if not isinstance(v, tuple)}
        values = {k: v for k, v in tree.items() if isinstance(v, tuple)}
        children = [self.key(k, v, kind) for k, v in sorted(keys.items(), key=lambda i: i[0].upper())]
        listed = self._list(children, kind) if children else _NONE
        offsets = [self._value(k, v) for k, v in values.items()]
        value_list = self.add(struct.pack(f"<{len(offsets)}I", *offsets)) if offsets else _NONE
        raw, flags = (name.encode("ascii"), 0x20) if name.isascii() else (name.encode("utf-16-le"), 0)
        head = struct.pack(
            "<2sHQIIIIIIII",
            b"nk",
            flags | (0x0C if root else 0),
            0,
            0,
            0,
            len(children),
            0,
            listed,
            _NONE,
            len(offsets),
            value_list,
        )
        return self.add(head + struct.pack("<II5IHH", _NONE, _NONE, 0, 0, 0, 0, 0, len(raw), 0) + raw)

    def _list(self, children: list[int], kind: bytes) -> int:
        if kind == b"li":
            return self.add(struct.pack(f"<2sH{len(children)}I", b"li", len(children), *children))
        hashed = b"".join(struct.pack("<II", child, 0) for child in children)
        leaf = self.add(struct.pack("<2sH", b"lh", len(children)) + hashed)
        return self.add(struct.pack("<2sHI", b"ri", 1, leaf)) if kind == b"ri" else leaf

    def _value(self, name: str, value: tuple[int, bytes]) -> int:
        kind, data = value
        raw, flags = (name.encode("ascii"), 1) if name.isascii() else (name.encode("utf-16-le"), 0)
        if len(data) <= 4:
            size, where = len(data) | 1 << 31, int.from_bytes(data.ljust(4, b"\0"), "little")
        else:
            size, where = len(data), self.add(data)
        return self.add(struct.pack("<2sHIIIHH", b"vk", len(raw), size, where, kind, flags, 0) + raw)


def hive(tree: Tree, kind: bytes = b"lh") -> bytes:
    """``kind`` of the lists of subkeys: ``lh``, ``li``, or ``ri`` for lists of lists."""
    cells = _Cells()
    root = cells.key("root", tree, kind, root=True)
    size = (len(cells.data) + 8 + 4095) & ~4095
    cells.data += struct.pack("<i", size - len(cells.data)) + bytes(size - len(cells.data) - 4)
    struct.pack_into("<II", cells.data, 4, 0, size)
    head = bytearray(struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0, 1, 5, 0, 1, root, size, 1).ljust(4096, b"\0"))
    checksum = 0
    for (word,) in struct.iter_unpack("<I", head[:508]):
        checksum ^= word
    struct.pack_into("<I", head, 508, checksum)
    return bytes(head + cells.data)
