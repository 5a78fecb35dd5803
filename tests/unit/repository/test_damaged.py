"""Damage heals: bad places are recorded, not deduplicated against, and older points find what was stored anew."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import ChangesUnknown, IntegrityError, LanfreeError, RepositoryFull
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, damaged, verify
from proxy.repository import format as layout
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.packs import Place

pytestmark = pytest.mark.slow

CHUNK = 4096
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]
PACK, OTHER = b"p" * 16, b"o" * 16


def spoil(store: MemoryStore, content: bytes) -> str:
    """Flip a bit of a chunk that is stored as it is; the pack's name."""
    name = next(n for n in store.list("packs/") if content in store.objects[n])
    store.objects[name] = store.objects[name].replace(content, bytes([content[0] ^ 1]) + content[1:])
    return name


def marks(store: MemoryStore) -> list[str]:
    return list(store.list("damaged/"))


def opened(store: MemoryStore, directory: Path) -> Repository:
    """As another process would open it, with a cache of its own."""
    return repositories.open(store, cache=directory, secret=None)


def test_a_chunk_that_verify_found_damaged_is_stored_anew_and_all_points_heal(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(40 * CHUNK)
    old = backup(repository, data)
    backup(repository, os.urandom(CHUNK) + data[CHUNK:], machine="m2")
    pack = spoil(store, data[7 * CHUNK : 8 * CHUNK])
    assert {d.machine for d in verify(repository)} == {"m1", "m2"}
    (mark,) = marks(store)
    assert mark.startswith(f"damaged/{pack.rpartition('/')[2]}/")
    healed = backup(repository, data)
    assert healed.images[0].bytes_new == CHUNK
    assert restore(repository, healed) == data
    assert restore(repository, old) == data
    assert list(verify(repository)) == []
    assert marks(store) == [mark]  # nobody may refer to the place again


def test_another_process_does_not_deduplicate_against_damage_that_this_one_found(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(4 * CHUNK)
    old = backup(repository, data)
    with opened(store, tmp_path / "other") as other:
        assert other.image_writer("vda", len(data), old.images[0]).size == len(data)  # its lookup knows the chunks
        spoil(store, data[:CHUNK])
        assert len(list(verify(repository))) == 1
        with pytest.raises(ChangesUnknown) as raised:
            other.image_writer("vda", len(data), old.images[0])
        assert raised.value.reason == "parent-damaged"
        healed = backup(other, data)
        assert healed.images[0].bytes_new == CHUNK
    with opened(store, tmp_path / "other") as again:
        assert restore(again, healed) == data
        assert again.image_writer("vda", len(data), healed.images[0]).size == len(data)
        assert backup(again, data).images[0].bytes_new == 0
    with opened(store, tmp_path / "third") as third:
        assert restore(third, old) == data


def test_a_reader_that_meets_damage_records_it(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(4 * CHUNK)
    old = backup(repository, data)
    spoil(store, data[CHUNK : 2 * CHUNK])
    with pytest.raises(IntegrityError, match=rf"disk vda, offset {CHUNK}: .*do not fit their id"):
        restore(repository, old)
    assert len(marks(store)) == 1
    assert backup(repository, data).images[0].bytes_new == CHUNK
    assert restore(repository, old) == data


def test_a_reader_records_damage_in_a_pack_that_the_lookup_cannot_know(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(2 * CHUNK)
    old = backup(repository, data)
    name = spoil(store, data[CHUNK:])
    store.objects[name] = store.objects[name][:-1]
    with opened(store, tmp_path / "other") as other, pytest.raises(IntegrityError):
        restore(other, old)
    assert marks(store) == [f"damaged/{name.rpartition('/')[2]}/{layout.HEADER.size + CHUNK:08x}"]


def test_what_no_machine_has_any_more_is_still_reported(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    lost, kept = os.urandom(CHUNK), os.urandom(CHUNK)
    old = backup(repository, lost + kept)
    spoil(store, lost)
    spoil(store, kept)
    assert len(list(verify(repository))) == 1  # two neighbours, told together
    new = backup(repository, os.urandom(CHUNK) + kept)
    (damage,) = verify(repository)
    assert (damage.point, damage.offset, damage.length) == (old.id, 0, CHUNK)
    assert restore(repository, new)[CHUNK:] == kept
    with pytest.raises(IntegrityError):
        restore(repository, old)


def test_a_pack_whose_footer_is_damaged_is_not_deduplicated_against(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(4 * CHUNK)
    old = backup(repository, data)
    (name,) = store.list("packs/")
    store.objects[name] = store.objects[name][:-1]
    assert list(verify(repository))
    assert marks(store) == [f"damaged/{name.rpartition('/')[2]}/whole"]
    with pytest.raises(ChangesUnknown):
        repository.image_writer("vda", len(data), old.images[0])
    assert backup(repository, data).images[0].bytes_new == len(data)
    assert list(verify(repository)) == []
    with opened(store, tmp_path / "other") as other:
        store.objects[name] = b""
        assert restore(other, old) == data


def test_many_damaged_chunks_make_one_record(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damaged, "MARKS_A_PACK", 2)
    data = os.urandom(4 * CHUNK)
    old = backup(repository, data)
    for n in (0, 1, 3):
        spoil(store, data[n * CHUNK : (n + 1) * CHUNK])
    assert [(d.offset, d.length) for d in verify(repository)] == [(0, 2 * CHUNK), (3 * CHUNK, CHUNK)]
    (mark,) = marks(store)
    assert mark.endswith("/whole")
    backup(repository, data)
    assert restore(repository, old) == data


def test_a_pack_that_is_right_again_is_used_again(
    store: MemoryStore, repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    data = os.urandom(2 * CHUNK)
    backup(repository, data)
    (name,) = store.list("packs/")
    good = store.objects[name]
    spoil(store, data[:CHUNK])
    with opened(store, tmp_path / "other") as other:
        assert len(list(verify(other))) == 1
    store.objects[name] = good  # from a copy of the store
    assert list(verify(repository)) == []
    assert marks(store) == []
    assert backup(repository, data).images[0].bytes_new == 0


def test_a_missing_pack_heals_without_a_record(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(4 * CHUNK)
    old = backup(repository, data)
    store.delete(next(store.list("packs/")))
    assert list(verify(repository))
    backup(repository, data)
    assert list(verify(repository)) == []
    assert restore(repository, old) == data
    assert marks(store) == []


def test_both_copies_damaged_is_damage(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(CHUNK)
    old = backup(repository, data)
    spoil(store, data)
    assert list(verify(repository))
    new = backup(repository, data)
    spoil(store, data)
    assert {d.point for d in verify(repository)} == {old.id, new.id}
    assert len(marks(store)) == 2
    assert backup(repository, data).images[0].bytes_new == CHUNK
    assert restore(repository, old) == restore(repository, new) == data


def test_a_place_that_was_called_bad_wrongly_still_serves_readers(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(2 * CHUNK)
    old = backup(repository, data)
    (name,) = store.list("packs/")
    repository.lookup.damaged.add(bytes.fromhex(name.rpartition("/")[2]), None, "a wrong suspicion")
    new = backup(repository, data)
    assert new.images[0].bytes_new == len(data)
    store.delete(next(n for n in store.list("packs/") if n != name))
    assert restore(repository, new) == restore(repository, old) == data


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_after_any_damage_one_backup_of_all_machines_leaves_nothing_lost_that_they_still_have(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, seed: int
) -> None:
    chooser = random.Random(seed)
    contents = [chooser.randbytes(CHUNK) if n % 2 else bytes([n]) * CHUNK for n in range(30)]
    disks = [b"".join(chooser.choices(contents, k=20)) for _ in range(3)]
    points = [(backup(repository, disk, machine=f"m{n}"), disk) for n, disk in enumerate(disks)]
    gone = set(contents).difference(
        *({disk[at : at + CHUNK] for at in range(0, len(disk), CHUNK)} for disk in disks[:2])
    )
    for _ in range(4):
        name = chooser.choice(list(store.list("packs/")))
        data = bytearray(store.objects[name])
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        store.objects[name] = bytes(data)
    assert list(verify(repository))
    points += [(backup(repository, disk, machine=f"m{n}"), disk) for n, disk in enumerate(disks[:2])]  # m2 was deleted
    for damage in verify(repository):
        disk = next(disk for point, disk in points if point.id == damage.point)
        assert damage.offset is not None
        assert damage.length is not None
        ends = range(damage.offset, damage.offset + damage.length, CHUNK)
        assert {disk[at : at + CHUNK] for at in ends} <= gone
    assert [restore(repository, point) == disk for point, disk in points if point.machine != "m2"] == [True] * 4


def test_a_full_store_does_not_keep_this_process_from_knowing(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(CHUNK)
    old = backup(repository, data)
    spoil(store, data)
    store.fail_at(0, RepositoryFull("memory"))
    assert len(list(verify(repository))) == 1
    store.fail_at(None)
    assert marks(store) == []
    assert backup(repository, data).images[0].bytes_new == CHUNK
    assert restore(repository, old) == data


def test_records_of_several_processes_add_up(store: MemoryStore) -> None:
    one, other = DamagedPlaces(store), DamagedPlaces(store)
    one.add(PACK, 64, "seen by one")
    other.add(PACK, 64, "seen by the other")
    other.add(PACK, 4160, "seen by the other")
    assert Place(PACK, 4160, 0) not in one
    one.refresh()
    assert Place(PACK, 4160, 0) in one
    assert Place(PACK, 65, 0) not in one
    assert Place(OTHER, 64, 0) not in one
    assert store.objects[f"damaged/{PACK.hex()}/00000040"] == b"seen by one"
    one.add(OTHER, None, "all of it")
    assert Place(OTHER, 12345, 0) in one
    one.forget(PACK)
    other.refresh()
    assert (other.offsets(), other.packs()) == ({}, {OTHER})


def test_names_that_a_later_version_put_there_are_left_alone(store: MemoryStore) -> None:
    store.put(f"damaged/{PACK.hex()}/later", b"")
    store.put("damaged/index/00000040", b"")
    places = DamagedPlaces(store)
    places.refresh()
    assert (places.offsets(), places.packs()) == ({}, set())
    places.forget(OTHER)
    assert len(marks(store)) == 2


def test_the_records_of_a_damaged_pack_stay_few() -> None:
    assert damaged.MARKS_A_PACK < layout.MAX_PACK_ENTRIES


def test_a_damaged_manifest_keeps_unreferenced_objects_from_being_reported(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    backup(repository, os.urandom(CHUNK))
    bad = backup(repository, os.urandom(CHUNK), machine="m2")
    name = next(n for n in store.list("points/") if n.endswith(bad.id))
    store.objects[name] = store.objects[name][:-3]
    with pytest.raises(LanfreeError, match=name):
        repositories.unreferenced(repository)
    figures = repositories.statistics(repository)
    assert (figures.machines, figures.points, figures.damaged_points) == (1, 1, 1)
