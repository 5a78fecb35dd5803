"""Leases of the simulated vCenter: disks out and in, checked with qemu-img, and what can go wrong with them."""

import hashlib
import random
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from proxy import command
from proxy.units import MiB
from tests.integration.hypervisor.vsphere.vcsim_client import Client, connected, done, fetched, ready
from tests.integration.transport.tgt_array import until
from tests.system.vcsim.lab import VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go", "qemu-img"), pytest.mark.timeout(300)]

FIRST, SECOND = "scsi0:0", "scsi0:1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("vcsim")) as made:
        yield made


@pytest.fixture
def client(lab: VcsimLab) -> Iterator[Client]:
    """After each test no fault is set and no snapshot left."""
    with connected(lab) as made:
        yield made
    lab.mend()
    with connected(lab) as again:
        done(again.vm("web").RemoveAllSnapshots_Task())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def qemu_raw(stream: bytes, directory: Path) -> bytes:
    """What qemu-img reads from a stream-optimised VMDK."""
    (directory / "disk.vmdk").write_bytes(stream)
    command.run(
        ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", directory / "disk.vmdk", directory / "disk.raw"], timeout=60
    )
    return (directory / "disk.raw").read_bytes()


def test_an_export_is_the_frozen_disk_and_is_counted(lab: VcsimLab, client: Client, tmp_path: Path) -> None:
    snapshot = client.snapshot(client.vm("web"))
    lab.guest_writes("web", FIRST, 3 * MiB, b"not in it")
    lab.counters(reset=True)
    lease = snapshot.ExportSnapshot()
    urls = {url.key.rpartition("/")[2]: url for url in ready(lease).deviceUrl}
    assert set(urls) == {"ParaVirtualSCSIController0:0", "ParaVirtualSCSIController0:1"}
    status, stream = fetched(urls["ParaVirtualSCSIController0:0"].url)
    assert status == 200
    assert sha256(qemu_raw(stream, tmp_path)) == lab.digest("web", FIRST, snapshot._moId)
    assert 0 < lab.counters()["Read"] <= 64 * MiB
    lease.HttpNfcLeaseComplete()
    assert fetched(urls["ParaVirtualSCSIController0:0"].url)[0] == 404


def test_a_host_without_connections_refuses_the_lease(lab: VcsimLab, client: Client) -> None:
    snapshot = client.snapshot(client.vm("web"))
    lab.fault("lease-refused", times=1)
    assert isinstance(ready(snapshot.ExportSnapshot()), vim.fault.InsufficientResourcesFault)
    lease = snapshot.ExportSnapshot()
    lab.fault("host-busy", times=1)
    url = ready(lease).deviceUrl[0].url
    assert fetched(url)[0] == 503
    assert fetched(url)[0] == 200
    lease.HttpNfcLeaseAbort(None)


def test_a_lease_ends_when_the_host_loses_it_or_nobody_keeps_it(lab: VcsimLab, client: Client) -> None:
    snapshot = client.snapshot(client.vm("web"))
    lost = snapshot.ExportSnapshot()
    url = ready(lost).deviceUrl[0].url
    with pytest.raises(vim.fault.TaskInProgress):
        snapshot.ExportSnapshot()
    lab.lose_leases("web")
    assert lost.state == "error"
    assert fetched(url)[0] == 404
    lab.fault("lease-timeout", value=1)
    left = snapshot.ExportSnapshot()
    assert ready(left).leaseTimeout == 1
    until(lambda: left.state == "error", 5, "the lease timed out")
    kept = snapshot.ExportSnapshot()
    ready(kept)
    lab.restart_vcenter(0)
    with connected(lab) as again:
        ready(again.vm("web").snapshot.currentSnapshot.ExportSnapshot())


def import_spec(name: str, size: int) -> Any:
    device = vim.vm.device
    controller = device.ParaVirtualSCSIController(key=-1000, busNumber=0, sharedBus="noSharing")
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="[san1]", diskMode="persistent", thinProvisioned=True)
    disk = device.VirtualDisk(key=-2000, controllerKey=-1000, unitNumber=1, capacityInKB=size // 1024, backing=backing)
    changes = [
        device.VirtualDeviceSpec(operation="add", device=controller),
        device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk),
    ]
    files = vim.vm.FileInfo(vmPathName="[san1]")
    return vim.vm.VmImportSpec(
        configSpec=vim.vm.ConfigSpec(name=name, guestId="otherGuest64", memoryMB=64, files=files, deviceChange=changes)
    )


@pytest.fixture
def stream(tmp_path: Path) -> tuple[bytes, bytes]:
    """A disk of 11 MiB and the stream that qemu-img makes of it."""
    data = bytes(3 * MiB) + random.randbytes(2 * MiB) + bytes(5 * MiB) + b"end!" * (MiB // 4)
    (tmp_path / "in.raw").write_bytes(data)
    options = ["-O", "vmdk", "-o", "subformat=streamOptimized"]
    command.run(["qemu-img", "convert", "-f", "raw", *options, tmp_path / "in.raw", tmp_path / "in.vmdk"], timeout=60)
    return data, (tmp_path / "in.vmdk").read_bytes()


def test_an_import_makes_a_machine_of_a_stream(lab: VcsimLab, client: Client, stream: tuple[bytes, bytes]) -> None:
    web = client.vm("web")
    lease = web.resourcePool.ImportVApp(import_spec("imported", 11 * MiB), web.parent, web.runtime.host)
    info = ready(lease)
    assert info.deviceUrl[0].importKey == "/imported/ParaVirtualSCSIController0:1"
    machine = client.vm("imported")
    with pytest.raises(vim.fault.TaskInProgress):
        machine.PowerOnVM_Task(None)
    assert fetched(info.deviceUrl[0].url, stream[1][:MiB])[0] == 500
    assert fetched(info.deviceUrl[0].url, stream[1])[0] == 200
    lease.HttpNfcLeaseComplete()
    assert lab.digest("imported", SECOND) == sha256(stream[0])
    done(machine.PowerOnVM_Task(None))
    done(machine.PowerOffVM_Task())
    done(machine.Destroy_Task())
    assert "imported" not in [vm.name for vm in client.all(vim.VirtualMachine)]


@pytest.mark.parametrize("who", ["client", "host"])
def test_an_import_that_is_aborted_leaves_no_machine(
    lab: VcsimLab, client: Client, stream: tuple[bytes, bytes], who: str
) -> None:
    web = client.vm("web")
    lease = web.resourcePool.ImportVApp(import_spec("half", 11 * MiB), web.parent, None)
    info = ready(lease)
    if who == "client":
        lease.HttpNfcLeaseAbort(None)
    else:
        lab.fault("import-aborted", times=1)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            fetched(info.deviceUrl[0].url, stream[1])
        assert lease.state == "error"
    until(lambda: "half" not in [vm.name for vm in client.all(vim.VirtualMachine)], 10, "the machine is gone")
