from xml.etree import ElementTree

import pytest

from proxy.hypervisor.kvm.inventory import domain, shown_disk
from proxy.hypervisor.kvm.overlays import foreign_job, found_in, needed_space, snapshot_xml
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.hypervisor.kvm.settings import KvmHost
from proxy.model import FileAddress
from proxy.units import GiB, MiB

OWNED = Ownership(frozenset({"/o"}))


def chain_of(*paths):
    """A machine with one disk of these images, top first."""
    below = ""
    for path in reversed(paths[1:]):
        below = f"<backingStore type='file'><format type='qcow2'/><source file='{path}'/>{below}</backingStore>"
    disk = f"<driver type='qcow2'/><source file='{paths[0]}'/><target dev='vda'/>{below}"
    return domain(f"<domain><name>web</name><uuid>m</uuid><devices><disk type='file'>{disk}</disk></devices></domain>")


def test_overlays_of_ours_are_found_at_every_depth():
    found = found_in(chain_of("/o/theirs.qcow2", "/o/lanfree-r2-vda.qcow2", "/images/web.qcow2"), OWNED)
    assert [(f.run, f.path, f.top) for f in found] == [("r2", "/o/lanfree-r2-vda.qcow2", False)]


@pytest.mark.parametrize(
    "chain",
    [
        ["/images/lanfree-web1-vda.qcow2"],
        ["/images/lanfree-web1-vda.qcow2", "/images/base.qcow2"],
        ["/images/top.qcow2", "/images/lanfree-web1-vda.qcow2"],
        ["/o/lanfree-web1-vda.qcow2/disk.qcow2", "/o/deeper/lanfree-web1-vda.qcow2"],
    ],
)
def test_a_machines_own_images_are_no_overlays_whatever_their_name(chain):
    machine = chain_of(*chain)
    assert found_in(machine, OWNED) == []
    shown = shown_disk(machine.disks[0], OWNED, 5)
    assert [shown.location, *shown.below] == [FileAddress(path) for path in chain]


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


def test_a_rolling_overlay_may_grow_as_large_as_its_disk():
    assert needed_space(KvmHost("h1", "", ""), [20 * GiB], rolling=100 * GiB) == 102 * GiB
    assert needed_space(KvmHost("h1", "", ""), [], rolling=100 * GiB) == 100 * GiB + 64 * MiB
    assert needed_space(KvmHost("h1", "", "", overlay_reserve=5 * GiB), [], rolling=100 * GiB) == 5 * GiB


@pytest.mark.parametrize(("job", "foreign"), [("active-commit", False), ("copy", True)])
def test_a_block_copy_of_somebody_else_is_told_from_our_merge(job, foreign):
    disks = f"<disk><target dev='vda'/><mirror job='{job}'/></disk><disk><target dev='vdb'/></disk>"
    text = f"<domain><devices>{disks}</devices></domain>"
    assert foreign_job(text, "vda") is foreign
    assert foreign_job(text, "vdb") is False


def test_a_remote_host_is_known_by_its_uri():
    assert KvmHost("h", "qemu+tls://kvm7.example/system", "").remote == "kvm7.example"
    assert KvmHost("h", "qemu+unix:///system?socket=/x", "").remote is None
