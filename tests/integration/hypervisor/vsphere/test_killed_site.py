"""The proxy is killed at every call that a run makes to vCenter: whatever was done by then, a sweep leaves nothing of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.hypervisor.vsphere.driver import VsphereSite
from proxy.model import SnapshotRequest
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.site_bench import Killed, Life, MortalVcenter, SiteBench
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    machines = (LabMachine("db", (LabDisk(size=8 * MiB), LabDisk("scsi0:1", 8 * MiB)), guest="windows2019srv_64Guest"),)
    with VcsimLab(tmp_path_factory.mktemp("killed") / "lab", machines) as made:
        yield made


@pytest.fixture
def bench(lab: VcsimLab, tmp_path: Path) -> Iterator[SiteBench]:
    made = SiteBench(lab, tmp_path / "state")
    yield made
    made.site.close()
    assert made.clean()


def a_run(site: VsphereSite, request: SnapshotRequest) -> None:
    """Every call of the port that a backup makes once there is something to undo."""
    snapshot = site.snapshot(request)
    since = snapshot.disks[0].change_id
    assert since is not None
    site.changed(snapshot, snapshot.disks[0], since)
    site.confirm(snapshot)
    site.release(snapshot, sealed=True)


@pytest.mark.parametrize("answered", [False, True], ids=["before-it-is-sent", "after-its-answer"])
def test_killed_at_any_call_a_run_leaves_nothing_after_a_sweep(bench, answered):
    alive, number = True, 0
    while alive:
        number += 1
        vcenter = MortalVcenter(bench.settings(), life=Life(number, answered=answered))
        try:
            a_run(bench.new_site(vcenter=vcenter), bench.request("db", "scsi0:0", "scsi0:1"))
            alive = False
        except Killed:
            # As after a power cut: the session is left to itself.
            bench.new_site().sweep(list)
        assert bench.clean(), f"killed at call {number}"
    assert number > 30, "the run was cut short in some other way"


def test_killed_at_any_call_the_same_run_goes_on_with_one_snapshot(bench):
    alive, number = True, 0
    while alive:
        number += 1
        request = bench.request("db", "scsi0:0", "scsi0:1")
        vcenter = MortalVcenter(bench.settings(), life=Life(number, answered=True))
        try:
            bench.new_site(vcenter=vcenter).snapshot(request)
            alive = False
        except Killed:
            pass
        snapshot = bench.site.snapshot(request)
        assert len(bench.lab.machine("db")["Snapshots"]) == 1
        bench.site.confirm(snapshot)
        bench.site.release(snapshot, sealed=True)
        assert bench.clean(), f"killed at call {number}"
    assert number > 15
