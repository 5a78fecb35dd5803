"""Collection: what nobody needs goes, in two calls, and nothing else; each call may fail at any step."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import (
    ChangesUnknown,
    CollectorBusy,
    FormatError,
    IntegrityError,
    LeaseLost,
    RepositoryFull,
    RepositoryUnavailable,
)
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, PosixStore, Repository, Secret, parallel, runs
from proxy.repository import format as layout
from proxy.repository.checking.audit import audit, heads
from proxy.repository.collection.collect import GRACE, YOUNG, collect
from proxy.repository.collection.sweep import SETTLE
from proxy.repository.leases import EXPIRY
from proxy.repository.runs import Run
from tests.unit.repository.collection_helpers import DAY, HandClock, Turns, TurnStore, collect_now
from tests.unit.repository.damage import flip

SECRET = repositories.KeyFile(bytes(range(32)))
CHUNK = 4096

Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]
Open = Callable[[], Repository]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of the store are given to threads that are known."""
    monkeypatch.setattr(parallel, "THREADS", 1)


@pytest.fixture
def another(repository: Repository, store: MemoryStore, tmp_path: Path) -> Iterator[Open]:
    """Opens the same repository as another proxy would."""
    opened: list[Repository] = []

    def run() -> Repository:
        opened.append(repositories.open(store, cache=tmp_path / f"proxy{len(opened)}", secret=key(repository)))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


def key(repository: Repository) -> Secret | None:
    """What opens it: fixtures make it sealed, or in the clear."""
    return None if repository.settings.key else SECRET


def noise(chunks: int) -> bytes:
    return os.urandom(chunks * CHUNK)


def first_pack(repository: Repository, point: RestorePoint) -> str:
    """Object name of a pack that the point refers to."""
    with closing(repository.open_view("a test", point.images[0])) as view:
        return layout.pack_name(view.pack(1))


def sound(repository: Repository) -> bool:
    return list(repositories.verify(repository)) == []


def test_nothing_that_is_needed_goes(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    for number in range(3):
        backup(repository, noise(20), machine=f"m{number}")
    before = dict(store.objects)
    for _ in range(3):
        report = collect_now(repository)
        assert (report.doomed, report.compacted, report.deleted, report.waiting) == ((), (), (), ())
    assert report.points == 3
    assert store.objects == before


def test_what_only_a_deleted_point_needed_goes(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    shared, own = noise(32), noise(32)
    gone = backup(repository, own + shared)
    kept = backup(repository, shared + noise(16))
    repository.delete(gone.id)
    before = sum(map(len, store.objects.values()))
    report = collect_now(repository)
    assert report.freed > 32 * CHUNK
    assert before - sum(map(len, store.objects.values())) > 16 * CHUNK
    assert restore(repository, kept) == shared + kept_tail(kept, repository, restore)
    assert sound(repository)
    assert list(store.list("dooms/")) == []
    assert list(store.list("leases/")) == []
    assert collect_now(repository).promised == 0


def kept_tail(point: RestorePoint, repository: Repository, restore: Restore) -> bytes:
    return restore(repository, point)[32 * CHUNK :]


def test_packs_and_indexes_of_a_run_that_was_given_up_go_after_a_day(
    store: MemoryStore, repository: Repository, clock: HandClock
) -> None:
    with repository.image_writer("vda", 40 * CHUNK, None) as writer:
        writer.write(0, memoryview(noise(40)))
        writer.seal()
    with repository.image_writer("vdb", 40 * CHUNK, None) as writer:
        writer.write(0, memoryview(noise(40)))
    repository.close()
    clock.advance(YOUNG - 1)
    assert collect(repository, settle=0).doomed == ()
    clock.advance(2)
    report = collect(repository, settle=0)
    assert {item.object for item in report.doomed} == {*store.list("packs/"), *store.list("indexes/")}
    assert report.deleted == ()
    assert len(report.waiting) == 1
    clock.advance(GRACE)
    assert collect(repository, settle=0).freed == report.promised
    assert list(store.list("packs/")) == list(store.list("indexes/")) == list(store.list("dooms/")) == []


def test_a_call_with_patience_does_all(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY + 1)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    report = collect(repository, patience=3600, pause=pause)
    assert set(report.deleted) == set(report.doomed) != set()
    assert pauses[-1] == SETTLE
    assert GRACE <= sum(pauses[:-1]) < GRACE + 10
    assert list(store.list("dooms/")) == []


def test_nothing_is_deleted_while_somebody_works_who_began_before_the_doom(
    repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY)
    with repository.leases.held("restore", "of an old point"):
        clock.advance(3600)
        doomed = collect_now(repository).doomed
        assert doomed != ()
        for _ in range(3):
            clock.advance(60)
            report = collect_now(repository)
            assert report.deleted == ()
            assert "of an old point" in report.waiting[0].why
    assert set(collect_now(repository).deleted) == set(doomed)


def test_who_began_long_enough_after_the_doom_keeps_nothing_from_being_deleted(
    repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY)
    assert collect(repository, settle=SETTLE, pause=lambda _: None).doomed != ()
    clock.advance(2 * SETTLE + 3)
    with repository.leases.held("backup"):
        clock.advance(GRACE)
        assert collect(repository, settle=SETTLE, pause=lambda _: None).deleted != ()


def test_a_writer_that_died_delays_for_a_day_and_no_longer(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock, another: Open
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.delete(gone.id)
    dead = another().image_writer("vda", 20 * CHUNK, None)
    clock.advance(EXPIRY - 1)
    collect_now(repository)
    assert collect_now(repository).deleted == ()
    clock.advance(2)
    report = collect_now(repository)
    assert [item.why for item in report.cleaned] == ["lease expired"]
    # What the dead one had looked up does not matter any more, even if it is not quite dead:
    dead.write(0, memoryview(noise(20)))
    image = dead.seal()
    assert collect_now(repository).waiting == ()
    with pytest.raises(LeaseLost):
        dead._lease.confirm()
    assert image.index in store.objects or report.deleted


def test_a_doomed_pack_is_not_deduplicated_against(
    *, store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, clock: HandClock, another: Open
) -> None:
    data = noise(20)
    gone, _ = backup(repository, data), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY)
    collect(repository, settle=0)
    for proxy in (repository, another()):
        again = backup(proxy, data, machine=f"of {id(proxy)}")
        assert restore(proxy, again) == data
        if proxy is repository:
            assert again.images[0].bytes_new == 20 * CHUNK
    clock.advance(DAY)
    assert collect(repository, settle=0).deleted != ()
    assert sound(repository)


def full(*_: object) -> Path:
    """Instead of ``runs.build``: a cache file system that takes nothing more."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def moved(repository: Repository, backup: Backup) -> tuple[RestorePoint, bytes]:
    """A restore point whose index names packs that are gone, since collection moved its chunks; and its content."""
    data = noise(64)
    gone = backup(repository, data)
    few = b"".join(data[n * 4 * CHUNK : (n * 4 + 1) * CHUNK] for n in range(16))
    kept = backup(repository, few)
    repository.delete(gone.id)
    collect_now(repository)
    return kept, few


def test_a_cache_that_is_full_makes_no_chunk_missing(
    *,
    store: MemoryStore,
    moved: tuple[RestorePoint, bytes],
    restore: Restore,
    another: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point, data = moved
    before = dict(store.objects)
    with monkeypatch.context() as patched:
        patched.setattr(runs, "build", full)
        proxy = another()  # whose cache is empty
        for dry_run in (True, False):
            with pytest.raises(RepositoryFull, match="the cache"):
                collect(proxy, dry_run=dry_run, young=0, grace=0, settle=0, despite_missing=True)
        with pytest.raises(RepositoryFull, match="the cache"):
            list(repositories.verify(proxy))
    assert store.objects == before
    assert collect_now(proxy).missing == ()
    assert restore(proxy, point) == data


def test_a_cache_that_cannot_be_written_is_told_as_what_it_is(
    moved: tuple[RestorePoint, bytes], another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    assert moved
    monkeypatch.setattr(runs, "build", read_only)
    with pytest.raises(RepositoryUnavailable, match="Read-only"):
        collect_now(another())


def test_a_backup_needs_no_room_in_the_cache_to_follow_chunks_that_were_moved(
    moved: tuple[RestorePoint, bytes], another: Open, monkeypatch: pytest.MonkeyPatch, restore: Restore, backup: Backup
) -> None:
    point, data = moved
    monkeypatch.setattr(runs, "build", full)
    proxy = another()
    with proxy.image_writer("vda", len(data), point.images[0]) as writer:
        image = writer.seal()
    assert (image.digest, image.bytes_new) == (point.images[0].digest, 0)
    again = backup(proxy, data, parent=image)
    assert again.images[0].bytes_new == 0
    assert restore(proxy, again) == data


def test_a_pack_that_could_be_read_only_later_is_not_doomed_while_it_is_needed(
    clock: HandClock, backup: Backup, tmp_path: Path
) -> None:
    store = Recovering(clock=clock)
    with repositories.create(store, chunk_size=CHUNK, pack_size=64 * 1024, secret=None) as made:
        data = noise(4)
        backup(made, data)
    (store.bad,) = store.list("packs/")
    with repositories.open(store, secret=None, cache=tmp_path / "other") as proxy:
        proxy.lookup.refresh()
        assert list(proxy.lookup.unreadable) == [store.bad]
        store.bad = ""
        report = collect_now(proxy)
        assert (report.doomed, report.kept, report.deleted) == ((), (), ())


class Recovering(MemoryStore):
    """Has one object that the storage cannot read, for a while."""

    bad = ""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name == self.bad:
            raise IntegrityError(f"object {name}", "the storage cannot read it")
        return super().get(name, offset, length)


def test_a_point_that_is_deleted_and_collected_while_it_is_read_stays_readable(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, clock: HandClock
) -> None:
    data = noise(20)
    gone, _ = backup(repository, data), backup(repository, noise(20))
    with repository.reading(f"restore of {gone.id}"):
        repository.delete(gone.id)
        for _ in range(3):
            clock.advance(3600)
            assert collect_now(repository).deleted == ()
            assert restore(repository, gone) == data
    collect_now(repository)
    with pytest.raises(IntegrityError):
        restore(repository, gone)
    assert gone.images[0].index not in store.objects


def test_packs_with_much_dead_space_are_rewritten_and_old_points_find_their_chunks(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, another: Open
) -> None:
    data = noise(64)
    gone = backup(repository, data)
    few = b"".join(data[n * 4 * CHUNK : (n * 4 + 1) * CHUNK] for n in range(16))
    kept = backup(repository, few)
    repository.delete(gone.id)
    packs = set(store.list("packs/"))
    dry = collect_now(repository, dry_run=True)
    assert len(dry.compacted) >= 4
    assert dry.moved > 14 * CHUNK
    report = collect_now(repository)
    assert {item.object for item in report.compacted} == {item.object for item in dry.compacted}
    assert report.moved >= 16 * CHUNK
    assert packs.isdisjoint(store.list("packs/")) or len(dry.compacted) < len(packs)
    for proxy in (repository, another()):
        assert restore(proxy, kept) == few
        assert sound(proxy)
    # A new incremental refers to where the chunks are now.
    young = backup(repository, few, parent=kept.images[0])
    assert young.images[0].bytes_new == 0
    repository.delete(kept.id)
    again = collect_now(repository)
    assert again.compacted == ()
    assert restore(another(), young) == few


def test_a_higher_threshold_moves_nothing(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    data = noise(64)
    gone = backup(repository, data)
    backup(repository, data[: 32 * CHUNK])
    repository.delete(gone.id)
    assert collect_now(repository, threshold=1.0).compacted == ()
    assert collect_now(repository, threshold=0.9).compacted == ()


def test_what_runs_that_go_on_share_with_others_is_not_rewritten(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    shared, own = noise(2), noise(10)
    with repository.image_writer("vda", 12 * CHUNK, None) as writer:
        writer.write(0, memoryview(shared + own))
        backup(repository, shared + noise(1), machine="quick")  # puts the pack that both fill
        clock.advance(7200)
        assert collect(repository, settle=0).compacted == ()
        # The run is longer than what counts as young here: its lease tells.
        assert collect(repository, settle=0, young=3600).compacted == ()
    assert len(collect(repository, settle=0, young=3600).compacted) == 1


def test_a_pack_that_cannot_be_read_goes_if_nobody_refers_to_it(
    store: MemoryStore, repository: Repository, backup: Backup, another: Open
) -> None:
    gone, kept = backup(repository, noise(20)), backup(repository, noise(20))
    wanted, unwanted = first_pack(repository, kept), first_pack(repository, gone)
    for name in (wanted, unwanted):
        store.objects[name] = store.objects[name][:-1]
    repository.delete(gone.id)
    proxy = another()
    for _ in range(2):
        collect_now(proxy)
    assert wanted in store.objects
    assert unwanted not in store.objects
    assert list(store.list("dooms/")) == []


def test_a_dry_run_changes_nothing_and_tells_what_the_next_call_does(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(40)), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY)
    before = dict(store.objects)
    dry = collect(repository, dry_run=True)
    assert store.objects == before
    done = collect(repository, settle=0)
    assert dry.doomed == done.doomed != ()
    assert dry.promised == done.promised > 40 * CHUNK
    clock.advance(DAY)
    before = dict(store.objects)
    dry = collect(repository, dry_run=True)
    assert store.objects == before
    assert dry.deleted == collect(repository, settle=0).deleted
    assert set(dry.deleted) == set(done.doomed)


@pytest.mark.parametrize("victim", ["points/", "indexes/", "dooms/"])
def test_nothing_goes_while_something_cannot_be_read(
    *, store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock, another: Open, victim: str
) -> None:
    gone, kept = backup(repository, noise(20)), backup(repository, noise(20))
    backup(repository, noise(20), machine="m2")
    repository.delete(gone.id)
    clock.advance(DAY)
    collect(repository, settle=0)
    name = kept.images[0].index if victim == "indexes/" else next(iter(store.list(victim)))
    flip(store, name, -1)
    before = dict(store.objects)
    with pytest.raises((FormatError, IntegrityError)):
        collect_now(another())
    assert store.objects == before


def test_a_doom_that_cannot_be_read_is_given_up_in_the_end(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock, another: Open
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.delete(gone.id)
    clock.advance(DAY)
    collect(repository, settle=0)
    (name,) = store.list("dooms/")
    store.objects[name] = b"?"
    proxy = another()
    with pytest.raises(FormatError):
        backup(proxy, noise(5), machine="m3")
    clock.advance(EXPIRY)
    report = collect_now(proxy)
    assert name in [item.object for item in report.cleaned]
    assert report.freed > 20 * CHUNK
    assert sound(proxy)


def test_nothing_goes_while_chunks_are_missing_unless_a_person_says_so(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone = backup(repository, noise(20))
    lost = backup(repository, noise(20))
    backup(repository, noise(20), machine="m2")
    repository.delete(gone.id)
    clock.advance(DAY)
    store.delete(first_pack(repository, lost))
    before = dict(store.objects)
    report = collect_now(repository)
    assert len(report.missing) > 0
    assert report.doomed == report.deleted == ()
    assert store.objects == before
    report = collect(repository, settle=0, grace=0, young=0, despite_missing=True)
    assert report.doomed != ()


def test_what_is_missing_only_in_the_local_cache_is_not_missing(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path
) -> None:
    data = noise(64)
    gone = backup(repository, data)
    kept = backup(repository, data[: 8 * CHUNK])
    repository.delete(gone.id)
    assert collect_now(repository).compacted != ()
    repository.lookup.close()
    for run in (tmp_path / "cache").glob("*/*.run"):
        content = bytearray(run.read_bytes())
        for at in range(len(content) - 36 * Run(run).count, len(content), 36):
            content[at + 25] ^= 1  # the offset in each record
        run.write_bytes(content)
    with repositories.open(store, cache=tmp_path / "cache", secret=key(repository)) as opened:
        assert collect_now(opened).missing == ()
        assert restore(opened, kept)[: 8 * CHUNK] == data[: 8 * CHUNK]


def test_a_doomed_pack_that_a_slow_writer_needs_is_copied_before_it_goes(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, another: Open
) -> None:
    data = noise(20)
    gone, kept = backup(repository, data), backup(repository, noise(20))
    slow = another()
    with slow.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(data))  # finds everything where only the deleted point needed it
        repository.delete(gone.id)
        report = collect_now(repository)
        assert report.doomed != ()
        assert "backup" in report.waiting[0].why
        image = writer.seal()
    assert image.bytes_new == 0
    point = slow.seal(RestorePoint(**{**_fields(kept), "id": "", "machine": "slow", "run": "slow", "images": (image,)}))
    report = collect_now(repository)
    assert [item.why for item in report.kept] == ["needed again: copied, then it goes"] * len(report.kept) != []
    assert restore(repository, point) == data
    assert collect_now(repository).deleted != ()
    assert list(store.list("dooms/")) == []
    for proxy in (repository, slow, another()):
        assert restore(proxy, point) == data
        assert sound(proxy)


def _fields(point: RestorePoint) -> dict[str, object]:
    return {name: getattr(point, name) for name in RestorePoint.__dataclass_fields__}


def test_a_point_whose_images_another_process_made_is_sealed_only_if_nothing_was_collected(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, another: Open
) -> None:
    kept = backup(repository, noise(20))
    for collected in (False, True):
        maker = another()
        data = noise(20)
        with maker.image_writer("vda", len(data), None) as writer:
            writer.write(0, memoryview(data))
            image = writer.seal()
        maker.close()
        if collected:
            assert collect_now(repository).deleted != ()
        name = f"m{collected}"
        point = RestorePoint(**{**_fields(kept), "id": "", "machine": name, "run": name, "images": (image,)})
        if collected:
            with pytest.raises((LeaseLost, IntegrityError)):
                another().seal(point)
        else:
            assert restore(repository, another().seal(point)) == data
    assert sound(repository)


def test_a_deletion_that_was_interrupted_is_finished_after_a_day_and_not_before(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    name = repository.ledger.name(gone)
    store.fail_at(1)  # the tombstone is put, the manifest stays
    with pytest.raises(RepositoryFull):
        repository.delete(gone.id)
    store.fail_at(None)
    assert name in store.objects
    clock.advance(YOUNG - 1)
    assert collect(repository, settle=0).doomed == ()
    assert name in store.objects
    clock.advance(2)
    report = collect(repository, settle=0)
    assert name not in store.objects
    assert gone.images[0].index in [item.object for item in report.doomed]


@pytest.mark.slow
def test_tombstones_in_a_row_become_one(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    points = [backup(repository, noise(3)) for _ in range(6)]
    for number in (0, 1, 3):
        repository.delete(points[number].id)
    clock.advance(DAY + 1)
    collect_now(repository)
    stones = [name.rpartition("/")[2] for name in store.list("tombstones/")]
    # 1 speaks for 0 too; 3 lies between two that are there.
    assert stones == [points[1].id, points[3].id]
    stone = repository.ledger.tombstones.get(repository.ledger.name(points[1]))
    assert stone is not None
    assert (stone.number, stone.previous) == (2, None)
    assert list(audit(repository)) == []
    repository.delete(points[5].id)
    collect_now(repository)
    assert points[5].id in [name.rpartition("/")[2] for name in store.list("tombstones/")]
    fresh = backup(repository, noise(3))
    link = repository.ledger.read(repository.ledger.name(fresh)).link
    assert (link.number, link.previous) == (7, points[5].id)
    assert list(audit(repository)) == []


@pytest.mark.slow
def test_a_merge_of_tombstones_that_is_killed_at_any_call_is_gone_on_with(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    points = [backup(repository, noise(3)) for _ in range(8)]
    noted = heads(repository)
    for number in (0, 1, 3, 4, 5):
        repository.delete(points[number].id)
    clock.advance(DAY + 1)
    before, call, done = dict(store.objects), 0, False
    while not done:
        store.objects = dict(before)
        store.fail_at(call)
        with suppress(RepositoryFull):
            collect_now(repository)
            done = True
        store.fail_at(None)
        assert [finding for finding in audit(repository, noted) if not finding.trouble.notice] == []
        for _ in range(3):
            clock.advance(DAY + 1)
            collect_now(repository)
        stones = [name.rpartition("/")[2] for name in store.list("tombstones/")]
        assert stones == [points[1].id, points[5].id]
        assert list(audit(repository, noted)) == []
        call += 1
    assert call > 5


def test_marks_of_damage_go_with_their_pack(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    repository.lookup.damaged.add(bytes.fromhex(first_pack(repository, gone)[-32:]), None, "seen by a test")
    repository.delete(gone.id)
    collect_now(repository)
    collect_now(repository)
    assert list(store.list("damaged/")) == []


def test_one_collector_gives_way_to_another_that_is_alive(
    repository: Repository, clock: HandClock, another: Open
) -> None:
    with another().leases.held("collect"):
        with pytest.raises(CollectorBusy):
            collect(repository)
        clock.advance(3 * 600)
        assert collect(repository, settle=0).points == 0


def test_what_the_store_retains_stays_and_is_told(
    store: MemoryStore, repository: Repository, backup: Backup, clock: HandClock
) -> None:
    gone, _ = backup(repository, noise(20)), backup(repository, noise(20))
    pack = first_pack(repository, gone)
    repository.delete(gone.id)
    store.retain(pack, clock.now() + timedelta(days=2))
    collect_now(repository)
    report = collect_now(repository)
    assert pack in store.objects
    assert pack in [item.object for item in report.kept]
    clock.advance(2 * DAY + 1)
    collect_now(repository)
    assert pack not in store.objects
    assert list(store.list("dooms/")) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "posix"])
def test_a_collection_that_fails_at_any_call_loses_nothing_and_the_next_one_finishes(
    tmp_path: Path, backup: Backup, restore: Restore, kind: str
) -> None:
    call, done = 0, False
    while not done:
        root = tmp_path / f"r{call}"
        root.mkdir()
        inner = MemoryStore() if kind == "memory" else PosixStore(root)
        store = FailingStore(inner)
        with repositories.create(
            store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / f"c{call}", secret=SECRET
        ) as repository:
            data = noise(48)
            gone = backup(repository, data)
            few = data[: 4 * CHUNK] + data[20 * CHUNK : 30 * CHUNK] + noise(4)
            kept = backup(repository, few)
            repository.delete(gone.id)
            store.fail_at(call)
            try:
                collect_now(repository)
                done = True
            except RepositoryFull:
                done = False
            store.fail_at(None)
            assert restore(repository, kept) == few
        with repositories.open(store, cache=tmp_path / f"d{call}", secret=SECRET) as repository:
            assert restore(repository, kept) == few
            collect_now(repository)
            collect_now(repository)
            assert restore(repository, kept) == few
            assert sound(repository)
            assert repositories.statistics(repository).chunks == 18
            assert list(store.list("dooms/")) == []
        call += 1 if kind == "memory" else 4
    assert call > 8


class FailingStore(TurnStore):
    """Every changing call from the N-th on fails."""

    def __init__(self, store: MemoryStore | PosixStore) -> None:
        super().__init__(store, Turns(0))
        self._changes: int | None = None

    def fail_at(self, call: int | None) -> None:
        self._changes = call

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        self._count()
        super().put(name, data, new=new)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)

    def _count(self) -> None:
        if self._changes is None:
            return
        if self._changes <= 0:
            raise RepositoryFull("a test")
        self._changes -= 1


# More of them: LANFREE_SEEDS=1000 (two a second).
SEEDS = range(int(os.environ.get("LANFREE_SEEDS", "4")))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_two_collectors_in_any_order_of_steps_lose_nothing(
    *, store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path, seed: int
) -> None:
    data = noise(64)
    gone = backup(repository, data)
    few = b"".join(data[n * 3 * CHUNK : (n * 3 + 1) * CHUNK] for n in range(20))
    kept = backup(repository, few)
    # Copies of the same chunks in other packs, which nobody refers to: what one collector counts on the other may doom.
    with repositories.open(TurnStore(store, Turns(0)), cache=tmp_path / "blind", secret=key(repository)) as blind:
        blind.lookup.refresh = lambda: None  # type: ignore[method-assign]  # as if both had begun at once
        with blind.image_writer("vda", len(data), None) as writer:
            writer.write(0, memoryview(data[: 30 * CHUNK]))
            writer.seal()
    repository.delete(gone.id)
    turns = Turns(seed)
    proxies = [
        repositories.open(TurnStore(store, turns), cache=tmp_path / f"t{n}", secret=key(repository)) for n in range(2)
    ]
    turns.run([lambda proxy=proxy: [collect_now(proxy) for _ in range(3)] for proxy in proxies])
    for proxy in proxies:
        assert restore(proxy, kept) == few
        assert sound(proxy)
        proxy.close()
    collect_now(repository)
    assert sound(repository)
    assert list(store.list("dooms/")) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_processes_that_are_killed_at_any_step_lose_nothing(
    *,
    store: MemoryStore,
    repository: Repository,
    backup: Backup,
    restore: Restore,
    clock: HandClock,
    tmp_path: Path,
    seed: int,
) -> None:
    chooser = random.Random(seed)
    data = noise(48)
    gone = backup(repository, data)
    made = [(backup(repository, data[n * 10 * CHUNK : (n * 10 + 4) * CHUNK]), n * 10) for n in range(4)]
    repository.delete(gone.id)
    turns = Turns(seed)
    mortals = [
        repositories.open(
            TurnStore(store, turns, dies_after=chooser.randrange(5, limit)),
            cache=tmp_path / f"t{limit}",
            secret=key(repository),
        )
        for limit in (60, 200, 120)
    ]

    def work(proxy: Repository, *, writes: bool) -> None:
        with suppress(RepositoryUnavailable):
            for number in range(3):
                if not writes:
                    collect_now(proxy)
                    continue
                first = number * 8
                disk = data[first * CHUNK : (first + 4) * CHUNK]
                made.append((backup(proxy, disk, machine=f"w{number}"), first))

    turns.run([lambda n=n, proxy=proxy: work(proxy, writes=n == 2) for n, proxy in enumerate(mortals)])
    clock.advance(EXPIRY)
    for _ in range(3):
        for point, first in made:
            assert restore(repository, point) == data[first * CHUNK : (first + 4) * CHUNK]
        assert sound(repository)
        collect_now(repository)
    assert list(store.list("dooms/")) == []
    assert list(store.list("leases/")) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_collectors_beside_writers_in_any_order_of_steps_lose_nothing(
    *, store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, tmp_path: Path, seed: int
) -> None:
    data = noise(48)
    gone = backup(repository, data)
    backup(repository, data[10 * CHUNK : 20 * CHUNK])
    turns = Turns(seed)
    proxies = [
        repositories.open(TurnStore(store, turns), cache=tmp_path / f"t{n}", secret=key(repository)) for n in range(3)
    ]
    made: list[tuple[RestorePoint, bytes]] = []

    def write(proxy: Repository, machine: str) -> None:
        parent = None
        for number in range(3):
            disk = data[number * 5 * CHUNK : (number * 5 + 30) * CHUNK]
            try:
                point = backup(proxy, disk, machine=machine, parent=parent)
            except (ChangesUnknown, LeaseLost, IntegrityError):
                parent = None
                continue
            made.append((point, disk))
            parent = point.images[0]

    def maintain(proxy: Repository) -> None:
        proxy.delete(gone.id)
        for _ in range(3):
            collect_now(proxy)

    turns.run([lambda: write(proxies[0], "w1"), lambda: write(proxies[1], "w2"), lambda: maintain(proxies[2])])
    assert len(made) >= 4
    for _ in range(2):
        for point, disk in made:
            assert restore(repository, point) == disk
        assert sound(repository)
        collect_now(repository)
    for proxy in proxies:
        proxy.close()
