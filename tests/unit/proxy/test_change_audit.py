"""The change-tracking audit: which chunks are compared, what a difference does, and which restore points it casts doubt on."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.change_audit import SAMPLE, SHARE, Sample, choose, passed, suspects
from proxy.errors import DeleteRefused, SnapshotBroken
from proxy.extents import Extent, normal, total
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, ReasonCode, RestorePoint
from proxy.repository import KeyFile, MemoryStore, create, verify
from proxy.repository.records import Health
from proxy.transport.memory import MemoryTransport
from proxy.units import KiB

CHUNK = 4 * KiB
SECRET = KeyFile(bytes(range(32)))

runs = st.lists(st.tuples(st.integers(1, 600), st.integers(1, 900)), max_size=8)


def laid_out(pairs: Sequence[tuple[int, int]], tail: int) -> list[Extent]:
    """Runs of whole chunks with gaps between; the last one may end inside of a chunk."""
    extents, position = [], 0
    for gap, length in pairs:
        extents.append(Extent((position + gap) * CHUNK, length * CHUNK))
        position += gap + length
    if extents:
        last = extents[-1]
        extents[-1] = Extent(last.start, last.length - CHUNK + tail)
    return extents


@pytest.mark.slow
@given(runs, st.integers(1, CHUNK), st.integers(0, 200))
def test_the_sample_is_whole_chunks_of_what_is_unchanged(pairs: list[tuple[int, int]], tail: int, most: int) -> None:
    unchanged = laid_out(pairs, tail)
    sample = choose(unchanged, CHUNK, most)
    assert sample.population == sum(length for _, length in pairs)
    assert sample.chunks == len(sample.extents) == min(most, -(-sample.population // SHARE))
    starts = [each.start for each in sample.extents]
    assert starts == sorted(set(starts))
    for each in sample.extents:
        home = next(extent for extent in unchanged if extent.start <= each.start < extent.end)
        assert (each.start - home.start) % CHUNK == 0
        assert each.length == min(CHUNK, home.end - each.start)
    assert total(normal(sample.extents)) == total(sample.extents)


def test_every_chunk_can_be_chosen() -> None:
    unchanged = laid_out([(1, 3), (2, 2)], 100)
    seen = {choose(unchanged, CHUNK, 1, lambda _numbers, _count, n=n: [n]).extents[0] for n in range(5)}
    assert {each.start // CHUNK for each in seen} == {1, 2, 3, 6, 7}


def test_what_a_sample_is_worth_is_told() -> None:
    some = passed("vda", Sample((Extent(0, CHUNK),) * 64, 64, 4096))
    assert some.code is ReasonCode.CHANGES_AUDITED
    assert "64 of 4096" in some.detail
    assert "47%" in some.detail
    assert "100%" in passed("vda", Sample((Extent(0, CHUNK),), 1, 1)).detail


def point(number: int, level: Level, disk: str = "vda") -> RestorePoint:
    image = ImageInfo(disk, CHUNK, "indexes/x", "d", "san", "naa", 0, 0, 0, level=level)
    made = RestorePoint(
        "", "m", "n", "h", f"r{number}", datetime(2026, 1, number + 1, tzinfo=UTC), level, Consistency.CRASH, (image,),
        MachineConfiguration("none", ""),
    )  # fmt: skip
    return replace(made, id=f"p{number}")


def test_doubt_falls_on_everything_since_the_disk_was_read_whole() -> None:
    full, part = Level.FULL, Level.INCREMENTAL
    chain = [point(0, full), point(1, part), point(2, full), point(3, part), point(4, part), point(5, part, "vdb")]
    assert suspects(chain, "vda") == ["p3", "p4"]
    assert suspects(chain, "vdb") == ["p5"]
    assert suspects(chain[:3], "vda") == []


class Site:
    """One machine, backed up again and again with every chunk compared."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("proxy.change_audit.SHARE", 1)
        self.hypervisor = MemoryHypervisor()
        self.machine = self.hypervisor.add("db1", {"vda": bytes(range(1, 251)) * 400})
        self.repository = create(MemoryStore(), chunk_size=CHUNK, cache=directory / "cache", secret=SECRET)
        self.ports = BackupPorts(
            self.hypervisor,
            [MemoryTransport(self.hypervisor.disk_bytes)],
            self.repository,
            Interlock(directory / "locks"),
        )
        self.runs = 0

    def back_up(self, sample: int = SAMPLE) -> RestorePoint:
        self.runs += 1
        request = BackupRequest(f"run-{self.runs:08}", self.machine)
        result = back_up(replace(self.ports, audit_sample=sample), request)
        self.problems = result.problems
        return result.point

    def write(self, offset: int, data: bytes, *, tracked: bool = True) -> None:
        self.hypervisor.write(self.machine, "vda", offset, data, tracked=tracked)

    def live(self) -> bytes:
        return self.hypervisor.live_bytes(self.machine, "vda")

    def restored(self, made: RestorePoint) -> bytes:
        with self.repository.open_image(made, "vda") as image:
            data = bytearray(image.size)
            image.read_into(0, memoryview(data))
            return bytes(data)

    def health(self, made: RestorePoint) -> Health | None:
        known = self.repository.ledger.health(made)
        return known.health if known else None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def codes(made: RestorePoint) -> set[ReasonCode]:
    return {reason.code for reason in made.images[0].reasons}


def test_an_honest_tracker_passes_and_only_what_changed_is_counted_as_read(site: Site) -> None:
    site.back_up()
    site.write(5 * CHUNK, b"changed")
    second = site.back_up()
    assert second.level is Level.INCREMENTAL
    assert ReasonCode.CHANGES_AUDITED in codes(second)
    assert second.images[0].bytes_read == CHUNK
    assert site.restored(second) == site.live()


def test_a_lie_is_healed_in_the_same_run_and_points_in_between_are_suspect(site: Site) -> None:
    first = site.back_up()
    site.write(3 * CHUNK, b"lost", tracked=False)
    site.write(9 * CHUNK, b"lost too", tracked=False)
    second = site.back_up(sample=0)
    assert site.restored(second) != site.live(), "nobody looked, so nobody knows"
    site.write(7 * CHUNK, b"told")
    third = site.back_up()
    assert site.restored(third) == site.live()
    (told,) = site.problems
    assert "2 of 24 chunks" in told
    assert (third.level, codes(third) & {ReasonCode.TRACKING_LIED}) == (Level.FULL, {ReasonCode.TRACKING_LIED})
    assert third.images[0].bytes_read == len(site.live())
    assert [site.health(each) for each in (first, second, third)] == [None, Health.SUSPECT, None]
    fourth = site.back_up()
    assert ReasonCode.CHANGES_AUDITED in codes(fourth)
    assert site.health(third) is None, "it was read whole"


def test_verification_takes_no_doubt_away_and_rules_do_not_count_on_it(site: Site) -> None:
    first = site.back_up()
    site.write(3 * CHUNK, b"lost", tracked=False)
    second = site.back_up(sample=0)
    third = site.back_up()
    assert list(verify(site.repository)) == []
    assert [site.health(each) for each in (first, second, third)] == [Health.GOOD, Health.SUSPECT, Health.GOOD]
    site.repository.delete(first.id)
    with pytest.raises(DeleteRefused, match="that is good"):
        site.repository.delete(third.id)
    site.repository.delete(second.id)


def test_a_damaged_point_stays_damaged_when_it_is_doubted(site: Site) -> None:
    made = site.back_up()
    site.repository.ledger.note_health(made, Health.DAMAGED, damaged=CHUNK)
    site.repository.doubt([made.id, "20200101T000000.000000Z-00000000"], "tracking lied")
    assert site.health(made) is Health.DAMAGED


def test_without_a_sample_nothing_is_compared(site: Site) -> None:
    site.back_up()
    second = site.back_up(sample=0)
    assert ReasonCode.CHANGES_AUDITED not in codes(second)


def test_a_run_whose_snapshot_broke_casts_no_doubt(site: Site) -> None:
    site.back_up()
    site.write(3 * CHUNK, b"lost", tracked=False)
    second = site.back_up(sample=0)
    site.hypervisor.fail(1, SnapshotBroken("db1", "somebody wrote below it"), call="confirm")
    with pytest.raises(SnapshotBroken):
        site.back_up()
    assert site.health(second) is None
    site.back_up()
    assert site.health(second) is Health.SUSPECT
