import pytest

from proxy.errors import FormatError
from proxy.hypervisor.kvm.inventory import domain, naa, shown_disk
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.model import DeviceAddress, FileAddress, Format, Layer, LunAddress, ReasonCode

SOURCES = {
    "lun": (
        "<source protocol='iscsi' name='iqn.2026-01.lab:a/7'>"
        "<host name='10.0.0.1' port='3261'/><host name='fe80::1'/></source>"
    ),
    "file": "<source file='/images/a.raw'/>",
    "wwn": "<source dev='/dev/disk/by-id/wwn-0x6001405000000001'/>",
}


def machine(*devices, os=""):
    return (
        "<domain type='kvm' id='3'><name>web</name><uuid>AAAAAAAA-0001-4000-8000-000000000001</uuid>"
        f"<os>{os}</os><devices>{''.join(devices)}</devices></domain>"
    )


def disk(kind="file", source=SOURCES["file"], form="raw", *, key="vda", device="disk", more=""):
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>{source}"
        f"<target dev='{key}' bus='virtio'/>{more}</disk>"
    )


def only(text: str):
    (found,) = domain(machine(text)).disks
    return found


def test_identity_is_lower_case_and_the_agent_is_known_by_its_open_channel():
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{}'/></channel>"
    up, down = domain(machine(channel.format("connected"))), domain(machine(channel.format("disconnected")))
    assert (up.machine, up.name) == ("aaaaaaaa-0001-4000-8000-000000000001", "web")
    assert (up.agent, down.agent, down.agent_channel) == (True, False, True)


def test_a_lun_has_target_number_and_all_portals():
    found = only(disk("network", SOURCES["lun"], "qcow2"))
    address = LunAddress("iqn.2026-01.lab:a", 7, ("10.0.0.1:3261", "[fe80::1]:3260"))
    assert found.layers(0) == (Layer(address, Format.QCOW2),)
    assert found.excluded is None


def test_a_block_device_carries_its_naa_name():
    found = only(disk("block", SOURCES["wwn"]))
    assert found.layers(0) == (
        Layer(DeviceAddress("/dev/disk/by-id/wwn-0x6001405000000001", "naa.6001405000000001"), Format.RAW),
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/dev/disk/by-id/scsi-360014050000000000000000000000001", "naa.60014050000000000000000000000001"),
        ("/dev/mapper/36001405000000001", "naa.6001405000000001"),
        ("/dev/disk/by-id/dm-uuid-mpath-36001405000000001", "naa.6001405000000001"),
        ("/dev/disk/by-id/wwn-0x6001405000000001-part1", None),
        ("/dev/sdb", None),
        ("/dev/mapper/vg-lv", None),
    ],
)
def test_only_names_that_carry_an_naa_give_one(path, name):
    assert naa(path) == name


def test_a_chain_is_read_top_first_with_the_format_of_each_image():
    below = (
        "<backingStore type='file'><format type='qcow2'/><source file='/b.qcow2'/>"
        "<backingStore type='network'><format type='raw'/>"
        f"{SOURCES['lun']}<backingStore/></backingStore></backingStore>"
    )
    found = only(disk(source="<source file='/c.qcow2'/>", form="qcow2", more=below))
    assert [link.path for link in found.chain] == ["/c.qcow2", "/b.qcow2", None]
    assert [layer.format for layer in found.layers(0)] == [Format.QCOW2, Format.QCOW2, Format.RAW]
    assert found.layers(1)[0].location == FileAddress("/b.qcow2")


def test_a_disk_is_shown_without_our_overlay_and_with_all_that_lies_below():
    below = (
        "<backingStore type='file'><format type='qcow2'/><source file='/theirs.qcow2'/>"
        "<backingStore type='file'><format type='vmdk'/><source file='/unreadable.vmdk'/>"
        f"<backingStore type='network'><format type='raw'/>{SOURCES['lun']}</backingStore>"
        "</backingStore></backingStore>"
    )
    found = only(disk(source="<source file='/o/lanfree-r1-vda.qcow2'/>", form="qcow2", more=below))
    shown = shown_disk(found, Ownership(frozenset({"/o"})), 7)
    lun = LunAddress("iqn.2026-01.lab:a", 7, ("10.0.0.1:3261", "[fe80::1]:3260"))
    assert (shown.location, shown.format, shown.size) == (FileAddress("/theirs.qcow2"), Format.QCOW2, 7)
    assert shown.below == (FileAddress("/unreadable.vmdk"), lun)
    assert shown_disk(only(disk()), Ownership(frozenset({"/o"})), 0).below == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (disk(device="cdrom", source=""), ReasonCode.DISK_EMPTY_DRIVE),
        (disk(device="floppy", source=""), ReasonCode.DISK_EMPTY_DRIVE),
        (disk(device="cdrom"), ReasonCode.DISK_READ_ONLY),
        (disk(more="<readonly/>"), ReasonCode.DISK_READ_ONLY),
        (disk(more="<shareable/>"), ReasonCode.DISK_SHARED),
        (disk("block", SOURCES["wwn"], device="lun"), ReasonCode.DISK_PASSTHROUGH),
        (disk("nvme", "<source type='pci' namespace='1'/>"), ReasonCode.DISK_PASSTHROUGH),
        (disk(more="<transient/>"), ReasonCode.DISK_UNSUPPORTED),
        (disk(form="vmdk"), ReasonCode.DISK_UNSUPPORTED),
        (disk("network", "<source protocol='rbd' name='pool/image'/>"), ReasonCode.DISK_UNSUPPORTED),
        (disk("volume", "<source pool='p' volume='v'/>"), ReasonCode.DISK_UNSUPPORTED),
        (disk("network", "<source protocol='iscsi' name='iqn.a/x'/>"), ReasonCode.DISK_UNSUPPORTED),
        ("<hostdev mode='subsystem' type='scsi'><source/></hostdev>", ReasonCode.DISK_PASSTHROUGH),
    ],
)
def test_disks_that_no_snapshot_can_hold_are_shown_with_the_reason(text, code):
    found = only(text)
    assert found.excluded is not None and found.excluded.code is code


def test_a_scsi_host_device_is_no_target_for_libvirts_calls():
    found = domain(machine(disk(), "<hostdev mode='subsystem' type='scsi'><source/></hostdev>"))
    assert [d.key for d in found.disks] == ["vda", "hostdev0"] and found.targets == ["vda"]


def test_firmware_variables_are_found():
    assert domain(machine(os="<nvram template='/t'>/n/web_VARS.fd</nvram>")).nvram == "/n/web_VARS.fd"
    assert domain(machine(os="<nvram template='/t'/>")).nvram is None


@pytest.mark.parametrize("text", ["", "<domain", "<network/>", "<domain><name>x</name></domain>"])
def test_what_is_no_domain_is_a_format_error(text):
    with pytest.raises(FormatError):
        domain(text)
