"""Which reads bring scattered pieces of a disk into one buffer.

::

    buffer    |a a a|b|c c|d|         pieces of one read, as the guest sees them
    LUN       |b|d|  |c c|    |a a a|
    reads     |b.d.|.|c c|    |a a a|  neighbours in one read, small gaps between them read along and dropped

Pieces that are large enough go straight into the caller's buffer; the others of a shared read through one of our own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.units import KiB

REQUEST = 256 * KiB
"""Longest read that is put together from several pieces: what one request asks for (see ``Limits``)."""

GAP = 8 * KiB
"""Bytes between two pieces that are read along rather than asked for by a request of their own. Scattered grains have
4 KiB: a wider gap would read many times what is needed, a narrower one would cost a request for each of two near grains."""


class Placed(NamedTuple):
    """``view`` is to be filled from ``offset`` of LUN number ``lun``."""

    lun: int
    offset: int
    view: memoryview


@dataclass(slots=True)
class Plan:
    """``reads``: LUN -> (offset, buffer) of what to ask for. ``copies``: from where to where, afterwards."""

    reads: dict[int, list[tuple[int, memoryview]]] = field(default_factory=dict)
    copies: list[tuple[memoryview, memoryview]] = field(default_factory=list)

    def finish(self) -> None:
        """Bring what came through memory of our own to where it belongs."""
        for source, destination in self.copies:
            destination[:] = source


def plan(placed: Iterable[Placed]) -> Plan:
    """Reads in order of the LUNs' offsets. Pieces that overlap (two names of one place) are read by themselves."""
    made = Plan()
    group: list[Placed] = []
    for piece in sorted(placed, key=lambda p: (p.lun, p.offset)):
        if group and not _joins(group, piece):
            _add(made, group)
            group = []
        group.append(piece)
    if group:
        _add(made, group)
    return made


def _joins(group: Sequence[Placed], piece: Placed) -> bool:
    first, last = group[0], group[-1]
    gap = piece.offset - last.offset - len(last.view)
    whole = piece.offset + len(piece.view) - first.offset
    return piece.lun == first.lun and 0 <= gap <= GAP and whole <= REQUEST


def _add(made: Plan, group: Sequence[Placed]) -> None:
    lun, start, view = group[0]
    reads = made.reads.setdefault(lun, [])
    if len(group) == 1:
        reads.append((start, view))
        return
    last = group[-1]
    memory = memoryview(bytearray(last.offset + len(last.view) - start))
    reads.append((start, memory))
    made.copies += [(memory[p.offset - start : p.offset - start + len(p.view)], p.view) for p in group]
