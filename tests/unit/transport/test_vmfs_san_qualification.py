"""The first disk of a datastore is compared with what its host reads; the verdict is kept and obeyed."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.errors import TransportRefused
from proxy.extents import Extent, Kind
from proxy.model import FrozenDisk
from proxy.ports import BlockSource
from proxy.transport.memory import MemorySource
from proxy.transport.vmfs_san import Qualification
from proxy.transport.vmfs_san.qualification import READER, SAMPLE, SAMPLES, ZERO_SAMPLES, choose
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_builder import DATA, HOLE
from tests.unit.transport.vmfs_site import Site, site, some_bytes, thin_site

# Whole datastores are built for each of its verdicts.
pytestmark = pytest.mark.slow

BASE = some_bytes(2 * MiB)
GRAINS = {n: bytes([n]) * 4096 for n in range(1, 9)}


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 11, 22, 12, tzinfo=UTC)


class Host:
    """Another way to read the disk. ``opened``: how often; ``reads``: (offset, length) of each."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sources: list[MemorySource] = []

    def __call__(self, disk: FrozenDisk) -> BlockSource:
        self.sources.append(MemorySource(self.data))
        return self.sources[-1]

    @property
    def reads(self) -> list[tuple[int, int]]:
        return [(offset, length) for source in self.sources for name, offset, length in source.faults.calls if length]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "qualification"


def qualification(directory: Path, host: Callable[[FrozenDisk], BlockSource], **more: object) -> Qualification:
    return Qualification(directory, host, clock=Noon(), chance=random.Random(1), **more)  # type: ignore[arg-type]


def open_once(made: Site, qualified: Qualification) -> None:
    with made.transport(qualification=qualified).open(made.disk()) as source:
        buffer = bytearray(source.size)
        source.read_into(0, memoryview(buffer))
        assert buffer == made.truth


def reason(made: Site, qualified: Qualification) -> str:
    luns = made.luns()
    with pytest.raises(TransportRefused) as refused:
        made.transport(luns, qualification=qualified).open(made.disk())
    assert all(lun.closed for lun in luns.opened)
    return refused.value.reason


def test_the_first_disk_is_compared_in_sixteen_places_and_the_second_is_not(directory: Path) -> None:
    made, host = thin_site([DATA, HOLE, DATA, HOLE] * 3), Host(b"")
    host.data = made.truth
    qualified = qualification(directory, host)
    open_once(made, qualified)
    assert len(host.reads) == SAMPLES
    assert host.reads == sorted(host.reads)
    assert all(source.closed for source in host.sources)
    open_once(made, qualified)
    assert len(host.sources) == 1


def test_the_verdict_is_kept_so_that_machines_can_read_it(directory: Path) -> None:
    made = site(BASE, [("se", GRAINS)])
    open_once(made, qualification(directory, Host(made.truth)))
    (file,) = directory.iterdir()
    assert file.name == f"{made.uuid}.json"
    told = json.loads(file.read_text())
    assert {name: told[name] for name in ("version", "reader", "datastore", "passed", "at", "disk")} == {
        "version": 1,
        "reader": READER,
        "datastore": made.uuid,
        "passed": True,
        "at": "2026-11-22T12:00:00+00:00",
        "disk": "vm/vm-000001.vmdk",
    }
    assert told["devices"] == list(made.names)
    assert told["features"] == ["flat", "se-sparse"]
    assert {sample["equal"] for sample in told["samples"]} == {True}
    assert all(sample["length"] <= SAMPLE and len(sample["digest"]) == 32 for sample in told["samples"])


def test_a_block_that_differs_disqualifies_the_datastore_for_all_its_disks(directory: Path) -> None:
    made = site(BASE)
    wrong = bytes(b ^ 1 for b in made.truth)
    host = Host(wrong)
    qualified = qualification(directory, host)
    assert reason(made, qualified) == "datastore-disqualified"
    host.data = made.truth
    assert reason(made, qualified) == "datastore-disqualified"  # not compared again: a person must look
    assert len(host.sources) == 1
    with pytest.raises(TransportRefused, match="differed") as refused:
        made.transport(qualification=qualified).probe(made.disk())
    assert str(directory) in refused.value.hint
    assert json.loads(next(directory.iterdir()).read_text())["passed"] is False


def test_a_hole_where_the_host_reads_data_is_found(directory: Path) -> None:
    made = thin_site([DATA, HOLE])
    host = Host(made.truth[:MiB] + b"\x01" * MiB)
    assert reason(made, qualification(directory, host)) == "datastore-disqualified"


def test_a_person_who_removes_the_verdict_has_it_compared_again(directory: Path) -> None:
    made = site(BASE)
    assert reason(made, qualification(directory, Host(bytes(len(BASE))))) == "datastore-disqualified"
    next(directory.iterdir()).unlink()
    open_once(made, qualification(directory, Host(made.truth)))


def test_without_another_way_the_datastore_is_not_used_and_nothing_is_kept(directory: Path) -> None:
    made = site(BASE)

    def refusing(disk: FrozenDisk) -> BlockSource:
        raise TransportRefused("lan", disk.key, "no-host", "nobody there", hint="start one")

    def shorter(_disk: FrozenDisk) -> BlockSource:
        return MemorySource(made.truth[: MiB // 2])

    for other in (refusing, shorter):
        assert reason(made, qualification(directory, other)) == "datastore-not-qualified"
        assert not directory.exists()


def test_a_disk_with_something_new_in_it_is_compared_too(directory: Path) -> None:
    plain, delta = site(BASE), site(BASE, [("se", GRAINS)])
    host = Host(plain.truth)
    qualified = qualification(directory, host)
    open_once(plain, qualified)
    host.data = delta.truth
    open_once(delta, qualified)
    assert len(host.sources) == 2
    verdict = qualified.verdict(plain.uuid)
    assert verdict is not None
    assert verdict.features == ("flat", "se-sparse")
    open_once(plain, qualified)
    open_once(delta, qualified)
    assert len(host.sources) == 2


def test_other_luns_under_the_same_datastore_are_compared_again(directory: Path) -> None:
    host = Host(BASE)
    qualified = qualification(directory, host)
    open_once(site(BASE), qualified)
    open_once(site(BASE, names=["naa.6000c2900000000000000000000000bb"]), qualified)
    assert len(host.sources) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: "{",
        lambda told: "[]",
        lambda told: json.dumps({**told, "version": 2}),
        lambda told: json.dumps({**told, "reader": READER - 1}),
        lambda told: json.dumps({**told, "samples": 5}),
        lambda told: json.dumps({"version": 1, "reader": READER}),
        lambda told: json.dumps({**told, "more": 1}),
    ],
    ids=["cut off", "list", "version", "reader", "samples", "fields missing", "unknown field"],
)
def test_a_verdict_that_cannot_be_read_is_none(directory: Path, damage: Callable[[dict[str, object]], str]) -> None:
    made, host = site(BASE), Host(BASE)
    qualified = qualification(directory, host)
    open_once(made, qualified)
    (file,) = directory.iterdir()
    file.write_text(damage(json.loads(file.read_text())))
    assert qualified.verdict(made.uuid) is None
    open_once(made, qualified)
    assert len(host.sources) == 2
    assert qualified.verdict(made.uuid) is not None


def test_a_stream_is_compared_only_as_far_as_it_is_asked_to_be_read(directory: Path) -> None:
    made, host = site(BASE), Host(BASE)
    open_once(made, qualification(directory, host, reach=256 * KiB))
    assert max(offset + length for offset, length in host.reads) <= 256 * KiB


def test_a_datastore_that_calls_itself_by_a_path_names_no_other_file(directory: Path) -> None:
    assert qualification(directory, Host(b""))._path("../../etc/x").parent == directory


# --- choosing ---


def data_and_zero(*lengths: int) -> list[Extent]:
    found, at = [], 0
    for number, length in enumerate(lengths):
        found.append(Extent(at, length, Kind.ZERO if number % 2 else Kind.DATA))
        at += length
    return found


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_spread_over_the_data_with_some_in_the_zeroes(seed: int) -> None:
    extents = data_and_zero(*[100 * MiB, 300 * MiB] * 20)
    size = extents[-1].end
    chosen = choose(extents, size, random.Random(seed))
    assert len(chosen) == SAMPLES
    assert [kind for _at, _length, kind in chosen].count("zero") == ZERO_SAMPLES
    for offset, length, kind in chosen:
        assert length == SAMPLE
        (holder,) = [e for e in extents if e.start <= offset < e.end]
        assert holder.kind == kind
        assert offset + length <= holder.end
    parts = {offset * 4 // size for offset, _length, kind in chosen if kind == "data"}
    assert parts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("extents", "count"),
    [
        ([], 0),
        ([Extent(0, 512)], 1),
        ([Extent(0, 100 * MiB)], SAMPLES),
        ([Extent(0, 100 * MiB, Kind.ZERO)], SAMPLES),
        (data_and_zero(512, 100 * MiB), ZERO_SAMPLES + 1),
    ],
    ids=["empty", "sector", "all-data", "all-zero", "boot-sector"],
)
def test_there_are_as_many_as_there_is_room_for(extents: list[Extent], count: int) -> None:
    size = extents[-1].end if extents else 0
    assert len(choose(extents, size, random.Random(3))) == count
