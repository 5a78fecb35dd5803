"""Records of runs: what is written is read back, and a datastore has no more of them than it may."""

from datetime import UTC, datetime

import pytest

from proxy.errors import FormatError, SnapshotFailed
from proxy.hypervisor.vsphere.records import Records, RunRecord
from proxy.model import (
    Consistency,
    Format,
    FrozenDisk,
    Layer,
    Reason,
    ReasonCode,
    Snapshot,
    Tracking,
    VmdkAddress,
)
from proxy.state_directory import StateDirectory

SNAPSHOT = Snapshot(
    run="r1",
    machine="m1",
    machine_name="web",
    host="esx1",
    method="snapshot",
    created_at=datetime(2026, 11, 22, 3, 4, 5, 678, tzinfo=UTC),
    disks=(
        FrozenDisk(
            "scsi0:0",
            1 << 40,
            (Layer(VmdkAddress("san1", "web/web.vmdk", devices=("naa.1", "naa.2"), snapshot="s-1"), Format.VMDK),),
            Tracking.HYPERVISOR,
            "52 00/1;size=1;disk=x;hardware=y",
            "[san1] web/web-000001.vmdk",
        ),
        FrozenDisk("nvme0:0", 5, (Layer(VmdkAddress("nfs", "a.vmdk", kind="NFS"), Format.VMDK),)),
    ),
    consistency=Consistency.APPLICATION,
    reasons=(Reason(ReasonCode.QUIESCED_HOOKS_CONFIRMED, "VSS"),),
    frozen_seconds=1.5,
)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    records = Records(StateDirectory(tmp_path))
    whole = RunRecord("r1", "m1", ("san1",), blocked=False, version="7", snapshot=SNAPSHOT)
    records.save(whole)
    records.save(RunRecord("r2", "m2"))
    assert Records(StateDirectory(tmp_path)).load("r1") == whole
    assert records.load("r2") == RunRecord("r2", "m2")
    assert (records.runs(), [r.run for r in records.of_machine("m1")]) == (["r1", "r2"], ["r1"])
    records.forget("r1")
    records.forget("r1")
    assert records.load("r1") is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"run": "r1", "snapshot": null}', '{"snapshot": {"disks": 7}}', "\xff"]
)
def test_a_record_that_cannot_be_read_is_told(tmp_path, text):
    records = Records(StateDirectory(tmp_path))
    StateDirectory(tmp_path).put("runs/r1.json", text.encode("latin-1"))
    with pytest.raises(FormatError, match="record of run r1"):
        records.load("r1")
    assert records.of_machine("m1") == [], "it keeps nobody else from working"


def test_a_run_id_never_leaves_the_directory(tmp_path):
    with pytest.raises(SnapshotFailed):
        Records(StateDirectory(tmp_path)).load("../../etc/passwd")


def test_a_datastore_has_as_many_as_it_may_and_the_run_itself_does_not_count(tmp_path):
    records = Records(StateDirectory(tmp_path))
    assert records.reserve(RunRecord("r1", "m1", ("san1", "san2")), 2) == ""
    assert records.reserve(RunRecord("r2", "m2", ("san1",)), 2) == ""
    assert records.reserve(RunRecord("r3", "m3", ("san2", "san1")), 2) == "san1"
    assert records.load("r3") is None
    assert records.reserve(RunRecord("r2", "m2", ("san1",)), 2) == "", "asked again"
    records.forget("r1")
    assert records.reserve(RunRecord("r3", "m3", ("san2", "san1")), 2) == ""
