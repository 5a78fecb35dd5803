"""A template has no snapshots and cannot run: it is exported as it is."""

import hashlib
from pathlib import Path

import pytest

from proxy.transfer import copy
from proxy.transport.memory import MemoryTarget
from proxy.transport.nfc import NfcTransport
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.site_bench import SiteBench
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]


def test_a_template_is_read_without_a_snapshot(tmp_path: Path) -> None:
    golden = LabMachine(
        "golden", (LabDisk(size=8 * MiB, datastore="nfs1"),), power="poweredOff", template=True, datastore="nfs1"
    )
    with VcsimLab(tmp_path / "lab", (golden,), (LabDatastore("nfs1", "NFS", ()),)) as lab:
        bench = SiteBench(lab, tmp_path / "state")
        snapshot = bench.taken("golden")
        (disk,) = snapshot.disks
        kept = MemoryTarget(disk.size)
        with NfcTransport(bench.site.export).open(disk) as source:
            copy(source, kept, source.extents(), disk=disk.key)
        bench.site.confirm(snapshot)
        bench.site.release(snapshot, sealed=False)
        assert hashlib.sha256(kept.data).hexdigest() == lab.digest("golden", "scsi0:0")
        bench.site.close()
