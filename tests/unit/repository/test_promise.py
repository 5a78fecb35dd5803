"""The promise of immutability: everything a sealed point needs is retained, and extended no more often than needed."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors import DeleteRefused, ObjectRetained
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, PosixStore, create
from proxy.repository import open as open_repository
from proxy.repository.promise import BLOCK, Promise, retain_for

pytestmark = pytest.mark.slow

SPAN = timedelta(days=30)
DAY = timedelta(days=1)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 22, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


class Recording(MemoryStore):
    """Remembers what was extended."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock, retain_for=retain_for(SPAN))
        self.extended: list[str] = []

    def retain(self, name: str, until: datetime) -> None:
        self.extended.append(name)
        super().retain(name, until)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Recording:
    made = Recording(clock)
    made.put("packs/00/a", b"a")
    made.put("packs/00/b", b"b")
    return made


def test_whatever_is_covered_cannot_be_deleted_for_the_whole_span(
    store: Recording, clock: Clock, tmp_path: Path
) -> None:
    promise = Promise(store, SPAN, clock, tmp_path / "promise")
    for day in range(100):
        clock.time += DAY
        if day % 7 == 0:
            promise.cover(["packs/00/a"])
            covered = clock.now()
        if clock.now() < covered + SPAN:
            with pytest.raises(ObjectRetained):
                store.delete("packs/00/a")
    clock.time = covered + SPAN + BLOCK + DAY
    store.delete("packs/00/a")


@pytest.mark.slow
def test_an_object_is_extended_once_in_ten_days(store: Recording, clock: Clock, tmp_path: Path) -> None:
    promise = Promise(store, SPAN, clock, tmp_path / "promise")
    for _ in range(100):
        promise.cover(["packs/00/a", "packs/00/b", "packs/00/a"])
        clock.time += DAY
    assert 18 <= len(store.extended) <= 20


def test_what_is_known_outlives_the_process_and_may_be_lost(store: Recording, clock: Clock, tmp_path: Path) -> None:
    memory = tmp_path / "promise"
    assert Promise(store, SPAN, clock, memory).cover(["packs/00/a"]) == 1
    assert Promise(store, SPAN, clock, memory).cover(["packs/00/a"]) == 0
    for damage in ("", "[]", '{"packs/00/a": "yesterday"}', '{"packs/00/a": 5}', '{"packs/00/a": 1e300}'):
        memory.write_text(damage)
        assert Promise(store, SPAN, clock, memory).cover(["packs/00/a"]) == 1
    assert Promise(store, SPAN, clock, tmp_path / "no" / "such" / "place").cover(["packs/00/a"]) == 1


def test_an_object_that_is_gone_cannot_be_promised(store: Recording, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Promise(store, SPAN, clock, tmp_path / "promise").cover(["packs/00/a", "packs/00/gone"])


def test_without_a_promise_nothing_is_asked(store: Recording, clock: Clock, tmp_path: Path) -> None:
    assert Promise(store, None, clock, tmp_path / "promise").cover(["packs/00/a", "none"]) == 0
    assert store.extended == []
    assert retain_for(None) is None


def test_a_sealed_point_keeps_what_it_shares_with_older_ones(
    store: Recording, clock: Clock, tmp_path: Path, backup: Callable[..., RestorePoint]
) -> None:
    data = os.urandom(20 * 4096)
    create(store, secret=None, chunk_size=4096, pack_size=64 * 1024, cache=tmp_path / "c", clock=clock).close()
    with open_repository(store, secret=None, cache=tmp_path / "c", clock=clock, immutable=SPAN) as repository:
        old = backup(repository, data)
        clock.time += SPAN  # the old packs have ten days left
        new = backup(repository, data)
        assert new.images[0].bytes_new == 0
        clock.time += SPAN - DAY
        needed = [name for name in store.list("") if name.startswith(("packs/", "config"))]
        for name in [n for n in needed if n[:8] not in ("packs/00",)] + [
            new.images[0].index,
            repository.ledger.name(new),
        ]:
            with pytest.raises(ObjectRetained):
                store.delete(name)
        repository.delete(old.id)
        with pytest.raises(DeleteRefused):
            repository.delete(new.id)


class Counting(MemoryStore):
    """Counts from a clock of its own, as the immutability helper does: it is only told for how long."""

    def __init__(self, own: Clock, proxys: Clock) -> None:
        super().__init__(clock=own, retain_for=retain_for(SPAN))
        self._own = own
        self._proxys = proxys

    def retain(self, name: str, until: datetime) -> None:
        super().retain(name, self._own.now() + (until - self._proxys.now()))


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [-365, 11, 365])
@pytest.mark.parametrize("forgets", [False, True], ids=["same process", "new process"])
def test_a_night_under_a_wrong_clock_shortens_no_promise(tmp_path: Path, ahead: int, *, forgets: bool) -> None:
    real, proxys = Clock(), Clock()
    store = Counting(real, proxys)
    store.put("packs/00/a", b"a")
    promise = Promise(store, SPAN, proxys, tmp_path / "promise")
    for night in range(100):
        wrong = night == 5
        proxys.time = real.time + ahead * DAY * wrong
        promise.cover(["packs/00/a"])
        real.time += SPAN - DAY
        with pytest.raises(ObjectRetained):
            store.delete("packs/00/a")
        real.time -= SPAN - 2 * DAY
        if forgets:
            promise = Promise(store, SPAN, proxys, tmp_path / "promise")


class Meeting(Recording):
    """Each extension waits a while for another one, so that two at once surely meet."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._together = threading.Barrier(2)

    def retain(self, name: str, until: datetime) -> None:
        with suppress(threading.BrokenBarrierError):
            self._together.wait(timeout=0.5)
        super().retain(name, until)


def test_of_seals_that_end_at_once_one_extends_what_they_share(clock: Clock, tmp_path: Path) -> None:
    store = Meeting(clock)
    store.put("packs/00/a", b"a")
    promise = Promise(store, SPAN, clock, tmp_path / "promise")
    counts: list[int] = []
    seals = [threading.Thread(target=lambda: counts.append(promise.cover(["packs/00/a"]))) for _ in range(2)]
    for seal in seals:
        seal.start()
    for seal in seals:
        seal.join()
    assert sorted(counts) == [0, 1]
    assert store.extended == ["packs/00/a"]


class KilledAtManifest:
    """A helper that keeps by name; the proxy is killed before it asks for the first manifest."""

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self.killed = False

    def retain(self, name: str, duration: timedelta) -> None:
        if name.startswith("points/") and not self.killed:
            self.killed = True
            raise KeyboardInterrupt
        self.kept.add(name)

    def release(self, name: str) -> None:
        self.kept.discard(name)


def test_a_manifest_whose_writer_was_killed_before_it_was_retained_is_retained_when_it_is_sealed_again(
    tmp_path: Path, clock: Clock, backup: Callable[..., RestorePoint]
) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    root.mkdir()
    create(PosixStore(root), secret=None, chunk_size=4096, cache=cache, clock=clock).close()
    helper = KilledAtManifest()
    store = PosixStore(root, retainer=helper, retain_for=retain_for(SPAN))
    with open_repository(store, secret=None, cache=cache, immutable=SPAN) as repository:
        with pytest.raises(KeyboardInterrupt):
            backup(repository, os.urandom(3 * 4096))
        (left,) = repository.points()
        assert repository.ledger.name(left) not in helper.kept
        helper.kept.clear()
    with open_repository(store, secret=None, cache=tmp_path / "other", immutable=SPAN) as repository:
        assert repository.seal(left) == left
        assert {repository.ledger.name(left), left.images[0].index, "config"} <= helper.kept
        assert any(name.startswith("packs/") for name in helper.kept)
