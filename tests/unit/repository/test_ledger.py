"""Chains, tombstones and holds: what was deleted on purpose is told from what was taken away."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors import DeleteRefused, IntegrityError, ObjectRetained, RestorePointNotFound
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, manifest
from proxy.repository import open as open_repository
from proxy.repository.records import Health

Backup = Callable[..., RestorePoint]


def link(repository: Repository, point: RestorePoint) -> manifest.Link:
    return repository.ledger.read(repository.ledger.name(point)).link


def hash_of(repository: Repository, point: RestorePoint) -> str:
    return manifest.object_hash(repository.store.get(repository.ledger.name(point)))


def test_each_restore_point_names_its_predecessor_in_its_machines_chain(repository: Repository, backup: Backup) -> None:
    first, other = backup(repository, b"1"), backup(repository, b"1", machine="m2")
    second = backup(repository, b"2")
    assert link(repository, first) == link(repository, other) == manifest.Link(1)
    assert link(repository, second) == manifest.Link(2, first.id, hash_of(repository, first))


def test_a_chain_goes_on_over_points_that_were_deleted(repository: Repository, backup: Backup) -> None:
    backup(repository, b"1")
    second = backup(repository, b"2")
    hashed = hash_of(repository, second)
    repository.delete(second.id, "no need")
    third = backup(repository, b"3")
    assert link(repository, third) == manifest.Link(3, second.id, hashed)
    stone = repository.ledger.tombstones.get(repository.ledger.name(second))
    assert stone is not None
    assert (stone.hash, stone.number, stone.why) == (hashed, 2, "no need")


def test_a_manifest_with_a_tombstone_is_no_restore_point(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    name = repository.ledger.name(first)
    kept = store.get(name)
    repository.delete(first.id)
    store.put(name, kept)  # as if the process had been killed after the tombstone
    assert repository.points() == [second]
    with pytest.raises(RestorePointNotFound):
        repository.point(first.id)
    with pytest.raises(IntegrityError, match="deleted"):
        repository.ledger.add(first)


def test_a_held_point_is_not_deleted_until_the_hold_is_off(repository: Repository, backup: Backup) -> None:
    first, _ = backup(repository, b"1"), backup(repository, b"2")
    repository.ledger.hold(first.id, "audit of 2026")
    with pytest.raises(DeleteRefused, match="audit of 2026"):
        repository.delete(first.id)
    repository.ledger.release_hold(first.id)
    repository.delete(first.id)
    assert len(repository.points()) == 1


def test_the_last_good_point_stays_when_the_others_are_damaged(repository: Repository, backup: Backup) -> None:
    good, bad = backup(repository, b"1"), backup(repository, b"2")
    repository.ledger.note_health(bad, Health.DAMAGED, damaged=4096)
    with pytest.raises(DeleteRefused, match="only restore point of name of m1 that is good"):
        repository.delete(good.id)
    repository.delete(bad.id)
    assert repository.points() == [good]
    with pytest.raises(DeleteRefused, match="only restore point"):
        repository.delete(good.id)
    assert repository.ledger.health(bad) is None


def test_two_who_delete_the_last_two_points_at_once_both_refuse(
    store: MemoryStore, repository: Repository, backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    other = open_repository(store, secret=None, cache=tmp_path / "other")
    keep_one = repository.ledger._keep_one
    looks = iter(["before", "after"])

    def late(point: RestorePoint) -> None:
        if next(looks) == "after":
            with pytest.raises(DeleteRefused):
                other.delete(second.id)  # comes to its own look when the first tombstone is there
        keep_one(point)

    monkeypatch.setattr(repository.ledger, "_keep_one", late)
    repository.delete(first.id)  # the other one has taken its tombstone back
    assert repository.points() == other.points() == [second]


def test_a_damaged_manifest_is_forgotten_only_because_a_person_says_so(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    good, bad = backup(repository, b"1"), backup(repository, b"2")
    name = repository.ledger.name(bad)
    with pytest.raises(DeleteRefused, match="whole"):
        repository.ledger.forget(name, "looked bad")
    store.objects[name] = store.objects[name][:-1]
    repository.ledger.forget(name, "torn by the array")
    assert repository.damaged_points() == []
    assert repository.points() == [good]
    third = backup(repository, b"3")
    assert link(repository, third).previous == bad.id
    with pytest.raises(RestorePointNotFound):
        repository.ledger.forget(name, "again")


def test_a_predecessor_that_vanishes_without_a_record_is_noticed_at_the_next_seal(
    repository: Repository, backup: Backup, store: MemoryStore
) -> None:
    first = backup(repository, b"1")
    name = repository.ledger.name(first)

    class Vanishing(MemoryStore):
        def get(self, wanted: str, offset: int = 0, length: int | None = None) -> bytes:
            if wanted == name:
                raise FileNotFoundError(wanted)
            return super().get(wanted, offset, length)

    vanishing = Vanishing()
    vanishing.objects = store.objects
    with open_repository(vanishing, secret=None) as again, pytest.raises(IntegrityError, match="vanished"):
        backup(again, b"2")


def test_a_retained_point_is_not_hidden_by_the_attempt_to_delete_it(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    store.retain(repository.ledger.name(first), datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(ObjectRetained):
        repository.delete(first.id)
    assert repository.points() == [first, second]
