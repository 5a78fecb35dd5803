import pytest

from proxy.errors import ChangesUnknown, DeviceBusy, HostUnreachable, RestoreRefused
from proxy.extents import Extent
from proxy.hypervisor.memory import BLOCK, Guest, MemoryHypervisor
from proxy.model import Consistency, FileAddress, PowerState, Reason, ReasonCode, SnapshotRequest, Tracking
from proxy.ports import NewMachine


@pytest.fixture
def site():
    return MemoryHypervisor()


def take(site, machine, run, **asked):
    return site.snapshot(SnapshotRequest(run, machine, ("vda",), **asked))


def test_changes_between_two_snapshots_are_exact_to_the_block(site):
    machine = site.add("web", {"vda": bytes(8 * BLOCK + 10)})
    first = take(site, machine, "r1")
    site.write(machine, "vda", BLOCK - 1, b"xx")
    site.release(first, sealed=True)
    site.write(machine, "vda", 8 * BLOCK, b"end")
    second = take(site, machine, "r2")
    site.write(machine, "vda", 4 * BLOCK, b"later")
    (disk,) = second.disks
    assert site.changed(second, disk, "mark-r1") == [Extent(0, 2 * BLOCK), Extent(8 * BLOCK, 10)]


def test_an_unsealed_run_leaves_the_old_mark_and_a_sealed_one_takes_it(site):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    site.release(take(site, machine, "r1"), sealed=True)
    site.release(take(site, machine, "r2"), sealed=False)
    third = take(site, machine, "r3")
    assert site.changed(third, third.disks[0], "mark-r1") == []
    with pytest.raises(ChangesUnknown):
        site.changed(third, third.disks[0], "mark-r2")
    site.release(third, sealed=True)
    fourth = take(site, machine, "r4")
    with pytest.raises(ChangesUnknown):
        site.changed(fourth, fourth.disks[0], "mark-r1")


def test_lost_tracking_is_unknown_and_a_new_mark_works(site):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    site.release(take(site, machine, "r1"), sealed=True)
    site.lose_tracking(machine)
    second = take(site, machine, "r2")
    with pytest.raises(ChangesUnknown):
        site.changed(second, second.disks[0], "mark-r1")
    site.release(second, sealed=True)
    third = take(site, machine, "r3")
    assert site.changed(third, third.disks[0], "mark-r2") == []


def test_a_disk_without_tracking_sets_no_mark(site):
    machine = site.add("web", {"vda": bytes(BLOCK)}, tracking=Tracking.NONE)
    (disk,) = take(site, machine, "r1").disks
    assert (disk.tracking, disk.change_id) == (Tracking.NONE, None)


def test_frozen_bytes_are_there_until_the_release_and_no_longer(site):
    machine = site.add("web", {"vda": b"before" + bytes(10)})
    snapshot = take(site, machine, "r1")
    site.write(machine, "vda", 0, b"after!")
    path = snapshot.disks[0].layers[0].location.path
    assert site.disk_bytes(path)[:6] == b"before" and site.live_bytes(machine, "vda")[:6] == b"after!"
    site.release(snapshot, sealed=False)
    with pytest.raises(FileNotFoundError):
        site.disk_bytes(path)


@pytest.mark.parametrize("after", [False, True])
def test_the_nth_call_fails_before_or_after_its_work(site, after):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    site.machines()
    site.fail(2, DeviceBusy("x", "y"), after=after)
    site.machines()
    with pytest.raises(DeviceBusy):
        take(site, machine, "r1")
    assert site.leftovers == (("r1",) if after else ())
    assert take(site, machine, "r1").run == "r1"
    assert site.calls == ["machines", "machines", "snapshot", "snapshot"]


def test_a_fault_can_count_one_call_only(site):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    site.fail(1, DeviceBusy("x", "y"), call="confirm")
    snapshot = take(site, machine, "r1")
    with pytest.raises(DeviceBusy):
        site.confirm(snapshot)
    site.confirm(snapshot)


@pytest.mark.parametrize(
    ("guest", "state", "consistency", "code"),
    [
        (Guest.NO_HOOKS, PowerState.RUNNING, Consistency.FILESYSTEM, ReasonCode.QUIESCED_NO_HOOKS),
        (Guest.HOOK_FAILS, PowerState.RUNNING, Consistency.FILESYSTEM, ReasonCode.QUIESCED_HOOK_FAILED),
        (Guest.HANGS, PowerState.RUNNING, Consistency.CRASH, ReasonCode.QUIESCE_TIMEOUT),
        (Guest.CONFIRMS, PowerState.PAUSED, Consistency.CRASH, ReasonCode.MACHINE_PAUSED),
        (Guest.CONFIRMS, PowerState.SUSPENDED, Consistency.CRASH, ReasonCode.MACHINE_SUSPENDED),
        (Guest.CONFIRMS, PowerState.OFF, Consistency.FILESYSTEM, ReasonCode.MACHINE_OFF_CLEAN),
    ],
)
def test_the_label_follows_guest_and_state(site, guest, state, consistency, code):
    machine = site.add("web", {"vda": bytes(BLOCK)}, guest=guest, state=state)
    snapshot = take(site, machine, "r1")
    assert (snapshot.consistency, snapshot.reasons[0].code) == (consistency, code)


def test_a_silent_host_hides_its_machines_and_is_named(site):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    site.silent = {"h1"}
    assert site.machines() == [] and list(site.unreachable()) == ["h1"]
    with pytest.raises(HostUnreachable):
        take(site, machine, "r1")


def test_a_migrated_machine_keeps_snapshot_and_marks(site):
    machine = site.add("web", {"vda": bytes(BLOCK)})
    snapshot = take(site, machine, "r1")
    site.migrate(machine, "h2")
    site.confirm(snapshot)
    assert [r.code for r in site.release(snapshot, sealed=True)] == [ReasonCode.MIGRATED]
    assert site.machine(machine).host == "h2"


def test_an_excluded_disk_is_shown_with_its_reason(site):
    why = Reason(ReasonCode.DISK_SHARED, "cluster")
    machine = site.add("web", {"vda": b"x", "vdb": b"y"}, excluded={"vdb": why})
    assert [d.excluded for d in site.machine(machine).disks] == [None, why]


def test_images_below_a_disk_are_shown(site):
    machine = site.add("clone", {"vda": b"x"}, below={"vda": (FileAddress("/golden.qcow2"),)})
    assert site.machine(machine).disks[0].below == (FileAddress("/golden.qcow2"),)


def test_while_a_host_is_silent_a_machine_comes_back_under_a_new_identity_only(site):
    machine = site.add("web", {"vda": b"x"}, state=PowerState.OFF)
    saved = site.configuration(machine)
    site.silent = {"h1"}
    with pytest.raises(RestoreRefused, match="h1"):
        site.check_define(saved, NewMachine("web", "h2", {}))
    site.check_define(saved, NewMachine("web2", "h2", {}, identity="22222222-2222-4333-8444-555555555555"))
