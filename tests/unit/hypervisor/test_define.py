from xml.etree import ElementTree

import pytest

from proxy.errors import FormatError
from proxy.hypervisor.kvm import define
from proxy.hypervisor.kvm.inventory import domain
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.model import MachineConfiguration
from proxy.ports import DiskPlace, NewMachine

LUN = """<source protocol='iscsi' name='iqn.2026-01.lab:a/1'><host name='10.0.0.1' port='3260'/>
  <initiator><iqn name='iqn.host'/></initiator></source>"""
SAVED = f"""<domain type='kvm' id='3'><name>web</name><uuid>aaaaaaaa-0001-4000-8000-000000000001</uuid>
<genid>1</genid><memory>1</memory><iothreads>1</iothreads>
<os><type machine='q35'>hvm</type><nvram>/n/web_VARS.fd</nvram></os>
<devices><emulator>/usr/bin/qemu</emulator>
<disk type='network' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
  <auth username='u'><secret type='iscsi' usage='lab'/></auth>{LUN}<target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/b.raw'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><source file='/cd.iso'/><target dev='sda'/><readonly/></disk>
<controller type='pci'/><controller type='usb'/>
<interface type='network'><mac address='52:54:00:00:00:01'/><target dev='vnet3'/><source network='n'/></interface>
<graphics type='vnc' port='5901' autoport='no'/>
</devices></domain>"""
NEW = "22222222-2222-4333-8444-555555555555"


ours = Ownership(frozenset({"/o"})).owns


def made(new, text=SAVED):
    return ElementTree.fromstring(define.new_definition(MachineConfiguration("libvirt-xml", text), new))


def test_an_overlay_of_ours_is_taken_away_and_what_was_below_is_as_before():
    with_one = define.with_overlay(SAVED, "vda", "/o/lanfree-run1-vda.qcow2")
    assert domain(with_one).disks[0].chain[0].path == "/o/lanfree-run1-vda.qcow2"
    assert domain(with_one).disks[0].layers(1) == domain(SAVED).disks[0].layers(0)
    assert domain(define.without_overlays(with_one, ours)).disks == domain(SAVED).disks
    root = ElementTree.fromstring(define.without_overlays(with_one, ours))
    assert root.find("devices/disk//secret").get("usage") == "lab"
    assert root.find("devices/disk/driver").get("type") == "qcow2"


def test_two_overlays_of_ours_go_and_a_foreign_one_between_stays():
    foreign = define.with_overlay(SAVED, "vda", "/o/theirs.qcow2")
    both = define.with_overlay(
        define.with_overlay(foreign, "vda", "/o/lanfree-a-vda.qcow2"), "vda", "/o/lanfree-b-vda.qcow2"
    )
    left = domain(define.without_overlays(both, ours)).disks[0]
    assert [link.path for link in left.chain] == ["/o/theirs.qcow2", None]


def test_an_overlay_of_ours_below_somebody_elses_goes_and_theirs_stays():
    ours_below = define.with_overlay(SAVED, "vda", "/o/lanfree-a-vda.qcow2")
    twice = define.with_overlay(ours_below, "vda", "/o/lanfree-b-vda.qcow2")
    foreign = define.with_overlay(twice, "vda", "/o/theirs.qcow2")
    left = define.without_overlays(foreign, ours)
    assert [link.path for link in domain(left).disks[0].chain] == ["/o/theirs.qcow2", None]
    assert domain(left).disks[0].layers(1) == domain(SAVED).disks[0].layers(0)
    assert ElementTree.fromstring(left).find("devices/disk//secret").get("usage") == "lab"


def test_only_the_named_overlay_goes_from_the_middle():
    chain = define.with_overlay(SAVED, "vda", "/o/lanfree-a-vda.qcow2")
    chain = define.with_overlay(chain, "vda", "/o/lanfree-b-vda.qcow2")
    left = define.without_overlays(chain, {"/o/lanfree-a-vda.qcow2"}.__contains__)
    assert [link.path for link in domain(left).disks[0].chain] == ["/o/lanfree-b-vda.qcow2", None]


def test_an_overlay_whose_base_is_not_told_is_a_format_error():
    text = SAVED.replace("/b.raw", "/o/lanfree-run1-vdb.qcow2")
    with pytest.raises(FormatError):
        define.without_overlays(text, ours)


def test_the_helper_has_disks_and_identity_and_nothing_that_could_disturb():
    root = ElementTree.fromstring(define.helper(SAVED))
    assert root.findtext("uuid") == "aaaaaaaa-0001-4000-8000-000000000001"
    assert [d.find("target").get("dev") for d in root.findall("devices/disk")] == ["vda", "vdb"]
    assert [c.get("type") for c in root.findall("devices/controller")] == ["pci"]
    assert root.find("devices/interface") is None and root.find("os/nvram") is None
    assert root.findtext("iothreads") == "1"


def test_a_new_identity_shares_nothing_with_the_old_machine():
    root = made(NewMachine("copy", "h1", {"vda": DiskPlace(path="/new.raw")}, identity=NEW))
    assert (root.findtext("uuid"), root.findtext("name"), root.get("id")) == (NEW, "copy", None)
    assert root.find("genid") is None
    interface = root.find("devices/interface")
    assert interface.find("mac") is None and interface.find("target") is None
    assert interface.find("link").get("state") == "down"
    assert root.findtext("os/nvram") != "/n/web_VARS.fd"
    assert root.find("devices/graphics").get("port") is None


def test_the_old_identity_keeps_its_address_and_firmware_variables():
    root = made(NewMachine("web", "h1", {}, connected=True))
    assert root.findtext("uuid") == "aaaaaaaa-0001-4000-8000-000000000001"
    assert root.find("devices/interface/mac").get("address") == "52:54:00:00:00:01"
    assert root.find("devices/interface/link") is None
    assert root.findtext("os/nvram") == "/n/web_VARS.fd"


def test_restored_disks_are_raw_at_their_new_place_and_others_are_left_out():
    place = DiskPlace(target="iqn.2026-01.lab:a", lun=9, portal="[fe80::2]:3261")
    root = made(NewMachine("copy", "h1", {"vda": place}, identity=NEW))
    disk, drive = root.findall("devices/disk")
    assert disk.find("driver").get("type") == "raw" and disk.get("type") == "network"
    assert disk.find("source").get("name") == "iqn.2026-01.lab:a/9"
    host = disk.find("source/host")
    assert (host.get("name"), host.get("port")) == ("fe80::2", "3261")
    assert disk.find(".//secret").get("usage") == "lab" and disk.find("source/initiator/iqn").get("name") == "iqn.host"
    assert drive.get("device") == "cdrom" and drive.find("source") is None


@pytest.mark.parametrize(("path", "kind", "attribute"), [("/x.raw", "file", "file"), ("/dev/sdx", "block", "dev")])
def test_a_path_becomes_a_file_or_a_device(path, kind, attribute):
    disk = made(NewMachine("copy", "h1", {"vda": DiskPlace(path=path)}, identity=NEW)).find("devices/disk")
    assert disk.get("type") == kind and disk.find("source").get(attribute) == path
    assert disk.find("auth") is None or kind == "network"


def test_another_dialect_is_refused():
    with pytest.raises(FormatError, match="vmx"):
        define.new_definition(MachineConfiguration("vmx", ""), NewMachine("x", "h1", {}))
