"""The restore use case over the shipped fakes: everything is checked before anything is written, and read back after."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.errors import (
    HypervisorError,
    IntegrityError,
    LanfreeError,
    MachineBusy,
    RestoreRefused,
    UnderOverlay,
    WriteFailed,
)
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import DeviceAddress, FileAddress, Location, PowerState, RestorePoint, VirtualMachine
from proxy.ports import DiskPlace, NewMachine
from proxy.repository import KeyFile, MemoryStore, Repository, create
from proxy.restore import RestorePorts, RestoreRequest, RestoreResult, restore
from proxy.transport.memory import MemoryTransport
from proxy.transport.memory_targets import MemoryTargets
from proxy.units import KiB

SECRET = KeyFile(bytes(range(32)))

CHUNK = 4 * KiB
SYSTEM = random.Random(1).randbytes(5 * CHUNK) + bytes(3 * CHUNK) + b"e" * (CHUNK + 512)
DATA = b"d" * (4 * CHUNK)
IQN = "iqn.2026-01.test:hosts"
OTHER = "22222222-0000-4000-8000-000000000000"


@dataclass
class Rig:
    hypervisor: MemoryHypervisor
    store: MemoryStore
    repository: Repository
    targets: MemoryTargets
    ports: RestorePorts
    machine: str
    point: RestorePoint

    def request(self, *, beside: bool = True, **options: object) -> RestoreRequest:
        machine = NewMachine(
            name="db1-restored" if beside else "db1",
            host="h2",
            disks={"vda": DiskPlace(target=IQN, lun=1), "vdb": DiskPlace(path="/images/vdb")},
            identity=OTHER if beside else None,
        )
        return replace(RestoreRequest("restore-1", self.point.id, machine), **options)  # type: ignore[arg-type]

    def restore(self, *, beside: bool = True, **options: object) -> RestoreResult:
        return restore(self.ports, self.request(beside=beside, **options))

    @property
    def untouched(self) -> bool:
        return not any(any(device.data) for device in self.targets.devices.values())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("db1", {"vda": SYSTEM, "vdb": DATA})
    store = MemoryStore()
    repository = create(store, chunk_size=CHUNK, pack_size=64 * KiB, cache=tmp_path / "cache", secret=SECRET)
    interlock = Interlock(tmp_path / "locks")
    transport = MemoryTransport(hypervisor.disk_bytes)
    done = back_up(BackupPorts(hypervisor, [transport], repository, interlock), BackupRequest("run-1", machine))
    targets = MemoryTargets({f"{IQN}/1": bytes(len(SYSTEM) + CHUNK), "/images/vdb": bytes(len(DATA))})
    ports = RestorePorts(hypervisor, repository, targets, interlock)
    return Rig(hypervisor, store, repository, targets, ports, machine, done.point)


def test_every_disk_is_written_read_back_and_the_machine_is_defined_powered_off(rig: Rig) -> None:
    result = rig.restore()
    assert bytes(rig.targets.devices[f"{IQN}/1"].data[: len(SYSTEM)]) == SYSTEM
    assert bytes(rig.targets.devices["/images/vdb"].data) == DATA
    assert result.machine is not None
    assert (result.machine.id, result.machine.state, result.machine.host) == (OTHER, PowerState.OFF, "h2")
    assert [disk.key for disk in result.disks] == ["vda", "vdb"]
    assert result.disks[0].bytes_written == len(SYSTEM) - 3 * CHUNK, "zeroes are not written"


def test_whoever_looks_at_leases_sees_which_point_is_being_restored(rig: Rig) -> None:
    seen: list[str] = []

    def look() -> bool:
        seen.extend(lease.holder.detail for lease in rig.repository.leases.living() if lease.holder)
        return False

    restore(replace(rig.ports, cancelled=look), rig.request())
    assert set(seen) == {f"restore restore-1 of restore point {rig.point.id}"}


def test_zeroes_are_zeroed_and_nothing_behind_the_disk_is_touched(rig: Rig) -> None:
    rig.targets.devices[f"{IQN}/1"].data[:] = b"\xff" * (len(SYSTEM) + CHUNK)
    rig.restore(overwrite=True)
    device = rig.targets.devices[f"{IQN}/1"]
    assert bytes(device.data[: len(SYSTEM)]) == SYSTEM
    assert bytes(device.data[len(SYSTEM) :]) == b"\xff" * CHUNK


def test_only_named_disks_are_restored(rig: Rig) -> None:
    request = rig.request(define=False)
    only = replace(request, machine=replace(request.machine, disks={"vdb": DiskPlace(path="/images/vdb")}))
    result = restore(rig.ports, only)
    assert result.machine is None
    assert [disk.key for disk in result.disks] == ["vdb"]
    assert not any(rig.targets.devices[f"{IQN}/1"].data)


def test_back_under_its_own_identity_when_it_is_off(rig: Rig) -> None:
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    result = rig.restore(beside=False)
    assert result.machine is not None
    assert result.machine.id == rig.machine


def _machine_runs(rig: Rig) -> RestoreRequest:
    return rig.request(beside=False)


def _no_such_disk(rig: Rig) -> RestoreRequest:
    request = rig.request()
    places = {**request.machine.disks, "vdz": DiskPlace(path="/images/vdz")}
    return replace(request, machine=replace(request.machine, disks=places))


def _no_disk(rig: Rig) -> RestoreRequest:
    request = rig.request()
    return replace(request, machine=replace(request.machine, disks={}))


def _one_place_twice(rig: Rig) -> RestoreRequest:
    request = rig.request()
    return replace(
        request, machine=replace(request.machine, disks=dict.fromkeys(("vda", "vdb"), DiskPlace(target=IQN, lun=1)))
    )


def _second_is_too_small(rig: Rig) -> RestoreRequest:
    rig.targets.devices["/images/vdb"].size = len(DATA) - 1
    return rig.request()


def _second_carries_data(rig: Rig) -> RestoreRequest:
    rig.targets.devices["/images/vdb"].data[0] = 1
    return rig.request()


def _second_is_missing(rig: Rig) -> RestoreRequest:
    del rig.targets.devices["/images/vdb"]
    return rig.request()


def _belongs_to_another_machine(rig: Rig) -> RestoreRequest:
    other = rig.hypervisor.add("web1", {"vda": DATA})
    rig.hypervisor.set_state(other, PowerState.OFF)
    request = rig.request(overwrite=True)
    location = rig.hypervisor.machine(other).disks[0].location
    places = {**request.machine.disks, "vdb": DiskPlace(path=location.path)}  # type: ignore[union-attr]
    return replace(request, machine=replace(request.machine, disks=places))


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(_machine_runs, "it is running on h1", id="the original runs"),
        pytest.param(_no_such_disk, "no such disk, only vda, vdb", id="a disk that the point does not have"),
        pytest.param(_no_disk, "no disk was given a place", id="no disk"),
        pytest.param(_one_place_twice, "both vda and vdb", id="one place for two disks"),
        pytest.param(_second_is_too_small, "needs", id="the second place is too small"),
        pytest.param(_second_carries_data, "carries data", id="the second place carries data"),
        pytest.param(_second_is_missing, "no such device", id="the second place is missing"),
        pytest.param(
            _belongs_to_another_machine,
            "holds disk vda of machine web1",
            id="another machine's disk, though --overwrite",
        ),
    ],
)
def test_refused_before_a_byte_is_written(rig: Rig, prepare: object, says: str) -> None:
    request = prepare(rig)  # type: ignore[operator]
    before = {name: bytes(device.data) for name, device in rig.targets.devices.items()}
    with pytest.raises(RestoreRefused, match=says):
        restore(rig.ports, request)
    assert {name: bytes(device.data) for name, device in rig.targets.devices.items()} == before
    assert "define" not in rig.hypervisor.calls


def _a_host_is_silent(rig: Rig) -> RestoreRequest:
    rig.hypervisor.silent.add("h1")
    return rig.request(overwrite=True)


def _the_name_is_taken(rig: Rig) -> RestoreRequest:
    rig.hypervisor.add("db1-restored", {"vda": DATA})
    return rig.request()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(_a_host_is_silent, "h1 is silent", id="a host is silent"),
        pytest.param(_the_name_is_taken, "taken", id="the name is taken"),
    ],
)
def test_what_would_be_refused_in_the_end_is_refused_in_the_beginning(rig: Rig, prepare: object, says: str) -> None:
    request = prepare(rig)  # type: ignore[operator]
    with pytest.raises(RestoreRefused, match=says):
        restore(rig.ports, request)
    assert rig.untouched


def test_a_host_that_a_person_calls_dead_does_not_keep_a_restore(rig: Rig) -> None:
    rig.hypervisor.silent.add("h1")
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    request = rig.request(beside=False)
    request = replace(request, machine=replace(request.machine, without_hosts=frozenset({"h1"})))
    result = restore(rig.ports, request)
    assert result.machine is not None
    assert result.machine.id == rig.machine, "under its own identity"


def test_the_lower_images_of_another_machine_s_chain_are_its_own_too(rig: Rig) -> None:
    other = rig.hypervisor.add("clone1", {"vda": DATA})
    shown = rig.hypervisor.machines

    def with_chain() -> list[VirtualMachine]:
        below = (FileAddress("/images/vdb"),)
        return [replace(m, disks=(replace(m.disks[0], below=below),)) if m.id == other else m for m in shown()]

    rig.hypervisor.machines = with_chain  # type: ignore[method-assign]
    with pytest.raises(RestoreRefused, match="clone1"):
        rig.restore(overwrite=True)
    assert rig.untouched


def test_back_in_place_is_refused_while_an_overlay_lies_above_that_very_disk(rig: Rig) -> None:
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    shown, overlaid = rig.hypervisor.machines, [(FileAddress("/images/vdb"), "/o/newest.qcow2")]

    def with_overlay() -> list[VirtualMachine]:
        ((where, overlay),) = overlaid
        return [replace(m, disks=(replace(m.disks[1], location=where, overlay=overlay),)) for m in shown()]

    rig.hypervisor.machines = with_overlay  # type: ignore[method-assign]
    with pytest.raises(UnderOverlay, match=r"disk vdb are in /o/newest\.qcow2") as refused:
        rig.restore(beside=False, overwrite=True)
    assert "sweep" in refused.value.hint
    assert rig.untouched
    overlaid[0] = (FileAddress("/images/elsewhere"), "/o/newest.qcow2")
    assert rig.restore(beside=False, overwrite=True).machine is not None


def _under(rig: Rig, *below: Location) -> None:
    """Somebody's snapshot lies above these: the machine, powered off, writes to another file."""
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    shown = rig.hypervisor.machines

    def with_snapshot() -> list[VirtualMachine]:
        top = FileAddress("/images/snapshot.qcow2")
        return [replace(m, disks=(replace(m.disks[1], location=top, below=below),)) for m in shown()]

    rig.hypervisor.machines = with_snapshot  # type: ignore[method-assign]


def test_back_in_place_is_refused_under_somebody_else_s_snapshot(rig: Rig) -> None:
    _under(rig, FileAddress("/images/middle.qcow2"), FileAddress("/images/vdb"))
    with pytest.raises(RestoreRefused, match=r"/images/vdb.*below disk vdb of db1 itself") as refused:
        rig.restore(beside=False, overwrite=True)
    assert "merge that snapshot" in refused.value.hint
    assert rig.untouched
    # Calling devices known does not help: this one is known to lie there.
    with pytest.raises(RestoreRefused, match="below disk vdb"):
        rig.restore(beside=False, overwrite=True, unidentified=True)
    assert rig.untouched


def test_what_may_lie_under_a_snapshot_of_the_machine_itself_needs_a_person_s_word(rig: Rig) -> None:
    _under(rig, DeviceAddress("/dev/mapper/mpatha"))
    with pytest.raises(RestoreRefused, match="nobody can tell whether disk vdb of machine db1 lies on it"):
        rig.restore(beside=False, overwrite=True)
    assert rig.untouched
    assert rig.restore(beside=False, overwrite=True, unidentified=True).machine is not None


def test_who_lives_on_a_place_is_asked_again_before_each_disk(rig: Rig) -> None:
    rig.hypervisor.set_state(rig.machine, PowerState.OFF)
    first = rig.targets.devices[f"{IQN}/1"]
    write = first.flush

    def started_meanwhile() -> None:
        rig.hypervisor.set_state(rig.machine, PowerState.RUNNING)
        write()

    opened = rig.targets.open

    def opening(place: DiskPlace, size: int, *, overwrite: bool) -> object:
        target = opened(place, size, overwrite=overwrite)
        if place.target:
            target.flush = started_meanwhile  # type: ignore[method-assign]
        return target

    rig.targets.open = opening  # type: ignore[method-assign,assignment]
    rig.ports = replace(rig.ports, disks_at_once=1)
    with pytest.raises(RestoreRefused, match="running"):
        rig.restore(beside=False)
    assert any(first.data), "the first disk was written before the machine was started"
    assert not any(rig.targets.devices["/images/vdb"].data), "the second one was not touched any more"


def test_a_definition_that_fails_in_the_end_tells_that_the_disks_are_restored(rig: Rig) -> None:
    rig.hypervisor.fail(1, HypervisorError("define", "host is busy"), call="define")
    with pytest.raises(HypervisorError) as caught:
        rig.restore()
    assert any("disks are written" in note for note in caught.value.__notes__)


def test_two_restores_to_one_place_at_once_are_one_too_many(rig: Rig) -> None:
    with rig.ports.interlock.place("/images/vdb", "restore-7"), pytest.raises(RestoreRefused, match="restore-7"):
        rig.restore()
    assert rig.untouched


def test_a_machine_that_is_being_backed_up_is_not_restored(rig: Rig) -> None:
    with rig.ports.interlock.run(rig.machine, "backup-7"), pytest.raises(MachineBusy, match="backup-7"):
        rig.restore()
    assert rig.untouched


def test_a_damaged_chunk_stops_the_restore_and_no_machine_is_defined(rig: Rig) -> None:
    pack = next(name for name in rig.store.objects if name.startswith("packs/"))
    data = bytearray(rig.store.objects[pack])
    data[2 * CHUNK] ^= 0xFF
    rig.store.objects[pack] = bytes(data)
    with pytest.raises(LanfreeError) as caught:
        rig.restore()
    assert isinstance(caught.value, IntegrityError)
    assert "db1" in caught.value.message
    assert rig.point.id in caught.value.message
    assert "define" not in rig.hypervisor.calls


def test_a_device_that_keeps_something_else_than_what_was_written_is_found_out(rig: Rig) -> None:
    device = rig.targets.devices[f"{IQN}/1"]
    read_back = rig.targets.read_back

    def lying(place: DiskPlace, size: int) -> object:
        if place.target:  # the other disk is read back at the same time
            device.data[2 * CHUNK + 7] ^= 1
        return read_back(place, size)

    rig.targets.read_back = lying  # type: ignore[method-assign,assignment]
    with pytest.raises(WriteFailed, match=str(2 * CHUNK)):
        rig.restore()
    assert "define" not in rig.hypervisor.calls


def test_a_write_that_fails_ends_the_restore_and_defines_nothing(rig: Rig) -> None:
    rig.targets.devices[f"{IQN}/1"].faults.fail(2, WriteFailed(f"{IQN}/1", 0, CHUNK, "array gone"))
    with pytest.raises(WriteFailed, match="array gone"):
        rig.restore()
    assert "define" not in rig.hypervisor.calls
