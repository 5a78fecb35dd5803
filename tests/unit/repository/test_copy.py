"""Copies hold the same bytes under other keys; only what changed is read; whatever fails leaves whole points or none."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import Cancelled, ConfigurationError, IntegrityError, RepositoryFull
from proxy.extents import Extent, Kind
from proxy.model import ReasonCode, RestorePoint
from proxy.ports import ObjectStore
from proxy.repository import MemoryStore, PosixStore, Repository
from proxy.repository.copy import (
    Copied,
    CopyProgress,
    Outcome,
    Selection,
    changed_extents,
    copy_points,
    identities,
)
from tests.unit.repository.damage import flip

pytestmark = pytest.mark.slow

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
OTHER = repositories.KeyFile(bytes(range(1, 33)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


def changed(data: bytes, *chunks: int) -> bytes:
    """The disk with some chunks of 4 KiB rewritten."""
    disk = bytearray(data)
    for chunk in chunks:
        disk[chunk * CHUNK : (chunk + 1) * CHUNK] = random.Random(chunk).randbytes(CHUNK)[: len(disk) - chunk * CHUNK]
    return bytes(disk)


def outcomes(results: Iterator[Copied]) -> list[tuple[str, Outcome]]:
    return [(each.point, each.outcome) for each in results]


@pytest.fixture(params=["memory", "posix"])
def other_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    (tmp_path / "other").mkdir()
    return PosixStore(tmp_path / "other")


@pytest.fixture(params=[CHUNK, 4 * CHUNK])
def target(request: pytest.FixtureRequest, other_store: ObjectStore, tmp_path: Path) -> Iterator[Repository]:
    with repositories.create(
        other_store, chunk_size=request.param, pack_size=64 * 1024, cache=tmp_path / "cache2", secret=OTHER
    ) as made:
        yield made


@pytest.fixture
def plain_target(tmp_path: Path) -> Iterator[Repository]:
    """A target of the source's chunk size, in memory."""
    with repositories.create(
        MemoryStore(), chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache3", secret=OTHER
    ) as made:
        yield made


@pytest.mark.slow
def test_a_copy_is_the_same_point_with_the_same_bytes_and_tells_where_it_came_from(
    repository: Repository, target: Repository, backup: Backup, restore: Restore
) -> None:
    first = os.urandom(30 * CHUNK) + bytes(40 * CHUNK) + b"the end"
    second = changed(first, 3, 50)
    points = [backup(repository, first), backup(repository, second)]
    results = list(copy_points(repository, target, read_back=True))
    assert [(r.point, r.outcome) for r in results] == [(p.id, Outcome.COPIED) for p in points]
    copies = target.points()
    assert [restore(target, each) for each in copies] == [first, second]
    for original, made in zip(points, copies, strict=True):
        kept = (
            "id",
            "machine",
            "machine_name",
            "run",
            "created_at",
            "reasons",
            "configuration",
            "level",
            "consistency",
        )
        assert all(getattr(original, field) == getattr(made, field) for field in kept if field != "reasons")
        assert made.reasons[:-1] == original.reasons
        assert made.reasons[-1].code is ReasonCode.COPIED
        assert repository.settings.id.hex() in made.reasons[-1].detail
        assert made.images[0].digest != original.images[0].digest  # keyed by another key
        assert identities(repository, original.images[0]) <= identities(target, made.images[0])
    assert list(repositories.verify(target)) == []


@pytest.mark.slow
def test_an_incremental_copy_reads_only_the_chunks_that_changed(
    repository: Repository, target: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(400 * CHUNK)
    backup(repository, data)
    list(copy_points(repository, target))
    data = changed(data, 5, 77, 78, 300)
    backup(repository, data)
    results = list(copy_points(repository, target))
    assert [r.outcome for r in results] == [Outcome.PRESENT, Outcome.COPIED]
    # 3 areas; a larger chunk of the target has to be read whole.
    whole = max(CHUNK, target.granularity) // CHUNK
    assert results[1].bytes_read == (4 if whole == 1 else 3 * whole) * CHUNK
    assert results[1].bytes_new == results[1].bytes_read
    assert restore(target, target.points()[-1]) == data


@pytest.mark.slow
def test_chunks_that_became_zero_are_zero_in_the_copy(
    repository: Repository, target: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(300 * CHUNK + 100)
    backup(repository, data)
    data = data[: 7 * CHUNK] + bytes(250 * CHUNK) + data[257 * CHUNK :]
    backup(repository, data)
    results = list(copy_points(repository, target, read_back=True))
    assert results[1].bytes_read <= 8 * CHUNK
    assert restore(target, target.points()[-1]) == data


@pytest.mark.slow
def test_points_with_several_disks_and_resized_disks_are_copied(
    repository: Repository, target: Repository, backup: Backup, restore: Restore
) -> None:
    small, large = os.urandom(9 * CHUNK), os.urandom(9 * CHUNK + 17)
    point = backup(repository, small)
    with repository.image_writer("vdb", len(large), None) as writer:
        writer.write(0, memoryview(large))
        second = replace(writer.seal(), key="vdb")
    both = repository.seal(replace(point, id="", run="two", images=(*point.images, second)))
    grown = backup(repository, small + large)
    assert {r.outcome for r in copy_points(repository, target)} == {Outcome.COPIED}
    assert restore(target, target.point(grown.id)) == small + large
    with target.open_image(target.point(both.id), "vdb") as image:
        out = bytearray(image.size)
        image.read_into(0, memoryview(out))
        assert out == large


def test_a_copy_can_be_copied_back_on_top_of_what_is_there(
    repository: Repository, plain_target: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(100 * CHUNK)
    old = backup(repository, data)
    new = backup(repository, changed(data, 4))
    list(copy_points(repository, plain_target))
    backup(repository, changed(data, 60))
    repository.delete(new.id)
    with repositories.create(MemoryStore(), chunk_size=CHUNK, cache=tmp_path / "c4", secret=None) as third:
        list(copy_points(repository, third, Selection(points=(old.id,))))
        (result,) = copy_points(plain_target, third, Selection(points=(new.id,)))
        assert result.bytes_read == CHUNK  # both are copies of one image of the first repository
        assert restore(third, third.point(new.id)) == changed(data, 4)


def test_a_point_that_was_deleted_in_the_target_is_not_brought_back(
    repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    points = [backup(repository, os.urandom(3 * CHUNK)) for _ in range(3)]
    list(copy_points(repository, plain_target))
    plain_target.delete(points[1].id)
    found = [outcome for _, outcome in outcomes(copy_points(repository, plain_target))]
    assert found == [Outcome.PRESENT, Outcome.BURIED, Outcome.PRESENT]


def test_an_unrelated_point_of_the_same_machine_in_the_target_is_not_built_upon(
    repository: Repository, plain_target: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(20 * CHUNK)
    mine = backup(repository, data)
    theirs = backup(plain_target, os.urandom(20 * CHUNK))
    # The same id in both, with other bytes: as if a run had been sealed twice, into two repositories.
    plain_target.seal(replace(theirs, id=mine.id, created_at=mine.created_at, run=mine.run))
    latest = backup(repository, changed(data, 3))
    results = list(copy_points(repository, plain_target))
    assert [r.outcome for r in results] == [Outcome.PRESENT, Outcome.COPIED]
    assert restore(plain_target, plain_target.point(latest.id)) == changed(data, 3)


@pytest.mark.slow
def test_a_copy_that_fails_at_any_call_leaves_whole_points_and_can_be_gone_on_with(
    repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    first = os.urandom(40 * CHUNK)
    second = changed(first, *range(0, 40, 2))
    points = [backup(repository, first), backup(repository, second)]
    call, done = 0, False
    while not done:
        store = MemoryStore()
        with repositories.create(
            store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / f"c{call}", secret=OTHER
        ) as target:
            store.fail_at(call)
            with suppress(RepositoryFull):
                done = all(r.outcome is Outcome.COPIED for r in copy_points(repository, target))
            store.fail_at(None)
            there = list(target.points())
            assert [p.id for p in there] == [p.id for p in points[: len(there)]]
            assert [restore(target, p) for p in there] == [first, second][: len(there)]
            assert list(repositories.verify(target)) == []
        with repositories.open(store, secret=OTHER) as again:
            assert {r.outcome for r in copy_points(repository, again)} <= {Outcome.COPIED, Outcome.PRESENT}
            assert [restore(again, p) for p in again.points()] == [first, second]
        call += 1
    assert call > 8


def test_a_full_target_ends_the_copy_and_keeps_what_was_copied(
    repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = os.urandom(20 * CHUNK)
    backup(repository, data)
    backup(repository, os.urandom(80 * CHUNK))
    store = MemoryStore(capacity=600_000)
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "c", secret=OTHER
    ) as target:
        with pytest.raises(RepositoryFull):
            list(copy_points(repository, target))
        (only,) = target.points()
        assert restore(target, only) == data


def test_a_damaged_point_is_named_and_the_rest_is_copied(
    store: MemoryStore, repository: Repository, plain_target: Repository, backup: Backup, restore: Restore
) -> None:
    good = backup(repository, os.urandom(4 * CHUNK))
    data = os.urandom(4 * CHUNK)
    bad = backup(repository, data)
    last = backup(repository, os.urandom(4 * CHUNK))
    for name in store.list("packs/"):
        at = store.objects[name].find(data[CHUNK : CHUNK + 64])
        if at >= 0:
            store.objects[name] = store.objects[name][:at] + bytes(64) + store.objects[name][at + 64 :]
    results = {r.point: r for r in copy_points(repository, plain_target)}
    assert results[bad.id].outcome is Outcome.FAILED
    assert f"restore point {bad.id}, disk vda, offset {CHUNK}" in results[bad.id].why
    assert [p.id for p in plain_target.points()] == [good.id, last.id]


def test_damage_in_chunks_that_did_not_change_does_not_keep_a_point_from_being_copied(
    store: MemoryStore, repository: Repository, plain_target: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(10 * CHUNK)
    old = backup(repository, data)
    list(copy_points(repository, plain_target))
    new = backup(repository, changed(data, 9), parent=old.images[0])
    for name in store.list("packs/"):
        at = store.objects[name].find(data[CHUNK : CHUNK + 64])
        if at >= 0:
            store.objects[name] = store.objects[name][:at] + bytes(64) + store.objects[name][at + 64 :]
    with pytest.raises(IntegrityError):
        restore(repository, new)
    assert [r.outcome for r in copy_points(repository, plain_target)] == [Outcome.PRESENT, Outcome.COPIED]
    assert restore(plain_target, plain_target.point(new.id)) == changed(data, 9)


def test_damaged_manifests_and_indexes_of_the_source_are_named(
    store: MemoryStore, repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    points = [backup(repository, os.urandom(2 * CHUNK)) for _ in range(3)]
    manifest = next(name for name in store.list("points/") if name.endswith(points[0].id))
    flip(store, manifest, -1)
    del store.objects[points[1].images[0].index]
    results = {r.point: r for r in copy_points(repository, plain_target)}
    assert {p: r.outcome for p, r in results.items()} == {
        points[0].id: Outcome.FAILED,
        points[1].id: Outcome.FAILED,
        points[2].id: Outcome.COPIED,
    }
    assert manifest in results[points[0].id].why
    assert points[1].images[0].index in results[points[1].id].why


def test_a_damaged_copy_in_the_target_is_not_built_upon_and_the_next_copy_is_whole(
    repository: Repository, plain_target: Repository, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(10 * CHUNK)
    backup(repository, data)
    list(copy_points(repository, plain_target))
    objects = plain_target.store.objects  # type: ignore[attr-defined]  # a memory store's
    for name in [name for name in objects if name.startswith("packs/")]:
        del objects[name]
    new = backup(repository, changed(data, 9))
    results = list(copy_points(repository, plain_target))
    assert [r.outcome for r in results] == [Outcome.PRESENT, Outcome.COPIED]
    assert results[1].bytes_read == len(data)
    assert restore(plain_target, plain_target.point(new.id)) == changed(data, 9)
    # Most of what the older point needs came again, and is found by its id.
    assert [(d.offset, d.length) for d in repositories.verify(plain_target)] == [(9 * CHUNK, CHUNK)]


def test_reading_back_finds_what_the_target_did_not_keep(
    repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    class Forgetful(MemoryStore):
        """Loses bytes of packs while it says that they are durable."""

        def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
            kept = bytes(data)
            super().put(name, kept[:2000] + bytes(500) + kept[2500:] if name.startswith("packs/") else kept, new=new)

    point = backup(repository, os.urandom(4 * CHUNK))
    with repositories.create(Forgetful(), chunk_size=CHUNK, cache=tmp_path / "c", secret=OTHER) as target:
        (result,) = copy_points(repository, target, read_back=True)
        assert (result.point, result.outcome) == (point.id, Outcome.FAILED)
        assert target.points() == []


def test_a_full_or_read_only_source_can_be_copied_from(
    store: MemoryStore, repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    backup(repository, os.urandom(4 * CHUNK))
    store.fail_at(0)
    assert [r.outcome for r in copy_points(repository, plain_target)] == [Outcome.COPIED]


def test_the_source_is_leased_while_a_point_is_read(
    repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    backup(repository, os.urandom(4 * CHUNK))
    seen: list[int] = []
    list(
        copy_points(
            repository,
            plain_target,
            progress=lambda _: seen.append(len(repository.leases.living())),
        )
    )
    assert seen
    assert set(seen) == {1}
    assert list(repository.leases.living()) == []


def test_progress_names_point_machine_and_disk(
    repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    points = [backup(repository, os.urandom(4 * CHUNK)) for _ in range(2)]
    seen: list[CopyProgress] = []
    list(copy_points(repository, plain_target, progress=seen.append))
    assert {(s.point, s.number, s.count, s.machine_name, s.disk.disk) for s in seen} == {
        (points[0].id, 1, 2, "name of m1", "vda"),
        (points[1].id, 2, 2, "name of m1", "vda"),
    }
    assert seen[-1].disk.done == seen[-1].disk.total == 4 * CHUNK


def test_a_cancelled_copy_leaves_nothing_visible(
    repository: Repository, plain_target: Repository, backup: Backup
) -> None:
    backup(repository, os.urandom(4 * CHUNK))
    with pytest.raises(Cancelled):
        list(copy_points(repository, plain_target, cancelled=lambda: True))
    assert plain_target.points() == []


def test_a_repository_is_not_copied_into_itself(store: MemoryStore, repository: Repository) -> None:
    with repositories.open(store, secret=None) as same, pytest.raises(ConfigurationError):
        list(copy_points(repository, same))


@pytest.mark.slow
def test_differences_between_two_indexes_are_found_to_the_chunk(repository: Repository, backup: Backup) -> None:
    size = 2 * 4096 + 5  # chunks: more than two segments, the last one short
    data = bytearray(size * CHUNK - 100)
    data[: 3 * CHUNK] = os.urandom(3 * CHUNK)
    old = backup(repository, bytes(data))
    data[CHUNK : 2 * CHUNK] = bytes(CHUNK)
    data[2 * CHUNK : 3 * CHUNK] = os.urandom(CHUNK)
    data[4096 * CHUNK : 4098 * CHUNK] = os.urandom(2 * CHUNK)
    data[-10:] = os.urandom(10)
    new = backup(repository, bytes(data))
    with (
        closing(repository.open_view("old", old.images[0])) as before,
        closing(repository.open_view("new", new.images[0])) as after,
    ):
        found = changed_extents(before, after, CHUNK)
    assert found == [
        Extent(CHUNK, CHUNK, Kind.ZERO),
        Extent(2 * CHUNK, CHUNK),
        Extent(4096 * CHUNK, 2 * CHUNK),
        Extent((size - 1) * CHUNK, CHUNK - 100),
    ]
