"""A saved configuration becomes a new machine: what the guest sees is kept, what was the old host's is not."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.errors import FormatError, RestoreRefused
from proxy.hypervisor.vsphere.configuration import Saved, SavedDisk, SavedNic
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.definition import MARK, boot_order, config_spec, kept_extra, left_out
from proxy.hypervisor.vsphere.placement import Placement
from proxy.hypervisor.vsphere.vim_json import encode
from proxy.ports import DiskPlace, NewMachine
from proxy.units import GiB

device = vim.vm.device
MAC = "00:50:56:ab:cd:ef"


def hardware() -> list[Any]:
    connected = device.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=True)
    flat = device.VirtualDisk.FlatVer2BackingInfo(fileName="[old] web/web.vmdk", diskMode="persistent")
    return [
        device.VirtualIDEController(key=200, busNumber=0, device=[3000]),
        device.VirtualIDEController(key=201, busNumber=1),
        device.VirtualKeyboard(key=600),
        device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="physicalSharing", device=[2000, 2001]),
        device.VirtualNVMEController(key=31000, busNumber=0),
        device.VirtualUSBXHCIController(key=14000),
        device.VirtualTPM(key=11000),
        device.VirtualSerialPort(key=9000, backing=device.VirtualSerialPort.DeviceBackingInfo(deviceName="/dev/ttyS0")),
        device.VirtualPCIPassthrough(key=13000),
        device.VirtualSriovEthernetCard(key=4001, controllerKey=100, unitNumber=8, macAddress=MAC),
        device.VirtualCdrom(
            key=3000,
            controllerKey=200,
            unitNumber=0,
            backing=device.VirtualCdrom.IsoBackingInfo(fileName="[old] iso/setup.iso"),
            connectable=connected,
        ),
        device.VirtualDisk(key=2000, controllerKey=1000, unitNumber=0, backing=flat, capacityInKB=4 * 1024 * 1024),
        device.VirtualDisk(key=2001, controllerKey=1000, unitNumber=1, backing=flat, capacityInKB=1024 * 1024),
        device.VirtualVmxnet3(
            key=4000, controllerKey=100, unitNumber=7, macAddress=MAC, addressType="assigned", connectable=connected
        ),
    ]


SAVED = Saved(
    name="web",
    identity="11111111-2222-4333-8444-555555555555",
    bios_uuid="42111111-2222-4333-8444-555555555555",
    template=False,
    hardware="vmx-19",
    place={"folder": "/DC0/vm/prod"},
    tags=(),
    attributes={},
    settings={
        "guestId": "debian12_64Guest",
        "firmware": "efi",
        "numCPUs": 4,
        "memoryMB": 4096,
        "annotation": "the shop",
        "bootOptions": encode(
            vim.vm.BootOptions(
                efiSecureBootEnabled=True,
                bootOrder=[
                    vim.vm.BootOptions.BootableDiskDevice(deviceKey=2001),
                    vim.vm.BootOptions.BootableDiskDevice(deviceKey=2000),
                    vim.vm.BootOptions.BootableCdromDevice(),
                ],
            )
        ),
        "not_a_setting_of_this_release": 1,
    },
    extra={
        "ethernet0.pciSlotNumber": "192",
        "disk.EnableUUID": "TRUE",
        "guestinfo.role": "shop",
        "nvram": "web.nvram",
        "scsi0:0.ctkEnabled": "TRUE",
        "migrate.hostLog": "x.hlog",
        "uuid.location": "56 4d",
        "lanfree.restore": "an old run",
    },
    devices=[encode(one) for one in hardware()],
    disks=(
        SavedDisk("scsi0:0", 2000, 4 * GiB, thin=True, eager=False, uuid="6000C29a", excluded=False),
        SavedDisk("scsi0:1", 2001, GiB, thin=False, eager=True, uuid="6000C29b", excluded=False),
    ),
    nics=(SavedNic(4000, MAC, "VM Network", "standard"), SavedNic(4001, MAC, "VM Network", "standard")),
    left_out=("RemoteDisplay.vnc.password",),
    nvram_path="[old] web/web.nvram",
)

BACKING = device.VirtualEthernetCard.NetworkBackingInfo(deviceName="Other Network")
PLACEMENT = Placement(None, None, None, None, "DC0", "ds1", {"VM Network": BACKING})
NEW = NewMachine("web-2", "esx1", {"scsi0:0": DiskPlace(datastore="ds1", disk="scsi0:0")})


def made(new: NewMachine = NEW, saved: Saved = SAVED, *, fresh: bool = True, run: str = "run-1") -> Any:
    return config_spec(saved, new, PLACEMENT, {"scsi0:0": 5 * GiB}, name=new.name, run=run, fresh=fresh)


def devices(spec: Any, kind: str) -> list[Any]:
    return [change.device for change in spec.deviceChange if isinstance(change.device, getattr(device, kind))]


def test_settings_are_kept_and_change_tracking_starts_anew() -> None:
    spec = made()
    assert (spec.name, spec.version, spec.guestId, spec.firmware) == ("web-2", "vmx-19", "debian12_64Guest", "efi")
    assert (spec.numCPUs, spec.memoryMB, spec.annotation) == (4, 4096, "the shop")
    assert (spec.changeTrackingEnabled, spec.uuid, spec.instanceUuid) == (False, None, None)
    assert spec.bootOptions.efiSecureBootEnabled
    assert spec.bootOptions.bootOrder == []
    assert spec.files.vmPathName == "[ds1]"


def test_advanced_settings_of_the_old_place_are_left_out() -> None:
    assert kept_extra(SAVED) == {
        "ethernet0.pciSlotNumber": "192",
        "disk.EnableUUID": "TRUE",
        "guestinfo.role": "shop",
    }
    assert {o.key: o.value for o in made().extraConfig}[MARK] == "run-1"
    assert MARK not in {o.key for o in made(run="").extraConfig}


def test_only_the_disks_that_are_restored_are_made_in_their_slots() -> None:
    (disk,) = devices(made(), "VirtualDisk")
    (controller,) = devices(made(), "ParaVirtualSCSIController")
    change = next(c for c in made().deviceChange if c.device.key == disk.key)
    assert (disk.controllerKey, disk.unitNumber, controller.key) == (-1000, 0, -1000)
    assert (disk.capacityInBytes, disk.capacityInKB) == (5 * GiB, 5 * 1024 * 1024)
    assert (disk.backing.fileName, disk.backing.thinProvisioned, disk.backing.diskMode) == ("[ds1]", True, "persistent")
    assert (change.operation, change.fileOperation) == ("add", "create")
    assert controller.sharedBus == "noSharing"


def test_thick_stays_thick_and_a_disk_that_is_there_is_attached() -> None:
    both = {
        "scsi0:0": DiskPlace(datastore="ds1", path="a/b.vmdk"),
        "scsi0:1": DiskPlace(datastore="ds1", disk="scsi0:1"),
    }
    changes = [c for c in made(replace(NEW, disks=both)).deviceChange if isinstance(c.device, device.VirtualDisk)]
    attached, thick = changes
    assert (attached.device.backing.fileName, attached.fileOperation) == ("[ds1] a/b.vmdk", None)
    assert (thick.device.backing.thinProvisioned, thick.device.backing.eagerlyScrub) == (False, True)
    assert thick.device.capacityInBytes == GiB  # nothing else was said of its size


def test_what_was_tied_to_the_old_host_is_left_out() -> None:
    spec = made()
    for kind in (
        "VirtualTPM",
        "VirtualSerialPort",
        "VirtualPCIPassthrough",
        "VirtualKeyboard",
        "VirtualSriovEthernetCard",
    ):
        assert devices(spec, kind) == []
    (drive,) = devices(spec, "VirtualCdrom")
    assert isinstance(drive.backing, device.VirtualCdrom.RemotePassthroughBackingInfo)
    assert not drive.connectable.startConnected
    assert [c.key for c in devices(spec, "VirtualIDEController")] == [drive.controllerKey] == [-200]


@pytest.mark.parametrize(("fresh", "mac"), [(True, None), (False, MAC)])
def test_a_copy_gets_new_addresses_and_nics_are_disconnected(fresh: bool, mac: str | None) -> None:
    (card,) = devices(made(fresh=fresh), "VirtualVmxnet3")
    assert (card.macAddress, card.addressType) == (mac, "generated" if fresh else "assigned")
    assert (card.connectable.startConnected, card.connectable.connected) == (False, False)
    assert card.backing.deviceName == "Other Network"
    (connected,) = devices(made(replace(NEW, connected=True)), "VirtualVmxnet3")
    assert connected.connectable.startConnected


def test_the_boot_order_follows_the_disks() -> None:
    options = boot_order(SAVED, {"scsi0:0": 2016})
    assert options.efiSecureBootEnabled
    first, second = options.bootOrder
    assert first.deviceKey == 2016
    assert isinstance(second, vim.vm.BootOptions.BootableCdromDevice)
    assert boot_order(replace(SAVED, settings={}), {"scsi0:0": 2016}) is None


def test_places_that_cannot_be_are_refused() -> None:
    for place in (DiskPlace(path="/images/a"), DiskPlace(target="iqn.2026", lun=1)):
        with pytest.raises(RestoreRefused, match="lies in a datastore"):
            made(replace(NEW, disks={"scsi0:0": place}))
    with pytest.raises(RestoreRefused, match="KiB"):
        config_spec(SAVED, NEW, PLACEMENT, {"scsi0:0": GiB + 512}, name="x", run="", fresh=True)


@pytest.mark.parametrize(("before", "after"), [("generated", "manual"), ("manual", "manual"), ("assigned", "assigned")])
def test_a_kept_address_is_not_made_anew(before: str, after: str) -> None:
    card = device.VirtualVmxnet3(key=4000, macAddress=MAC, addressType=before)
    saved = replace(SAVED, devices=[encode(card)])
    (made_card,) = devices(made(replace(NEW, disks={}), saved, fresh=False), "VirtualVmxnet3")
    assert (made_card.macAddress, made_card.addressType) == (MAC, after)


def test_a_card_that_did_not_start_connected_does_not_now() -> None:
    off = device.VirtualDevice.ConnectInfo(startConnected=False, connected=False, allowGuestControl=True)
    saved = replace(SAVED, devices=[encode(device.VirtualVmxnet3(key=4000, macAddress=MAC, connectable=off))])
    (card,) = devices(made(replace(NEW, disks={}, connected=True), saved), "VirtualVmxnet3")
    assert not card.connectable.startConnected


def test_settings_that_are_none_are_not_believed() -> None:
    spec = made(saved=replace(SAVED, settings={"name": "evil", "numCPUs": 2, "extraConfig": [{"a": 1}]}))
    assert (spec.name, spec.numCPUs) == ("web-2", 2)
    for odd in ({"numCPUs": "many"}, {"bootOptions": {"_type": "vim.vm.device.VirtualDisk"}}, {"flags": 7}):
        with pytest.raises(FormatError):
            made(saved=replace(SAVED, settings=odd))


def test_what_is_left_out_is_told() -> None:
    told = left_out(SAVED, NEW)
    assert "disk scsi0:1" in told
    for word in (
        "VirtualTPM",
        "VirtualSerialPort",
        "VirtualPCIPassthrough",
        "VirtualSriovEthernetCard",
        "vnc.password",
    ):
        assert any(word in line for line in told), word
    assert not any("scsi0:0" in line or "VirtualKeyboard" in line for line in told)
