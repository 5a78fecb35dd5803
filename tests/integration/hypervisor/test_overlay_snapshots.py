"""Snapshots of running machines on the lab: frozen bytes, proven consistency, incremental bitmaps, the merge back."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import command
from proxy.errors import (
    HostUnreachable,
    MachineBusy,
    NoSpaceForOverlay,
    QuiesceFailed,
    SnapshotBroken,
    SnapshotFailed,
    SnapshotInUse,
)
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.hypervisor.kvm.records import Records
from proxy.model import Consistency, Format, LunAddress, PowerState, QuiescePolicy, ReasonCode, Tracking
from proxy.state_directory import StateDirectory

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img", "nbdinfo")]

PARTITION = 1024 * 1024


def codes(reasons):
    return [reason.code for reason in reasons]


def file_system_state(image: Path, directory: Path) -> tuple[int, str]:
    """e2fsck's exit code and the feature list of the first partition of a raw image."""
    part = directory / "part.img"
    with image.open("rb") as source, part.open("wb") as target:
        source.seek(PARTITION)
        target.write(source.read())
    checked = command.run(["e2fsck", "-fn", part], timeout=60, check=False)
    features = command.run(["dumpe2fs", "-h", part], timeout=60).text
    return checked.code, next(line for line in features.splitlines() if line.startswith("Filesystem features"))


def marker_and_journal(image: Path, directory: Path) -> tuple[int, int]:
    """Records that the hook counted at the freeze, and records in the journal, of a raw image's first partition."""
    part = directory / "part.img"

    def cat(path: str) -> str:
        return command.run(["debugfs", "-R", f"cat {path}", part], timeout=60).text

    return int(cat("/data/QUIESCED").split("records=")[1].split()[0]), cat("/data/journal").count("\n")


def test_inventory_names_every_machine_once_with_its_disks(bench):
    bench.use("raw-lun")
    machines = {m.name: m for m in bench.site.machines()}
    assert {"raw-lun", "qcow2-lun", "two-disks", "powered-off", "qcow2-file"} <= set(machines)
    raw = machines["raw-lun"]
    assert raw.state is PowerState.RUNNING and raw.agent and raw.host == "h1"
    (disk,) = raw.disks
    assert isinstance(disk.location, LunAddress) and disk.location.lun == 1 and disk.format is Format.RAW
    assert disk.size == bench.lun(1).stat().st_size
    assert [d.format for d in machines["two-disks"].disks] == [Format.RAW, Format.QCOW2]
    assert machines["powered-off"].state is PowerState.OFF


def test_a_raw_lun_stands_still_and_is_application_consistent(bench, tmp_path):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    try:
        assert snapshot.consistency is Consistency.APPLICATION
        assert codes(snapshot.reasons) == [ReasonCode.QUIESCED_HOOKS_CONFIRMED]
        assert 0 < snapshot.frozen_seconds < 20
        assert bench.chain("raw-lun")[0] == snapshot.disks[0].overlay
        frozen = bench.digest(bench.lun(1))
        bench.writes_go_on("raw-lun")
        bench.site.confirm(snapshot)
        assert bench.digest(bench.lun(1)) == frozen
        code, features = file_system_state(bench.lun(1), tmp_path)
        assert code == 0 and "needs_recovery" not in features
        counted, recorded = marker_and_journal(bench.lun(1), tmp_path)
        assert counted == recorded
    finally:
        bench.site.release(snapshot, sealed=True)
    assert len(bench.chain("raw-lun")) == 1
    bench.writes_go_on("raw-lun")


def test_asked_again_the_same_run_gets_the_same_snapshot(bench):
    bench.use("raw-lun")
    request = bench.request("raw-lun")
    first = bench.site.snapshot(request)
    again = bench.new_site().snapshot(request)  # another process would have the state directory, too
    bench.site.release(first, sealed=False)
    assert again == first


def test_a_run_that_was_killed_before_it_thawed_its_guest_thaws_it_when_it_goes_on(bench):
    bench.use("raw-lun")
    request = bench.request("raw-lun")
    first = bench.site.snapshot(request)
    records = Records(StateDirectory(bench.state))
    records.note_freeze(bench.id("raw-lun"))
    bench.virsh("raw-lun", "domfsfreeze", "raw-lun")
    try:
        again = bench.new_site().snapshot(request)
        assert bench.guest_state("raw-lun") == "thawed" and records.maybe_frozen() == []
        assert again == first
    finally:
        bench.virsh("raw-lun", "domfsthaw", "raw-lun", check=False)
        bench.site.release(first, sealed=False)


@pytest.mark.parametrize("machine", ["raw-lun", "qcow2-lun"])
def test_a_run_that_was_killed_before_it_kept_the_guests_report_takes_another_snapshot(machine, bench):
    bench.use(machine)
    request = bench.request(machine)
    first = bench.site.snapshot(request)
    records = Records(StateDirectory(bench.state))
    records.save(replace(records.load(request.run), snapshot=None))
    again = bench.new_site().snapshot(request)
    bench.site.confirm(again)
    bench.site.release(again, sealed=False)
    assert again.consistency is first.consistency is not Consistency.CRASH
    assert again.created_at > first.created_at
    assert bench.leftovers() == []


def test_a_snapshot_whose_record_is_lost_is_found_again_as_crash_consistent(bench, tmp_path):
    bench.use("qcow2-lun")
    request = bench.request("qcow2-lun")
    first = bench.site.snapshot(request)
    again = bench.new_site(tmp_path / "fresh").snapshot(request)
    bench.site.release(again, sealed=False)
    assert [d.layers for d in again.disks] == [d.layers for d in first.disks]
    assert again.consistency is Consistency.CRASH
    assert codes(again.reasons) == [ReasonCode.QUIESCED_UNCONFIRMED, ReasonCode.RESUMED]


def test_a_second_run_of_the_machine_is_refused_while_the_first_holds_it(bench):
    bench.use("raw-lun")
    first = bench.take("raw-lun")
    with pytest.raises(MachineBusy, match=first.run):
        bench.take("raw-lun")
    bench.site.confirm(first)
    bench.site.release(first, sealed=True)


def test_release_is_idempotent_and_a_released_snapshot_is_broken(bench):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    bench.site.release(snapshot, sealed=True)
    assert bench.site.release(snapshot, sealed=True) == []
    with pytest.raises(SnapshotBroken):
        bench.site.confirm(snapshot)


def test_readers_keep_the_merge_away(bench):
    bench.use("raw-lun")

    class Interlock:
        def __enter__(self):
            raise SnapshotInUse("raw-lun")

        def __exit__(self, *_):
            raise AssertionError("never entered")

    snapshot = bench.take("raw-lun")
    hosts = [KvmHost(h.name, h.uri, str(bench.overlays)) for h in bench.lab.hosts]
    careful = KvmSite(hosts, state=StateDirectory(bench.state), readers_gone=lambda _machine: Interlock())
    with pytest.raises(SnapshotInUse):
        careful.release(snapshot, sealed=True)
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)


def test_two_disks_of_different_formats_are_frozen_at_one_moment(bench):
    bench.use("two-disks")
    snapshot = bench.take("two-disks", "vda", "vdb")
    assert [d.layers[0].format for d in snapshot.disks] == [Format.RAW, Format.QCOW2]
    assert [d.tracking for d in snapshot.disks] == [Tracking.NONE, Tracking.IMAGE]
    frozen = [bench.digest(bench.lun(n)) for n in (3, 4)]
    bench.writes_go_on("two-disks")
    assert [bench.digest(bench.lun(n)) for n in (3, 4)] == frozen
    bench.site.release(snapshot, sealed=True)
    assert [len(bench.chain("two-disks", key)) for key in ("vda", "vdb")] == [1, 1]


def test_a_disk_that_is_not_asked_for_gets_no_overlay(bench):
    bench.use("two-disks")
    snapshot = bench.take("two-disks", "vda")
    chain = bench.chain("two-disks", "vdb")
    bench.site.release(snapshot, sealed=False)
    assert len(chain) == 1


def test_an_unknown_disk_is_refused(bench):
    with pytest.raises(SnapshotFailed, match="no disk vdz"):
        bench.take("raw-lun", "vdz")


def test_qcow2_incrementals_rebuild_the_disk_from_the_bitmap_on_the_lun(bench, tmp_path):
    bench.use("qcow2-lun")
    restored = bytearray()
    since = {}
    for number in range(3):
        snapshot = bench.take("qcow2-lun", since=since)
        (disk,) = snapshot.disks
        assert disk.tracking is Tracking.IMAGE and disk.layers[0].format is Format.QCOW2
        truth = bench.guest_bytes(bench.lun(2), tmp_path / "truth.raw")
        if not number:
            restored[:] = truth
        else:
            changes = bench.dirty(bench.lun(2), since["vda"], tmp_path)
            assert 0 < sum(length for _, length in changes) < disk.size / 4
            for start, length in changes:
                restored[start : start + length] = truth[start : start + length]
        assert restored == truth
        bench.site.release(snapshot, sealed=True)
        assert bench.checkpoints("qcow2-lun") == [disk.change_id]
        since = {"vda": disk.change_id}
        bench.writes_go_on("qcow2-lun")


def test_a_run_that_sealed_nothing_leaves_the_old_mark_covering(bench, tmp_path):
    bench.use("qcow2-lun")
    first = bench.take("qcow2-lun")
    truth = bytearray(bench.guest_bytes(bench.lun(2), tmp_path / "truth.raw"))
    bench.site.release(first, sealed=True)
    mark = {"vda": first.disks[0].change_id}
    bench.writes_go_on("qcow2-lun")
    failed = bench.take("qcow2-lun", since=mark)
    bench.site.release(failed, sealed=False)
    assert bench.checkpoints("qcow2-lun") == [mark["vda"]]
    bench.writes_go_on("qcow2-lun")
    second = bench.take("qcow2-lun", since=mark)
    after = bench.guest_bytes(bench.lun(2), tmp_path / "truth.raw")
    for start, length in bench.dirty(bench.lun(2), mark["vda"], tmp_path):
        truth[start : start + length] = after[start : start + length]
    bench.site.release(second, sealed=True)
    assert truth == after


def test_a_failing_hook_is_named_and_the_label_is_lower(bench):
    bench.use("raw-lun")
    bench.lab.guest_write("raw-lun", "/run/lanfree-lab/fail-hook", b"7")
    try:
        snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.REQUIRE)
    finally:
        bench.lab.guest_run("raw-lun", ["/bin/rm", "/run/lanfree-lab/fail-hook"])
    bench.site.release(snapshot, sealed=False)
    assert snapshot.consistency is Consistency.FILESYSTEM
    (reason,) = snapshot.reasons
    assert reason.code is ReasonCode.QUIESCED_HOOK_FAILED
    assert "50-writer" in reason.detail and "7" in reason.detail


@pytest.mark.parametrize("policy", [QuiescePolicy.PREFER, QuiescePolicy.REQUIRE])
def test_a_hanging_hook_ends_in_a_time_out_and_a_thawed_guest(bench, policy):
    bench.use("raw-lun")
    bench.lab.guest_write("raw-lun", "/run/lanfree-lab/hang-hook", b"4")
    request = bench.request("raw-lun", quiesce=policy, freeze_timeout=2.0)
    try:
        if policy is QuiescePolicy.REQUIRE:
            with pytest.raises(QuiesceFailed):
                bench.site.snapshot(request)
            assert bench.leftovers() == []
        else:
            snapshot = bench.site.snapshot(request)
            assert snapshot.consistency is Consistency.CRASH
            assert ReasonCode.QUIESCE_TIMEOUT in codes(snapshot.reasons)
            bench.site.release(snapshot, sealed=False)
        # The agent runs the hook to its end and freezes only then: it must not stay so.
        bench.wait(lambda: not StateDirectory(bench.state).names("frozen"), 30)
        assert bench.guest_state("raw-lun") == "thawed"
        bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/run/lanfree-lab/hang-hook"])
        bench.writes_go_on("raw-lun")
    finally:
        bench.virsh("raw-lun", "qemu-agent-command", "raw-lun", '{"execute":"guest-fsfreeze-thaw"}', check=False)


def test_the_end_of_a_command_waits_for_a_hook_that_still_hangs_and_thaws_the_guest(bench, caplog):
    bench.use("raw-lun")
    bench.lab.guest_write("raw-lun", "/run/lanfree-lab/hang-hook", b"12")
    site = bench.new_site()
    try:
        snapshot = site.snapshot(bench.request("raw-lun", freeze_timeout=3.0))
        site.release(snapshot, sealed=False)
        still_marked = StateDirectory(bench.state).names("frozen")
        site.close()
        assert bench.guest_state("raw-lun") == "thawed"
        assert not StateDirectory(bench.state).names("frozen")
        assert snapshot.consistency is Consistency.CRASH
        assert len(still_marked) == 1, "the hook ended before the command did, nothing was proven"
        assert any("raw-lun" in message and "waiting" in message for message in caplog.messages)
        bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/run/lanfree-lab/hang-hook"])
        bench.writes_go_on("raw-lun")
    finally:
        site.close()
        bench.virsh("raw-lun", "qemu-agent-command", "raw-lun", '{"execute":"guest-fsfreeze-thaw"}', check=False)


def test_a_libvirtd_that_ends_during_the_freeze_leaves_no_frozen_guest(bench):
    bench.use("raw-lun")
    bench.lab.guest_write("raw-lun", "/run/lanfree-lab/hang-hook", b"4")
    request = bench.request("raw-lun", freeze_timeout=20.0)
    try:
        with ThreadPoolExecutor(1) as pool:
            attempt = pool.submit(bench.site.snapshot, request)
            bench.wait(lambda: bool(StateDirectory(bench.state).names("frozen")))
            bench.lab.stop_host("h1")  # the guest's agent goes on, and freezes when its hook is through
            bench.lab.start_host("h1")
            with pytest.raises((HostUnreachable, SnapshotFailed)):
                attempt.result(120)
        bench.site.sweep(list)
        bench.wait(lambda: not StateDirectory(bench.state).names("frozen"), 30)
        assert bench.guest_state("raw-lun") == "thawed"
        assert not StateDirectory(bench.state).names("runs")
        bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/run/lanfree-lab/hang-hook"])
        bench.writes_go_on("raw-lun")
    finally:
        bench.virsh("raw-lun", "qemu-agent-command", "raw-lun", '{"execute":"guest-fsfreeze-thaw"}', check=False)


def test_a_guest_without_the_hook_is_file_system_consistent(bench):
    bench.use("raw-lun")
    bench.lab.guest_run("raw-lun", ["/bin/rm", "-rf", "/run/lanfree"])
    snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.REQUIRE)
    bench.site.release(snapshot, sealed=True)
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.FILESYSTEM, [ReasonCode.QUIESCED_NO_HOOKS])


def test_a_report_on_another_request_proves_nothing(bench):
    bench.use("raw-lun")
    # A hook that reports, but not on what it was asked: as one left over from an earlier freeze would.
    stale = b'#!/bin/sh\nprintf \'{"request": "earlier", "ok": true, "apps": ["x"]}\' > /run/lanfree/quiesce-result\n'
    hook = "/etc/qemu/fsfreeze-hook"
    bench.lab.guest_run("raw-lun", ["/bin/sh", "-c", f"mkdir -p /run/lanfree; cp -p {hook} /run/hook"])
    bench.lab.guest_write("raw-lun", hook, stale)
    try:
        snapshot = bench.take("raw-lun")
        bench.site.release(snapshot, sealed=True)
    finally:
        bench.lab.guest_run("raw-lun", ["/bin/sh", "-c", f"cat /run/hook > {hook}"])
    verdict = (snapshot.consistency, codes(snapshot.reasons))
    assert verdict == (Consistency.FILESYSTEM, [ReasonCode.QUIESCED_UNCONFIRMED])


def test_a_guest_that_somebody_else_froze_stays_frozen(bench):
    bench.use("raw-lun")
    bench.virsh("raw-lun", "domfsfreeze", "raw-lun")
    try:
        snapshot = bench.take("raw-lun")
        state = bench.guest_state("raw-lun")
    finally:
        bench.virsh("raw-lun", "domfsthaw", "raw-lun")
    bench.site.release(snapshot, sealed=False)
    assert state == "frozen"
    assert codes(snapshot.reasons) == [ReasonCode.QUIESCE_FAILED]


def test_policy_never_asks_the_guest_nothing(bench):
    bench.use("raw-lun")
    bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/run/lanfree/quiesce-result"])
    snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.NEVER)
    bench.site.release(snapshot, sealed=False)
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.CRASH, [ReasonCode.QUIESCE_NOT_ASKED])
    code, _ = bench.lab.guest_run("raw-lun", ["/bin/ls", "/run/lanfree/quiesce-result"])
    assert code != 0


def test_a_paused_machine_is_crash_consistent_and_stays_paused(bench):
    bench.use("raw-lun")
    bench.virsh("raw-lun", "suspend", "raw-lun")
    try:
        snapshot = bench.take("raw-lun")
        assert bench.virsh("raw-lun", "domstate", "raw-lun").strip() == "paused"
        bench.site.release(snapshot, sealed=True)
    finally:
        bench.virsh("raw-lun", "resume", "raw-lun")
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.CRASH, [ReasonCode.MACHINE_PAUSED])


def test_too_little_space_is_refused_before_anything_is_made(bench, tmp_path):
    bench.use("qcow2-lun")
    poor = bench.new_site(tmp_path / "poor", overlay_reserve=1 << 60)
    with pytest.raises(NoSpaceForOverlay) as refused:
        poor.snapshot(bench.request("qcow2-lun"))
    assert "overlay_directory" in refused.value.hint
    assert bench.leftovers() == [] and not StateDirectory(tmp_path / "poor").names("runs")


def test_a_guest_without_agent_is_crash_consistent_or_refused(bench):
    text = bench.virsh("powered-off", "dumpxml", "powered-off")
    start, end = text.index("<channel"), text.index("</channel>") + len("</channel>")
    definition = bench.lab.directory / "no-agent.xml"
    definition.write_text(text[:start] + text[end:])
    bench.virsh("powered-off", "create", str(definition), "--paused")
    try:
        bench.virsh("powered-off", "resume", "powered-off")
        with pytest.raises(QuiesceFailed):
            bench.take("powered-off", quiesce=QuiescePolicy.REQUIRE)
        snapshot = bench.take("powered-off")
        bench.site.release(snapshot, sealed=True)
    finally:
        bench.lab.stop("powered-off")
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.CRASH, [ReasonCode.QUIESCE_NO_AGENT])
