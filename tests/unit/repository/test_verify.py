"""Verification finds every flipped byte of every kind of object and names who is concerned; restores refuse."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import IntegrityError, LanfreeError
from proxy.model import RestorePoint
from proxy.repository import Damage, MemoryStore, Repository, VerifyProgress, verify
from tests.unit.repository.damage import flip, flipped

CHUNK = 4096
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


def only(store: MemoryStore, prefix: str) -> str:
    (name,) = store.list(prefix)
    return name


@pytest.mark.slow
def test_every_flipped_byte_of_a_pack_is_found(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    point = backup(repository, b"compressible " * 1000 + os.urandom(20))
    name = only(store, "packs/")
    good = store.objects[name]
    for place in range(len(good)):
        flip(store, name, place, 1 << place % 8)
        found = list(verify(repository))
        assert found, place
        assert {(d.machine, d.machine_name, d.point, d.disk, d.object) for d in found} == {
            ("m1", "name of m1", point.id, "vda", name)
        }
        assert all(d.offset is not None and d.offset < 13200 for d in found)
        store.objects[name] = good
    assert list(verify(repository)) == []


def test_a_flipped_byte_of_a_chunk_is_named_with_its_offset_and_restores_refuse(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(10 * CHUNK)
    point = backup(repository, data)
    name = only(store, "packs/")
    flip(store, name, store.objects[name].index(data[7 * CHUNK : 7 * CHUNK + 50]) + 20)
    (damage,) = verify(repository)
    assert (damage.point, damage.disk, damage.offset, damage.length) == (point.id, "vda", 7 * CHUNK, CHUNK)
    assert damage.object == name
    with pytest.raises(
        IntegrityError, match=rf"name of m1 \(m1\), restore point {point.id}, disk vda, offset {7 * CHUNK}"
    ):
        restore(repository, point)
    with repository.open_image(point, "vda") as image:
        out = bytearray(7 * CHUNK)
        image.read_into(0, memoryview(out))
        assert out == data[: 7 * CHUNK]


@pytest.mark.slow
def test_flipped_bytes_of_an_index_are_found_and_restores_refuse(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    backup(repository, os.urandom(50 * CHUNK))
    point = backup(repository, os.urandom(50 * CHUNK), machine="m2")
    name = point.images[0].index
    size = len(store.objects[name])
    places = {*range(100), *range(size - 60, size), *(random.Random(5).randrange(size) for _ in range(60))}
    good = store.objects[name]
    for place in sorted(places):
        flip(store, name, place)
        (damage,) = verify(repository)
        assert (damage.machine, damage.point, damage.disk, damage.object) == ("m2", point.id, "vda", name)
        with pytest.raises(LanfreeError):
            restore(repository, point)
        store.objects[name] = good


@pytest.mark.slow
def test_flipped_bytes_of_a_manifest_are_found_and_named(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    data = os.urandom(CHUNK)
    first = backup(repository, data)
    backup(repository, data)
    name = next(n for n in store.list("points/") if n.endswith(first.id))
    good = store.objects[name]
    for place in range(0, len(good), 13):
        flip(store, name, place, 1)
        (damage,) = verify(repository)
        assert (damage.machine, damage.machine_name, damage.point) == ("m1", "name of m1", first.id)
        assert (damage.disk, damage.offset, damage.object) == (None, None, name)
        assert [(p.object, p.object in p.why) for p in repository.damaged_points("m1")] == [(name, False)]
        store.objects[name] = good


def test_a_manifest_under_another_points_name_is_found(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    old, new = (next(n for n in store.list("points/") if n.endswith(p.id)) for p in (first, second))
    store.objects[new] = store.objects[old]
    (damage,) = verify(repository)
    assert damage.point == second.id
    assert "another object's name" in damage.why


@pytest.mark.parametrize("prefix", ["packs/", "indexes/", "points/"])
def test_every_truncated_object_is_found(
    store: MemoryStore, repository: Repository, backup: Backup, prefix: str
) -> None:
    point = backup(repository, os.urandom(5 * CHUNK))
    name = only(store, prefix)
    good = store.objects[name]
    for length in (0, 1, 10, 100, len(good) // 2, len(good) - 81, len(good) - 1):
        store.objects[name] = good[:length]
        found = list(verify(repository))
        assert found, length
        assert {d.point for d in found} == {point.id}
        assert {d.object for d in found} == {name}
    store.objects[name] = good + b"more"
    assert list(verify(repository))


def test_a_missing_pack_is_named_for_every_disk_that_needs_it(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    data = os.urandom(4 * CHUNK)
    first = backup(repository, data)
    name = only(store, "packs/")
    second = backup(repository, os.urandom(2 * CHUNK) + data, machine="m2")
    store.delete(name)
    found = list(verify(repository))
    assert {(d.machine, d.point, d.offset, d.length) for d in found} == {
        ("m1", first.id, 0, 4 * CHUNK),
        ("m2", second.id, 2 * CHUNK, 4 * CHUNK),
    }
    assert all(d.object == name and "missing" in d.why for d in found)


def test_a_missing_index_is_found(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    point = backup(repository, os.urandom(CHUNK))
    store.delete(point.images[0].index)
    (damage,) = verify(repository)
    assert (damage.point, damage.disk, damage.object) == (point.id, "vda", point.images[0].index)
    assert "missing" in damage.why


def test_an_index_of_another_image_is_found(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    one, other = backup(repository, os.urandom(CHUNK)), backup(repository, os.urandom(CHUNK))
    store.objects[one.images[0].index] = store.objects[other.images[0].index]
    (damage,) = verify(repository)
    assert damage.point == one.id


def test_one_point_can_be_verified_alone(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    good = backup(repository, os.urandom(CHUNK))
    bad = backup(repository, os.urandom(CHUNK), machine="m2")
    store.delete(bad.images[0].index)
    assert list(verify(repository, good.id)) == []
    assert [d.point for d in verify(repository, bad.id)] == [bad.id]


def test_verification_tells_its_progress(repository: Repository, backup: Backup) -> None:
    backup(repository, os.urandom(100 * CHUNK))
    told: list[VerifyProgress] = []
    assert list(verify(repository, progress=told.append)) == []
    assert len(told) > 3
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == told[-1].total > 100 * CHUNK


def test_a_point_that_is_deleted_meanwhile_is_no_damage(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    old = backup(repository, os.urandom(CHUNK))
    backup(repository, os.urandom(CHUNK))

    def delete(_: VerifyProgress) -> None:
        if any(p.id == old.id for p in repository.points()):
            repository.delete(old.id)

    assert list(verify(repository, progress=delete)) == []
    assert len(repository.points()) == 1


def test_damage_is_found_in_a_repository_on_disk_too(tmp_path: Path, backup: Backup) -> None:
    root = tmp_path / "store"
    root.mkdir()
    with repositories.create(repositories.PosixStore(root), chunk_size=CHUNK, secret=None) as repository:
        point = backup(repository, os.urandom(3 * CHUNK))
        (pack,) = (root / "packs").glob("*/*")
        pack.write_bytes(flipped(pack.read_bytes(), 100))
        found = list(verify(repository))
    assert found == [
        Damage(
            "m1", "name of m1", point.id, "vda", 0, CHUNK, str(pack.relative_to(root)),
            "chunk: the stored bytes changed: they do not fit their id",
        )
    ]  # fmt: skip
    assert replace(found[0], offset=1) != found[0]


@pytest.mark.slow
def test_every_flipped_byte_is_found_without_depth_too(tmp_path: Path, backup: Backup) -> None:
    store = MemoryStore()
    secret = repositories.KeyFile(bytes(range(32)))
    with repositories.create(store, chunk_size=CHUNK, secret=secret, cache=tmp_path / "sealed") as sealed:
        backup(sealed, b"compressible " * 400 + os.urandom(20))
        name = only(store, "packs/")
        good = store.objects[name]
        for place in range(len(good)):
            flip(store, name, place)
            assert list(verify(sealed, deep=False)), place
            store.objects[name] = good
        assert list(verify(sealed, deep=False)) == []


@pytest.mark.slow
def test_every_flipped_byte_in_the_clear_is_found_without_depth_too(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    point = backup(repository, b"compressible " * 400 + os.urandom(20))
    name = only(store, "packs/")
    good = store.objects[name]
    for place in range(len(good)):
        flip(store, name, place)
        found = list(verify(repository, deep=False))
        assert {d.point for d in found} == {point.id}, place
        store.objects[name] = good
    assert list(verify(repository, deep=False)) == []
