"""Verification in parts: samples that come round, runs that go on where they stopped, the health that is recorded."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, VerifyProgress, verify
from proxy.repository.checking.verify import due
from proxy.repository.chunks import Chunker
from proxy.repository.keys import Secret
from proxy.repository.records import Health
from tests.unit.repository.damage import flip

pytestmark = pytest.mark.slow

CHUNK = 4096
DAY = timedelta(days=1)
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 6, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


class CountingStore(MemoryStore):
    """Notes which packs were read as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("packs/") and (offset, length) == (0, None):
            self.read.append(name)
        return super().get(name, offset, length)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counting() -> CountingStore:
    return CountingStore()


@pytest.fixture
def sealed(counting: CountingStore, clock: Clock, tmp_path: Path) -> Iterator[Repository]:
    """Encrypted, as people have it."""
    with repositories.create(
        counting, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "sealed", secret=SECRET, clock=clock
    ) as made:
        yield made


def packs(store: MemoryStore) -> list[str]:
    return list(store.list("packs/"))


def test_samples_read_everything_once_before_anything_twice(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    backup(sealed, os.urandom(150 * CHUNK))
    assert len(packs(counting)) == 10
    for _ in range(2):
        counting.read.clear()
        for _ in range(5):
            assert list(verify(sealed, share=0.2)) == []
            clock.time += DAY
        assert sorted(counting.read) == packs(counting)


def test_a_share_that_is_none_is_refused(repository: Repository) -> None:
    for share in (0.0, -1.0, 1.1):
        with pytest.raises(ValueError, match="share"):
            next(iter(verify(repository, share=share)))


def test_a_sample_tells_how_much_it_covered_and_what_was_read_before_counts(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    point = backup(sealed, os.urandom(150 * CHUNK))
    coverage = []
    for _ in range(5):
        assert list(verify(sealed, share=0.25, max_age=30 * DAY)) == []
        known = sealed.ledger.health(point)
        assert known is not None
        assert known.health is Health.GOOD
        coverage.append(known.coverage)
        clock.time += DAY
    assert coverage == [0.3, 0.6, 0.9, 1.0, 1.0]
    assert sorted(counting.read) == packs(counting)


def test_a_verification_that_was_stopped_goes_on_where_it_was_in_another_process_too(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock, tmp_path: Path
) -> None:
    backup(sealed, os.urandom(150 * CHUNK))

    def stop(event: VerifyProgress) -> None:
        if event.done > 4 * 64 * 1024:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(verify(sealed, progress=stop, max_age=DAY))
    first = len(counting.read)
    assert 4 < first < 10
    counting.read.clear()
    clock.time += timedelta(hours=23)
    with repositories.open(counting, secret=SECRET, cache=tmp_path / "sealed", clock=clock) as other:
        assert list(verify(other, max_age=DAY)) == []
        assert 10 - first <= len(counting.read) <= 10 - 5  # what was being read when it stopped is read again
        counting.read.clear()
        assert list(verify(other, max_age=DAY)) == []
        assert counting.read == []
        clock.time += timedelta(hours=2)
        assert list(verify(other, max_age=DAY)) == []
        assert len(counting.read) == 5  # those of the first call have become too old
        assert list(verify(other)) == []
        assert len(counting.read) == 15


def test_what_was_read_without_depth_does_not_count_as_read_deeply(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    backup(sealed, os.urandom(20 * CHUNK))
    for deep, reads in ((False, 2), (False, 0), (True, 2), (True, 0), (False, 0)):
        counting.read.clear()
        assert list(verify(sealed, deep=deep, max_age=DAY)) == []
        assert len(counting.read) == reads


@pytest.mark.parametrize("secret", [SECRET, None], ids=["sealed", "clear"])
def test_what_was_wrong_before_it_was_stored_stays_known_without_depth(
    counting: CountingStore, backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: Secret | None
) -> None:
    compress = Chunker.compress

    def in_bad_memory(chunker: Chunker, data: memoryview) -> tuple[int, bytes | memoryview]:
        monkeypatch.undo()  # one chunk is enough
        return compress(chunker, memoryview(bytes([data[0] ^ 1]) + bytes(data[1:])))

    with repositories.create(
        counting, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "wrong", secret=secret
    ) as made:
        monkeypatch.setattr(Chunker, "compress", in_bad_memory)
        data = os.urandom(20 * CHUNK)
        point = backup(made, data)
        assert list(verify(made, deep=False)) == [], "seals and digests are those of the wrong bytes"
        proven = list(verify(made))
        assert [(d.point, d.offset, d.length) for d in proven] == [(point.id, 0, CHUNK)]
        recorded = list(counting.list("damaged/"))
        assert len(recorded) == 1
        assert list(verify(made, deep=False)) == proven
        assert list(counting.list("damaged/")) == recorded
        assert made.ledger.health(point).health is Health.DAMAGED  # type: ignore[union-attr]
        again = backup(made, data, machine="m2")
        assert [d.point for d in verify(made)] == [], "the next backup brought the chunk, and readers find it by its id"
        assert again.images[0].bytes_new == CHUNK


def test_a_suspect_that_was_found_right_counts_as_read_deeply(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    backup(sealed, os.urandom(15 * CHUNK))
    (victim,) = packs(counting)
    good = counting.objects[victim]
    flip(counting, victim)
    assert list(verify(sealed))
    counting.objects[victim] = good
    assert list(verify(sealed, deep=False)) == []
    assert list(counting.list("damaged/")) == []
    counting.read.clear()
    assert list(verify(sealed, max_age=DAY)) == []
    assert counting.read == []


def test_a_journal_that_is_torn_or_damaged_costs_reading_again(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    backup(sealed, os.urandom(70 * CHUNK))
    assert list(verify(sealed)) == []
    journal = sealed.scratch / "verified"
    data = bytearray(journal.read_bytes())
    assert len(data) == 5 * 32
    data[40] ^= 1
    journal.write_bytes(data[:-3])
    counting.read.clear()
    assert list(verify(sealed, max_age=DAY)) == []
    assert len(counting.read) == 2
    assert len(journal.read_bytes()) == 5 * 32
    journal.unlink()
    journal.mkdir()
    assert list(verify(sealed, max_age=DAY)) == []
    assert len(counting.read) == 7


def test_a_journal_of_the_future_is_not_believed(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    backup(sealed, os.urandom(10 * CHUNK))
    assert list(verify(sealed)) == []
    clock.time -= 2 * DAY
    assert list(verify(sealed, max_age=DAY)) == []
    assert len(counting.read) == 2


def test_damage_is_recorded_as_the_health_of_the_points_that_it_concerns(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    shared = os.urandom(10 * CHUNK)
    old = backup(sealed, shared + os.urandom(20 * CHUNK))
    new = backup(sealed, shared, machine="m2")
    assert sealed.ledger.health(old) is None
    assert list(verify(sealed)) == []
    assert {sealed.ledger.health(p).health for p in (old, new)} == {Health.GOOD}  # type: ignore[union-attr]
    reference = next(n for n in packs(counting))
    counting.delete(reference)
    found = list(verify(sealed))
    for point in (old, new):
        known = sealed.ledger.health(point)
        lost = sum(d.length or 0 for d in found if d.point == point.id)
        assert known is not None
        assert (known.health is Health.DAMAGED, known.damaged) == (lost > 0, lost)
    assert found


def test_a_sample_does_not_call_good_what_it_did_not_read(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock, tmp_path: Path
) -> None:
    point = backup(sealed, os.urandom(150 * CHUNK))
    victim = packs(counting)[4]
    good = counting.objects[victim]
    flip(counting, victim)
    assert len(list(verify(sealed))) == 1
    for _ in range(3):  # what is known to be damaged is told each time
        clock.time += DAY
        assert len(list(verify(sealed, share=0.1))) == 1
    counting.objects[victim] = good
    for name in list(counting.list("damaged/")):
        counting.delete(name)  # not even with the records of it lost
    with repositories.open(counting, secret=SECRET, cache=tmp_path / "other", clock=clock) as other:
        for coverage in (0.3, 0.6, 0.9):
            clock.time += DAY
            assert list(verify(other, share=0.3, max_age=30 * DAY)) == []
            known = other.ledger.health(point)
            assert known is not None
            assert known.health is Health.DAMAGED, coverage
        assert list(verify(other, share=0.3, max_age=30 * DAY)) == []
        known = other.ledger.health(point)
        assert known is not None
        assert (known.health, known.coverage) == (Health.GOOD, 1.0)


def test_a_sample_always_reads_what_is_recorded_as_damaged(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    backup(sealed, os.urandom(150 * CHUNK))
    victim = packs(counting)[7]
    good = counting.objects[victim]
    flip(counting, victim)
    assert len(list(verify(sealed))) == 1
    counting.objects[victim] = good
    counting.read.clear()
    assert list(verify(sealed, share=0.1)) == []
    assert victim in counting.read
    assert list(counting.list("damaged/")) == []


def test_a_missing_pack_is_found_by_every_sample(counting: CountingStore, sealed: Repository, backup: Backup) -> None:
    backup(sealed, os.urandom(150 * CHUNK))
    for name in packs(counting)[:9]:
        counting.delete(name)
        found = list(verify(sealed, share=0.1))
        assert name in {d.object for d in found}


def test_images_that_follow_each_other_are_told_their_own_damage(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    disk = bytearray(os.urandom(60 * CHUNK))
    points: list[RestorePoint] = []
    for number in range(5):
        disk[number * CHUNK : (number + 1) * CHUNK] = os.urandom(CHUNK)
        points.append(backup(sealed, bytes(disk), parent=points[-1].images[0] if points else None))
    parts: dict[str, set[int | None]] = {p.id: set() for p in points}
    with closing(sealed.open_view("index", points[0].images[0])) as view:
        place = view.reference(3)
        assert place is not None
        flip(counting, f"packs/{place[1].pack[:1].hex()}/{place[1].pack.hex()}", place[1].offset + 20)
    for damage in verify(sealed):
        assert damage.length == CHUNK
        parts[damage.point].add(damage.offset)
    assert [parts[p.id] for p in points] == [{3 * CHUNK}] * 3 + [set()] * 2


def test_a_disk_that_grew_is_compared_with_nothing(counting: CountingStore, sealed: Repository, backup: Backup) -> None:
    data = os.urandom(10 * CHUNK)
    short, long = backup(sealed, data + b"end"), backup(sealed, data + b"end" + bytes(CHUNK))
    for name in packs(counting):
        counting.delete(name)
    lost = {p.id: 0 for p in (short, long)}
    for damage in verify(sealed):
        assert damage.length is not None
        lost[damage.point] += damage.length
    assert lost == {short.id: 10 * CHUNK + 3, long.id: 11 * CHUNK}


def test_a_damaged_cache_is_not_taken_for_a_damaged_repository(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    backup(sealed, os.urandom(60 * CHUNK))
    cache = sealed.scratch.parent
    sealed.close()
    (run,) = sealed.scratch.glob("*.run")
    data = bytearray(run.read_bytes())
    data[len(data) - 36 * 10 + 1] ^= 1
    run.write_bytes(data)
    with repositories.open(counting, secret=SECRET, cache=cache, clock=clock) as again:
        assert list(verify(again)) == []
        assert list(counting.list("damaged/")) == []


def test_one_points_verification_reads_only_what_it_needs(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    one = backup(sealed, os.urandom(15 * CHUNK))
    backup(sealed, os.urandom(60 * CHUNK), machine="m2")
    assert list(verify(sealed, one.id)) == []
    assert len(counting.read) == 1
    known = sealed.ledger.health(one)
    assert known is not None
    assert known.coverage == 1.0


def test_what_is_due_comes_in_the_order_of_need(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    never, good, recent, bad = (backup(sealed, os.urandom(CHUNK), machine=f"m{n}") for n in range(4))
    assert {d.point.id for d in due(sealed, DAY)} == {p.id for p in (never, good, recent, bad)}
    sealed.ledger.note_health(good, Health.GOOD)
    clock.time += 2 * DAY
    sealed.ledger.note_health(recent, Health.GOOD)
    sealed.ledger.note_health(bad, Health.DAMAGED, damaged=CHUNK)
    assert [d.point.id for d in due(sealed, DAY)] == [bad.id, never.id, good.id]
    assert [d.last is None for d in due(sealed, DAY)] == [False, True, False]


def test_health_is_not_recorded_for_a_point_that_was_deleted_meanwhile(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    old = backup(sealed, os.urandom(CHUNK))
    backup(sealed, os.urandom(CHUNK))

    def delete(_: VerifyProgress) -> None:
        if any(p.id == old.id for p in sealed.points()):
            sealed.delete(old.id)

    assert list(verify(sealed, progress=delete)) == []
    assert [name.endswith(old.id) for name in counting.list("states/")] == [False]


def test_a_full_store_takes_no_record_and_the_finding_is_told(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    point = backup(sealed, os.urandom(CHUNK))
    counting.fail_at(0)
    assert list(verify(sealed)) == []
    counting.fail_at(None)
    assert sealed.ledger.health(point) is None


def test_packs_that_are_doomed_are_read_only_where_nothing_else_has_the_chunks(
    counting: CountingStore, sealed: Repository, backup: Backup, clock: Clock
) -> None:
    backup(sealed, os.urandom(30 * CHUNK))
    needed = packs(counting)
    with sealed.image_writer("vda", 15 * CHUNK, None) as writer:  # given up: nobody needs its packs
        writer.write(0, memoryview(os.urandom(15 * CHUNK)))
        writer.seal()
    sealed.dooms.add(packs(counting), [], clock.time)
    assert list(verify(sealed)) == []
    assert sorted(counting.read) == needed
    flip(counting, needed[0])
    (damage,) = verify(sealed)
    assert (damage.object, damage.length) == (needed[0], CHUNK)


def test_packs_that_were_made_meanwhile_are_read_where_a_reference_leads_there(
    counting: CountingStore, sealed: Repository, backup: Backup
) -> None:
    data = os.urandom(30 * CHUNK)
    backup(sealed, data)
    old = packs(counting)

    def move(_: VerifyProgress) -> None:
        """As compaction does: the chunks are stored elsewhere, then their packs go."""
        if old[0] in counting.objects:
            for name in old:
                sealed.lookup.damaged.add(bytes.fromhex(name.rpartition("/")[2]), None, "to be stored anew")
            with sealed.image_writer("vda", len(data), None) as writer:
                writer.write(0, memoryview(data))
                writer.seal()
            for name in old:
                counting.delete(name)

    assert list(verify(sealed, progress=move)) == []
    assert set(packs(counting)) <= set(counting.read)
