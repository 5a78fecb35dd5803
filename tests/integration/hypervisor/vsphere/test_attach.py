"""One disk into a machine that exists: it comes beside the machine's own, and nothing else stays behind."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import MachineNotFound, RestoreRefused
from proxy.hypervisor.vsphere import configuration
from proxy.hypervisor.vsphere.attach import attach, carrier, check_attach
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import virtual_disks
from proxy.transport.nfc_target import ImportTargets
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.site_bench import SiteBench
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

SIZE = 8 * MiB
MACHINES = (
    LabMachine(
        "web", (LabDisk(size=SIZE, datastore="nfs1"), LabDisk("nvme0:0", SIZE, datastore="nfs1")), datastore="nfs1"
    ),
    LabMachine("golden", (LabDisk(size=SIZE, datastore="nfs1"),), datastore="nfs1", power="poweredOff", template=True),
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SiteBench]:
    with VcsimLab(
        tmp_path / "lab", MACHINES, (LabDatastore("nfs1", "NFS", ()), LabDatastore("nfs2", "NFS", ()))
    ) as lab:
        made = SiteBench(lab, tmp_path / "state")
        yield made
        made.site.close()


@pytest.mark.parametrize("key", ["scsi0:0", "nvme0:0"])
def test_a_disk_is_given_to_a_machine_that_runs(bench: SiteBench, key: str) -> None:
    site, lab = bench.site, bench.lab
    own = lab.digest("web", "scsi0:0")
    data = random.Random(key).randbytes(MiB) + bytes(SIZE - MiB)
    saved = configuration.capture(site.vcenter, lab.instance_uuid("web"))
    check_attach(site.vcenter, lab.instance_uuid("web"))
    web = site.machine(lab.instance_uuid("web"))
    alone, new = carrier(saved, key, into=web, datastore="nfs2", run="run-1")
    site.check_define(alone, new)
    with ImportTargets(site.imports.beginner("run-1", alone, new), site.export, new.name) as targets:
        with targets.open(new.disks[key], SIZE, overwrite=False) as target:
            target.write(0, memoryview(data))
            target.flush()
        place = targets.made[key]
    assert attach(site.vcenter, place, lab.instance_uuid("web")) == "scsi0:1"
    disks = virtual_disks(bench.vm("web").config.hardware.device)
    assert sorted(disks) == ["nvme0:0", "scsi0:0", "scsi0:1"]
    assert disks["scsi0:1"].backing.fileName == f"[nfs2] {place.path}"
    assert lab.digest("web", "scsi0:1") == hashlib.sha256(data).hexdigest()
    assert lab.digest("web", "scsi0:0") == own
    assert sorted(machine.name for machine in site.machines()) == ["golden", "web"]


def test_who_cannot_take_a_disk_is_known_before(bench: SiteBench) -> None:
    site, lab = bench.site, bench.lab
    with pytest.raises(RestoreRefused, match="template"):
        check_attach(site.vcenter, lab.instance_uuid("golden"))
    with pytest.raises(MachineNotFound):
        check_attach(site.vcenter, "00000000-0000-4000-8000-000000000000")
    saved = configuration.capture(site.vcenter, lab.instance_uuid("web"))
    with pytest.raises(RestoreRefused, match="no disk scsi3:3"):
        carrier(saved, "scsi3:3", into=site.machine(lab.instance_uuid("web")), datastore="nfs2", run="run-1")


def test_a_machine_without_a_free_slot_is_refused(bench: SiteBench) -> None:
    site, lab = bench.site, bench.lab
    machine = bench.vm("web")
    kept = ("VirtualSCSIController", "VirtualNVMEController", "VirtualSATAController")
    for device in machine.config.hardware.device:
        if any(isinstance(device, getattr(vim.vm.device, kind)) for kind in kept):
            shared = vim.vm.device.VirtualDeviceSpec(operation="remove", device=device)
            bench.done(machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[shared])))
    with pytest.raises(RestoreRefused, match="no free slot"):
        check_attach(site.vcenter, lab.instance_uuid("web"))
