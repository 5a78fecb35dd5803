"""What every hypervisor adapter keeps, the shipped fake among them. See the comments in ``proxy/ports.py``.

A *rig* is an adapter with one running machine and one that is off, and the few things a test does behind its back.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.lab.lab import Lab
from proxy.errors import (
    ChangesUnknown,
    HostUnreachable,
    MachineBusy,
    MachineNotFound,
    QuiesceFailed,
    RestoreRefused,
    SnapshotBroken,
    SnapshotFailed,
    SnapshotInUse,
)
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.memory import Guest, MemoryHypervisor
from proxy.hypervisor.vsphere import VsphereSettings, VsphereSite, inventory, tasks
from proxy.model import (
    Consistency,
    FrozenDisk,
    MachineConfiguration,
    PowerState,
    QuiescePolicy,
    ReasonCode,
    SnapshotRequest,
    Tracking,
)
from proxy.ports import DiskPlace, Hypervisor, NewMachine
from proxy.state_directory import StateDirectory
from proxy.units import MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

NOBODY = "00000000-0000-4000-8000-000000000000"
NEW = "22222222-2222-4333-8444-555555555555"


class MemoryRig:
    """The fake."""

    def __init__(self):
        self.hypervisor: Hypervisor = MemoryHypervisor()
        self.running = self.hypervisor.add("runs", {"vda": bytes(range(256)) * 64})
        self.off = self.hypervisor.add("sleeps", {"vda": bytes(4096)}, state=PowerState.OFF)
        self.disk = "vda"
        self.place = DiskPlace(path="memory:new")
        self.host, self.other_host = "h1", "h2"

    def guest_writes(self):
        self.hypervisor.write(self.running, "vda", 100, b"written by the guest")

    def frozen_bytes(self, disk: FrozenDisk) -> bytes:
        return self.hypervisor.disk_bytes(disk.layers[0].location.path)

    def start_without_agent(self):
        self.hypervisor.set_guest(self.off, Guest.NO_AGENT)
        self.hypervisor.set_state(self.off, PowerState.RUNNING)

    def start_and_stop(self):
        self.hypervisor.set_state(self.off, PowerState.RUNNING)
        self.stop()

    def stop(self):
        self.hypervisor.set_state(self.off, PowerState.OFF)

    def hold_readers(self, held: bool):
        self.hypervisor.readers = {self.running} if held else set()

    def leftovers(self):
        return list(self.hypervisor.leftovers)

    def silence_all(self):
        self.hypervisor.silent = {"h1", "h2"}

    def forget_new(self):
        self.hypervisor.remove(NEW)

    def roll(self, rolls: bool):
        self.hypervisor.remove(self.running)
        tracking = Tracking.LAYER if rolls else Tracking.HYPERVISOR
        self.running = self.hypervisor.add("rolls", {"vda": bytes(8192)}, tracking=tracking)


class KvmRig:
    """libvirt hosts of the lab."""

    def __init__(self, lab: Lab, state):
        self.lab = lab
        self.busy = False
        self.state = state
        self.hypervisor: Hypervisor = self._site()
        ids = {m.name: m.id for m in self.hypervisor.machines()}
        self.running, self.off = ids["raw-lun"], ids["powered-off"]
        self.disk = "vda"
        self.place = DiskPlace(path=str(lab.shared / "restored.raw"))
        self.host, self.other_host = "h1", "h2"

    def _site(self, **options) -> KvmSite:
        hosts = [KvmHost(h.name, h.uri, str(self.lab.shared / "overlays")) for h in self.lab.hosts]
        return KvmSite(hosts, state=StateDirectory(self.state), readers_gone=self._readers_gone, **options)

    def roll(self, rolls: bool):
        self.hypervisor.close()
        self.hypervisor = self._site(rolling_overlay=["raw-lun"] if rolls else [])
        if not rolls:
            self.hypervisor.sweep(list)

    def _readers_gone(self, _machine):
        return _held_off(self.busy, "raw-lun")

    def guest_writes(self):
        def written():
            statistics = self.lab.host("h1").virsh("domblkstat", "raw-lun", "vda").text
            return next(int(line.split()[-1]) for line in statistics.splitlines() if " wr_bytes " in line)

        before, deadline = written(), time.monotonic() + 60
        while written() < before + 65536:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def frozen_bytes(self, disk: FrozenDisk) -> bytes:
        number = disk.layers[0].location.lun
        return next(lun.path for lun in self.lab.array.luns() if lun.number == number).read_bytes()

    def start_without_agent(self):
        self.lab.host("h1").virsh("start", "powered-off")  # it takes seconds until its agent is there

    def start_and_stop(self):
        self.lab.host("h1").virsh("start", "powered-off", "--paused")
        self.stop()

    def stop(self):
        self.lab.host("h1").virsh("destroy", "powered-off")

    def hold_readers(self, held: bool):
        self.busy = held

    def leftovers(self):
        return [f.name for f in (self.lab.shared / "overlays").iterdir()]

    def silence_all(self):
        self.hypervisor.close()
        nowhere = KvmHost("h9", f"qemu+unix:///system?socket={self.state}/none", "/nowhere")
        self.hypervisor = KvmSite([nowhere], state=StateDirectory(self.state))

    def forget_new(self):
        self.lab.host("h2").virsh("undefine", "restored")


class VsphereRig:
    """The simulated vCenter."""

    def __init__(self, lab: VcsimLab, state):
        self.lab = lab
        self.busy = False
        self.state = state
        self.hypervisor: VsphereSite = self._site(lab.port)
        self.running, self.off = lab.instance_uuid("runs"), lab.instance_uuid("sleeps")
        self.disk = "scsi0:0"
        self.place = DiskPlace(datastore="san1", path="sleeps/sleeps.vmdk")
        self.host, self.other_host = "DC0_C0_H0", "DC0_C0_H1"
        self.before = {machine.id for machine in inventory.read(self.hypervisor.vcenter).machines}

    def _site(self, port: int) -> VsphereSite:
        lab = self.lab
        settings = VsphereSettings("vcsim", lab.host, lab.user, lab.password_file, port=port, thumbprint=lab.thumbprint)
        return VsphereSite(settings, state=StateDirectory(self.state), readers_gone=self._readers_gone, pause=0.05)

    def _readers_gone(self, _machine):
        return _held_off(self.busy, "runs")

    def _machine(self, identity: str):
        return inventory.find_machine(self.hypervisor.vcenter, identity)

    def _done(self, task):
        tasks.wait(self.hypervisor.vcenter, task, "by the rig", limit=30)

    def guest_writes(self):
        self.lab.guest_writes("runs", self.disk, 12345, b"written by the guest")

    def frozen_bytes(self, disk: FrozenDisk) -> bytes:
        location = disk.layers[0].location
        name = next(m.name for m in self.lab.machines if self.lab.machine(m.name)["Ref"] == location.machine)
        return self.lab.truth(name, disk.key, 0, disk.size, location.snapshot)

    def start_without_agent(self):
        self._done(self._machine(self.off).PowerOnVM_Task())

    def start_and_stop(self):
        self.start_without_agent()
        self.lab.guest_writes("sleeps", self.disk, 0, b"it ran")
        self.stop()

    def stop(self):
        self._done(self._machine(self.off).PowerOffVM_Task())

    def hold_readers(self, held: bool):
        self.busy = held

    def leftovers(self):
        told = [self.lab.machine(machine.name) for machine in self.lab.machines]
        return [thing for t in told for thing in (*t["Snapshots"], *(t["Disabled"] or ()))]

    def silence_all(self):
        self.hypervisor.close()
        self.hypervisor = self._site(1)

    def forget_new(self):
        for machine in inventory.read(self.hypervisor.vcenter).machines:
            if machine.id not in self.before:  # its disk is another's
                self._machine(machine.machine.id).UnregisterVM()


@contextmanager
def _held_off(busy: bool, machine: str) -> Iterator[None]:
    if busy:
        raise SnapshotInUse(machine)
    yield


@pytest.fixture(scope="module")
def contract_vcenter(tmp_path_factory):
    machines = (
        LabMachine("runs", (LabDisk(size=8 * MiB),), guest="windows2019srv_64Guest", tracking=True),
        LabMachine("sleeps", (LabDisk(size=8 * MiB),), power="poweredOff", tools="guestToolsNotRunning"),
    )
    with VcsimLab(tmp_path_factory.mktemp("contract") / "vcsim", machines) as lab:
        yield lab


@pytest.fixture(scope="module")
def contract_lab(tmp_path_factory):
    with Lab.up(tmp_path_factory.mktemp("contract") / "lab", machines=("raw-lun",)) as lab:
        yield lab


_memory = "memory"
_kvm = pytest.param("kvm", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd")])
_vsphere = pytest.param("vsphere", marks=[pytest.mark.tools, pytest.mark.requires("root", "tgtd", "go")])


def _rig(request, tmp_path):
    if request.param == "memory":
        made = MemoryRig()
    elif request.param == "kvm":
        made = KvmRig(request.getfixturevalue("contract_lab"), tmp_path / "state")
    else:
        made = VsphereRig(request.getfixturevalue("contract_vcenter"), tmp_path / "state")
    yield made
    assert made.leftovers() == []


rig = pytest.fixture(_rig, params=[_memory, _kvm, _vsphere], name="rig")
rolling_rig = pytest.fixture(_rig, params=[_memory, _kvm], name="rolling_rig")
"""Adapters that can keep a machine on an overlay between backups, to learn from it what changed."""


_runs = itertools.count(int(time.time()))


def ask(rig, machine, *, disks=(), **asked) -> SnapshotRequest:
    return SnapshotRequest(f"contract-{next(_runs)}", machine, disks or (rig.disk,), **asked)


def test_every_machine_is_listed_once_with_its_state(rig):
    machines = {m.id: m for m in rig.hypervisor.machines()}
    assert len(machines) == len(rig.hypervisor.machines())
    assert machines[rig.running].state is PowerState.RUNNING
    assert machines[rig.off].state is PowerState.OFF
    assert rig.hypervisor.machine(rig.running) == machines[rig.running]
    assert rig.hypervisor.unreachable() == {}


def test_a_machine_that_nobody_knows_is_not_found(rig):
    with pytest.raises(MachineNotFound):
        rig.hypervisor.machine(NOBODY)
    with pytest.raises(MachineNotFound):
        rig.hypervisor.snapshot(ask(rig, NOBODY))


def test_hosts_that_are_all_silent_raise(rig):
    rig.silence_all()
    with pytest.raises(HostUnreachable):
        rig.hypervisor.machines()


def test_frozen_disks_stand_still_while_the_guest_writes(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    (disk,) = snapshot.disks
    before = rig.frozen_bytes(disk)
    rig.guest_writes()
    rig.hypervisor.confirm(snapshot)
    after = rig.frozen_bytes(disk)
    rig.hypervisor.release(snapshot, sealed=True)
    assert before == after and disk.size == len(before) and disk.overlay


def test_a_guest_whose_hooks_confirm_is_application_consistent(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running, quiesce=QuiescePolicy.REQUIRE))
    rig.hypervisor.release(snapshot, sealed=True)
    assert snapshot.consistency is Consistency.APPLICATION
    assert [r.code for r in snapshot.reasons] == [ReasonCode.QUIESCED_HOOKS_CONFIRMED]


def test_the_same_run_gets_the_same_snapshot(rig):
    request = ask(rig, rig.running)
    first, again = rig.hypervisor.snapshot(request), rig.hypervisor.snapshot(request)
    rig.hypervisor.release(first, sealed=False)
    assert first == again


def test_another_run_has_to_wait(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    with pytest.raises(MachineBusy):
        rig.hypervisor.snapshot(ask(rig, rig.running))
    rig.hypervisor.confirm(snapshot)
    rig.hypervisor.release(snapshot, sealed=True)


def test_release_twice_is_fine_and_then_the_snapshot_is_broken(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    rig.hypervisor.release(snapshot, sealed=True)
    assert list(rig.hypervisor.release(snapshot, sealed=True)) == []
    with pytest.raises(SnapshotBroken):
        rig.hypervisor.confirm(snapshot)


def test_nothing_is_merged_while_somebody_reads(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    rig.hold_readers(True)
    with pytest.raises(SnapshotInUse):
        rig.hypervisor.release(snapshot, sealed=True)
    rig.hypervisor.confirm(snapshot)
    rig.hold_readers(False)
    rig.hypervisor.release(snapshot, sealed=True)


def test_a_disk_that_is_not_there_is_refused_and_nothing_is_left(rig):
    with pytest.raises(SnapshotFailed):
        rig.hypervisor.snapshot(ask(rig, rig.running, disks=(rig.disk, "vdz")))
    assert rig.leftovers() == []


def test_without_an_agent_require_fails_and_prefer_is_crash_consistent(rig):
    rig.start_without_agent()
    try:
        with pytest.raises(QuiesceFailed):
            rig.hypervisor.snapshot(ask(rig, rig.off, quiesce=QuiescePolicy.REQUIRE))
        assert rig.leftovers() == []
        snapshot = rig.hypervisor.snapshot(ask(rig, rig.off))
        rig.hypervisor.release(snapshot, sealed=True)
    finally:
        rig.stop()
    assert snapshot.consistency is Consistency.CRASH
    assert snapshot.reasons[0].code is ReasonCode.QUIESCE_NO_AGENT


def test_never_means_crash_consistent(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running, quiesce=QuiescePolicy.NEVER))
    rig.hypervisor.release(snapshot, sealed=True)
    assert snapshot.consistency is Consistency.CRASH
    assert [r.code for r in snapshot.reasons] == [ReasonCode.QUIESCE_NOT_ASKED]
    assert snapshot.frozen_seconds == 0.0


def test_a_machine_that_is_off_either_stands_still_or_breaks_when_it_ran_meanwhile(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.off))
    (disk,) = snapshot.disks
    assert (snapshot.method == "off") == (disk.overlay is None)
    rig.hypervisor.confirm(snapshot)
    before = rig.frozen_bytes(disk) if disk.overlay else b""
    rig.start_and_stop()
    if disk.overlay:
        rig.hypervisor.confirm(snapshot)
        assert rig.frozen_bytes(disk) == before
    else:
        with pytest.raises(SnapshotBroken):
            rig.hypervisor.confirm(snapshot)
    rig.hypervisor.release(snapshot, sealed=False)


def test_changes_since_an_unknown_mark_are_unknown(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    with pytest.raises(ChangesUnknown):
        rig.hypervisor.changed(snapshot, snapshot.disks[0], "nobody-set-this")
    rig.hypervisor.release(snapshot, sealed=False)


def test_changes_by_layer_hold_from_the_last_sealed_mark_and_from_no_other(rolling_rig):
    def taken(since, *, sealed):
        snapshot = rig.hypervisor.snapshot(ask(rig, rig.running, quiesce=QuiescePolicy.NEVER, since=since))
        rig.hypervisor.confirm(snapshot)
        rig.hypervisor.release(snapshot, sealed=sealed)
        (disk,) = snapshot.disks
        return disk.tracking, {rig.disk: disk.change_id}

    rig = rolling_rig
    rig.roll(True)
    try:
        assert taken({}, sealed=True)[0] is Tracking.NONE
        _, first = taken({}, sealed=True)
        assert taken(first, sealed=False)[0] is Tracking.LAYER
        assert list(rig.hypervisor.sweep(list)) == [], "what a mark needs is no leftover"
        tracking, second = taken(first, sealed=True)
        assert tracking is Tracking.LAYER, "a run that failed took nothing away"
        assert taken(first, sealed=False)[0] is Tracking.NONE, "an older mark tells nothing any more"
        assert taken(second, sealed=True)[0] is Tracking.LAYER
    finally:
        rig.roll(False)


def test_a_sweep_undoes_dead_runs_only(rig):
    dead = rig.hypervisor.snapshot(ask(rig, rig.running))
    assert list(rig.hypervisor.sweep(lambda: [dead.run])) == []
    rig.hypervisor.confirm(dead)
    reasons = rig.hypervisor.sweep(list)
    assert ReasonCode.LEFTOVER_REMOVED in [r.code for r in reasons]
    assert rig.leftovers() == []
    assert list(rig.hypervisor.sweep(list)) == []


def test_a_run_that_somebody_takes_up_while_a_sweep_is_on_is_left_alone(rig):
    snapshot = rig.hypervisor.snapshot(ask(rig, rig.running))
    asked = []

    def live():
        asked.append(1)
        return [] if len(asked) == 1 else [snapshot.run]

    assert list(rig.hypervisor.sweep(live)) == []
    rig.hypervisor.confirm(snapshot)
    rig.hypervisor.release(snapshot, sealed=True)
    assert len(asked) > 1


def test_a_run_that_begins_while_a_sweep_is_on_is_left_alone(rig):
    begun = []

    def live():
        if not begun:  # leftovers were looked for already
            begun.append(rig.hypervisor.snapshot(ask(rig, rig.running)))
        return []  # as if the answer was a moment older than the run

    assert list(rig.hypervisor.sweep(live)) == []
    rig.hypervisor.confirm(begun[0])
    rig.hypervisor.release(begun[0], sealed=True)


def test_a_configuration_makes_a_new_machine_that_is_off(rig):
    saved = rig.hypervisor.configuration(rig.running)
    new = NewMachine("restored", rig.other_host, {rig.disk: rig.place}, identity=NEW)
    made = rig.hypervisor.define(saved, new)
    try:
        assert (made.id, made.name, made.host, made.state) == (NEW, "restored", rig.other_host, PowerState.OFF)
        assert [d.key for d in made.disks] == [rig.disk]
        without = NewMachine("restored", rig.other_host, {}, identity=NEW)
        assert rig.hypervisor.define(saved, without).disks == ()
    finally:
        rig.forget_new()


def test_a_running_machine_or_a_taken_name_is_never_replaced(rig):
    saved = rig.hypervisor.configuration(rig.running)
    name = rig.hypervisor.machine(rig.running).name
    refused(rig, saved, NewMachine(name, rig.host, {}))
    refused(rig, saved, NewMachine(name, rig.host, {}, identity=NEW))
    assert rig.hypervisor.machine(rig.running).state is PowerState.RUNNING


def test_what_is_refused_is_told_before_and_nothing_is_defined_by_asking(rig):
    saved = rig.hypervisor.configuration(rig.off)
    name = rig.hypervisor.machine(rig.off).name
    refused(rig, saved, NewMachine("restored", "nowhere", {}, identity=NEW))
    refused(rig, MachineConfiguration("vmx", "x"), NewMachine("restored", rig.other_host, {}, identity=NEW))
    rig.hypervisor.check_define(saved, NewMachine("restored", rig.other_host, {rig.disk: rig.place}, identity=NEW))
    rig.hypervisor.check_define(saved, NewMachine(name, rig.host, {}))
    with pytest.raises(MachineNotFound):
        rig.hypervisor.machine(NEW)


def refused(rig, saved: MachineConfiguration, new: NewMachine):
    for call in (rig.hypervisor.check_define, rig.hypervisor.define):
        with pytest.raises(RestoreRefused):
            call(saved, new)
