from xml.etree import ElementTree

import pytest

from proxy.errors import SnapshotFailed
from proxy.hypervisor.kvm.connection import Host
from proxy.hypervisor.kvm.pull import Job, NbdServer, server_of
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import NbdAddress, SnapshotRequest


def test_an_export_is_named_by_its_disk_and_its_bitmap_only_if_incremental():
    local = NbdServer(socket="/o/s.sock")
    assert local.export("vda", incremental=True) == NbdAddress(
        "nbd+unix:///vda?socket=/o/s.sock", "qemu:dirty-bitmap:backup-vda"
    )
    remote = NbdServer(address="fe80::1", port=10809, tls_directory="/tls")
    assert remote.export("vda", incremental=False) == NbdAddress("nbds://[fe80::1]:10809/vda", None, "/tls")


def test_a_remote_host_without_certificates_sends_nothing_in_the_clear():
    host = Host(KvmHost("h1", "qemu+tls://kvm7/system", "/o"))
    with pytest.raises(SnapshotFailed) as refused:
        server_of(host, "run-1", "web")
    assert "tls_directory" in refused.value.hint


def test_a_socket_path_that_no_kernel_takes_is_refused():
    with pytest.raises(SnapshotFailed, match="too long"):
        server_of(Host(KvmHost("h1", "qemu:///system", "/" + "o" * 100)), "run-1", "web")


def test_a_pull_job_is_full_or_incremental_disk_by_disk():
    host = KvmHost("h1", "qemu:///system", "/o")
    job = Job(host, NbdServer(socket="/o/s"), SnapshotRequest("run-1", "m", ("vda", "vdb")), ["vda", "vdb", "sda"])
    root = ElementTree.fromstring(job.xml({"vda": "lanfree-0"}))
    modes = [(d.get("name"), d.get("backup"), d.get("backupmode"), d.get("incremental")) for d in root.iter("disk")]
    assert modes == [
        ("vda", "yes", "incremental", "lanfree-0"),
        ("vdb", "yes", "full", None),
        ("sda", "no", None, None),
    ]
    assert root.find("disks/disk/scratch").get("file") == "/o/lanfree-run-1-vda.qcow2"
    assert root.find("server").get("transport") == "unix"
    tls = Job(host, NbdServer(address="h", port=1, tls_directory="/t"), SnapshotRequest("r", "m", ()), [])
    assert ElementTree.fromstring(tls.xml({})).find("server").get("tls") == "yes"
