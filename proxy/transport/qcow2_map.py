"""Which guest bytes a qcow2 image holds: L2 tables to runs, and bitmap data to runs, in C-speed steps.

A disk of 1 TiB has 16.8 million clusters of 64 KiB; a Python loop over them takes many seconds. So a table becomes a
string of *classes*, one byte a cluster, made with strided slices and wide integers, and a regular expression splits it::

    L2 entries   80000000 00050000 | 80000000 00060000 | 0 | 0 | 00000000 00000001 | 40000000 ...
    classes              01        |        01         | 00| 00|        02         |     01
    runs         DATA, 2 clusters                      | gap   | ZERO              | DATA
"""

import re
from array import array
from collections.abc import Iterator
from struct import Struct

from proxy.errors import FormatError
from proxy.transport.qcow2_format import L2_COMPRESSED, OFFSET_MASK
from proxy.transport.runs import DATA, ZERO, Runs

ABSENT = 0
"""A third class beside ``DATA`` and ``ZERO`` (they say that the image holds the bytes): it does not hold them."""

SUBCLUSTERS = 32

_RUNS = re.compile(rb"\x01+|\x02+")
_ALL_RUNS = re.compile(rb"\x00+|\x01+|\x02+")
_OFFSET_BYTE_6 = bytes(byte & 0xFE for byte in range(256))  # bit 8 of an entry is reserved
_IS_SET = bytes([0] + [DATA] * 255)
_IS_ZERO_FLAG = bytes(ZERO if byte & 1 else 0 for byte in range(256))
_IS_COMPRESSED = bytes(4 if byte & 0x40 else 0 for byte in range(256))
# index: DATA if there is an offset, + ZERO if the zero flag is set, + 4 if compressed (then the others mean nothing)
_CLASS = bytes([ABSENT, DATA, ZERO, ZERO, DATA, DATA, DATA, DATA]) + bytes(248)
# nearly all entries are one of these
_UNIFORM = {
    0: bytes([ABSENT]) * SUBCLUSTERS,
    0xFFFFFFFF: bytes([DATA]) * SUBCLUSTERS,
    0xFFFFFFFF << 32: bytes([ZERO]) * SUBCLUSTERS,
}
_EXTENDED_ENTRY = Struct(">QQ")
_BIT_RUNS = re.compile(rb"\x00+|\xff+|[^\x00\xff]+")
_BITS = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]


def add_classes(runs: Runs, start: int, classes: bytes, unit: int) -> None:
    """Adds what ``classes`` says; each of its bytes stands for ``unit`` guest bytes, the first one at ``start``."""
    for match in _RUNS.finditer(classes):
        low, high = match.span()
        runs.add(start + low * unit, start + high * unit, classes[low])


def class_runs(classes: bytes) -> Iterator[tuple[int, int, int]]:
    """(first, end, class) of every run, ``ABSENT`` ones too."""
    for match in _ALL_RUNS.finditer(classes):
        low, high = match.span()
        yield low, high, classes[low]


def table_classes(what: str, table: bytes, version: int) -> bytes:
    """One class a cluster of an L2 table with standard entries. Raises ``FormatError``."""
    count = len(table) // 8
    if table.count(0) == len(table):
        return bytes(count)
    offset = int.from_bytes(table[6::8].translate(_OFFSET_BYTE_6), "little")
    for at in range(1, 6):
        offset |= int.from_bytes(table[at::8], "little")
    flags = int.from_bytes(table[7::8].translate(_IS_ZERO_FLAG), "little")
    compressed = table[0::8].translate(_IS_COMPRESSED)
    if version == 2 and _zero_in_version_2(flags, compressed):
        raise FormatError(what, "zero cluster in an image of version 2")
    codes = int.from_bytes(offset.to_bytes(count, "little").translate(_IS_SET), "little")
    codes |= flags | int.from_bytes(compressed, "little")
    return codes.to_bytes(count, "little").translate(_CLASS)


def extended_table_classes(what: str, table: bytes) -> bytes:
    """One class a subcluster of an L2 table with extended entries. Raises ``FormatError``."""
    if table.count(0) == len(table):
        return bytes(len(table) // 16 * SUBCLUSTERS)
    known: dict[tuple[int, int], bytes] = {}
    parts: list[bytes] = []
    for entry, bitmap in _EXTENDED_ENTRY.iter_unpack(table):
        # what tells classes apart is few and repeats: compressed or not, offset or not, and the bitmap
        key = (entry & L2_COMPRESSED or int(bool(entry & OFFSET_MASK)), bitmap)
        classes = known.get(key)
        if classes is None:
            classes = known[key] = subclusters(what, entry, bitmap)
        parts.append(classes)
    return b"".join(parts)


def subclusters(what: str, entry: int, bitmap: int) -> bytes:
    """The 32 classes of one extended entry. Raises ``FormatError``."""
    if entry & L2_COMPRESSED:
        return bytes([DATA]) * SUBCLUSTERS
    allocated, zero = bitmap & 0xFFFFFFFF, bitmap >> 32
    if allocated & zero or (allocated and not entry & OFFSET_MASK):
        raise FormatError(what, f"L2 entry {entry:#x} contradicts its subcluster bitmap {bitmap:#x}")
    return bytes((DATA if allocated >> bit & 1 else 0) | (ZERO if zero >> bit & 1 else 0) for bit in range(SUBCLUSTERS))


def add_bits(runs: Runs, start: int, bits: bytes, granularity: int) -> None:
    """Adds a DATA run for every set bit, least significant bit first; a bit stands for ``granularity`` guest bytes."""
    for match in _BIT_RUNS.finditer(bits):
        low, high = match.span()
        at = start + low * 8 * granularity
        if bits[low] == 0xFF:
            runs.add(at, start + high * 8 * granularity, DATA)
        elif bits[low]:
            add_classes(runs, at, b"".join(_BITS[byte] for byte in bits[low:high]), granularity)


def adjacent(numbers: "array[int]", step: int, longest: int) -> Iterator[tuple[int, int]]:
    """(first index, count) of pieces of at most ``longest`` members, each ``step`` above the one before; zeroes left out."""
    first = 0
    while first < len(numbers):
        if not numbers[first]:
            first += 1
            continue
        last = first + 1
        while last < len(numbers) and last - first < longest and numbers[last] == numbers[last - 1] + step:
            last += 1
        yield first, last - first
        first = last


def _zero_in_version_2(flags: int, compressed: bytes) -> bool:
    """Whether a cluster that is not compressed (whose low bits are a part of an offset) carries the zero flag."""
    not_compressed = bytes(0 if byte else ZERO for byte in compressed)
    return bool(flags & int.from_bytes(not_compressed, "little"))
