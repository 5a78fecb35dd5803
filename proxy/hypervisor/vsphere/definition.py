"""A saved configuration -> what a new machine is made of. Pure: the places were found before (``placement``).

What it keeps is what the guest sees: processors, memory, firmware, controllers with their disks in the same slots, NICs of
the same kind. What it leaves out was tied to the old host or holds no data: pass-through devices, serial ports, media in
drives, TPMs (their secrets are sealed to a key provider).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.errors import FormatError, RestoreRefused
from proxy.hypervisor.vsphere.configuration import HARDWARE, SETTINGS, Saved, SavedNic, saved_device
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import disk_key
from proxy.hypervisor.vsphere.placement import Placement
from proxy.hypervisor.vsphere.vim_json import WHAT, decode
from proxy.ports import DiskPlace, NewMachine

MARK = "lanfree.restore"
"""Advanced setting of a machine in the making: the run that makes it. Gone when it is defined."""

# Advanced settings that are the old machine's and not its guest's: files, identity, where it ran, change tracking.
_OLD = re.compile(
    r"nvram|migrate\..*|vmotion\..*|sched\.swap\.derivedName|uuid\..*|vc\.uuid|viv\.moid|cleanShutdown|softPowerOff"
    r"|.*\.redo|.*\.fileName|.*ctkEnabled|lanfree\..*|checkpoint\..*|extendedConfigFile|vmxstats\.filename"
    r"|config\.readOnly|toolsInstallManager\..*",
    re.IGNORECASE,
)

# Nothing else that stands in a restore point's settings is believed.
_SETTINGS = frozenset({*SETTINGS, *HARDWARE.values(), "powerOpInfo", "tools"})

_CONTROLLERS = ("VirtualSCSIController", "VirtualSATAController", "VirtualNVMEController", "VirtualIDEController")
_HOST_DEVICES = (
    *("VirtualSriovEthernetCard", "VirtualPCIPassthrough", "VirtualSCSIPassthrough", "VirtualUSB"),
    *("VirtualSerialPort", "VirtualParallelPort", "VirtualFloppy"),
)
_USB = ("VirtualUSBController", "VirtualUSBXHCIController")


def config_spec(
    saved: Saved, new: NewMachine, placement: Placement, sizes: Mapping[str, int], *, name: str, run: str, fresh: bool
) -> Any:
    """``vim.vm.ConfigSpec`` of the machine, off, without identity: that is given when the disks are there.

    ``sizes``: of the disks, bytes, by key; a disk of ``new`` that is not in it has the saved size. ``name``: for now.
    ``fresh``: it gets an identity of its own, so new MAC addresses. Raises ``RestoreRefused``, ``FormatError``.
    """
    spec = vim.vm.ConfigSpec(name=name, version=saved.hardware or None)
    for setting in _SETTINGS & saved.settings.keys():
        try:
            setattr(spec, setting, decode(saved.settings[setting]))
        except (TypeError, ValueError, AttributeError) as error:
            raise FormatError(WHAT, f"{setting}: {error}") from None
    if spec.bootOptions is not None:
        spec.bootOptions.bootOrder = []  # tells devices by keys that are given anew: see boot_order
    spec.files = vim.vm.FileInfo(vmPathName=f"[{placement.home}]")
    spec.changeTrackingEnabled = False
    spec.extraConfig = [
        vim.option.OptionValue(key=key, value=value)
        for key, value in {**kept_extra(saved), **({MARK: run} if run else {})}.items()
    ]
    spec.deviceChange = list(_devices(saved, new, placement, sizes, fresh=fresh))
    return spec


def kept_extra(saved: Saved) -> dict[str, str]:
    """The advanced settings that a new machine gets."""
    return {key: str(value) for key, value in saved.extra.items() if not _OLD.fullmatch(key) and value is not None}


def left_out(saved: Saved, new: NewMachine) -> list[str]:
    """What the new machine does not get of the saved one, for people. Every machine has keyboard, mouse and screen anew."""
    found = [f"disk {disk.key}" for disk in saved.disks if disk.key not in new.disks]
    for device in (saved_device(one) for one in saved.devices):
        if _is(device, *_HOST_DEVICES):
            found.append(f"{type(device).__name__.rpartition('.')[2]} ({device.key}): it was tied to the old host")
        elif _is(device, "VirtualTPM"):
            found.append("VirtualTPM: what it kept is sealed to its key provider")
    found += [f"advanced setting {key}: it was a secret, and never saved" for key in saved.left_out]
    return found


def boot_order(saved: Saved, present: Mapping[str, int]) -> Any:
    """Boot options with the saved order, as far as its devices are there. ``present``: disk key -> device key.
    ``None``: nothing was said about an order."""
    options = decode(saved.settings.get("bootOptions")) if saved.settings.get("bootOptions") else None
    if options is None or not options.bootOrder:
        return None
    moved = {disk.device: present.get(disk.key) for disk in saved.disks}
    order = []
    for one in options.bootOrder:
        if isinstance(one, vim.vm.BootOptions.BootableEthernetDevice):
            continue  # the card has another key now; a firmware that finds nothing on the disks tries the network anyway
        if isinstance(one, vim.vm.BootOptions.BootableDiskDevice):
            key = moved.get(one.deviceKey)
            if key is None:
                continue
            one.deviceKey = key
        order.append(one)
    options.bootOrder = order
    return options


def _devices(
    saved: Saved, new: NewMachine, placement: Placement, sizes: Mapping[str, int], *, fresh: bool
) -> Iterator[Any]:
    present = [saved_device(one) for one in saved.devices]
    controllers = {d.key: d for d in present if isinstance(d, vim.vm.device.VirtualController)}
    nics = {nic.device: nic for nic in saved.nics}
    disks = {d.key: disk_key(d, controllers.get(d.controllerKey)) for d in present if _is(d, "VirtualDisk")}
    used = {d.controllerKey for d in present if disks.get(d.key) in new.disks or _is(d, "VirtualCdrom")}
    for device in present:
        if _is(device, *_CONTROLLERS) and (device.key in used or not _is(device, "VirtualIDEController")):
            yield _added(_controller(device))
        elif _is(device, *_USB):
            yield _added(_plain(device))
        elif _is(device, "VirtualCdrom"):
            yield _added(_drive(device))
        elif _is_card(device) and device.key in nics:
            nic = nics[device.key]
            yield _added(_nic(device, nic, placement.networks[nic.network], fresh=fresh, connected=new.connected))
    for device in present:
        key = disks.get(device.key, "")
        if key in new.disks:
            yield _disk(device, key, new.disks[key], saved, sizes)


def _is(device: Any, *kinds: str) -> bool:
    return any(isinstance(device, getattr(vim.vm.device, kind)) for kind in kinds)


def _is_card(device: Any) -> bool:
    """A network card that any host can make; SR-IOV is a piece of one host's."""
    return _is(device, "VirtualEthernetCard") and not _is(device, "VirtualSriovEthernetCard")


def _added(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _plain(device: Any) -> Any:
    device.key = -device.key  # keys of devices that are to be made are negative
    device.deviceInfo = None
    return device


def _controller(device: Any) -> Any:
    device.device = []
    if _is(device, "VirtualSCSIController"):
        device.sharedBus = "noSharing"  # the disks are copies: nobody shares them
    return _plain(device)


def _drive(device: Any) -> Any:
    """Empty: a medium lay on the old host or in a datastore that may be gone."""
    empty = vim.vm.device.VirtualCdrom(key=-device.key, unitNumber=device.unitNumber)
    empty.controllerKey = -device.controllerKey
    empty.backing = vim.vm.device.VirtualCdrom.RemotePassthroughBackingInfo(deviceName="", exclusive=False)
    empty.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=False, allowGuestControl=True, connected=False
    )
    return empty


def _nic(device: Any, nic: SavedNic, backing: Any, *, fresh: bool, connected: bool) -> Any:
    before = device.connectable
    starts = connected and (before is None or bool(before.startConnected))
    device.backing = backing
    device.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        startConnected=starts, allowGuestControl=True, connected=False
    )
    device.controllerKey = device.unitNumber = device.externalId = None
    if fresh or not nic.mac:
        device.addressType, device.macAddress = "generated", None
    else:
        # vSphere makes a new address where it is said that vSphere made it: only vCenter's own are taken as they are.
        device.addressType = "assigned" if str(device.addressType).lower() == "assigned" else "manual"
        device.macAddress = nic.mac
    return _plain(device)


def _disk(device: Any, key: str, place: DiskPlace, saved: Saved, sizes: Mapping[str, int]) -> Any:
    if not place.datastore:
        raise RestoreRefused(str(place), f"disk {key} of a vSphere machine lies in a datastore")
    facts = next(disk for disk in saved.disks if disk.key == key)
    size = sizes.get(key, facts.size)
    if size % 1024:
        raise RestoreRefused(str(place), f"disk {key} has {size} bytes; vSphere counts them in KiB")
    attached = bool(place.path)
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"[{place.datastore}] {place.path}" if attached else f"[{place.datastore}]", diskMode="persistent"
    )
    made = vim.vm.device.VirtualDisk(
        key=-device.key, controllerKey=-device.controllerKey, unitNumber=device.unitNumber, backing=backing
    )
    change = _added(made)
    if not attached:
        made.capacityInKB, made.capacityInBytes = size // 1024, size
        backing.thinProvisioned, backing.eagerlyScrub = facts.thin, facts.eager
        change.fileOperation = "create"
    return change
