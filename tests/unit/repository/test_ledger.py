"""Chains, tombstones and holds: what was deleted on purpose is told from what was taken away."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.errors import DeleteRefused, IntegrityError, ObjectRetained, RestorePointNotFound
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, manifest
from proxy.repository import open as open_repository
from proxy.repository.checking.audit import audit
from proxy.repository.checking.chain import Trouble
from proxy.repository.records import Health
from tests.unit.repository.collection_helpers import collect_now

pytestmark = pytest.mark.slow

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


def spoil(store: MemoryStore, name: str) -> None:
    store.objects[name] = store.objects[name][:-1] + bytes([store.objects[name][-1] ^ 1])


def test_a_chain_goes_on_before_a_tombstone_that_does_not_open(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    repository.delete(second.id)
    spoil(store, repository.ledger.tombstones.name(repository.ledger.name(second)))
    planted = repository.ledger.tombstones.name(repository.ledger.name(first).replace(first.id, "9999"))
    store.put(planted, b"by somebody without the key")
    third = backup(repository, b"3")
    assert link(repository, third) == manifest.Link(2, first.id, hash_of(repository, first))
    fourth = backup(repository, b"4")
    assert link(repository, fourth) == manifest.Link(3, third.id, hash_of(repository, third))


def test_a_machine_of_which_nothing_but_a_planted_tombstone_is_left_begins_a_chain(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    name = repository.ledger.name(backup(repository, b"1"))
    del store.objects[name]
    store.put(repository.ledger.tombstones.name(name), b"by somebody without the key")
    assert link(repository, backup(repository, b"2")) == manifest.Link(1)


class BadSector(MemoryStore):
    """Has objects that the storage cannot read."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = objects
        self.bad: set[str] = set()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name in self.bad:
            raise IntegrityError(f"object {name}", "the storage cannot read it")
        return super().get(name, offset, length)


def test_a_manifest_on_a_bad_sector_is_linked_to_without_its_hash_and_keeps_its_number(
    repository: Repository, store: MemoryStore, backup: Backup
) -> None:
    points = [backup(repository, data) for data in (b"1", b"2", b"3", b"4")]
    for deleted in points[1:3]:
        repository.delete(deleted.id)
    collect_now(repository)  # makes one tombstone of two: there are fewer objects than numbers
    assert len(repository.ledger.tombstones.names()) == 1
    failing = BadSector(store.objects)
    with open_repository(failing, secret=None) as again:
        failing.bad = {again.ledger.name(points[3])}
        newest = backup(again, b"5")
        assert link(again, newest) == manifest.Link(5, points[3].id, None)
        failing.bad.add(again.ledger.name(newest))
        last = backup(again, b"6")
        assert link(again, last) == manifest.Link(6, newest.id, None)
        failing.bad = set(failing.list("points/")) | set(failing.list("tombstones/"))
        assert backup(again, b"7").id
        failing.bad.clear()
        assert [f for f in audit(again, []) if not f.trouble.notice and f.point != again.points()[-1].id] == []


def test_a_manifest_on_a_bad_sector_can_be_forgotten(
    repository: Repository, store: MemoryStore, backup: Backup
) -> None:
    good, bad = backup(repository, b"1"), backup(repository, b"2")
    failing = BadSector(store.objects)
    with open_repository(failing, secret=None) as again:
        name = again.ledger.name(bad)
        failing.bad = {name}
        assert [damaged.object for damaged in again.damaged_points()] == [name]
        again.ledger.forget(name, "the disk is broken")
        assert (again.points(), again.damaged_points()) == ([good], [])
        third = backup(again, b"3")
        assert (link(again, third).number, link(again, third).previous) == (3, bad.id)
        assert [finding.trouble for finding in audit(again, [])] == [Trouble.FORGOTTEN]
        assert collect_now(again).deleted != ()
        with pytest.raises(RestorePointNotFound):
            again.ledger.forget(name, "again")


def test_a_point_that_vanishes_while_it_is_deleted_is_told_so(
    repository: Repository, store: MemoryStore, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = backup(repository, b"1"), backup(repository, b"2")
    monkeypatch.setattr(repository.ledger, "_keep_one", lambda point: store.delete(repository.ledger.name(point)))
    with pytest.raises(RestorePointNotFound):
        repository.delete(first.id)
    assert list(store.list("tombstones/")) == []


def test_a_point_that_is_withdrawn_may_be_gone_already(repository: Repository, backup: Backup) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    repository.delete(second.id)
    repository.ledger.withdraw(second, "its lease was lost")
    assert repository.points() == [first]


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
