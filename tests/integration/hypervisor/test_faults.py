"""What goes wrong between a snapshot and its release, between two backups, and in the proxy itself."""

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from proxy import command
from proxy.errors import HostUnreachable, MachineBusy, SnapshotBroken, SnapshotFailed, SnapshotInUse
from proxy.hypervisor.kvm import KvmHost, KvmSite
from proxy.model import Consistency, PowerState, QuiescePolicy, ReasonCode, Snapshot, Tracking
from proxy.state_directory import StateDirectory

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img", "nbdinfo")]


def codes(reasons):
    return [reason.code for reason in reasons]


def kill_emulator(bench, name):
    """As if the host's kernel had ended QEMU."""
    host = bench.lab.host_of(name)
    bench.lab.qemu(name).signal(signal.SIGKILL)
    bench.wait(lambda: host.state_of(name) in ("shut off", None))


def copy_of_definition_stays(bench, name, to):
    """Live migration after which the old host still has the definition, as sites without a cluster manager do it."""
    socket = bench.lab.run / f"move-{name}"
    words = ["--live", "--persistent", "--unsafe", "--migrateuri", f"unix://{socket}"]
    bench.lab.host_of(name).virsh("migrate", name, bench.lab.host(to).uri, *words, timeout=60)


def read_by_somebody(bench):
    """A site on which every merge is held off by a reader."""

    @contextmanager
    def readers_gone(machine):
        raise SnapshotInUse(machine)
        yield

    hosts = [KvmHost(h.name, h.uri, str(bench.overlays)) for h in bench.lab.hosts]
    return KvmSite(hosts, state=StateDirectory(bench.state), readers_gone=readers_gone)


def with_overlay(overlay, base, form, to):
    """Virtual disk bytes of an overlay on a base, put together by QEMU with no machine and no iSCSI."""
    below = {"driver": form, "file": {"driver": "file", "filename": str(base)}}
    chain = {"driver": "qcow2", "file": {"driver": "file", "filename": str(overlay)}, "backing": below}
    command.run(["qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(chain)}", to], timeout=60)
    return to.read_bytes()


def applied(before, extents, after):
    out = bytearray(before)
    for start, length in extents:
        out[start : start + length] = after[start : start + length]
    return bytes(out)


def test_a_killed_emulator_breaks_neither_the_backup_nor_the_machine(bench, tmp_path):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    frozen = bench.digest(bench.lun(1))
    bench.writes_go_on("raw-lun")
    kill_emulator(bench, "raw-lun")
    bench.site.confirm(snapshot)
    assert bench.digest(bench.lun(1)) == frozen
    expected = with_overlay(snapshot.disks[0].overlay, bench.lun(1), "raw", tmp_path / "expected")
    bench.site.release(snapshot, sealed=True)
    assert bench.lun(1).read_bytes() == expected
    assert bench.virsh("raw-lun", "domstate", "raw-lun").strip() == "shut off"
    assert len(bench.chain("raw-lun")) == 1
    assert "interface" in bench.virsh("raw-lun", "dumpxml", "raw-lun")  # the helper for the merge left no trace


def test_a_merge_that_was_interrupted_before_its_pivot_is_finished(bench):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    bench.writes_go_on("raw-lun")
    bench.virsh("raw-lun", "blockcommit", "raw-lun", "vda", "--active", "--shallow")  # and the proxy dies
    with pytest.raises(SnapshotBroken, match="block job"):
        bench.site.confirm(snapshot)
    bench.new_site().release(snapshot, sealed=False)
    assert len(bench.chain("raw-lun")) == 1
    bench.writes_go_on("raw-lun")


def test_a_proxy_killed_while_it_merges_for_a_machine_that_is_off_leaves_it_off(bench):
    bench.virsh("powered-off", "start", "powered-off", "--paused")
    snapshot = bench.take("powered-off", quiesce=QuiescePolicy.NEVER)
    bench.lab.stop("powered-off")
    program = f"""
import time
from proxy.hypervisor.kvm import KvmHost, define
from proxy.hypervisor.kvm.connection import Host
host = Host(KvmHost("h1", {bench.lab.host("h1").uri!r}, "/unused"))
host.create_paused(define.helper(host.domain({snapshot.machine!r}).xml(inactive=True)))
time.sleep(600)
"""
    process = command.spawn([sys.executable, "-c", program])
    bench.wait(lambda: bench.lab.host("h1").state_of("powered-off") == "paused")
    process.kill()
    process.wait()
    bench.wait(lambda: bench.lab.host("h1").state_of("powered-off") == "shut off")
    assert len(bench.chain("powered-off")) == 2
    bench.site.release(snapshot, sealed=True)
    assert len(bench.chain("powered-off")) == 1


def test_a_reader_of_the_base_file_keeps_the_merge_away_by_its_lock(bench, tmp_path):
    bench.virsh("qcow2-file", "start", "qcow2-file", "--paused")
    try:
        snapshot = bench.take("qcow2-file", quiesce=QuiescePolicy.NEVER)
        base = snapshot.disks[0].layers[0].location.path
        socket = tmp_path / "reader.sock"
        reader = command.spawn(["qemu-nbd", "-r", "-t", "-f", "qcow2", "--socket", socket, base])
        try:
            bench.wait(socket.exists)
            with pytest.raises(SnapshotInUse):
                bench.site.release(snapshot, sealed=True)
            bench.site.confirm(snapshot)
        finally:
            command.stop(reader)
        bench.site.release(snapshot, sealed=True)
        assert len(bench.chain("qcow2-file")) == 1
    finally:
        bench.lab.stop("qcow2-file")


def test_of_two_runs_at_the_same_moment_one_gets_the_machine(bench):
    bench.use("raw-lun")
    requests = [bench.request("raw-lun", quiesce=QuiescePolicy.NEVER) for _ in range(2)]
    barrier = threading.Barrier(2)

    def attempt(request):
        barrier.wait()
        try:
            return bench.new_site().snapshot(request)
        except (MachineBusy, SnapshotFailed) as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, requests))
    made = [result for result in results if isinstance(result, Snapshot)]
    assert len(made) == 1
    bench.site.confirm(made[0])
    assert len(bench.chain("raw-lun")) == 2
    bench.site.release(made[0], sealed=False)


def test_a_guest_shut_down_in_mid_backup_keeps_its_last_writes_and_its_marks(bench, tmp_path):
    bench.use("qcow2-lun")
    first = bench.take("qcow2-lun")
    full = bench.guest_bytes(bench.lun(2), tmp_path / "full")
    bench.site.release(first, sealed=True)
    since = {"vda": first.disks[0].change_id}
    bench.writes_go_on("qcow2-lun")
    second = bench.take("qcow2-lun", since=since)
    bench.lab.shutdown("qcow2-lun")
    bench.site.confirm(second)
    expected = with_overlay(second.disks[0].overlay, bench.lun(2), "qcow2", tmp_path / "expected")
    bench.site.release(second, sealed=False)
    after = bench.guest_bytes(bench.lun(2), tmp_path / "after")
    assert after == expected
    assert applied(full, bench.dirty(bench.lun(2), since["vda"], tmp_path), after) == after


def test_a_machine_that_is_off_is_read_as_it_is_and_its_mark_stays(bench, tmp_path):
    # The machine that the test above shut down; its helper for the merge was destroyed, so nobody knows how it ended.
    bench.use()
    assert bench.site.machine(bench.id("qcow2-lun")).state in (PowerState.OFF, PowerState.PAUSED)
    if bench.lab.host_of("qcow2-lun").state_of("qcow2-lun") != "shut off":
        bench.lab.stop("qcow2-lun")
    with pytest.raises(SnapshotFailed, match="LAN"):
        bench.take("qcow2-lun", pull=True)
    snapshot = bench.take("qcow2-lun", since={"vda": "lanfree-earlier"})
    (disk,) = snapshot.disks
    assert (snapshot.method, disk.overlay, disk.change_id) == ("off", None, "lanfree-earlier")
    bench.site.confirm(snapshot)
    bench.virsh("qcow2-lun", "start", "qcow2-lun", "--paused")
    bench.virsh("qcow2-lun", "destroy", "qcow2-lun")
    with pytest.raises(SnapshotBroken, match="started"):
        bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=False)


def test_a_clean_shutdown_is_file_system_consistent(bench):
    bench.use("raw-lun")
    bench.lab.shutdown("raw-lun")
    snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.REQUIRE)
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.FILESYSTEM, [ReasonCode.MACHINE_OFF_CLEAN])


def test_bitmaps_broken_by_a_kill_are_replaced_and_the_next_backup_is_incremental(bench, tmp_path):
    bench.use("qcow2-lun")
    first = bench.take("qcow2-lun")
    bench.site.release(first, sealed=True)
    kill_emulator(bench, "qcow2-lun")
    bench.use("qcow2-lun")
    second = bench.take("qcow2-lun", since={"vda": first.disks[0].change_id})
    (disk,) = second.disks
    truth = bench.guest_bytes(bench.lun(2), tmp_path / "truth")
    bench.site.release(second, sealed=True)
    assert (disk.tracking, disk.change_id) == (Tracking.NONE, f"lanfree-{second.run}")
    assert {ReasonCode.TRACKING_INCONSISTENT, ReasonCode.TRACKING_REPAIRED} <= set(codes(second.reasons))
    assert bench.checkpoints("qcow2-lun") == [disk.change_id]
    bench.writes_go_on("qcow2-lun")
    third = bench.take("qcow2-lun", since={"vda": disk.change_id})
    after = bench.guest_bytes(bench.lun(2), tmp_path / "after")
    changes = bench.dirty(bench.lun(2), disk.change_id, tmp_path)
    bench.site.release(third, sealed=True)
    assert third.disks[0].tracking is Tracking.IMAGE
    assert applied(truth, changes, after) == after


def test_a_mark_that_nobody_knows_is_lost_and_fails_nothing(bench):
    bench.use("qcow2-lun")
    snapshot = bench.take("qcow2-lun", since={"vda": "lanfree-unheard-of"})
    bench.site.release(snapshot, sealed=True)
    assert snapshot.disks[0].tracking is Tracking.NONE and snapshot.disks[0].change_id is not None
    assert ReasonCode.TRACKING_LOST in codes(snapshot.reasons)


def test_migration_between_two_backups_keeps_the_chain(bench, tmp_path):
    bench.use("qcow2-lun")
    first = bench.take("qcow2-lun")
    full = bench.guest_bytes(bench.lun(2), tmp_path / "full")
    bench.site.release(first, sealed=True)
    bench.lab.migrate("qcow2-lun", "h2")
    try:
        bench.writes_go_on("qcow2-lun")
        second = bench.take("qcow2-lun", since={"vda": first.disks[0].change_id})
        assert second.host == "h2"
        after = bench.guest_bytes(bench.lun(2), tmp_path / "after")
        changes = bench.dirty(bench.lun(2), first.disks[0].change_id, tmp_path)
        bench.site.release(second, sealed=True)
        assert second.disks[0].tracking is Tracking.IMAGE
        assert ReasonCode.TRACKING_REPAIRED in codes(second.reasons)
        assert sum(length for _, length in changes) < len(full) / 4
        assert applied(full, changes, after) == after
        assert bench.checkpoints("qcow2-lun") == [second.disks[0].change_id]
    finally:
        bench.lab.migrate("qcow2-lun", "h1")


def test_migration_in_mid_backup_is_released_where_the_machine_is(bench, tmp_path):
    bench.use("qcow2-lun")
    first = bench.take("qcow2-lun")
    full = bench.guest_bytes(bench.lun(2), tmp_path / "full")
    bench.lab.migrate("qcow2-lun", "h2")
    try:
        bench.writes_go_on("qcow2-lun")
        bench.site.confirm(first)
        assert bench.guest_bytes(bench.lun(2), tmp_path / "again") == full
        reasons = bench.site.release(first, sealed=True)
        assert ReasonCode.MIGRATED in codes(reasons)
        assert len(bench.chain("qcow2-lun")) == 1
        second = bench.take("qcow2-lun", since={"vda": first.disks[0].change_id})
        after = bench.guest_bytes(bench.lun(2), tmp_path / "after")
        changes = bench.dirty(bench.lun(2), first.disks[0].change_id, tmp_path)
        bench.site.release(second, sealed=True)
        assert second.disks[0].tracking is Tracking.IMAGE
        assert applied(full, changes, after) == after
    finally:
        bench.lab.migrate("qcow2-lun", "h1")


def test_a_machine_that_stays_defined_on_the_old_host_is_seen_where_it_runs(bench, tmp_path):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun")
    h2 = bench.lab.host("h2")
    copy_of_definition_stays(bench, "raw-lun", "h2")
    try:
        shown = bench.site.machine(snapshot.machine)
        assert (shown.host, shown.state) == ("h2", PowerState.RUNNING)
        assert [m.host for m in bench.site.machines() if m.id == snapshot.machine] == ["h2"]
        bench.site.confirm(snapshot)
        bench.site.release(snapshot, sealed=True)
        assert bench.leftovers() == []  # also not in the definition that stayed behind on h1
    finally:
        h2.virsh("destroy", "raw-lun")
        h2.virsh("undefine", "raw-lun")


def test_a_transient_machine_that_vanished_gets_its_last_writes_home(bench, tmp_path):
    bench.use()
    definition = tmp_path / "transient.xml"
    text = bench.virsh("powered-off", "dumpxml", "powered-off")
    definition.write_text(text)
    h1 = bench.lab.host("h1")
    h1.virsh("undefine", "powered-off")
    try:
        h1.virsh("create", definition)
        snapshot = bench.take("powered-off", quiesce=QuiescePolicy.NEVER)
        before = bench.digest(bench.lun(5))
        bench.writes_go_on("powered-off", more=4096)
        (told,) = read_by_somebody(bench).sweep(list)
        assert "not yet" in told.detail
        kill_emulator(bench, "powered-off")
        expected = with_overlay(snapshot.disks[0].overlay, bench.lun(5), "raw", tmp_path / "expected")
        again = bench.new_site()
        assert ReasonCode.LEFTOVER_REMOVED in codes(again.sweep(list))
        assert bench.lun(5).read_bytes() == expected
        assert bench.digest(bench.lun(5)) != before
    finally:
        h1.virsh("define", definition)


def test_saved_memory_is_no_backup_of_the_disk_and_is_said(bench):
    bench.use()
    if bench.virsh("raw-lun", "domstate", "raw-lun").strip() == "shut off":
        bench.virsh("raw-lun", "start", "raw-lun", "--paused")  # it need not have booted
    bench.virsh("raw-lun", "managedsave", "raw-lun")
    try:
        assert bench.site.machine(bench.id("raw-lun")).state is PowerState.SUSPENDED
        snapshot = bench.take("raw-lun")
        bench.site.confirm(snapshot)
        bench.site.release(snapshot, sealed=True)
    finally:
        bench.virsh("raw-lun", "managedsave-remove", "raw-lun")
    assert (snapshot.consistency, codes(snapshot.reasons)) == (Consistency.CRASH, [ReasonCode.MACHINE_SUSPENDED])


def test_a_silent_host_is_named_and_the_others_go_on(bench):
    bench.site.machines()
    bench.lab.stop_host("h2")
    try:
        machines = bench.site.machines()
        assert "raw-lun" in {m.name for m in machines}
        assert list(bench.site.unreachable()) == ["h2"]
        with pytest.raises(SnapshotFailed, match="may run on h2"):
            bench.take("powered-off")
    finally:
        bench.lab.start_host("h2")
    bench.site.machines()
    assert bench.site.unreachable() == {}


def test_a_listing_does_not_wait_for_an_array_that_does_not_answer(bench):
    bench.use("raw-lun", "qcow2-lun")
    # Now there is a bitmap in its image, which its emulator reads before it tells the disk's size.
    bench.site.release(bench.take("qcow2-lun", quiesce=QuiescePolicy.NEVER), sealed=True)
    sizes = {machine.name: machine.disks[0].size for machine in bench.site.machines()}
    assert sizes["raw-lun"] == bench.lun(1).stat().st_size
    lists = []
    thread = threading.Thread(target=lambda: lists.extend([bench.site.machines(), bench.site.machines()]), daemon=True)
    bench.lab.array.freeze()
    try:
        thread.start()
        thread.join(15)
        in_time = not thread.is_alive()
    finally:
        bench.lab.array.thaw()
        thread.join(60)
    assert in_time
    # What nobody tells now is as it was told last.
    assert [{machine.name: machine.disks[0].size for machine in listed} for listed in lists] == [sizes, sizes]


def test_nothing_is_merged_for_a_machine_that_may_run_on_a_silent_host(bench):
    bench.virsh("powered-off", "start", "powered-off", "--paused")
    snapshot = bench.take("powered-off", quiesce=QuiescePolicy.NEVER)
    bench.lab.stop("powered-off")
    bench.lab.stop_host("h2")
    try:
        with pytest.raises(HostUnreachable, match="may run there"):
            bench.site.release(snapshot, sealed=True)
        assert len(bench.chain("powered-off")) == 2
    finally:
        bench.lab.start_host("h2")
    bench.site.release(snapshot, sealed=True)


def test_a_libvirtd_restarted_in_mid_backup_is_found_again(bench):
    bench.use("raw-lun")
    before = bench.site.machines()
    snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.NEVER)
    bench.lab.stop_host("h1")
    bench.lab.start_host("h1")
    assert [m.id for m in bench.site.machines()] == [m.id for m in before]
    bench.site.confirm(snapshot)
    bench.site.release(snapshot, sealed=True)
    assert len(bench.chain("raw-lun")) == 1


def test_a_full_overlay_directory_stops_the_guest_until_the_release_and_loses_nothing(bench, small_directory, tmp_path):
    bench.use("raw-lun")
    h1 = KvmHost("h1", bench.lab.host("h1").uri, str(small_directory), overlay_reserve=0)
    site = KvmSite([h1], state=StateDirectory(tmp_path / "small"))
    snapshot = site.snapshot(bench.request("raw-lun"))
    try:
        frozen = bench.digest(bench.lun(1))
        fill = "dd if=/dev/urandom of=/data/fill bs=1M count=12; sync; touch /data/filled"
        bench.lab.guest_run("raw-lun", ["/bin/sh", "-c", f"({fill}) </dev/null >/dev/null 2>&1 &"])
        bench.wait(lambda: "I/O error" in bench.virsh("raw-lun", "domstate", "raw-lun", "--reason"))
        site.confirm(snapshot)
        assert bench.digest(bench.lun(1)) == frozen
    finally:
        site.release(snapshot, sealed=True)
        site.close()
    bench.wait(lambda: bench.lab.guest_run("raw-lun", ["/bin/ls", "/data/filled"])[0] == 0)
    bench.lab.guest_run("raw-lun", ["/bin/rm", "-f", "/data/fill", "/data/filled"])
    assert list(small_directory.iterdir()) == []


def test_only_silent_hosts_stop_everything(tmp_path):
    nowhere = KvmHost("h9", f"qemu+unix:///system?socket={tmp_path}/none", str(tmp_path))
    with pytest.raises(HostUnreachable, match="h9"):
        KvmSite([nowhere], state=StateDirectory(tmp_path / "state")).machines()
