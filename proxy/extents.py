"""Extents: runs of guest bytes, and the algebra that decides what a backup reads.

An *extent list* in this module is always **normal**: sorted by start, no overlap, no empty run, neighbours of the same
kind merged. Gaps are allowed (a changed-block list has gaps); a list without gaps from 0 to the disk's size is a *map*.

    map       |DDDDDDDD|ZZZZZZZZ|DDDD|ZZZZ|      what the disk holds
    changed       |####|   |##|        |##|      what was written since the last backup
    plan      |   |DDDD|   |ZZ|        |ZZ|      intersect(map, changed): DATA is read, ZERO is only noted
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from proxy.units import align_down, align_up


class Kind(StrEnum):
    """What an extent holds. ``ZERO`` is a promise that every byte reads as zero; ``DATA`` promises nothing."""

    DATA = "data"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of guest bytes: ``start`` and ``length`` in bytes from the beginning of the virtual disk, ``length`` > 0."""

    start: int
    length: int
    kind: Kind = Kind.DATA

    def __post_init__(self) -> None:
        if self.start < 0 or self.length <= 0:
            raise ValueError(f"extent of {self.length} bytes at {self.start}")

    @property
    def end(self) -> int:
        """First byte behind the extent."""
        return self.start + self.length


def normal(extents: Iterable[Extent]) -> list[Extent]:
    """Sort and merge. Where extents overlap, DATA wins over ZERO: reading too much is safe, skipping is not."""
    ordered = sorted(extents, key=lambda e: e.start)
    if not _overlapping(ordered):
        return list(_merged(ordered))
    data = list(_union_of_kind(e for e in ordered if e.kind is Kind.DATA))
    zero = list(_union_of_kind(e for e in ordered if e.kind is Kind.ZERO))
    return list(_merged(sorted([*data, *subtract(zero, data)], key=lambda e: e.start)))


def intersect(left: Sequence[Extent], right: Sequence[Extent]) -> list[Extent]:
    """The bytes that both normal lists cover, with the kind that ``left`` gives them."""
    out: list[Extent] = []
    i = j = 0
    while i < len(left) and j < len(right):
        a, b = left[i], right[j]
        start, end = max(a.start, b.start), min(a.end, b.end)
        if start < end:
            out.append(Extent(start, end - start, a.kind))
        if a.end <= b.end:
            i += 1
        else:
            j += 1
    return list(_merged(out))


def subtract(left: Sequence[Extent], right: Sequence[Extent]) -> list[Extent]:
    """The bytes of ``left`` (with their kinds) that ``right`` does not cover. Both normal."""
    out: list[Extent] = []
    j = 0
    for a in left:
        position = a.start
        while j < len(right) and right[j].end <= position:
            j += 1
        k = j
        while k < len(right) and right[k].start < a.end:
            if right[k].start > position:
                out.append(Extent(position, right[k].start - position, a.kind))
            position = max(position, right[k].end)
            k += 1
        if position < a.end:
            out.append(Extent(position, a.end - position, a.kind))
    return out


def aligned(extents: Iterable[Extent], block: int, size: int) -> list[Extent]:
    """Widen every extent to whole blocks of ``block`` bytes, cut at ``size`` (a disk may end inside a block).

    A block that holds a byte of DATA becomes DATA. A ZERO extent covers only the blocks that it fills wholly; blocks
    that it fills in part become DATA, since the rest of such a block is not known to be zero.

        block     |-------|-------|-------|
        given        |DD|    |ZZZZZZZZZZZZ|
        aligned   |DDDDDDD DDDDDDD|ZZZZZZZ|
    """
    wide: list[Extent] = []
    for e in extents:
        end = min(e.end, size)
        if e.start >= end:
            continue
        low, high = align_down(e.start, block), min(align_up(end, block), size)
        if e.kind is Kind.DATA:
            wide.append(Extent(low, high - low))
            continue
        inner_low = align_up(e.start, block)
        inner_high = end if end == size else align_down(end, block)
        if inner_low >= inner_high:
            wide.append(Extent(low, high - low))
            continue
        if low < inner_low:
            wide.append(Extent(low, inner_low - low))
        wide.append(Extent(inner_low, inner_high - inner_low, Kind.ZERO))
        if inner_high < high:
            wide.append(Extent(inner_high, high - inner_high))
    return normal(wide)


def segments(extents: Iterable[Extent], longest: int) -> Iterator[Extent]:
    """Cut into pieces of at most ``longest`` bytes, at multiples of ``longest``; ZERO extents stay whole."""
    for e in extents:
        if e.kind is Kind.ZERO:
            yield e
            continue
        start = e.start
        while start < e.end:
            end = min(e.end, align_down(start, longest) + longest)
            yield Extent(start, end - start)
            start = end


def total(extents: Iterable[Extent], kind: Kind | None = None) -> int:
    """Bytes covered, of one kind or of both."""
    return sum(e.length for e in extents if kind is None or e.kind is kind)


def is_map(extents: Iterable[Extent], size: int) -> bool:
    """Whether a normal list covers exactly ``[0, size)`` without a gap."""
    position = 0
    for e in extents:
        if e.start != position:
            return False
        position = e.end
    return position == size


def _overlapping(ordered: Sequence[Extent]) -> bool:
    return any(a.end > b.start for a, b in pairwise(ordered))


def _merged(ordered: Iterable[Extent]) -> Iterator[Extent]:
    """Join touching neighbours of one kind. Input sorted and free of overlap between kinds."""
    last: Extent | None = None
    for e in ordered:
        if last is not None and last.end == e.start and last.kind is e.kind:
            last = Extent(last.start, last.length + e.length, e.kind)
            continue
        if last is not None:
            yield last
        last = e
    if last is not None:
        yield last


def _union_of_kind(ordered: Iterable[Extent]) -> Iterator[Extent]:
    """Union of sorted extents of one kind, overlaps allowed."""
    last: Extent | None = None
    for e in ordered:
        if last is not None and e.start <= last.end:
            last = Extent(last.start, max(last.end, e.end) - last.start, e.kind)
            continue
        if last is not None:
            yield last
        last = e
    if last is not None:
        yield last
