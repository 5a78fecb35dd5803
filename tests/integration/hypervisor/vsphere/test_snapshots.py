"""Snapshots, change tracking and their ends against the simulated vCenter: what is frozen, and every way of failing.

After each test nothing of ours is left: no snapshot, no delta, no disabled method, no record.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import (
    ChangesUnknown,
    HostUnreachable,
    HypervisorError,
    MachineBusy,
    NoSpaceForOverlay,
    QuiesceFailed,
    SnapshotBroken,
    SnapshotFailed,
)
from proxy.extents import Extent, total
from proxy.hypervisor.vsphere import changes, internal, room, snapshots
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import virtual_disks
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.model import (
    Consistency,
    PowerState,
    QuiescePolicy,
    Reason,
    ReasonCode,
    SnapshotRequest,
    Tracking,
)
from proxy.units import KiB, MiB
from tests.integration.hypervisor.vsphere.site_bench import Killed, MortalVcenter, SiteBench, codes, place
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (
    LabMachine("web", (LabDisk(), LabDisk("scsi0:1", 40 * MiB, "lazy")), tracking=True),
    LabMachine("db", (LabDisk(size=16 * MiB),), guest="windows2019srv_64Guest", tracking=True),
    LabMachine("fresh", (LabDisk(size=8 * MiB),)),
    LabMachine("toolless", (LabDisk(size=8 * MiB),), tools="guestToolsNotRunning", tracking=True),
    LabMachine("off", (LabDisk(size=8 * MiB),), power="poweredOff", tracking=True),
    LabMachine("asleep", (LabDisk(size=8 * MiB),), power="suspended", tracking=True),
    LabMachine("golden", (LabDisk(size=8 * MiB),), power="poweredOff", template=True),
    LabMachine("mixed", (LabDisk(size=8 * MiB), LabDisk("scsi0:1", 8 * MiB, mode="independent_persistent"))),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(
        tmp_path_factory.mktemp("snapshots") / "lab", MACHINES, (LabDatastore("san1", extents=(3,)),)
    ) as made:
        yield made


@pytest.fixture
def bench(lab: VcsimLab, tmp_path: Path) -> Iterator[SiteBench]:
    made = SiteBench(lab, tmp_path / "state")
    yield made
    lab.mend()
    left = not made.clean()
    if left:
        made.tidy()
    made.site.close()
    assert not left


def test_what_is_frozen_is_what_the_guest_had_and_it_stands_still(bench):
    before = bench.lab.digest("web", "scsi0:1")
    snapshot = bench.taken("web", "scsi0:0", "scsi0:1")
    first, second = snapshot.disks
    assert [d.key for d in snapshot.disks] == ["scsi0:0", "scsi0:1"]
    assert place(first).path == "web/web.vmdk"
    assert place(first).snapshot == place(second).snapshot != ""
    assert (first.overlay, second.size) == ("[san1] web/web-000001.vmdk", 40 * MiB)
    assert first.tracking is Tracking.HYPERVISOR
    bench.lab.guest_writes("web", "scsi0:1", 5, b"meanwhile")
    assert bench.lab.digest("web", "scsi0:1", place(second).snapshot) == before != bench.lab.digest("web", "scsi0:1")
    bench.site.confirm(snapshot)
    assert list(bench.site.release(snapshot, sealed=True)) == []


def test_the_snapshot_says_whose_it_is_and_for_what(bench):
    request = bench.request("web")
    snapshot = bench.site.snapshot(request)
    (found,) = bench.vm("web").snapshot.rootSnapshotList
    bench.site.release(snapshot, sealed=True)
    assert found.name == f"lanfree-{request.run}-web"
    assert f"run={request.run} machine={request.machine} by=" in found.description


def test_relocation_is_disabled_while_a_run_works_and_enabled_after_it(bench):
    snapshot = bench.taken("web")
    (disabled,) = bench.lab.machine("web")["Disabled"]
    with pytest.raises(Refused) as refused:
        bench.done(bench.vm("web").RelocateVM_Task(vim.vm.RelocateSpec()))
    assert refused.value.refusal is Refusal.DISABLED
    bench.site.release(snapshot, sealed=True)
    bench.done(bench.vm("web").RelocateVM_Task(vim.vm.RelocateSpec()))
    assert (disabled["Method"], disabled["Source"]) == ("RelocateVM_Task", f"lanfree-{snapshot.run}")
    assert bench.lab.machine("web")["Disabled"] == []


def test_without_the_right_to_disable_it_a_run_goes_on_and_says_so(bench):
    bench.lab.fault("disable-refused", times=1)
    snapshot = bench.taken("web")
    bench.lab.fault("enable-refused")  # it would fail if it were asked
    bench.site.release(snapshot, sealed=True)
    assert ReasonCode.RELOCATION_NOT_BLOCKED in codes(snapshot)


def test_machines_that_are_off_or_suspended_are_snapshotted_too(bench):
    off, asleep = bench.taken("off"), bench.taken("asleep")
    for snapshot in (off, asleep):
        assert snapshot.method == "snapshot"
        bench.site.confirm(snapshot)
        bench.site.release(snapshot, sealed=True)
    assert codes(off)[0] in {ReasonCode.MACHINE_OFF, ReasonCode.MACHINE_OFF_CLEAN}
    assert (codes(asleep)[0], asleep.consistency) == (ReasonCode.MACHINE_SUSPENDED, Consistency.CRASH)
    with pytest.raises(QuiesceFailed, match="suspended"):
        bench.taken("asleep", quiesce=QuiescePolicy.REQUIRE)


def test_a_template_of_which_vsphere_makes_no_snapshot_is_read_as_it_is(bench):
    vcenter = MortalVcenter(bench.settings())
    vcenter.fail["CreateSnapshotEx_Task"] = [Refused("snapshot", "not of a template", Refusal.NOT_SUPPORTED)]
    site = bench.new_site(vcenter=vcenter)
    snapshot = site.snapshot(bench.request("golden"))
    (disk,) = snapshot.disks
    assert (snapshot.method, disk.overlay, place(disk).snapshot) == ("off", None, "")
    assert (disk.tracking, disk.change_id, snapshot.consistency) == (Tracking.NONE, None, Consistency.FILESYSTEM)
    assert site.snapshot(SnapshotRequest(snapshot.run, snapshot.machine, ("scsi0:0",))) == snapshot
    with pytest.raises(MachineBusy):
        bench.taken("golden")
    with pytest.raises(ChangesUnknown):
        site.changed(snapshot, disk, "any")
    site.confirm(snapshot)
    bench.done(bench.vm("golden").ReconfigVM_Task(vim.vm.ConfigSpec(annotation="changed")))
    with pytest.raises(SnapshotBroken, match="configuration was changed"):
        site.confirm(snapshot)
    site.release(snapshot, sealed=False)
    site.close()


def test_a_template_that_cannot_have_one_is_not_even_asked(bench):
    methods = ["CreateSnapshot_Task", "CreateSnapshotEx_Task"]  # as vCenter shows templates
    internal.disable_methods(bench.site.vcenter, [bench.vm("golden")], methods, source="vcenter", why="a template")
    bench.lab.counters(reset=True)
    snapshot = bench.taken("golden")
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)
    internal.enable_methods(bench.site.vcenter, [bench.vm("golden")], methods, source="vcenter")
    assert snapshot.method == "off"
    assert "CreateSnapshotEx_Task" not in bench.lab.counters()["Calls"]


def test_a_template_that_the_simulator_does_snapshot_is_one_snapshot_like_any_other(bench):
    snapshot = bench.taken("golden")
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)
    assert (snapshot.method, snapshot.consistency) == ("snapshot", Consistency.FILESYSTEM)
    assert ReasonCode.TRACKING_OFF in codes(snapshot)


# -- quiescing


def test_windows_is_frozen_with_its_writers_and_linux_by_its_tools(bench):
    windows, linux = bench.taken("db"), bench.taken("web")
    for snapshot in (windows, linux):
        bench.site.release(snapshot, sealed=True)
        assert snapshot.frozen_seconds > 0
    assert (windows.consistency, codes(windows)) == (Consistency.APPLICATION, [ReasonCode.QUIESCED_HOOKS_CONFIRMED])
    assert (linux.consistency, codes(linux)) == (Consistency.FILESYSTEM, [ReasonCode.QUIESCED_UNCONFIRMED])


def test_writers_that_fail_leave_consistent_file_systems_and_the_reason(bench):
    bench.lab.fault("quiesce-timeout", machine="db", times=1)
    snapshot = bench.taken("db", quiesce=QuiescePolicy.REQUIRE)
    bench.site.release(snapshot, sealed=True)
    assert (snapshot.consistency, codes(snapshot)) == (Consistency.FILESYSTEM, [ReasonCode.QUIESCED_HOOK_FAILED])
    assert "ApplicationQuiesceFault" in snapshot.reasons[0].detail


def test_a_guest_that_cannot_be_quiesced_is_crash_consistent_or_refused_as_the_policy_says(bench):
    bench.lab.fault("quiesce-timeout", machine="web")
    snapshot = bench.taken("web")
    bench.site.release(snapshot, sealed=True)
    assert (snapshot.consistency, codes(snapshot)) == (Consistency.CRASH, [ReasonCode.QUIESCE_FAILED])
    with pytest.raises(QuiesceFailed, match="FilesystemQuiesceFault"):
        bench.taken("web", quiesce=QuiescePolicy.REQUIRE)


def test_a_guest_that_hangs_is_not_waited_for_twice(bench):
    vcenter = MortalVcenter(bench.settings())
    vcenter.fail["CreateSnapshotEx_Task"] = [Refused("snapshot", "Timedout", Refusal.TIMEOUT)]
    site = bench.new_site(vcenter=vcenter)
    bench.lab.counters(reset=True)
    snapshot = site.snapshot(bench.request("db"))
    site.release(snapshot, sealed=True)
    site.close()
    assert (snapshot.consistency, codes(snapshot)) == (Consistency.CRASH, [ReasonCode.QUIESCE_TIMEOUT])
    assert bench.lab.counters()["Calls"]["CreateSnapshotEx_Task"] == 1, "the first one never came there"


def test_a_snapshot_that_is_done_while_we_look_for_it_is_taken_as_it_is(bench):
    site = slow(bench, until="FindByUuid")
    snapshot = site.snapshot(bench.request("db"))
    site.release(snapshot, sealed=True)
    site.close()
    assert snapshot.consistency is Consistency.APPLICATION
    assert bench.lab.counters()["Calls"]["CreateSnapshotEx_Task"] == 1


def test_a_snapshot_that_came_when_nobody_waited_any_more_is_removed_before_the_next_is_made(bench):
    site = slow(bench, until="RemoveSnapshot_Task")
    snapshot = site.snapshot(bench.request("db"))
    assert len(bench.lab.machine("db")["Snapshots"]) == 1
    site.confirm(snapshot)
    site.release(snapshot, sealed=True)
    site.close()
    calls = bench.lab.counters()["Calls"]
    assert (snapshot.consistency, codes(snapshot)) == (Consistency.CRASH, [ReasonCode.QUIESCE_TIMEOUT])
    assert (calls["CreateSnapshotEx_Task"], calls["RemoveSnapshot_Task"]) == (2, 2)


def slow(bench, *, until: str):
    """A site that gives a quiesced snapshot 0.6 seconds, on a vCenter whose tasks end when it is asked for ``until``."""
    vcenter = MortalVcenter(bench.settings(quiesce_timeout=0.3, snapshot_timeout=0.3))
    vcenter.hold_until = until
    bench.lab.counters(reset=True)
    return bench.new_site(vcenter=vcenter)


def test_without_tools_require_fails_and_prefer_tells_why(bench):
    with pytest.raises(QuiesceFailed, match="quiesce-no-agent"):
        bench.taken("toolless", quiesce=QuiescePolicy.REQUIRE)
    snapshot = bench.taken("toolless")
    bench.site.release(snapshot, sealed=True)
    assert codes(snapshot) == [ReasonCode.QUIESCE_NO_AGENT]
    assert snapshot.frozen_seconds == 0.0


# -- change tracking


def test_tracking_is_switched_on_once_and_counts_from_the_first_snapshot_on(bench):
    first = bench.taken("fresh")
    bench.site.release(first, sealed=True)
    bench.lab.guest_writes("fresh", "scsi0:0", 3 * MiB + 7, b"new")
    second = bench.taken("fresh")
    changed = bench.site.changed(second, second.disks[0], first.disks[0].change_id)
    bench.site.release(second, sealed=True)
    assert ReasonCode.TRACKING_ENABLED in codes(first)
    assert ReasonCode.TRACKING_ENABLED not in codes(second)
    assert list(changed) == [Extent(3 * MiB, 64 * KiB)]


def test_tracking_stays_off_while_somebody_has_a_snapshot_and_the_reason_is_told(bench):
    theirs = bench.foreign_snapshot("mixed")
    snapshot = bench.taken("mixed")
    assert ReasonCode.TRACKING_OFF in codes(snapshot)
    assert (snapshot.disks[0].tracking, snapshot.disks[0].change_id) == (Tracking.NONE, None)
    assert place(snapshot.disks[0]).path == "mixed/mixed-000001.vmdk", "the newest file that stands still"
    with pytest.raises(ChangesUnknown):
        bench.site.allocated(place(snapshot.disks[0]))
    bench.site.release(snapshot, sealed=True)
    assert [s.name for s in bench.vm("mixed").snapshot.rootSnapshotList] == ["before the upgrade"]
    bench.remove(theirs)


def test_disks_that_a_snapshot_cannot_hold_are_refused_before_anything_is_done(bench):
    bench.lab.counters(reset=True)
    with pytest.raises(SnapshotFailed, match="disk-independent"):
        bench.taken("mixed", "scsi0:0", "scsi0:1")
    with pytest.raises(SnapshotFailed, match="no disk scsi9:9"):
        bench.taken("mixed", "scsi9:9")
    assert not {"CreateSnapshotEx_Task", "DisableMethods"} & set(bench.lab.counters()["Calls"])


def test_changes_are_asked_for_until_the_whole_disk_is_covered(bench):
    first = bench.taken("web", "scsi0:0")
    bench.site.release(first, sealed=True)
    written = range(0, 64 * MiB, 3 * MiB)
    for offset in written:
        bench.lab.guest_writes("web", "scsi0:0", offset, b"x")
    bench.lab.fault("areas-limit", value=2)
    second = bench.taken("web", "scsi0:0")
    bench.lab.counters(reset=True)
    changed = bench.site.changed(second, second.disks[0], first.disks[0].change_id)
    calls = bench.lab.counters()["Calls"]["QueryChangedDiskAreas"]
    bench.site.release(second, sealed=True)
    assert [e.start for e in changed] == list(written)
    assert total(changed) == len(written) * 64 * KiB
    assert calls >= len(written) // 2


def test_the_allocated_areas_hold_everything_that_is_not_zero(bench):
    snapshot = bench.taken("web", "scsi0:0")
    frozen = place(snapshot.disks[0])
    allocated = bench.site.allocated(frozen)
    data = bench.lab.truth("web", "scsi0:0", 0, 64 * MiB, frozen.snapshot)
    bench.site.release(snapshot, sealed=True)
    inside = sum(sum(1 for byte in data[e.start : e.end] if byte) for e in allocated)
    assert 0 < total(allocated) < 64 * MiB
    assert inside == sum(1 for byte in data if byte)


def test_tracking_that_began_anew_is_told_and_never_believed(bench):
    first = bench.taken("web")
    bench.site.release(first, sealed=True)
    bench.lab.new_epoch("web", "scsi0:0")
    second = bench.taken("web")
    with pytest.raises(ChangesUnknown, match="tracking began anew") as caught:
        bench.site.changed(second, second.disks[0], first.disks[0].change_id)
    bench.site.release(second, sealed=True)
    assert caught.value.reason == ReasonCode.TRACKING_LOST


def test_a_disk_that_grew_between_two_backups_is_read_whole(bench):
    first = bench.taken("off")
    bench.site.release(first, sealed=True)
    device = virtual_disks(bench.vm("off").config.hardware.device)["scsi0:0"]
    device.capacityInBytes, device.capacityInKB = 12 * MiB, 12 * KiB
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)
    bench.done(bench.vm("off").ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    second = bench.taken("off")
    with pytest.raises(ChangesUnknown) as caught:
        bench.site.changed(second, second.disks[0], first.disks[0].change_id)
    bench.site.release(second, sealed=True)
    assert (caught.value.reason, second.disks[0].size) == (ReasonCode.DISK_RESIZED, 12 * MiB)


def test_a_disk_of_other_facts_than_its_mark_is_told(bench):
    snapshot = bench.taken("web")
    disk = snapshot.disks[0]
    mark = changes.DiskMark.parse(disk.change_id)
    assert mark is not None
    for since, reason in (
        (replace(mark, size=1), ReasonCode.DISK_RESIZED),
        (replace(mark, disk="another"), ReasonCode.DISK_NEW),
        (replace(mark, hardware="vmx-9"), ReasonCode.TRACKING_LOST),
    ):
        with pytest.raises(ChangesUnknown) as caught:
            bench.site.changed(snapshot, disk, str(since))
        assert caught.value.reason == reason
    bench.lab.fault("query-refused", machine="web")
    with pytest.raises(ChangesUnknown, match="FileFault"):
        bench.site.changed(snapshot, disk, disk.change_id)
    bench.site.release(snapshot, sealed=True)


# -- confirming


def test_a_snapshot_that_somebody_removed_is_broken(bench):
    snapshot = bench.taken("web")
    bench.done(bench.vm("web").RemoveAllSnapshots_Task())
    with pytest.raises(SnapshotBroken, match="it is gone"):
        bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=False)


def test_somebody_elses_snapshot_above_ours_breaks_nothing(bench):
    snapshot = bench.taken("web")
    theirs = bench.foreign_snapshot("web")
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)
    assert [s.name for s in bench.vm("web").snapshot.rootSnapshotList] == ["before the upgrade"]
    bench.remove(theirs)


def test_a_machine_that_was_reverted_to_before_it_breaks_it(bench):
    theirs = bench.foreign_snapshot("web")
    snapshot = bench.taken("web")
    bench.done(theirs.RevertToSnapshot_Task())
    with pytest.raises(SnapshotBroken, match="reverted"):
        bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=False)
    bench.remove(theirs)


def test_files_that_moved_break_it(bench):
    snapshot = bench.taken("web")
    (disk,) = snapshot.disks
    (layer,) = disk.layers
    elsewhere = replace(layer, location=replace(layer.location, datastore="san2"))
    with pytest.raises(SnapshotBroken, match="files were moved"):
        bench.site.confirm(replace(snapshot, disks=(replace(disk, layers=(elsewhere,)),)))
    with pytest.raises(SnapshotBroken, match="reverted"):
        bench.site.confirm(replace(snapshot, disks=(replace(disk, overlay="[san1] web/web-000009.vmdk"),)))
    bench.site.release(snapshot, sealed=True)


# -- refusals and retries


def test_a_snapshot_that_is_refused_once_is_tried_again(bench):
    bench.lab.fault("snapshot-refused", machine="web", times=2)
    snapshot = bench.taken("web", quiesce=QuiescePolicy.NEVER)
    bench.site.release(snapshot, sealed=True)
    assert snapshot.consistency is Consistency.CRASH


def test_a_refusal_that_is_not_the_guests_is_tried_again_before_it_is_asked_for_less(bench):
    bench.lab.fault("snapshot-refused", machine="db", times=2)
    snapshot = bench.taken("db", quiesce=QuiescePolicy.REQUIRE)
    bench.site.release(snapshot, sealed=True)
    assert snapshot.consistency is Consistency.APPLICATION


def test_a_machine_that_is_started_while_its_snapshot_is_made_is_not_called_off(bench):
    vcenter = MortalVcenter(bench.settings())
    vcenter.before["CreateSnapshotEx_Task"] = lambda: bench.done(bench.vm("off").PowerOnVM_Task())
    site = bench.new_site(vcenter=vcenter)
    with pytest.raises(SnapshotFailed, match="it was off, and running when"):
        site.snapshot(bench.request("off"))
    site.close()
    bench.done(bench.vm("off").PowerOffVM_Task())
    assert bench.clean()


def test_a_snapshot_that_stays_refused_fails_with_the_reason_and_leaves_nothing(bench):
    bench.lab.fault("snapshot-refused", machine="web")
    with pytest.raises(SnapshotFailed, match="An error occurred while taking a snapshot"):
        bench.taken("web", quiesce=QuiescePolicy.NEVER)
    assert bench.clean()


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal.NO_SPACE, NoSpaceForOverlay),
        (Refusal.NO_PERMISSION, SnapshotFailed),
        (Refusal.DISABLED, SnapshotFailed),
        (Refusal.STATE, SnapshotFailed),
    ],
)
def test_what_asking_for_less_does_not_cure_fails_at_once(bench, refusal, error):
    vcenter = MortalVcenter(bench.settings())
    vcenter.fail["CreateSnapshotEx_Task"] = [Refused("snapshot", "no", refusal)]
    site = bench.new_site(vcenter=vcenter)
    with pytest.raises(error):
        site.snapshot(bench.request("web", quiesce=QuiescePolicy.NEVER))
    site.close()


def test_a_machine_that_another_task_holds_is_waited_for_and_not_for_ever(bench):
    vcenter = MortalVcenter(bench.settings(snapshot_timeout=2.0))
    busy = Refused("snapshot", "TaskInProgress", Refusal.BUSY)
    vcenter.fail["CreateSnapshotEx_Task"] = [busy] * 5
    site = bench.new_site(vcenter=vcenter)
    snapshot = site.snapshot(bench.request("web"))
    site.release(snapshot, sealed=True)
    vcenter.fail["CreateSnapshotEx_Task"] = [busy] * 1000
    with pytest.raises(MachineBusy, match="another task"):
        site.snapshot(bench.request("web"))
    site.close()


def test_a_task_whose_answer_was_lost_is_found_by_its_mark(bench):
    vcenter = MortalVcenter(bench.settings())
    vcenter.lose = {"CreateSnapshotEx_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"}
    site = bench.new_site(vcenter=vcenter)
    bench.lab.counters(reset=True)
    snapshot = site.snapshot(bench.request("db"))
    bench.lab.fault("consolidation-needed", machine="db", times=1)
    site.release(snapshot, sealed=True)
    site.close()
    calls = bench.lab.counters()["Calls"]
    assert (snapshot.consistency, vcenter.lose) == (Consistency.APPLICATION, set())
    assert [calls[name] for name in ("CreateSnapshotEx_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task")] == [
        1,
        1,
        1,
    ]


def test_a_vcenter_that_restarts_and_sessions_that_end_are_lived_through(bench):
    bench.lab.expire_sessions()
    first = bench.taken("web")
    bench.lab.expire_sessions()
    bench.site.confirm(first)
    again = threading.Thread(target=bench.lab.restart_vcenter, args=(1.0,))
    again.start()
    bench.site.release(first, sealed=True)
    again.join()
    bench.lab.expire_sessions()
    second = bench.taken("web")
    bench.lab.restart_vcenter(0.2)
    bench.lab.fault("connection-cut", times=1)
    changed = bench.site.changed(second, second.disks[0], first.disks[0].change_id)
    bench.site.release(second, sealed=True)
    assert list(changed) == []


def test_what_a_vcenter_that_went_away_has_of_a_run_is_undone_when_it_is_back(bench):
    vcenter = MortalVcenter(bench.settings())
    vcenter.fail["CreateSnapshotEx_Task"] = [HostUnreachable("lab", "silent for too long")]
    site = bench.new_site(vcenter=vcenter)
    with pytest.raises(HostUnreachable):
        site.snapshot(bench.request("web"))
    site.close()
    assert bench.lab.machine("web")["Disabled"]
    assert [r.code for r in bench.site.sweep(list)] == [ReasonCode.LEFTOVER_REMOVED]
    assert bench.clean()


def test_a_full_datastore_is_refused_before_it_is_touched(bench, monkeypatch):
    monkeypatch.setattr(room, "LEAST", 1 << 60)
    with pytest.raises(NoSpaceForOverlay, match="datastore san1"):
        bench.taken("web")
    assert bench.clean()


def test_a_datastore_has_so_many_snapshots_at_once_and_no_more(bench, monkeypatch):
    monkeypatch.setattr(snapshots, "SLOT_PATIENCE", 0.3)
    monkeypatch.setattr(snapshots, "SLOT_PAUSE", 0.05)
    site = bench.new_site(snapshots_per_datastore=1)
    first = site.snapshot(bench.request("web"))
    with pytest.raises(MachineBusy, match="san1"):
        site.snapshot(bench.request("db"))
    monkeypatch.setattr(snapshots, "SLOT_PATIENCE", 30.0)
    waiting = []
    other = threading.Thread(target=lambda: waiting.append(site.snapshot(bench.request("db"))))
    other.start()
    site.release(first, sealed=True)
    other.join(timeout=30)
    site.release(waiting[0], sealed=True)
    site.close()


# -- the end of a run


def test_disks_that_need_consolidation_are_consolidated(bench):
    snapshot = bench.taken("web", "scsi0:0", "scsi0:1")
    bench.lab.guest_writes("web", "scsi0:0", 0, b"while it was frozen")
    bench.lab.fault("consolidation-needed", machine="web", times=1)
    (reason,) = bench.site.release(snapshot, sealed=True)
    assert reason.code is ReasonCode.CONSOLIDATED
    assert "web-000001.vmdk" in reason.detail
    assert bench.lab.truth("web", "scsi0:0", 0, 19) == b"while it was frozen"


def test_a_consolidation_that_fails_is_told_and_a_sweep_comes_back_to_it(bench):
    snapshot = bench.taken("web")
    bench.lab.fault("consolidation-needed", machine="web", times=1)
    bench.lab.fault("consolidation-refused", machine="web")
    with pytest.raises(HypervisorError, match="FileLocked"):
        bench.site.release(snapshot, sealed=True)
    told = bench.lab.machine("web")
    assert (told["Disabled"], told["Snapshots"]) == ([], []), "relocation is enabled whatever happens"
    (resisted,) = bench.site.sweep(list)
    assert resisted.detail.startswith("not yet")
    bench.lab.mend()
    assert list(bench.site.sweep(list)) == [
        Reason(ReasonCode.LEFTOVER_REMOVED, f"run {snapshot.run} on machine {snapshot.machine}")
    ]


def test_what_somebody_elses_snapshot_left_behind_is_no_failure_of_a_run(bench):
    theirs = bench.foreign_snapshot("web")
    bench.lab.fault("consolidation-needed", machine="web", times=1)
    bench.remove(theirs)
    vcenter = MortalVcenter(bench.settings())
    vcenter.dies_before = "CreateSnapshotEx_Task"
    with pytest.raises(Killed):
        bench.new_site(vcenter=vcenter).snapshot(bench.request("web"))
    assert bench.lab.machine("web")["Disabled"]
    bench.lab.fault("consolidation-refused", machine="web")
    (told,) = bench.site.sweep(list)
    assert not told.detail.startswith("not yet")
    assert bench.lab.machine("web")["Disabled"] == []
    bench.lab.mend()
    bench.done(bench.vm("web").ConsolidateVMDisks_Task())


def test_a_removal_that_is_refused_at_first_succeeds_later(bench):
    snapshot = bench.taken("web")
    bench.lab.fault("removal-refused", machine="web", times=2)
    assert list(bench.site.release(snapshot, sealed=True)) == []


def test_relocation_that_cannot_be_enabled_is_told_and_tried_again(bench):
    snapshot = bench.taken("web")
    bench.lab.fault("enable-refused")
    with pytest.raises(HypervisorError, match="EnableMethods"):
        bench.site.release(snapshot, sealed=True)
    bench.lab.mend()
    assert [r.code for r in bench.site.sweep(list)] == [ReasonCode.LEFTOVER_REMOVED]


def test_a_machine_that_was_migrated_meanwhile_is_released_where_it_is(bench):
    snapshot = bench.taken("web")
    (reason,) = bench.site.release(replace(snapshot, host="DC0_C0_H7"), sealed=True)
    assert reason.code is ReasonCode.MIGRATED


# -- leftovers


def test_a_sweep_undoes_what_a_dead_run_left_and_nobody_elses(bench, tmp_path):
    theirs = bench.foreign_snapshot("web", "lanfree-mine", "my own, run=x")
    other = bench.new_site(state=tmp_path / "another installation")
    elsewhere = other.snapshot(bench.request("db"))
    dead = bench.taken("web")
    assert list(bench.site.sweep(lambda: [dead.run])) == []
    (reason,) = bench.site.sweep(list)
    assert dead.run in reason.detail
    assert len(bench.lab.machine("web")["Snapshots"]) == 1
    assert bench.lab.machine("web")["Disabled"] == []
    other.confirm(elsewhere)
    other.release(elsewhere, sealed=True)
    other.close()
    bench.remove(theirs)


def test_another_installations_run_keeps_ours_off_the_machine(bench, tmp_path):
    other = bench.new_site(state=tmp_path / "another installation")
    theirs = other.snapshot(bench.request("web"))
    with pytest.raises(MachineBusy, match=f"{theirs.run} of another Lanfree installation"):
        bench.taken("web")
    other.release(theirs, sealed=True)
    other.close()


def test_a_snapshot_without_its_record_is_known_again_and_swept(bench):
    request = bench.request("db")
    first = bench.site.snapshot(request)
    (record,) = bench.state.glob("*/runs/*.json")
    record.unlink()
    again = bench.site.snapshot(request)
    assert (again.disks, again.created_at, again.consistency) == (first.disks, first.created_at, first.consistency)
    assert ReasonCode.RESUMED in codes(again)
    next(bench.state.glob("*/runs/*.json")).unlink()
    assert [r.code for r in bench.site.sweep(list)] == [ReasonCode.LEFTOVER_REMOVED]


def test_a_record_that_cannot_be_read_is_told_by_every_sweep_and_stops_nobody(bench):
    dead = bench.taken("web")
    runs = next(bench.state.glob("*/runs"))
    damaged = runs / "damaged.json"
    damaged.write_text("{")
    reasons = bench.site.sweep(list)
    damaged.unlink()
    assert ["damaged" in reasons[0].detail, dead.run in reasons[1].detail] == [True, True]
    assert reasons[0].detail.startswith("not yet")


def test_a_vcenter_that_nobody_reaches_is_told(bench, tmp_path):
    nowhere = bench.new_site(state=tmp_path / "s", port=1)
    with pytest.raises(HostUnreachable):
        nowhere.machines()
    with pytest.raises(HostUnreachable):
        nowhere.sweep(list)


def test_every_machine_is_shown_with_its_state(bench):
    states = {m.name: m.state for m in bench.site.machines()}
    assert bench.site.unreachable() == {}
    assert states["web"] is PowerState.RUNNING
    assert (states["off"], states["asleep"], states["golden"]) == (PowerState.OFF, PowerState.SUSPENDED, PowerState.OFF)
    assert bench.site.configuration(bench.lab.instance_uuid("web")).kind == "vsphere-json"
