"""Leases: seen by everybody, renewed by a thread, expiring by the store's clock, and told when they are lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import FormatError, LeaseLost, RepositoryFull
from proxy.repository import MemoryStore
from proxy.repository.leases import COLLECT, EXPIRY, RENEW, Lease, Leases
from tests.unit.repository.collection_helpers import HandClock


class Clear:
    """Boxes that hide nothing."""

    def box(self, magic: bytes, name: str, plain: bytes, *, sign: bool = False) -> bytes:
        return magic + name.encode() + b"\n" + plain

    def unbox(self, magic: bytes, name: str, data: bytes, *, signed: bool = False) -> bytes:
        head, _, plain = data.partition(b"\n")
        if head != magic + name.encode():
            raise FormatError(name, "is another object")
        return plain


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def leases(store: MemoryStore) -> Leases:
    return Leases(store, Clear())


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_a_lease_is_seen_while_it_is_held_and_says_whose_it_is(leases: Leases, store: MemoryStore) -> None:
    with leases.held("backup", "disk vda") as lease:
        (seen,) = Leases(store, Clear()).living()
        assert (seen.name, seen.kind, seen.age) == (lease.name, "backup", 0)
        assert seen.holder is not None
        assert seen.holder.detail == "disk vda"
        assert "(disk vda)" in str(seen)
        lease.check()
        lease.confirm()
    assert leases.living() == []
    assert store.objects == {}


def test_a_lease_is_given_back_when_its_holder_fails(leases: Leases, store: MemoryStore) -> None:
    with pytest.raises(RuntimeError), leases.held("backup"):
        raise RuntimeError
    assert store.objects == {}


def test_a_renewed_lease_keeps_its_age_and_loses_its_quiet(store: MemoryStore, clock: HandClock) -> None:
    leases = Leases(store, Clear(), renew=0.01)
    with leases.held("backup") as lease:
        clock.advance(EXPIRY - 1)
        put_before = store.objects.get(f"{lease.name}.alive")
        assert eventually(lambda: leases.living()[0].quiet == 0)
        assert leases.living()[0].age == EXPIRY - 1
        assert put_before is None or lease.name in store.objects
    assert store.objects == {}


def test_a_lease_that_nobody_renews_counts_for_nothing_after_its_time(leases: Leases, clock: HandClock) -> None:
    lease = leases.take("backup")
    clock.advance(EXPIRY - 1)
    assert len(leases.living()) == 1
    clock.advance(1)
    assert leases.living() == []
    assert [seen.name for seen in leases.present()] == [lease.name]
    lease.confirm()  # nobody has acted on it yet
    assert leases.remove_expired() == [lease.name]
    with pytest.raises(LeaseLost):
        lease.confirm()
    lease.drop()
    assert leases.present() == []


def test_a_holder_that_was_away_too_long_learns_it_at_its_next_renewal(store: MemoryStore, clock: HandClock) -> None:
    leases = Leases(store, Clear(), renew=0.01)
    lease = leases.take("backup")
    assert eventually(lambda: f"{lease.name}.alive" in store.objects)
    for name in (lease.name, f"{lease.name}.alive"):
        store.delete(name)  # as another process does that found it expired
    assert eventually(lambda: _lost(lease))
    assert lease.name not in store.objects  # no renewal brings it back
    assert eventually(lambda: not any(lease.name in thread.name for thread in threading.enumerate()))
    assert _lost(lease)  # whoever asks later learns it too
    lease.drop()


def _lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return True
    return False


def test_a_renewal_that_failed_is_told_at_the_next_use_and_mended_by_it(store: MemoryStore) -> None:
    leases = Leases(store, Clear(), renew=0.02)
    with leases.held("backup") as lease:
        store.fail_at(0)
        assert eventually(lambda: lease._trouble is not None)
        with pytest.raises(RepositoryFull):
            lease.check()
        store.fail_at(None)
        lease.check()
        assert lease._trouble is None


def test_the_thread_of_a_lease_ends_with_it(leases: Leases) -> None:
    def renewing() -> list[str]:
        return [thread.name for thread in threading.enumerate() if lease.name in thread.name]

    with leases.held("a") as lease:
        assert len(renewing()) == 1
    assert eventually(lambda: renewing() == [])


@pytest.mark.slow
def test_a_lease_keeps_no_process_alive(tmp_path: Path) -> None:
    words = (
        "from proxy.repository import MemoryStore\n"
        "from proxy.repository.leases import Leases\n"
        "from tests.unit.repository.test_leases import Clear\n"
        "Leases(MemoryStore(), Clear()).take('backup')\n"
        "print('end')\n"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, timeout=60, check=True, text=True)
    assert done.stdout == "end\n"


def test_a_lease_that_nobody_comes_back_for_goes_by_itself(store: MemoryStore) -> None:
    leases = Leases(store, Clear(), renew=0.01)
    lease = leases.take("backup")
    lease.keep_for(0.02)
    assert eventually(lambda: store.objects == {})
    with pytest.raises(LeaseLost):
        lease.confirm()


def test_a_lease_that_cannot_be_read_counts_as_one(leases: Leases, store: MemoryStore) -> None:
    store.put("leases/future-00", b"what is this?")
    (seen,) = leases.living()
    assert (seen.kind, seen.holder) == ("future", None)
    assert "unknown" in str(seen)


def test_what_a_killed_process_left_of_a_lease_goes_in_time(
    leases: Leases, store: MemoryStore, clock: HandClock
) -> None:
    store.put("leases/backup-00.alive", b"")
    assert leases.present() == []
    assert list(store.objects) == ["leases/backup-00.alive"]
    clock.advance(EXPIRY)
    assert leases.present() == []
    assert store.objects == {}


def test_a_lease_that_vanishes_while_it_is_listed_is_none(store: MemoryStore) -> None:
    class Vanishing(MemoryStore):
        def age(self, name: str) -> float:
            raise FileNotFoundError(name)

    gone = Vanishing()
    gone.put("leases/backup-00", b"")
    assert Leases(gone, Clear()).living() == []


def test_the_defaults_leave_room_for_many_failed_renewals() -> None:
    assert EXPIRY >= 100 * RENEW
    with pytest.raises(ValueError, match="renewed"):
        Leases(MemoryStore(), Clear(), renew=10, expiry=20)


def test_a_repository_that_is_full_loses_no_lease_that_is_given_back(leases: Leases, store: MemoryStore) -> None:
    lease = leases.take(COLLECT)
    store.fail_at(0)
    lease.drop()
    lease.drop()
    store.fail_at(None)
    assert [seen.name for seen in leases.living()] == [lease.name]  # until it expires
