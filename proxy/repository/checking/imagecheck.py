"""Whether every reference of an image leads to a chunk that can be read: with numpy, and only what changed.

A chunk counts as readable if the lookup knows a place of its id in a pack that is there and right: readers find it by its id,
wherever it is. Of each reference is kept *where* it is read from; an image that follows another one of the same disk takes over
what it has in common with that one, and asks the lookup for the rest.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError, IntegrityError
from proxy.repository import format as layout
from proxy.repository.checking.packcheck import PackChecker, Verdict
from proxy.repository.collection.marks import Slots
from proxy.repository.format import ID_BYTES, NAME_BYTES, SEGMENT_CHUNKS
from proxy.repository.index import IndexView
from proxy.repository.packs import read_footer
from proxy.repository.packset import PackSet
from proxy.repository.packset_arrays import Ranks
from proxy.repository.repository import Repository
from proxy.repository.resolve import Resolver
from proxy.repository.runs_arrays import BLOCK, check_words, records_of

# Segments that are looked at in one step: 2 MiB of index. Larger gains nothing, smaller costs more Python a chunk.
_STEP = 16

ZERO = -1
"""Where a chunk of zeroes is read from. Below it are reasons why a chunk cannot be read (``ImageChecker.reason``)."""

_GONE = -2
"""First code of packs that are not there."""

Where = NDArray[np.int32]
_Flags = NDArray[np.bool_]


class Places:
    """Where chunks are, as this verification knows. ``read``: which of ``packs`` were read, now or not long ago.

    ``thorough``: chunks count only where the pack was read; a pack that nobody asked for, because it was made meanwhile, is
    read when a reference leads there.
    """

    def __init__(
        self, repository: Repository, checker: PackChecker, verdicts: Mapping[bytes, Verdict], *, thorough: bool
    ) -> None:
        self._repository = repository
        self._checker = checker
        self._thorough = thorough
        self.verdicts = dict(verdicts)
        repository.lookup.refresh()
        self.packs = all_packs(repository)
        self.read = np.zeros(len(self.packs), dtype=bool)
        self._gone: set[bytes] = set()
        self._cache_checked = False
        self._learn()

    def call_read(self, packs: PackSet) -> None:
        """These were read."""
        numbers = self.packs.numbers(packs.table())
        self.read[numbers[numbers >= 0]] = True

    def find(self, ids: NDArray[np.uint8]) -> Ranks:
        """Number of a pack for each id (rows of ``ID_BYTES``), -1 for a chunk that cannot be read anywhere."""
        if not len(self.packs):
            return np.full(len(ids), -1, dtype=np.int64)
        while True:
            found = self._resolver.find(ids).packs
            lost = np.nonzero(found < 0)[0]
            if self._doomed is not None:
                found[lost] = self._doomed.find(ids[lost]).packs
                lost = np.nonzero(found < 0)[0]
            if self._spared:
                found[lost] = [self._spared.get(chunk.tobytes(), -1) for chunk in ids[lost]]
            if (found < 0).any() and self._mend_cache():
                continue
            unread = np.unique(found[found >= 0])
            unread = unread[~self.read[unread]]
            if not self._thorough or not len(unread):
                return found
            for pack, verdict in self._checker.check_all([self.packs.name(number) for number in unread.tolist()]):
                if not verdict.right:
                    self.verdicts[pack] = verdict
                if verdict.missing:
                    self._gone.add(pack)
            self.read[unread] = True
            self._learn()

    def why(self, pack: bytes, offsets: Ranks) -> list[str]:
        """Why chunks at offsets of a pack, which are in no other place, cannot be read."""
        damaged = self._repository.lookup.damaged
        verdict = self.verdicts.get(pack, Verdict())
        if pack in self._gone or pack not in self.packs:
            return [f"object {layout.pack_name(pack)} is missing"] * len(offsets)
        if verdict.why:
            return [verdict.why] * len(offsets)
        if pack in damaged.packs():
            return ["the pack is recorded as damaged"] * len(offsets)
        known = damaged.offsets().get(pack, frozenset())
        reasons = []
        for offset in offsets.tolist():
            why = verdict.bad.get(offset, "")
            if not why and offset in known:
                why = "the chunk is recorded as damaged"
            if not why:
                why = "the index refers to a chunk that the pack does not hold"
                damaged.add(pack, offset, why)
            reasons.append(why)
        return reasons

    def _learn(self) -> None:
        """Look at what is damaged again. Packs that are doomed, and what is right in packs that are distrusted as a whole
        because they lost many chunks, still serve readers, if there is nothing better."""
        lookup = self._repository.lookup
        self._resolver = Resolver(lookup, self.packs)
        self._resolver.avoid(self.packs, frozenset(self._gone))
        self._doomed: Resolver | None = None
        if lookup.doomed():
            self._doomed = Resolver(lookup, self.packs)
            self._doomed.usable[:] = True
            self._doomed.avoid(self.packs, lookup.damaged.packs() | self._gone)
        self._spared: dict[bytes, int] = {}
        for pack in lookup.damaged.packs() & self.verdicts.keys():
            self._spare(pack, self.verdicts[pack])

    def _mend_cache(self) -> bool:
        """Once, before anything is called lost: whether the lookup's cache was damaged, and had to be made anew."""
        if self._cache_checked:
            return False
        self._cache_checked = True
        for run in self._repository.lookup.snapshot():
            for start in range(0, run.count, BLOCK):
                records = np.array(records_of(run)[start : start + BLOCK])
                if (records["check"] != check_words(records)).any():
                    self._repository.lookup.rebuild()
                    self._learn()
                    return True
        return False

    def _spare(self, pack: bytes, verdict: Verdict) -> None:
        number = int(self.packs.numbers(pack)[0])
        if verdict.why or number < 0:
            return
        repository = self._repository
        with suppress(FormatError, IntegrityError, FileNotFoundError):
            entries = read_footer(repository.store, repository.settings, repository.chunker, pack)
            self._spared.update((e.id, number) for e in entries if e.offset not in verdict.bad)


def all_packs(repository: Repository) -> PackSet:
    """The packs that were there at the lookup's last refresh, with those that it could not read."""
    lookup = repository.lookup
    return lookup.packs().union(pack for name in lookup.unreadable if (pack := layout.pack_of(name)))


@dataclass(slots=True)
class Checked:
    """An image that was looked at. ``where``: for each slot and chunk, the number of a pack, ``ZERO``, or a reason. Keeps the
    view open, which ``close`` ends."""

    view: IndexView
    slots: Slots | None
    where: Where

    def close(self) -> None:
        """Give the index up."""
        self.slots = None  # it refers to the mapped bytes
        self.view.close()


class ImageChecker:
    """Looks at the images of one repository."""

    def __init__(self, places: Places, chunk_size: int) -> None:
        self.places = places
        self._chunk_size = chunk_size
        self._gone: dict[bytes, int] = {}
        self._reasons: list[tuple[str, str]] = []
        self._codes: dict[tuple[str, str], int] = {}

    def check(self, view: IndexView, previous: Checked | None) -> Checked:
        """``previous``: of the same disk, looked at before and still open; any will do."""
        slots = Slots(view, self._numbers(view))
        checked = Checked(view, slots, np.full((view.slots, SEGMENT_CHUNKS), ZERO, dtype=np.int32))
        same = previous if previous is not None and previous.view.size == view.size else None
        for first in range(0, len(slots.table), _STEP):
            self._step(checked, same, first)
        return checked

    def damaged(self, checked: Checked) -> Iterator[tuple[int, int, str, str]]:
        """Offset and length in bytes of the disk, object and reason, of what cannot be read; neighbours told together."""
        open_run: tuple[int, int, int] | None = None
        for segment, slot in enumerate(checked.view.table):
            for start, end, code in _runs(checked.where[slot - 1]) if slot else ():
                first, last = segment * SEGMENT_CHUNKS + start, segment * SEGMENT_CHUNKS + end
                if open_run is not None and open_run[1:] == (first, code):
                    open_run = (open_run[0], last, code)
                    continue
                if open_run is not None:
                    yield self._damage(checked.view, open_run)
                open_run = (first, last, code)
        if open_run is not None:
            yield self._damage(checked.view, open_run)

    def used(self, checked: Checked) -> _Flags:
        """For each pack that is there, whether the image is read from it."""
        used = np.zeros(len(self.places.packs), dtype=bool)
        for row in checked.where:
            used[row[row >= 0]] = True
        return used

    def named(self, view: IndexView) -> _Flags:
        """For each pack that is there, whether the index names it."""
        numbers = self.places.packs.numbers(view.pack_table())
        named = np.zeros(len(self.places.packs), dtype=bool)
        named[numbers[numbers >= 0]] = True
        return named

    def _damage(self, view: IndexView, run: tuple[int, int, int]) -> tuple[int, int, str, str]:
        start = run[0] * self._chunk_size
        end = min(run[1] * self._chunk_size, view.size)
        return (start, end - start, *self._reasons[_GONE - run[2]])

    def _step(self, checked: Checked, previous: Checked | None, first: int) -> None:
        slots = checked.slots
        if slots is None:
            raise ValueError("the image is closed")
        rows = slots.table[first : first + _STEP]
        segments = np.nonzero(rows)[0]
        rows = rows[segments] - 1
        if not len(rows):
            return
        new = np.ones((len(rows), SEGMENT_CHUNKS), dtype=bool)
        behind = (segments + first + 1) * SEGMENT_CHUNKS - checked.view.chunks
        for at in np.nonzero(behind > 0)[0].tolist():
            new[at, SEGMENT_CHUNKS - int(behind[at]) :] = False
        if previous is not None and previous.slots is not None:
            before = previous.slots.table[segments + first] - 1
            for at in np.nonzero(before >= 0)[0].tolist():
                same = _same(slots, int(rows[at]), previous.slots, int(before[at]))
                checked.where[rows[at]][same] = previous.where[before[at]][same]
                new[at] &= ~same
        row, chunk = np.nonzero(new)
        if len(row):
            checked.where[rows[row], chunk] = self._look(checked.view, slots, rows[row], chunk)

    def _look(self, view: IndexView, slots: Slots, rows: Ranks, chunks: Ranks) -> Where:
        """Where references, given by their slots and chunks within, are read from."""
        ids = slots.ids.reshape(-1, SEGMENT_CHUNKS, ID_BYTES)[rows, chunks]
        numbers = slots.places[rows, 3 * chunks]
        offsets = slots.places[rows, 3 * chunks + 1]
        zero = ~ids.view("<u4").any(axis=1)
        wrong = (zero != (numbers == 0)) | (numbers >= len(slots.codes))
        where = np.full(len(rows), ZERO, dtype=np.int32)
        where[wrong] = self._code(view.what, "a reference in it has no meaning")
        look = np.nonzero(~zero & ~wrong)[0]
        found = self.places.find(ids[look])
        where[look] = found
        lost = look[found < 0]
        for number in np.unique(numbers[lost]).tolist():
            these = lost[numbers[lost] == number]
            pack = view.pack(number)
            whys = self.places.why(pack, offsets[these].astype(np.int64))
            where[these] = [self._code(layout.pack_name(pack), why) for why in whys]
        return where

    def _numbers(self, view: IndexView) -> Ranks:
        """What an index's pack numbers mean: numbers of ``places.packs``; packs that are not there get numbers of their own."""
        table = view.pack_table()
        codes = np.concatenate(([np.int64(ZERO)], self.places.packs.numbers(table)))
        for unknown in np.nonzero(codes[1:] < 0)[0].tolist():
            name = table[unknown * NAME_BYTES : (unknown + 1) * NAME_BYTES]
            codes[unknown + 1] = self._gone.setdefault(name, _GONE - len(self._gone))
        return codes

    def _code(self, name: str, why: str) -> int:
        code = self._codes.setdefault((name, why), _GONE - len(self._reasons))
        if _GONE - code == len(self._reasons):
            self._reasons.append((name, why))
        return code


def _same(slots: Slots, row: int, other: Slots, other_row: int) -> _Flags:
    """Which references of a segment mean the same."""
    own, theirs = slots.places[row], other.places[other_row]
    same: _Flags = (
        (slots.ids[row].view("<u4") == other.ids[other_row].view("<u4")).reshape(-1, ID_BYTES // 4).all(axis=1)
    )
    same &= own[1::3] == theirs[1::3]
    numbers, others = own[0::3], theirs[0::3]
    valid = (numbers < len(slots.codes)) & (others < len(other.codes))
    same &= valid
    same[valid] &= slots.codes[numbers[valid]] == other.codes[others[valid]]
    return same


def _runs(row: Where) -> list[tuple[int, int, int]]:
    """Runs of one reason: first chunk, behind the last, code."""
    if row.min() >= ZERO:
        return []
    edges = np.nonzero(np.diff(row))[0] + 1
    starts: Ranks = np.concatenate(([0], edges))
    ends: Ranks = np.concatenate((edges, [len(row)]))
    codes = row[starts]
    bad = codes < ZERO
    return list(zip(starts[bad].tolist(), ends[bad].tolist(), codes[bad].tolist(), strict=True))
