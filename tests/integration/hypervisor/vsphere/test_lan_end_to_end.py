"""A machine in a datastore that no SAN reaches: backed up by exports, restored by imports, through the use cases themselves."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.errors import RestoreRefused, WriteFailed
from proxy.interlock import Interlock
from proxy.model import Level, PowerState, QuiescePolicy, ReasonCode, RestorePoint
from proxy.ports import DiskPlace, NewMachine
from proxy.repository import MemoryStore, Repository, create
from proxy.restore import RestorePorts, RestoreRequest, RestoreResult, restore
from proxy.transport.nfc import HostBudget, NfcTransport
from proxy.transport.nfc_target import ImportTargets
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.site_bench import SiteBench
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

NEW = "22222222-2222-4333-8444-555555555555"
DISKS = {"scsi0:0": 24 * MiB, "scsi0:1": 16 * MiB, "nvme0:0": 8 * MiB}
MACHINES = (
    LabMachine(
        "web",
        tuple(LabDisk(key, size, "thin", "nfs1") for key, size in DISKS.items()),
        datastore="nfs1",
        folder="prod",
        tracking=True,
    ),
)


class Appliance:
    """A site with one vCenter, a repository, and what a run does."""

    def __init__(self, lab: VcsimLab, directory: Path, repository: Repository) -> None:
        self.lab = lab
        self.bench = SiteBench(lab, directory / "state")
        self.repository = repository
        self.interlock = Interlock(directory / "locks")
        self.budget = HostBudget()
        self.site = self.bench.site
        self.machine = lab.instance_uuid("web")

    def back_up(self, run: str) -> RestorePoint:
        ports = BackupPorts(self.site, [NfcTransport(self.site.export, self.budget)], self.repository, self.interlock)
        return back_up(ports, BackupRequest(run, self.machine, quiesce=QuiescePolicy.NEVER)).point

    def restore(self, point: RestorePoint, new: NewMachine, run: str = "restore-1") -> RestoreResult:
        begin = self.site.imports.beginner(run, point.configuration, new)
        with ImportTargets(begin, self.site.export, new.name, self.budget) as targets:
            ports = RestorePorts(self.site, self.repository, targets, self.interlock)
            return restore(ports, RestoreRequest(run, point.id, new))

    def names(self) -> list[str]:
        return sorted(machine.name for machine in self.site.machines())

    def digests(self, name: str) -> dict[str, str]:
        return {key: self.lab.digest(name, key) for key in DISKS}


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    stores = (LabDatastore("nfs1", "NFS", ()), LabDatastore("nfs2", "NFS", ()))
    with (
        VcsimLab(tmp_path / "lab", MACHINES, stores) as lab,
        create(MemoryStore(), cache=tmp_path / "cache", secret=None) as repository,
    ):
        made = Appliance(lab, tmp_path, repository)
        for key, size in DISKS.items():
            lab.guest_writes("web", key, MiB, random.Random(key).randbytes(2 * MiB))
            lab.guest_writes("web", key, size - 4096, b"the end " * 512)
        yield made
        assert made.bench.clean()
        made.site.close()


def places(datastore: str = "nfs2") -> dict[str, DiskPlace]:
    return {key: DiskPlace(datastore=datastore, disk=key) for key in DISKS}


def test_full_incremental_and_restores_of_both(appliance: Appliance) -> None:
    lab = appliance.lab
    full, before = appliance.back_up("run-1"), appliance.digests("web")
    lab.guest_writes("web", "scsi0:0", 10 * MiB, b"changed since" * 1000)
    lab.guest_writes("web", "nvme0:0", 0, b"changed since" * 1000)
    second, after = appliance.back_up("run-2"), appliance.digests("web")
    assert before != after
    assert full.level is Level.FULL
    assert {image.transport for image in (*full.images, *second.images)} == {"lan"}
    assert second.level is Level.INCREMENTAL
    assert {reason.code for image in second.images for reason in image.reasons} >= {ReasonCode.CHANGES_FROM_HYPERVISOR}
    assert sum(image.bytes_read for image in second.images) < sum(image.bytes_read for image in full.images) / 4
    for number, (point, wanted) in enumerate(((full, before), (second, after))):
        new = NewMachine(f"web-{number}", "DC0_C0_H1", places(), identity=NEW[:-1] + str(number))
        result = appliance.restore(point, new)
        assert result.machine is not None
        assert (result.machine.id, result.machine.name, result.machine.state) == (
            new.identity,
            new.name,
            PowerState.OFF,
        )
        assert all(disk.compared for disk in result.disks)
        assert appliance.digests(new.name) == wanted


def test_back_in_place_over_a_machine_that_was_shut_down(appliance: Appliance) -> None:
    point, wanted = appliance.back_up("run-1"), appliance.digests("web")
    appliance.lab.guest_writes("web", "scsi0:0", MiB, b"an encrypted file " * 1000)
    new = NewMachine("web", "DC0_C0_H0", places("nfs1"))
    with pytest.raises(RestoreRefused, match="it is running"):
        appliance.restore(point, new)
    old = appliance.bench.vm("web")
    appliance.bench.done(old.PowerOffVM_Task())
    result = appliance.restore(point, new, "restore-2")
    assert result.machine is not None
    assert (result.machine.id, result.machine.name) == (appliance.machine, "web")
    assert appliance.digests("web") == wanted
    aside = [name for name in appliance.names() if name.startswith("web (before restore")]
    assert len(aside) == 1
    assert old.config.uuid != appliance.bench.vm("web").config.uuid
    appliance.bench.done(old.Destroy_Task())


def test_an_import_that_breaks_leaves_no_machine_and_the_original_as_it_was(appliance: Appliance) -> None:
    point, before = appliance.back_up("run-1"), appliance.digests("web")
    appliance.lab.fault("import-aborted", times=1, value=100_000)
    with pytest.raises(WriteFailed):
        appliance.restore(point, NewMachine("copy", "DC0_C0_H1", places(), identity=NEW))
    assert appliance.names() == ["web"]
    assert appliance.digests("web") == before


def test_an_export_that_breaks_makes_no_restore_point(appliance: Appliance) -> None:
    appliance.lab.fault("export-cut", times=1, value=90_000)
    with pytest.raises(Exception, match="lost"):
        appliance.back_up("run-1")
    assert appliance.repository.points() == []
    appliance.lab.mend()
    assert appliance.back_up("run-2").level is Level.FULL
