"""Which chunks the restore points need: marks for collection, made from indexes with numpy.

One bit for every quarter of a chunk's size in every pack: 64 bytes a pack of 32 MiB at 256 KiB chunks, 205 MiB for 100 TiB in
3.3 million packs. Chunks that compress so well that two begin in one quarter are marked together, and so kept together:
what is kept too much is small, and nothing is ever kept too little.

::

    a reference's pack is …                  what is marked
    there, nobody doomed it                  its own place (and, if that is known to be damaged, a good copy as well)
    doomed by somebody, or gone              a copy of the chunk, found by its id in a pack that nobody doomed
    doomed or gone, and no such copy is      every copy, in doomed and damaged packs: they are needed again
    gone, and there is no copy at all        nothing: the chunk is missing

Time goes to what changed: an index is compared with the machine's previous one, as bytes where both number packs alike, and
only references that differ are looked at.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError
from proxy.repository import format as layout
from proxy.repository.format import ID_BYTES, NAME_BYTES, SEGMENT_BYTES, SEGMENT_CHUNKS, SEGMENT_IDS
from proxy.repository.index import IndexView
from proxy.repository.packset import PackSet
from proxy.repository.packset_arrays import Ranks
from proxy.repository.resolve import Resolver
from proxy.repository.settings import Settings

# Segments that are looked at in one step: 4 MiB of index. Larger gains nothing, smaller costs more Python a chunk.
_STEP = 32

_ZERO = np.int64(-1)
_STRANGERS = -2

Codes = NDArray[np.int64]


class Slots:
    """An index as arrays over its mapped bytes. ``codes``: what its pack numbers mean to ``Marks``."""

    def __init__(self, view: IndexView, codes: Codes) -> None:
        area = np.frombuffer(view.data[view.slots_at : view.packs_at], np.uint8).reshape(-1, SEGMENT_BYTES)
        self.codes = codes
        self.table = np.frombuffer(view.table, "<u4").astype(np.int64)
        self.ids: NDArray[np.uint8] = area[:, :SEGMENT_IDS]
        self.places: NDArray[np.unsignedinteger[Any]] = area[:, SEGMENT_IDS:].view("<u4")
        self.what = view.what

    def release(self) -> None:
        """Let the index be closed. These slots are of no use any more."""
        self.ids = self.places = np.zeros((0, 0), np.uint8)

    def numbers_alike(self, other: "Slots") -> bool:
        """Whether every pack number of the other index means the same pack here."""
        count = len(other.codes)
        return len(self.codes) >= count and bool((self.codes[:count] == other.codes).all())


class Marks:
    """``packs``: those that are there, doomed or not; ``exists``: asks the store for one that came after they were listed."""

    def __init__(
        self,
        packs: PackSet,
        resolver: Resolver,
        settings: Settings,
        doomed: frozenset[bytes],
        exists: Callable[[bytes], bool],
    ) -> None:
        self.packs = packs
        self.missing: set[bytes] = set()
        self.doomed = np.zeros(len(packs), dtype=bool)
        numbers = packs.numbers(b"".join(doomed))
        self.doomed[numbers[numbers >= 0]] = True
        self._resolver = resolver
        self._exists = exists
        self._strangers: dict[bytes, int] = {}
        self._there: dict[int, bool] = {}
        self._quarter = settings.chunk_size // 4
        # Behind the last quarter (a chunk may be a seal larger than it was) everything shares one bit.
        self._last = (layout.HEADER.size + settings.pack_size) // self._quarter
        self._row = self._last // 8 + 1
        self._bits = np.zeros(len(packs) * self._row, dtype=np.uint8)

    def add(self, view: IndexView, previous: Slots | None) -> Slots:
        """Mark what an index refers to. ``previous``: of the same disk, marked before and still open; any will do."""
        slots = Slots(view, self._codes(view.pack_table()))
        alike = previous is not None and slots.numbers_alike(previous)
        for first in range(0, len(slots.table), _STEP):
            self._step(slots, previous, first, alike)
        return slots

    def marked(self) -> NDArray[np.bool_]:
        """For each pack, whether anything in it is needed."""
        rows: NDArray[np.uint8] = np.bitwise_or.reduce(self._bits.reshape(len(self.packs), self._row), axis=1)
        marked: NDArray[np.bool_] = rows != 0
        return marked

    def live(self, packs: Ranks, offsets: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Whether what begins at each place is needed."""
        at, bit = self._at(packs, offsets)
        live: NDArray[np.bool_] = (self._bits[at] & bit) != 0
        return live

    def strangers(self) -> frozenset[bytes]:
        """Packs that an index refers to and that were not among ``packs``: gone, put meanwhile, or not readable."""
        return frozenset(self._strangers)

    def mark(self, packs: Ranks, offsets: NDArray[np.uint32]) -> None:
        """Call these places needed."""
        at, bit = self._at(packs, offsets)
        np.bitwise_or.at(self._bits, at, bit)

    def _step(self, slots: Slots, previous: Slots | None, first: int, alike: bool) -> None:
        own = slots.table[first : first + _STEP]
        before = np.zeros(len(own), dtype=np.int64)
        if previous is not None:
            theirs = previous.table[first : first + len(own)]
            before[: len(theirs)] = theirs
        rows = np.nonzero(own)[0]
        own, before = own[rows] - 1, before[rows] - 1
        if previous is not None and alike:
            known = np.nonzero(before >= 0)[0]
            same = (slots.places[own[known]] == previous.places[before[known]]).all(axis=1)
            left = np.ones(len(own), dtype=bool)
            left[known[same]] = False
            own, before = own[left], before[left]
        if not len(own):
            return
        codes, offsets = _references(slots, own)
        wanted = codes != _ZERO
        known = np.nonzero(before >= 0)[0]
        if previous is not None and len(known):
            old_codes, old_offsets = _references(previous, before[known])
            wanted[known] &= (codes[known] != old_codes) | (offsets[known] != old_offsets)
        slot, chunk = np.nonzero(wanted)
        self._references(slots, own[slot], chunk, codes[wanted], offsets[wanted])

    def _references(self, slots: Slots, slot: Ranks, chunk: Ranks, codes: Codes, offsets: NDArray[np.uint32]) -> None:
        packs = np.where(codes >= 0, codes, 0)
        direct = codes >= 0
        if len(self.packs):
            direct &= ~self.doomed[packs]
        self.mark(codes[direct], offsets[direct])
        by_id = ~direct
        if direct.any():
            by_id |= direct & self._distrusted(packs, offsets)
        if not by_id.any():
            return
        ids = slots.ids.reshape(-1, SEGMENT_CHUNKS, ID_BYTES)[slot[by_id], chunk[by_id]]
        self._elsewhere(ids, codes[by_id], offsets[by_id])

    def _elsewhere(self, ids: NDArray[np.uint8], codes: Codes, offsets: NDArray[np.uint32]) -> None:
        """Mark copies of chunks that cannot be counted on where they are."""
        found = self._resolver.find(ids)
        hit = found.packs >= 0
        self.mark(found.packs[hit], found.offsets[hit])
        lost = np.nonzero(~hit)[0]
        # Its own pack may have been put after packs were listed, which is as good as any other.
        lost = lost[[not self._appeared(code) for code in codes[lost].tolist()]]
        if len(lost):
            self._anywhere(ids[lost], codes[lost], offsets[lost])

    def _anywhere(self, ids: NDArray[np.uint8], codes: Codes, offsets: NDArray[np.uint32]) -> None:
        """Mark every copy of chunks that are in no good place: which of them lasts is not known, so none may go."""
        seen = codes >= 0
        self.mark(codes[seen], offsets[seen])
        for which, packs, places in self._resolver.everywhere(ids):
            self.mark(packs, places)
            seen[which] = True
        self.missing.update(ids[n].tobytes() for n in np.nonzero(~seen)[0].tolist())

    def _appeared(self, code: int) -> bool:
        """Whether an unknown pack is one that was put after packs were listed."""
        if code > _STRANGERS:
            return False
        if code not in self._there:
            names = {number: name for name, number in self._strangers.items()}
            self._there[code] = self._exists(names[code])
        return self._there[code]

    def _distrusted(self, packs: Ranks, offsets: NDArray[np.uint32]) -> NDArray[np.bool_]:
        bad: NDArray[np.bool_] = ~self._resolver.usable[packs]
        return bad | self._resolver.is_damaged(packs, offsets)

    def _codes(self, table: bytes) -> Codes:
        """Pack number in an index -> number in ``packs``; unknown packs get numbers of their own, below zero."""
        codes = np.concatenate(([_ZERO], self.packs.numbers(table)))
        for unknown in np.nonzero(codes[1:] < 0)[0].tolist():
            name = table[unknown * NAME_BYTES : (unknown + 1) * NAME_BYTES]
            codes[unknown + 1] = self._strangers.setdefault(name, _STRANGERS - len(self._strangers))
        return codes

    def _at(self, packs: Ranks, offsets: NDArray[np.uint32]) -> tuple[Ranks, NDArray[np.uint8]]:
        quarter = np.minimum(offsets.astype(np.int64) // self._quarter, self._last)
        return packs * self._row + (quarter >> 3), np.left_shift(1, quarter & 7).astype(np.uint8)


def _references(slots: Slots, rows: Ranks) -> tuple[Codes, NDArray[np.uint32]]:
    """Packs and offsets of some slots."""
    places = slots.places[rows]
    numbers = places[:, 0::3]
    if int(numbers.max(initial=0)) >= len(slots.codes):
        raise FormatError(slots.what, f"refers to pack {numbers.max()} of {len(slots.codes) - 1}")
    return slots.codes[numbers], places[:, 1::3]
