from xml.etree import ElementTree

import pytest

from proxy.hypervisor.kvm.overlays import foreign_job, needed_space, overlay_path, run_of, snapshot_xml
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.units import GiB, MiB

HOST = KvmHost("h1", "qemu:///system", "/var/lib/overlays/")


@pytest.mark.parametrize("run", ["run-1", "20261122-0001-5.a_b", "a"])
def test_the_run_is_read_back_from_the_overlays_name(run):
    path = overlay_path(HOST, run, "vda")
    assert path == f"/var/lib/overlays/lanfree-{run}-vda.qcow2"
    assert run_of(path) == run


@pytest.mark.parametrize(
    "path",
    [
        "/o/other.qcow2",
        "/o/lanfree-notes.txt",
        "/o/my-lanfree-run-vda.qcow2",
        "/o/lanfree-vda.qcow2",
        "",
        "/lanfree-a-vda.qcow2/x",
    ],
)
def test_foreign_files_belong_to_no_run(path):
    assert run_of(path) is None


def test_disks_that_are_not_frozen_are_named_so_that_libvirt_leaves_them_alone():
    root = ElementTree.fromstring(snapshot_xml("run-1", {"vda": "/o/a'b<.qcow2"}, ["vda", "vdb"]))
    first, second = root.findall("disks/disk")
    assert (first.get("name"), first.get("snapshot"), first.find("source").get("file")) == (
        "vda",
        "external",
        "/o/a'b<.qcow2",
    )
    assert (second.get("name"), second.get("snapshot")) == ("vdb", "no")


@pytest.mark.parametrize(
    ("reserve", "sizes", "needed"),
    [(None, [100 * GiB, 20 * GiB], 12 * GiB), (None, [1 * MiB], 64 * MiB), (5 * GiB, [100 * GiB], 5 * GiB)],
)
def test_the_space_needed_is_a_tenth_of_the_disks_or_what_is_configured(reserve, sizes, needed):
    assert needed_space(KvmHost("h1", "", "", overlay_reserve=reserve), sizes) == needed


@pytest.mark.parametrize(("job", "foreign"), [("active-commit", False), ("copy", True)])
def test_a_block_copy_of_somebody_else_is_told_from_our_merge(job, foreign):
    disks = f"<disk><target dev='vda'/><mirror job='{job}'/></disk><disk><target dev='vdb'/></disk>"
    text = f"<domain><devices>{disks}</devices></domain>"
    assert foreign_job(text, "vda") is foreign
    assert foreign_job(text, "vdb") is False


def test_a_remote_host_is_known_by_its_uri():
    assert KvmHost("h", "qemu+tls://kvm7.example/system", "").remote == "kvm7.example"
    assert KvmHost("h", "qemu+unix:///system?socket=/x", "").remote is None
