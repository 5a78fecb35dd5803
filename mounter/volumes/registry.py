"""A Windows registry hive, read piece by piece: keys by path, values by name. Enough to ask a few facts, no more.

Layout as in "Windows registry file format specification" (M. Suhanov) and hivex' notes: cells from 4 KiB on, a key is an
``nk`` cell, its subkeys are in ``lf``, ``lh``, ``li`` or ``ri`` lists, its values are ``vk`` cells. What a hive's logs hold
beyond it is not replayed. A hive is hostile: every number is checked, lists end.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proxy.errors import FormatError

Read = Callable[[int, int], bytes]
"""``read(offset, length)`` of the hive's file."""

_CELLS = 4096
_ASCII_KEY, _ASCII_VALUE = 0x20, 0x1
_INLINE = 1 << 31
_NONE = 0xFFFFFFFF

# Longest value that is kept in one cell; larger ones are chained, and none of those is asked for.
_LONGEST = 16344

# Keys have at most some thousand subkeys; a list that claims more is damage.
_MOST = 65536

# nk: flags, time, access, parent, subkeys, volatile, list, volatile list, values, value list; name length
_KEY = struct.Struct("<H8sIIIIIIII")
_VALUE = struct.Struct("<HIIIH")


@dataclass(frozen=True, slots=True)
class Value:
    """``type``: 1 text, 3 binary, 4 number, … as Windows numbers them."""

    name: str
    type: int
    data: bytes

    @property
    def text(self) -> str:
        """Of a text value."""
        return self.data.decode("utf-16-le", "replace").split("\0")[0]

    @property
    def number(self) -> int:
        """Of a number."""
        return int.from_bytes(self.data[:4], "little")


class Hive:
    """Raises ``FormatError`` when it is none, and from every call for what makes no sense."""

    def __init__(self, read: Read) -> None:
        self._read = read
        head = read(0, 40)
        if len(head) < 40 or head[:4] != b"regf":
            raise FormatError("registry hive", "it has no mark")
        (self._root,) = struct.unpack_from("<I", head, 36)

    def values(self, path: str) -> dict[str, Value]:
        """Values of a key by their names in lower case; ``path`` with backslashes, below the root. Empty if there is none."""
        cell = self._root
        for part in path.split("\\"):
            found = self._subkey(cell, part.lower())
            if found is None:
                return {}
            cell = found
        return {v.name.lower(): v for v in self._values(cell)}

    def _cell(self, offset: int, length: int) -> bytes:
        """The first ``length`` bytes of a cell's content, all of it if ``length`` is 0."""
        if offset == _NONE:
            raise FormatError("registry hive", "a cell is missing")
        size = -struct.unpack("<i", self._exactly(_CELLS + offset, 4))[0]
        if not 4 < size <= 64 * _MOST or size - 4 < length:
            raise FormatError("registry hive", f"a cell of {size} bytes")
        return self._exactly(_CELLS + offset + 4, length or size - 4)

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._read(offset, length)
        if len(data) != length:
            raise FormatError("registry hive", "it ends too early")
        return data

    def _key(self, cell: int) -> tuple[str, int, int, int]:
        """Name, list of subkeys, number of values, list of values."""
        raw = self._cell(cell, 76)
        if raw[:2] != b"nk":
            raise FormatError("registry hive", "a key has no mark")
        flags, _, _, _, subkeys, _, listed, _, values, value_list = _KEY.unpack_from(raw, 2)
        (length,) = struct.unpack_from("<H", raw, 72)
        name = self._cell(cell, 76 + length)[76 : 76 + length]
        text = name.decode("latin-1") if flags & _ASCII_KEY else name.decode("utf-16-le", "replace")
        return text, listed if subkeys else _NONE, values, value_list

    def _subkey(self, cell: int, name: str) -> int | None:
        _, listed, _, _ = self._key(cell)
        if listed == _NONE:
            return None
        for number, child in enumerate(self._children(listed)):
            if number > _MOST:
                raise FormatError("registry hive", f"a key of more than {_MOST} keys")
            if self._key(child)[0].lower() == name:
                return child
        return None

    def _children(self, listed: int, *, inner: bool = False) -> Iterator[int]:
        raw = self._cell(listed, 0)
        kind, count = raw[:2], struct.unpack_from("<H", raw, 2)[0]
        step = {b"lf": 8, b"lh": 8, b"li": 4, b"ri": 4}.get(kind)
        if step is None or 4 + step * count > len(raw):
            raise FormatError("registry hive", "a list of keys makes no sense")
        for number in range(count):
            (offset,) = struct.unpack_from("<I", raw, 4 + step * number)
            if kind != b"ri":
                yield offset
            elif not inner:  # lists of lists have one level
                yield from self._children(offset, inner=True)

    def _values(self, cell: int) -> Iterator[Value]:
        _, _, count, listed = self._key(cell)
        if not count:
            return
        if count > _MOST:
            raise FormatError("registry hive", f"a key of {count} values")
        raw = self._cell(listed, 4 * count)
        for number in range(count):
            (offset,) = struct.unpack_from("<I", raw, 4 * number)
            value = self._cell(offset, 20)
            if value[:2] != b"vk":
                raise FormatError("registry hive", "a value has no mark")
            length, size, where, kind, flags = _VALUE.unpack_from(value, 2)
            name = self._cell(offset, 20 + length)[20 : 20 + length]
            text = name.decode("latin-1") if flags & _ASCII_VALUE else name.decode("utf-16-le", "replace")
            if size & _INLINE:
                yield Value(text, kind, value[8 : 8 + min(size & ~_INLINE, 4)])
            elif size <= _LONGEST:
                yield Value(text, kind, self._cell(where, size)[:size] if size else b"")
