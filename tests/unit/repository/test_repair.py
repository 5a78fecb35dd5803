"""What is damaged is fetched from a copy, or comes back with the next backup; nothing of a copy is believed."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import ChangesUnknown, ConfigurationError, RepositoryFull
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, verify
from proxy.repository.checking.repair import repair
from proxy.repository.copy import copy_points
from proxy.repository.records import Health
from tests.unit.repository.damage import flip

pytestmark = pytest.mark.slow

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
OTHER = repositories.KeyFile(bytes(range(1, 33)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


@pytest.fixture(params=["sealed", pytest.param("clear", marks=pytest.mark.slow)])
def ours(request: pytest.FixtureRequest, store: MemoryStore, tmp_path: Path) -> Iterator[Repository]:
    secret = SECRET if request.param == "sealed" else None
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "ours", secret=secret
    ) as made:
        yield made


@pytest.fixture(params=[CHUNK // 1, 4 * CHUNK], ids=["same chunks", "larger chunks"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    with repositories.create(
        MemoryStore(), chunk_size=request.param, pack_size=64 * 1024, cache=tmp_path / "theirs", secret=OTHER
    ) as made:
        yield made


def packs(store: MemoryStore) -> list[str]:
    return list(store.list("packs/"))


def copied(ours: Repository, theirs: Repository) -> None:
    assert {c.outcome.value for c in copy_points(ours, theirs)} == {"copied"}


def health(repository: Repository, point: RestorePoint) -> Health:
    known = repository.ledger.health(point)
    return Health.UNKNOWN if known is None else known.health


@pytest.mark.slow
def test_damaged_and_missing_packs_are_mended_from_a_copy_with_other_keys_and_chunks(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(100 * CHUNK + 17)
    old = backup(ours, data)
    new = backup(ours, os.urandom(CHUNK) + data[CHUNK:], parent=old.images[0])
    copied(ours, theirs)
    first, second, third, *_ = packs(store)
    flip(store, first)
    store.delete(second)
    store.objects[third] = store.objects[third][:-5]
    found = list(verify(ours))
    assert {health(ours, old), health(ours, new)} == {Health.DAMAGED}
    done = list(repair(ours, theirs, found))
    assert [r.damage for r in done] == found
    assert all((r.mended, r.why) == (r.damage.length, "") for r in done)
    assert list(verify(ours)) == []
    assert {health(ours, old), health(ours, new)} == {Health.GOOD}
    assert restore(ours, old) == data


def test_what_was_mended_is_found_by_other_processes_too(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(30 * CHUNK)
    point = backup(ours, data)
    copied(ours, theirs)
    flip(store, packs(store)[0])
    assert all(r.why == "" for r in repair(ours, theirs, verify(ours)))
    secret = SECRET if ours.settings.sealed else None
    with repositories.open(store, secret=secret) as fresh:
        assert restore(fresh, point) == data
        assert backup(fresh, data).images[0].bytes_new == 0


def test_a_restore_point_that_the_copy_does_not_have_is_mended_from_its_neighbours(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup, restore: Restore
) -> None:
    shared = os.urandom(40 * CHUNK)
    backup(ours, shared + os.urandom(20 * CHUNK))
    copied(ours, theirs)
    own = os.urandom(20 * CHUNK)
    later = backup(ours, shared + own)
    ours.delete(ours.points()[0].id)
    for name in packs(store):
        store.delete(name)
    done = list(repair(ours, theirs, verify(ours)))
    assert sum(r.mended for r in done) == 40 * CHUNK
    assert any("the copy does not hold" in r.why for r in done)
    left = list(verify(ours))
    assert {d.point for d in left} == {later.id}
    assert sum(d.length or 0 for d in left) == 20 * CHUNK
    assert min(d.offset or 0 for d in left) == 40 * CHUNK


def test_a_copy_that_lies_or_is_damaged_itself_mends_nothing_wrong(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup
) -> None:
    data = os.urandom(20 * CHUNK)
    point = backup(ours, data)
    with theirs.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(data[: 4 * CHUNK] + os.urandom(16 * CHUNK)))
        image = writer.seal()
    theirs.seal(replace(point, images=(image,)))
    for name in packs(store):
        store.delete(name)
    done = list(repair(ours, theirs, verify(ours)))
    assert sum(r.mended for r in done) == 4 * CHUNK
    assert sum(d.length or 0 for d in verify(ours)) == 16 * CHUNK
    for name in packs(theirs.store):  # type: ignore[arg-type]
        theirs.store.delete(name)
    for name in packs(store):
        store.delete(name)
    assert [r.mended for r in repair(ours, theirs, verify(ours))] == [0] * len(list(verify(ours)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_a_damaged_index_is_written_again(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup, how: str
) -> None:
    data = os.urandom(30 * CHUNK) + bytes(20 * CHUNK) + os.urandom(5 * CHUNK + 3)
    point = backup(ours, data)
    copied(ours, theirs)
    name = point.images[0].index
    if how == "flipped":
        flip(store, name, 200)
    elif how == "truncated":
        store.objects[name] = store.objects[name][:-40]
    else:
        store.delete(name)
    (damage,) = verify(ours)
    before = len(packs(store))
    (done,) = repair(ours, theirs, [damage])
    assert (done.mended, done.why) == (len(data), "")
    assert len(packs(store)) == before  # the chunks were here
    assert list(verify(ours)) == []
    with ours.open_image(point, "vda") as image:
        out = bytearray(len(data))
        image.read_into(0, memoryview(out))
    assert out == data


def test_a_new_index_under_an_old_name_repeats_no_nonce(
    store: MemoryStore, theirs: Repository, backup: Backup, tmp_path: Path
) -> None:
    with repositories.create(store, chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "sealed") as ours:
        point = backup(ours, os.urandom(50 * CHUNK))
        copied(ours, theirs)
        name = point.images[0].index
        old = store.objects[name]
        flip(store, name, len(old) - 1)
        (done,) = repair(ours, theirs, verify(ours))
        assert done.why == ""
        new = store.objects[name]
        # One key and one nonce would give equal ciphertext for what is equal in both: all ids.
        same = sum(a == b for a, b in zip(old[80:], new[80:], strict=False))
        assert same < len(old) / 50


def test_an_index_and_the_chunks_behind_it_are_mended_together(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(30 * CHUNK)
    point = backup(ours, data)
    copied(ours, theirs)
    store.delete(point.images[0].index)
    store.delete(packs(store)[0])
    assert [r.why for r in repair(ours, theirs, verify(ours))] == [""]
    assert list(verify(ours)) == []
    assert restore(ours, point) == data


def test_an_index_is_not_written_from_another_disk(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup
) -> None:
    data = os.urandom(20 * CHUNK)
    point = backup(ours, data)
    with theirs.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(os.urandom(len(data))))
        image = writer.seal()
    theirs.seal(replace(point, images=(image,)))
    flip(store, point.images[0].index, 300)
    (done,) = repair(ours, theirs, verify(ours))
    assert (done.mended, done.why) == (0, "the copy's disk is not the one that the restore point holds")
    assert [d.object for d in verify(ours)] == [point.images[0].index]


def test_a_manifest_is_not_taken_from_a_copy(
    store: MemoryStore, ours: Repository, theirs: Repository, backup: Backup
) -> None:
    backup(ours, os.urandom(CHUNK))
    copied(ours, theirs)
    flip(store, next(store.list("points/")))
    (done,) = repair(ours, theirs, verify(ours))
    assert done.mended == 0
    assert "signed" in done.why


def test_a_repository_is_no_copy_of_itself(ours: Repository) -> None:
    with pytest.raises(ConfigurationError):
        next(repair(ours, ours, []))


@pytest.mark.slow
def test_a_repair_that_fails_at_any_call_loses_nothing_and_can_be_repeated(
    theirs: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(40 * CHUNK)
    call, done = 0, False
    while not done:
        store = MemoryStore()
        with repositories.create(
            store, chunk_size=CHUNK, pack_size=64 * 1024, secret=SECRET, cache=tmp_path / f"{call}"
        ) as ours:
            point = backup(ours, data, machine=f"m{call}")
            copied(ours, theirs)
            store.delete(packs(store)[0])
            flip(store, point.images[0].index, 200)
            found = list(verify(ours))
            store.fail_at(call)
            try:
                list(repair(ours, theirs, found))
                done = True
            except RepositoryFull:
                pass
            store.fail_at(None)
            assert all(r.why == "" for r in repair(ours, theirs, verify(ours)))
            assert list(verify(ours)) == []
            assert restore(ours, point) == data
        call += 1
    assert call > 3  # lease, pack, index


def test_the_next_backup_of_the_live_machine_mends_sealed_chunks_and_a_verification_says_so(
    store: MemoryStore, ours: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(40 * CHUNK)
    old = backup(ours, data)
    flip(store, packs(store)[0])
    store.delete(packs(store)[1])
    assert list(verify(ours))
    assert health(ours, old) is Health.DAMAGED
    with pytest.raises(ChangesUnknown):
        ours.image_writer("vda", len(data), old.images[0])
    new = backup(ours, data)
    assert new.images[0].bytes_new > 0
    assert health(ours, old) is Health.DAMAGED  # until somebody looks
    assert list(verify(ours)) == []
    assert {health(ours, old), health(ours, new)} == {Health.GOOD}
    assert restore(ours, old) == data
