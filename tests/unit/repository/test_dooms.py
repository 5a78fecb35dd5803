"""Dooms: what one proxy dooms, all know, and an unreadable doom stops everybody."""

from datetime import UTC, datetime

import pytest

from proxy.errors import FormatError
from proxy.repository import MemoryStore, dooms
from proxy.repository import format as layout
from proxy.repository.dooms import Dooms
from tests.unit.repository.collection_helpers import HandClock
from tests.unit.repository.test_leases import Clear

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PACKS = [layout.pack_name(bytes([n]) * 16) for n in range(5)]


def test_others_learn_what_is_doomed_and_what_is_done_with() -> None:
    store = MemoryStore()
    mine, theirs = Dooms(store, Clear()), Dooms(store, Clear())
    (first,) = mine.add(PACKS[:2], ["indexes/00/x"], NOW)
    (second,) = mine.add(PACKS[1:3], [], NOW)
    assert theirs.packs == frozenset()
    theirs.refresh()
    assert theirs.packs == mine.packs == {layout.pack_of(name) for name in PACKS[:3]}
    assert theirs.indexes() == {"indexes/00/x"}
    assert theirs.known[second].packs == tuple(PACKS[1:3])
    mine.remove(first)
    theirs.refresh()
    assert theirs.packs == mine.packs == {layout.pack_of(name) for name in PACKS[1:3]}
    assert theirs.indexes() == frozenset()


def test_many_are_doomed_in_several_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dooms, "BATCH", 2)
    known = Dooms(MemoryStore(), Clear())
    assert len(known.add(PACKS, ["indexes/00/x"], NOW)) == 3
    assert len(known.packs) == 5
    assert known.add([], [], NOW) == []


def test_one_that_cannot_be_read_is_an_error_until_it_is_old_enough_to_be_removed() -> None:
    clock = HandClock()
    store = MemoryStore(clock=clock)
    known = Dooms(store, Clear())
    (whole,) = known.add(PACKS, [], NOW)
    (broken,) = known.add(PACKS, [], NOW)
    for content in (b"?", Clear().box(dooms.MAGIC, broken, b'{"packs": 7}')):
        store.put(broken, content, new=False)
        other = Dooms(store, Clear())
        with pytest.raises(FormatError):
            other.refresh()
        assert other.packs == frozenset()
    assert known.remove_unreadable(100) == []
    clock.advance(100)
    assert known.remove_unreadable(100) == [broken]
    assert list(store.list("dooms/")) == [whole]


def test_one_that_vanishes_while_it_is_read_is_done_with() -> None:
    class Vanishing(MemoryStore):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            raise FileNotFoundError(name)

    store = Vanishing()
    store.put("dooms/00", b"")
    known = Dooms(store, Clear())
    known.refresh()
    assert known.known == {}
