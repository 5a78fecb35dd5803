import json
from datetime import UTC, datetime

import pytest

from proxy.errors import FormatError, SnapshotFailed
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.hypervisor.run_ids import checked_run
from proxy.model import (
    Consistency,
    DeviceAddress,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    LunAddress,
    NbdAddress,
    Reason,
    ReasonCode,
    Snapshot,
    Tracking,
)
from proxy.state_directory import StateDirectory

SNAPSHOT = Snapshot(
    run="run-1",
    machine="m",
    machine_name="web",
    host="h1",
    method="overlay",
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    disks=(
        FrozenDisk("vda", 5, (Layer(LunAddress("iqn", 1, ("a:1", "b:2"), "naa.6"), Format.RAW),), overlay="/o"),
        FrozenDisk(
            "vdb",
            6,
            (Layer(FileAddress("/f"), Format.QCOW2), Layer(DeviceAddress("/dev/x"), Format.RAW)),
            Tracking.IMAGE,
            "lanfree-run-1",
        ),
        FrozenDisk("vdc", 7, (Layer(NbdAddress("nbd://x", "qemu:dirty-bitmap:b", "/tls"), Format.RAW),)),
    ),
    consistency=Consistency.FILESYSTEM,
    reasons=(Reason(ReasonCode.QUIESCED_HOOK_FAILED, "why"),),
    frozen_seconds=0.25,
)


def test_a_record_comes_back_as_it_was(tmp_path):
    overlays = {"vda": "/o/x.qcow2"}
    record = RunRecord(
        "run-1", "m", "h1", "<domain/>", SNAPSHOT, {"h1": "abc:0"}, overlays, True, True, ("/o/y", "/o/z")
    )
    Records(StateDirectory(tmp_path)).save(record)
    assert Records(StateDirectory(tmp_path)).load("run-1") == record


def test_a_record_of_an_earlier_release_has_nothing_that_came_later(tmp_path):
    record = RunRecord("run-1", "m", "h1", "<domain/>", SNAPSHOT)
    Records(StateDirectory(tmp_path)).save(record)
    path = tmp_path / "runs" / "run-1.json"
    raw = json.loads(path.read_text())
    del raw["ending"], raw["pull"]
    path.write_text(json.dumps(raw))
    assert Records(StateDirectory(tmp_path)).load("run-1") == record


def test_a_record_is_replaced_listed_and_forgotten(tmp_path):
    records = Records(StateDirectory(tmp_path))
    records.save(RunRecord("run-1", "m", "h1", ""))
    records.save(RunRecord("run-1", "m", "h2", ""))
    found = records.load("run-1")
    assert found is not None and found.host == "h2" and found.snapshot is None
    assert records.runs() == ["run-1"]
    records.forget("run-1")
    records.forget("run-1")
    assert records.runs() == [] and records.load("run-1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "run-1"}', '{"snapshot": {"disks": 1}}'])
def test_a_damaged_record_is_a_format_error(tmp_path, text):
    records = Records(StateDirectory(tmp_path))
    StateDirectory(tmp_path).put("runs/run-1.json", text.encode())
    with pytest.raises(FormatError, match="run-1"):
        records.load("run-1")


@pytest.mark.parametrize("run", ["", "../x", "a/b", ".x", "a b", "a\n", "x" * 101, "a'b"])
def test_a_run_id_that_could_leave_its_place_is_refused(run):
    with pytest.raises(SnapshotFailed):
        checked_run(run)


def test_machines_that_may_be_frozen_outlive_the_process(tmp_path):
    Records(StateDirectory(tmp_path)).note_freeze("m1")
    assert Records(StateDirectory(tmp_path)).maybe_frozen() == ["m1"]
    assert Records(StateDirectory(tmp_path)).maybe_frozen("m2") == []
    Records(StateDirectory(tmp_path)).note_thaw("m1")
    assert Records(StateDirectory(tmp_path)).maybe_frozen("m1") == []
