"""The backup use case over the shipped fakes: what is read, why, and what is left when any step fails."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, BackupResult, back_up
from proxy.errors import (
    Cancelled,
    HypervisorError,
    LanfreeError,
    MachineBusy,
    QuiesceFailed,
    ReadFailed,
    RepositoryFull,
    RunFailed,
    SnapshotBroken,
    TransportError,
)
from proxy.extents import Extent
from proxy.hypervisor.memory import Guest, MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import Consistency, Level, PowerState, QuiescePolicy, Reason, ReasonCode, RestorePoint, Tracking
from proxy.repository import KeyFile, MemoryStore, Repository, create
from proxy.transport.memory import MemoryTransport
from proxy.units import KiB
from tests.unit.repository.damage import flip

SECRET = KeyFile(bytes(range(32)))

CHUNK = 4 * KiB
SIZE = 40 * CHUNK + 512  # a disk may end inside a chunk


def random_disk(seed: int = 1) -> bytes:
    """Data, a hole, data; the end of the disk is not zero."""
    generator = random.Random(seed)
    return generator.randbytes(10 * CHUNK) + bytes(20 * CHUNK) + generator.randbytes(SIZE - 30 * CHUNK)


@dataclass
class Rig:
    hypervisor: MemoryHypervisor
    store: MemoryStore
    repository: Repository
    transport: MemoryTransport
    ports: BackupPorts
    machine: str
    runs: int = 0

    def back_up(self, **options: object) -> BackupResult:
        self.runs += 1
        return back_up(self.ports, BackupRequest(f"run-{self.runs:08}", self.machine, **options))  # type: ignore[arg-type]

    def restored(self, point: RestorePoint, key: str = "vda") -> bytes:
        with self.repository.open_image(point, key) as reader:
            data = bytearray(reader.size)
            reader.read_into(0, memoryview(data))
            return bytes(data)

    def live(self, key: str = "vda") -> bytes:
        return self.hypervisor.live_bytes(self.machine, key)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("web1", {"vda": random_disk()})
    store = MemoryStore()
    repository = create(store, chunk_size=CHUNK, pack_size=64 * KiB, cache=tmp_path / "cache", secret=SECRET)
    transport = MemoryTransport(hypervisor.disk_bytes)
    ports = BackupPorts(hypervisor, [transport], repository, Interlock(tmp_path / "locks"))
    return Rig(hypervisor, store, repository, transport, ports, machine)


def codes(point: RestorePoint, key: str = "vda") -> set[ReasonCode]:
    image = point.image(key)
    assert image is not None
    return {reason.code for reason in (*point.reasons, *image.reasons)}


def test_a_first_backup_reads_the_data_and_not_the_holes(rig: Rig) -> None:
    result = rig.back_up()
    image = result.point.images[0]
    assert rig.restored(result.point) == rig.live()
    assert image.bytes_read == SIZE - 20 * CHUNK
    assert (result.point.level, image.transport) == (Level.FULL, "san")
    assert ReasonCode.FIRST_BACKUP in codes(result.point)
    assert result.point.consistency is Consistency.APPLICATION
    assert result.point.configuration.nvram == b"nvram of web1"
    assert rig.hypervisor.leftovers == ()


def test_an_incremental_reads_only_the_chunks_that_changed_and_restores_like_a_full(rig: Rig) -> None:
    first = rig.back_up().point
    before = rig.live()
    rig.hypervisor.write(rig.machine, "vda", 3 * CHUNK + 100, b"changed")
    rig.hypervisor.write(rig.machine, "vda", SIZE - 4, b"tail")
    second = rig.back_up().point
    assert second.level is Level.INCREMENTAL
    assert second.parent == first.id
    assert second.images[0].bytes_read == CHUNK + 512
    assert ReasonCode.CHANGES_FROM_HYPERVISOR in codes(second)
    assert rig.restored(second) == rig.live()
    assert rig.restored(first) == before, "the older point is untouched"


def test_guest_writes_during_the_backup_are_in_the_next_one(rig: Rig) -> None:
    rig.back_up()
    image_writer = rig.repository.image_writer

    def writing_guest(key: str, size: int, parent: object) -> object:
        rig.hypervisor.write(rig.machine, "vda", 7 * CHUNK, b"written while frozen")
        return image_writer(key, size, parent)  # type: ignore[arg-type]

    rig.repository.image_writer = writing_guest  # type: ignore[method-assign,assignment]
    second = rig.back_up().point
    rig.repository.image_writer = image_writer  # type: ignore[method-assign]
    assert b"written while frozen" not in rig.restored(second)
    third = rig.back_up().point
    assert third.level is Level.INCREMENTAL
    assert rig.restored(third) == rig.live()


def _grow(rig: Rig) -> None:
    rig.hypervisor.resize(rig.machine, "vda", SIZE + 5 * CHUNK)


def _move(rig: Rig) -> None:
    rig.transport.identities["vda"] = "naa.other"


def _lose(rig: Rig) -> None:
    rig.hypervisor.lose_tracking(rig.machine)


def _damage(rig: Rig) -> None:
    index = rig.repository.points()[-1].images[0].index
    flip(rig.store, index, -1)


@pytest.mark.parametrize(
    ("happens", "options", "expected"),
    [
        pytest.param(lambda rig: None, {"full": True}, ReasonCode.FULL_REQUESTED, id="somebody asked for it"),
        pytest.param(_lose, {}, ReasonCode.TRACKING_LOST, id="the tracking was lost"),
        pytest.param(_grow, {}, ReasonCode.DISK_RESIZED, id="the disk grew"),
        pytest.param(_move, {}, ReasonCode.DISK_MOVED, id="the disk is on another device"),
        pytest.param(_damage, {}, ReasonCode.PARENT_DAMAGED, id="the parent's index is damaged"),
    ],
)
def test_everything_is_read_with_the_reason_and_only_what_differs_is_stored(
    rig: Rig, happens: object, options: dict[str, object], expected: ReasonCode
) -> None:
    rig.back_up()
    rig.hypervisor.write(rig.machine, "vda", CHUNK, b"x" * CHUNK)
    happens(rig)  # type: ignore[operator]
    point = rig.back_up(**options).point
    assert point.level is Level.FULL
    assert expected in codes(point)
    assert rig.restored(point) == rig.live()
    assert point.images[0].bytes_new <= 2 * CHUNK, "one changed chunk, and one that a growing disk completes"


def test_without_tracking_everything_is_read_each_time(tmp_path: Path, rig: Rig) -> None:
    rig.machine = rig.hypervisor.add("raw1", {"vda": random_disk(2)}, tracking=Tracking.NONE)
    rig.back_up()
    rig.hypervisor.write(rig.machine, "vda", 0, b"boot")
    point = rig.back_up().point
    assert ReasonCode.NO_TRACKING in codes(point)
    assert point.images[0].bytes_new == CHUNK
    assert rig.restored(point) == rig.live()


def test_what_the_top_layer_holds_is_read_while_the_mark_holds_and_everything_after(rig: Rig) -> None:
    rig.machine = rig.hypervisor.add("raw1", {"vda": random_disk(3)}, tracking=Tracking.LAYER)
    first = rig.back_up().point
    rig.hypervisor.write(rig.machine, "vda", CHUNK, b"x" * CHUNK)
    mark = first.images[0].change_id
    assert mark is not None
    rig.transport.changes["vda"] = {mark: [Extent(CHUNK, CHUNK)]}
    second = rig.back_up().point
    assert ReasonCode.CHANGES_FROM_OVERLAY in codes(second) and second.level is Level.INCREMENTAL
    assert second.images[0].bytes_read == CHUNK
    assert rig.restored(second) == rig.live()
    rig.hypervisor.lose_tracking(rig.machine)
    rig.hypervisor.write(rig.machine, "vda", 2 * CHUNK, b"y" * CHUNK)
    third = rig.back_up().point
    assert ReasonCode.TRACKING_LOST in codes(third) and third.level is Level.FULL
    assert rig.restored(third) == rig.live()


def test_excluded_disks_are_left_out_and_named(rig: Rig) -> None:
    shared = Reason(ReasonCode.DISK_SHARED, "two machines write to it")
    rig.machine = rig.hypervisor.add(
        "db1", {"vda": random_disk(), "vdb": b"b" * SIZE, "vdc": b"c" * SIZE}, excluded={"vdb": shared}
    )
    point = rig.back_up(exclude=frozenset({"vdc"})).point
    assert [image.key for image in point.images] == ["vda"]
    assert {(r.code, r.detail.split(":")[0]) for r in point.reasons} >= {
        (ReasonCode.DISK_SHARED, "vdb"),
        (ReasonCode.DISK_EXCLUDED, "vdc"),
    }


def test_a_machine_without_any_disk_to_back_up_is_an_error_and_no_empty_point(rig: Rig) -> None:
    with pytest.raises(RunFailed, match="no disk"):
        rig.back_up(exclude=frozenset({"vda"}))
    assert rig.repository.points() == []


@pytest.mark.parametrize(
    ("guest", "policy", "label", "code"),
    [
        (Guest.CONFIRMS, QuiescePolicy.REQUIRE, Consistency.APPLICATION, ReasonCode.QUIESCED_HOOKS_CONFIRMED),
        (Guest.HOOK_FAILS, QuiescePolicy.PREFER, Consistency.FILESYSTEM, ReasonCode.QUIESCED_HOOK_FAILED),
        (Guest.NO_AGENT, QuiescePolicy.PREFER, Consistency.CRASH, ReasonCode.QUIESCE_NO_AGENT),
        (Guest.CONFIRMS, QuiescePolicy.NEVER, Consistency.CRASH, ReasonCode.QUIESCE_NOT_ASKED),
    ],
)
def test_the_label_is_what_the_guest_proved(
    rig: Rig, guest: Guest, policy: QuiescePolicy, label: Consistency, code: ReasonCode
) -> None:
    rig.hypervisor.set_guest(rig.machine, guest)
    point = rig.back_up(quiesce=policy).point
    assert point.consistency is label
    assert code in codes(point)


def test_policy_require_fails_rather_than_take_less(rig: Rig) -> None:
    rig.hypervisor.set_guest(rig.machine, Guest.NO_AGENT)
    with pytest.raises(QuiesceFailed):
        rig.back_up(quiesce=QuiescePolicy.REQUIRE)
    assert rig.repository.points() == []
    assert rig.hypervisor.leftovers == ()


def test_the_next_transport_takes_over_and_the_refusal_is_the_reason(rig: Rig) -> None:
    second = MemoryTransport(rig.hypervisor.disk_bytes, mode="raw")
    rig.transport.refused["vda"] = "lun-not-presented"
    rig.ports = BackupPorts(rig.hypervisor, [rig.transport, second], rig.repository, rig.ports.interlock)
    point = rig.back_up().point
    assert point.images[0].transport == "raw"
    assert any(
        r.code is ReasonCode.TRANSPORT_FALLBACK and "lun-not-presented" in r.detail for r in point.images[0].reasons
    )


def test_what_only_the_lan_can_serve_is_asked_of_the_hypervisor_as_a_pull(rig: Rig) -> None:
    lan = MemoryTransport(rig.hypervisor.disk_bytes, mode="lan")
    rig.transport.refused["vda"] = "lun-not-presented"
    rig.ports = BackupPorts(rig.hypervisor, [rig.transport, lan], rig.repository, rig.ports.interlock)
    point = rig.back_up().point
    assert point.images[0].transport == "lan"
    assert any(r.code is ReasonCode.TRANSPORT_FALLBACK for r in point.reasons)


def test_a_san_that_breaks_in_the_middle_is_followed_by_a_run_over_the_lan(rig: Rig) -> None:
    lan = MemoryTransport(rig.hypervisor.disk_bytes, mode="lan")
    rig.ports = BackupPorts(rig.hypervisor, [rig.transport, lan], rig.repository, rig.ports.interlock)
    rig.transport.faults.fail(4, ReadFailed("memory:vda", 0, CHUNK, "array gone"))
    point = rig.back_up().point
    assert rig.restored(point) == rig.live()
    assert any("array gone" in r.detail for r in point.reasons)
    assert rig.hypervisor.leftovers == ()


def test_a_machine_that_is_off_is_not_asked_for_over_the_lan_and_the_san_s_error_stays(rig: Rig) -> None:
    lan = MemoryTransport(rig.hypervisor.disk_bytes, mode="lan")
    rig.ports = BackupPorts(rig.hypervisor, [rig.transport, lan], rig.repository, rig.ports.interlock)
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    rig.transport.refused["vda"] = lan.refused["vda"] = "lun-not-presented"
    with pytest.raises(TransportError, match="lun-not-presented"):
        rig.back_up()


def test_a_damaged_manifest_does_not_keep_a_machine_from_its_backups(rig: Rig) -> None:
    rig.back_up()
    name = next(name for name in rig.store.objects if name.startswith("points/"))
    rig.store.objects[name] = b"{}"
    point = rig.back_up().point
    assert rig.restored(point) == rig.live()
    assert any(r.code is ReasonCode.PARENT_DAMAGED for r in point.reasons)


def test_without_a_lan_a_broken_san_fails_the_run_and_leaves_nothing(rig: Rig) -> None:
    rig.transport.faults.fail(4, ReadFailed("memory:vda", 0, CHUNK, "array gone"))
    with pytest.raises(TransportError, match="array gone"):
        rig.back_up()
    assert rig.repository.points() == []
    assert rig.hypervisor.leftovers == ()


def test_a_machine_that_was_started_in_between_gives_no_restore_point(rig: Rig) -> None:
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    seal = rig.hypervisor.confirm

    def started_meanwhile(snapshot: object) -> None:
        rig.hypervisor.set_state(rig.machine, PowerState.RUNNING)
        seal(snapshot)  # type: ignore[arg-type]

    rig.hypervisor.confirm = started_meanwhile  # type: ignore[method-assign,assignment]
    with pytest.raises(SnapshotBroken):
        rig.back_up()
    assert rig.repository.points() == []


def test_two_backups_of_one_machine_at_once_are_one_too_many(rig: Rig) -> None:
    with rig.ports.interlock.run(rig.machine, "other"), pytest.raises(MachineBusy, match="other"):
        rig.back_up()
    assert rig.hypervisor.calls == []


def test_a_run_that_is_asked_to_end_ends_and_tidies_up(rig: Rig) -> None:
    rig.ports = BackupPorts(
        rig.hypervisor, [rig.transport], rig.repository, rig.ports.interlock, cancelled=lambda: True
    )
    with pytest.raises(Cancelled):
        rig.back_up()
    assert rig.hypervisor.leftovers == ()
    assert rig.repository.points() == []


def test_a_snapshot_that_cannot_be_removed_is_told_beside_the_good_restore_point(rig: Rig) -> None:
    rig.hypervisor.fail(1, HypervisorError("merge", "host is busy"), call="release")
    result = rig.back_up()
    assert rig.restored(result.point) == rig.live()
    assert "host is busy" in result.problems[0]
    assert rig.hypervisor.leftovers == (result.point.run,)
    assert [r.code for r in rig.hypervisor.sweep(list)] == [ReasonCode.LEFTOVER_REMOVED]
    assert rig.hypervisor.leftovers == ()


def _whole_or_absent(rig: Rig, run: str, before: bytes) -> None:
    """After a failure, and the sweep that the next start does: no point of the run, or one that restores right."""
    rig.hypervisor.sweep(list)
    assert rig.hypervisor.leftovers == ()
    for point in rig.repository.points():
        if point.run == run:
            assert rig.restored(point) == before
    follow_up = rig.back_up().point
    assert rig.restored(follow_up) == rig.live(), "the next run is right whatever the failed one left"


CALLS = ["machine", "configuration", "snapshot", "changed", "confirm", "release"]


def test_an_incremental_backup_asks_the_hypervisor_six_times(rig: Rig) -> None:
    rig.back_up()
    rig.hypervisor.calls.clear()
    rig.back_up()
    assert rig.hypervisor.calls == CALLS


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before its work", "after its work"])
@pytest.mark.parametrize("call", CALLS)
def test_each_hypervisor_call_fails(rig: Rig, call: str, after: bool) -> None:
    rig.back_up()
    rig.hypervisor.write(rig.machine, "vda", 2 * CHUNK, b"change")
    rig.hypervisor.calls.clear()
    rig.hypervisor.fail(1, HypervisorError(call, "fails"), call=call, after=after)
    before, run = rig.live(), f"run-{rig.runs + 1:08}"
    if call == "release":
        assert "fails" in rig.back_up().problems[0]
    else:
        with pytest.raises(HypervisorError):
            rig.back_up()
        assert all(point.run != run for point in rig.repository.points())
    _whole_or_absent(rig, run, before)


@pytest.mark.slow
def test_each_write_to_the_repository_fails(rig: Rig) -> None:
    for number in range(100):
        rig.hypervisor.write(rig.machine, "vda", 0, random_disk(number + 2)[: 9 * CHUNK])
        before, run = rig.live(), f"run-{rig.runs + 1:08}"
        rig.store.fail_at(number, RepositoryFull("memory"))
        try:
            rig.back_up()
        except RepositoryFull:
            rig.store.fail_at(None)
            assert all(point.run != run for point in rig.repository.points())
            _whole_or_absent(rig, run, before)
        else:
            break
    assert number >= 3, "at least a pack, an index and a manifest were written"


@pytest.mark.slow
def test_each_transport_call_fails(rig: Rig) -> None:
    rig.back_up()
    made = len(rig.transport.faults.calls)
    assert made >= 3, "probe, extents and at least one read"
    for number in range(1, made + 1):
        rig.transport.faults.fail(number, ReadFailed("memory:vda", 0, 1, f"call {number}"))
        before, run = rig.live(), f"run-{rig.runs + 1:08}"
        with pytest.raises(LanfreeError):
            rig.back_up(full=True)
        _whole_or_absent(rig, run, before)


def test_where_tracking_is_required_its_loss_fails_the_run_and_a_full_one_goes_on(rig: Rig) -> None:
    rig.ports = replace(rig.ports, tracking_required=True)
    rig.back_up()
    rig.hypervisor.lose_tracking(rig.machine)
    with pytest.raises(RunFailed, match="change tracking of web1 was lost") as raised:
        rig.back_up()
    assert "--full" in raised.value.hint
    assert rig.hypervisor.leftovers == ()
    assert ReasonCode.FULL_REQUESTED in codes(rig.back_up(full=True).point)
    assert rig.back_up().point.level is Level.INCREMENTAL
