"""What dead runs left is undone; what is foreign or belongs to a live run is not touched."""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import command
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.model import FileAddress, Format, QuiescePolicy, ReasonCode
from proxy.state_directory import StateDirectory

pytestmark = [pytest.mark.tools, pytest.mark.requires("root", "tgtd", "libvirtd", "qemu-img")]

# Seconds that a sweep meets an emulator which does not answer.
UNDER_WAY = 1.5


def test_a_dead_runs_overlay_is_merged_and_a_live_ones_stays(bench):
    bench.use("raw-lun", "qcow2-lun")
    dead, live = bench.take("raw-lun"), bench.take("qcow2-lun")
    after_crash = bench.new_site()
    reasons = after_crash.sweep(lambda: [live.run])
    assert [dead.run in r.detail for r in reasons if r.code is ReasonCode.LEFTOVER_REMOVED] == [True]
    assert len(bench.chain("raw-lun")) == 1
    bench.site.confirm(live)
    bench.site.release(live, sealed=True)
    assert after_crash.sweep(list) == []


@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_any_of_its_steps_a_run_is_undone_though_libvirt_goes_on_with_it(bench):
    bench.use("qcow2-lun")
    emulator = bench.lab.qemu("qcow2-lun")
    ends = []
    while 0 not in ends:
        asked = {
            "hosts": [(h.name, h.uri, str(bench.overlays)) for h in bench.lab.hosts],
            "state": str(bench.state),
            "rolling": [],
            "machine": bench.id("qcow2-lun"),
            "run": f"halved-{len(ends)}",
            "since": {},
            "emulator": emulator.pid,
            "quiesce": QuiescePolicy.PREFER,
        }
        words = [sys.executable, Path(__file__).with_name("killed_backup.py"), json.dumps(asked), str(len(ends))]
        try:
            ends.append(command.run(words, timeout=60, check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)}).code)
            with ThreadPoolExecutor(1) as pool:
                sweeping = pool.submit(bench.new_site().sweep, list)
                wait([sweeping], timeout=UNDER_WAY)
                emulator.signal(signal.SIGCONT)
                told = [reason.detail for reason in sweeping.result()]
        finally:
            emulator.signal(signal.SIGCONT)
        assert bench.leftovers() == [], (len(ends), told)
        assert Records(StateDirectory(bench.state)).runs() == []
        bench.writes_go_on("qcow2-lun")
    assert set(ends[:-1]) == {9} and len(ends) > 6


def test_foreign_snapshots_checkpoints_and_files_are_left_alone(bench):
    bench.use("qcow2-lun")
    bench.virsh("qcow2-lun", "checkpoint-create-as", "qcow2-lun", "other-program")
    foreign = bench.overlays / "other-program.qcow2"
    words = ("--diskspec", f"vda,file={foreign}", "--disk-only", "--no-metadata")
    bench.virsh("qcow2-lun", "snapshot-create-as", "qcow2-lun", "theirs", *words)
    notes = bench.overlays / "lanfree-notes.txt"
    notes.write_text("no overlay")
    try:
        dead = bench.take("qcow2-lun")
        assert len(dead.disks[0].layers) == 2 and dead.disks[0].change_id is None
        assert bench.new_site().sweep(list)
        assert bench.chain("qcow2-lun")[0] == str(foreign)
        assert "other-program" in bench.checkpoints("qcow2-lun")
        assert foreign.exists() and notes.exists()
    finally:
        notes.unlink()
        bench.virsh("qcow2-lun", "blockcommit", "qcow2-lun", "vda", "--active", "--pivot", "--shallow", "--wait")
        bench.virsh("qcow2-lun", "checkpoint-delete", "qcow2-lun", "other-program")
        foreign.unlink()


def test_a_machines_own_image_with_a_name_like_ours_stays_its_disk(bench):
    bench.use("raw-lun")
    own = bench.lab.shared / "lanfree-web1-vda.qcow2"
    words = ("--diskspec", f"vda,file={own}", "--disk-only", "--no-metadata")
    bench.virsh("raw-lun", "snapshot-create-as", "raw-lun", "theirs", *words)
    try:
        bench.site.sweep(list)
        (disk,) = bench.site.machine(bench.id("raw-lun")).disks
        assert (disk.location, disk.format) == (FileAddress(str(own)), Format.QCOW2)
        assert [below.lun for below in disk.below] == [1]
        assert str(own) in bench.site.configuration(bench.id("raw-lun")).text
        snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.NEVER)
        assert [layer.location for layer in snapshot.disks[0].layers] == [disk.location, *disk.below]
        shown = bench.site.machine(bench.id("raw-lun")).disks
        assert shown == (replace(disk, overlay=snapshot.disks[0].overlay),), "told beside it, not in its place"
        assert bench.new_site().sweep(list)
        assert bench.chain("raw-lun")[0] == str(own) and own.exists()
    finally:
        bench.virsh("raw-lun", "blockcommit", "raw-lun", "vda", "--active", "--pivot", "--shallow", "--wait")
        own.unlink()
    bench.writes_go_on("raw-lun")


def test_our_overlay_below_a_foreign_one_is_merged_and_the_foreign_one_stays(bench):
    bench.use("raw-lun")
    snapshot = bench.take("raw-lun", quiesce=QuiescePolicy.NEVER)
    frozen = bench.digest(bench.lun(1))
    foreign = bench.overlays / "on-top.qcow2"
    words = ("--diskspec", f"vda,file={foreign}", "--disk-only", "--no-metadata")
    bench.virsh("raw-lun", "snapshot-create-as", "raw-lun", "theirs", *words)
    try:
        bench.site.confirm(snapshot)
        assert bench.digest(bench.lun(1)) == frozen
        bench.site.release(snapshot, sealed=True)
        assert bench.chain("raw-lun")[0] == str(foreign) and len(bench.chain("raw-lun")) == 2
    finally:
        bench.virsh("raw-lun", "blockcommit", "raw-lun", "vda", "--active", "--pivot", "--shallow", "--wait")
        foreign.unlink()
    bench.writes_go_on("raw-lun")


def test_a_stray_overlay_goes_if_a_machine_has_its_base_and_stays_if_none_has(bench):
    bench.use("qcow2-lun")
    bench.site.sweep(list)
    stray, orphan = bench.overlays / "lanfree-dead1-vda.qcow2", bench.overlays / "lanfree-dead2-vda.qcow2"
    used = bench.lab.shared / "qcow2-file-vda.qcow2"
    lost = bench.overlays / "nobodys.raw"
    lost.write_bytes(bytes(65536))
    command.run(["qemu-img", "create", "-f", "qcow2", "-b", used, "-F", "qcow2", stray], timeout=30)
    command.run(["qemu-img", "create", "-f", "qcow2", "-b", lost, "-F", "raw", orphan], timeout=30)
    try:
        told = [reason.detail for reason in bench.site.sweep(list)]
        assert (stray.exists(), orphan.exists()) == (False, True)
        assert any("kept" in detail and orphan.name in detail for detail in told)
    finally:
        orphan.unlink()
        lost.unlink()


def test_checkpoints_of_many_dead_runs_are_thinned_out(bench):
    bench.use("qcow2-lun")
    for name in bench.checkpoints("qcow2-lun"):
        bench.virsh("qcow2-lun", "checkpoint-delete", "qcow2-lun", name)
    for number in range(6):
        bench.virsh("qcow2-lun", "checkpoint-create-as", "qcow2-lun", f"lanfree-dead-{number}")
    bench.site.sweep(list)
    left = bench.checkpoints("qcow2-lun")
    for name in left:
        bench.virsh("qcow2-lun", "checkpoint-delete", "qcow2-lun", name)
    assert sorted(left) == [f"lanfree-dead-{number}" for number in (0, 3, 4, 5)]


def test_a_guest_that_a_dead_run_left_frozen_is_thawed(bench):
    bench.use("raw-lun")
    Records(StateDirectory(bench.state)).note_freeze(bench.id("raw-lun"))
    bench.virsh("raw-lun", "domfsfreeze", "raw-lun")
    bench.site.sweep(list)
    assert bench.guest_state("raw-lun") == "thawed"
    assert not StateDirectory(bench.state).names("frozen")


def test_the_guest_of_a_live_run_is_not_thawed(bench):
    bench.use("raw-lun")
    records = Records(StateDirectory(bench.state))
    records.save(RunRecord("at-work", bench.id("raw-lun"), "h1", ""))
    records.note_freeze(bench.id("raw-lun"))
    bench.virsh("raw-lun", "domfsfreeze", "raw-lun")
    try:
        assert bench.site.sweep(lambda: ["at-work"]) == []
        assert bench.guest_state("raw-lun") == "frozen"
        bench.site.sweep(list)
        assert bench.guest_state("raw-lun") == "thawed"
        assert records.maybe_frozen() == [] and records.runs() == []
    finally:
        bench.virsh("raw-lun", "domfsthaw", "raw-lun", check=False)


def test_a_dead_pull_job_is_ended(bench):
    bench.use("qcow2-lun")
    dead = bench.take("qcow2-lun", pull=True)
    assert dead.method == "pull"
    assert bench.new_site().sweep(list)
    assert "domainbackup" not in bench.virsh("qcow2-lun", "backup-dumpxml", "qcow2-lun", check=False)
