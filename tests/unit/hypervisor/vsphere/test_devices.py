"""Which disks a machine has, where they are plugged in and lie, and what no snapshot of it can hold."""

from typing import Any

import pytest

from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import Surroundings, chain, disks, virtual_disks
from proxy.model import Disk, Format, ReasonCode, VmdkAddress
from proxy.units import GiB, MiB
from tests.unit.hypervisor.vsphere.vim_objects import LUN1, NAA, NFS1, D, disk, flat, nic, raw, scsi, store

AROUND = Surroundings("vm-7", False, {LUN1.id: LUN1, NFS1.id: NFS1}, {"0200lun": "naa.5000"}, "vcenter1")


def only(*devices: Any, around: Surroundings = AROUND) -> Disk:
    [shown] = disks(devices, around)
    return shown


def test_a_disk_is_its_place_on_a_controller_and_its_file_on_a_datastore() -> None:
    shown = only(scsi(), disk(flat(), unit=3, key=2003))
    assert shown.key == "scsi0:3"
    assert (shown.size, shown.format, shown.excluded) == (40 * GiB, Format.VMDK, None)
    assert shown.location == VmdkAddress(
        datastore="LUN1",
        path="web/web.vmdk",
        kind="VMFS",
        volume="65a0-b1",
        devices=(NAA,),
        machine="vm-7",
        device=2003,
        site="vcenter1",
    )


@pytest.mark.parametrize(
    ("controller", "key"),
    [
        (D.VirtualNVMEController(key=1000, busNumber=0), "nvme0:1"),
        (D.VirtualAHCIController(key=1000, busNumber=2), "sata2:1"),
        (D.VirtualIDEController(key=1000, busNumber=1), "ide1:1"),
        (D.VirtualLsiLogicSASController(key=1000, busNumber=3, sharedBus="noSharing"), "scsi3:1"),
        (D.VirtualUSBController(key=1000, busNumber=0), "disk2000"),
    ],
)
def test_the_key_names_kind_bus_and_unit_of_the_controller(controller: Any, key: str) -> None:
    assert only(controller, disk(flat(), unit=1)).key == key


def test_keys_are_in_the_order_of_their_numbers() -> None:
    devices = [scsi(0), scsi(1), *(disk(flat(), 1000 + b, u, 2000 + 16 * b + u) for b, u in ((1, 0), (0, 10), (0, 2)))]
    assert [d.key for d in disks(devices, AROUND)] == ["scsi0:2", "scsi0:10", "scsi1:0"]


def test_a_size_is_taken_from_kilobytes_where_vsphere_tells_no_bytes() -> None:
    old = disk(flat())
    old.capacityInBytes, old.capacityInKB = None, 1024
    assert only(scsi(), old).size == MiB


def test_files_below_the_newest_one_are_the_disks_too() -> None:
    base = flat("[NFS1] base/base.vmdk", datastore=store("datastore-2"))
    shown = only(scsi(), disk(flat("[LUN1] web/web-000002.vmdk", flat("[LUN1] web/web-000001.vmdk", base))))
    assert isinstance(shown.location, VmdkAddress)
    assert shown.location.path == "web/web-000002.vmdk"
    assert [(b.datastore, b.path, b.kind) for b in shown.below if isinstance(b, VmdkAddress)] == [
        ("LUN1", "web/web-000001.vmdk", "VMFS"),
        ("NFS1", "base/base.vmdk", "NFS"),
    ]


def test_references_that_run_in_a_circle_end() -> None:
    backing = flat()
    backing.parent = flat(parent=backing)
    assert len(chain(disk(backing))) == 256


@pytest.mark.parametrize(
    ("devices", "code", "words"),
    [
        ([scsi(), disk(raw("physicalMode"))], ReasonCode.DISK_PASSTHROUGH, "physical mode"),
        ([scsi(), disk(raw("", parent=raw("physicalMode")))], ReasonCode.DISK_PASSTHROUGH, "physical mode"),
        ([scsi(shared="physicalSharing"), disk(flat())], ReasonCode.DISK_SHARED, "physicalSharing"),
        ([scsi(shared="virtualSharing"), disk(flat())], ReasonCode.DISK_SHARED, "virtualSharing"),
        ([scsi(), disk(flat(sharing="sharingMultiWriter"))], ReasonCode.DISK_SHARED, "multi-writer"),
        ([scsi(), disk(flat(diskMode="independent_persistent"))], ReasonCode.DISK_INDEPENDENT, "snapshots leave"),
        ([scsi(), disk(flat(diskMode="independent_nonpersistent"))], ReasonCode.DISK_INDEPENDENT, "snapshots leave"),
        ([scsi(), disk(flat(diskMode="nonpersistent"))], ReasonCode.DISK_UNSUPPORTED, "dropped"),
        ([scsi(), disk(D.VirtualDisk.LocalPMemBackingInfo(fileName="x"))], ReasonCode.DISK_UNSUPPORTED, "LocalPMem"),
    ],
)
def test_what_a_snapshot_cannot_hold_is_excluded_with_the_reason(
    devices: list[Any], code: ReasonCode, words: str
) -> None:
    shown = only(*devices)
    assert shown.excluded is not None
    assert shown.excluded.code is code
    assert words in shown.excluded.detail


def test_a_virtual_mode_mapping_is_backed_up_and_named_after_its_lun() -> None:
    shown = only(scsi(), disk(raw("virtualMode")))
    assert shown.excluded is None
    assert isinstance(shown.location, VmdkAddress)
    assert (shown.location.kind, shown.location.devices, shown.location.volume) == ("RDM", ("naa.5000",), "")


def test_a_mapping_whose_lun_no_host_names_has_no_device() -> None:
    shown = only(scsi(), disk(raw("virtualMode", lunUuid="0200other")))
    assert isinstance(shown.location, VmdkAddress)
    assert shown.location.devices == ()


def test_pass_through_devices_are_shown_as_excluded_disks() -> None:
    tape = D.VirtualSCSIPassthrough(key=13000, controllerKey=1000, unitNumber=4)
    card = D.VirtualPCIPassthrough(key=13001, deviceInfo=vim_label("GPU"))
    memory = D.VirtualNVDIMM(key=13002, capacityInMB=1024)
    shown = disks([scsi(), disk(flat()), tape, card, memory, nic()], AROUND)
    assert [(d.key, d.excluded is not None) for d in shown] == [
        ("nvdimm13002", True),
        ("pci13001", True),
        ("scsi0:0", False),
        ("scsi0:4", True),
    ]
    assert shown[1].excluded is not None
    assert "GPU" in shown[1].excluded.detail
    assert {d.excluded.code for d in shown if d.excluded} == {ReasonCode.DISK_PASSTHROUGH}


def vim_label(text: str) -> Any:
    return vim.Description(label=text, summary=text)


@pytest.mark.parametrize("whole", [True, False])
def test_an_encrypted_disk_says_so(whole: bool) -> None:
    key = vim.encryption.CryptoKeyId(keyId="k")
    around = Surroundings("vm-7", whole, {LUN1.id: LUN1})
    shown = only(scsi(), disk(flat() if whole else flat(keyId=key)), around=around)
    assert isinstance(shown.location, VmdkAddress)
    assert shown.location.encrypted
    assert shown.excluded is None


def test_a_datastore_that_is_not_known_is_called_by_the_name_in_the_file() -> None:
    shown = only(scsi(), disk(flat("[Gone] a b/c.vmdk", datastore=store("datastore-9"))))
    assert isinstance(shown.location, VmdkAddress)
    assert (shown.location.datastore, shown.location.path, shown.location.kind) == ("Gone", "a b/c.vmdk", "")


def test_live_devices_are_found_by_their_keys() -> None:
    devices = [scsi(), disk(flat(), unit=1, key=2001), nic()]
    assert {key: device.key for key, device in virtual_disks(devices).items()} == {"scsi0:1": 2001}
