"""Virtual devices of a machine -> disks with their places, and loudly what no snapshot can hold. Pure: nothing is asked.

A disk's key is where it is plugged in: kind of controller, bus, unit (``scsi0:1``, ``nvme0:0``, ``sata0:2``, ``ide1:0``). That
survives moving, renaming and consolidating its files; its device key and file names do not.

What a snapshot cannot hold, and where vSphere says so:

====================================  =================================================================
independent disk                      ``backing.diskMode`` begins with ``independent``: left out of snapshots
physical-mode RDM                     ``backing.compatibilityMode``: SCSI commands go straight to the LUN
disk shared by several machines       ``controller.sharedBus``, ``backing.sharing`` (multi-writer)
disk in memory, dropped at power-off  persistent-memory backing; ``nonpersistent`` mode
pass-through device                   PCI, SCSI: the machine's data lies where vSphere cannot freeze it
====================================  =================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.hypervisor.vsphere import files
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.faults import moid
from proxy.model import Disk, Format, Reason, ReasonCode, VmdkAddress

# The word that takes the place of a datastore's kind for a disk that maps a LUN of the array (virtual-mode RDM).
RDM = "RDM"


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore. ``kind``: vSphere's own word (``VMFS``, ``NFS``, ``NFS41``, ``vsan``, ``VVOL``, ``PMEM``).

    ``volume``: UUID of a VMFS volume, as vSphere writes it; ``devices``: LUNs of its extents in their order (``naa.…``),
    ``partitions``: which partition of each. ``version``: of the VMFS (``6.82``). ``server``: ``host:/path`` of an NFS export.
    Bytes; ``accessible``: at least one host can use it now.
    """

    id: str
    name: str
    kind: str
    capacity: int = 0
    free: int = 0
    accessible: bool = True
    volume: str = ""
    devices: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()
    version: str = ""
    server: str = ""
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a machine's devices refer to: its own id, whether it is encrypted, datastores by id, LUN names by LUN UUID, and the
    name of the vCenter."""

    machine: str = ""
    encrypted: bool = False
    datastores: Mapping[str, Datastore] = field(default_factory=dict)
    luns: Mapping[str, str] = field(default_factory=dict)
    site: str = ""


def disks(devices: Sequence[Any], around: Surroundings) -> tuple[Disk, ...]:
    """Every disk and every pass-through device, in the order of their keys."""
    controllers = {d.key: d for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    found = [_disk(d, controllers.get(d.controllerKey), around) for d in devices if _is_disk(d)]
    return tuple(sorted([*found, *_passed_through(devices, controllers)], key=lambda disk: _order(disk.key)))


def disk_key(device: Any, controller: Any) -> str:
    """Where the disk is plugged in; a disk whose controller is not known is named after its device key."""
    word = controller_kind(controller)
    if not word or device.unitNumber is None:
        return f"disk{device.key}"
    return f"{word}{controller.busNumber}:{device.unitNumber}"


def controller_kind(controller: Any) -> str:
    """``scsi``, ``sata``, ``nvme`` or ``ide``; empty for anything else."""
    kinds = (
        (vim.vm.device.VirtualSCSIController, "scsi"),
        (vim.vm.device.VirtualSATAController, "sata"),
        (vim.vm.device.VirtualNVMEController, "nvme"),
        (vim.vm.device.VirtualIDEController, "ide"),
    )
    return next((word for kind, word in kinds if isinstance(controller, kind)), "")


def virtual_disks(devices: Sequence[Any]) -> dict[str, Any]:
    """Disk key -> ``vim.vm.device.VirtualDisk``, the live device."""
    controllers = {d.key: d for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    return {disk_key(d, controllers.get(d.controllerKey)): d for d in devices if _is_disk(d)}


def size_of(device: Any) -> int:
    """Virtual size of a disk in bytes; vSphere before 5.5 tells KiB only."""
    return int(device.capacityInBytes or 0) or int(device.capacityInKB or 0) * 1024


def address(device: Any, backing: Any, around: Surroundings) -> VmdkAddress | None:
    """Place of one file of a disk's chain; ``None`` for a backing without a file in a datastore."""
    name, path = files.split(getattr(backing, "fileName", "") or "")
    if not name or not path:
        return None
    store = around.datastores.get(moid(getattr(backing, "datastore", None)))
    raw = isinstance(backing, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo)
    lun = around.luns.get(getattr(backing, "lunUuid", None) or "") if raw else None
    return VmdkAddress(
        datastore=store.name if store else name,
        path=path,
        kind=RDM if raw else (store.kind if store else ""),
        volume=store.volume if store and not raw else "",
        devices=((lun,) if lun else ()) if raw else (store.devices if store else ()),
        machine=around.machine,
        device=device.key,
        encrypted=around.encrypted or getattr(backing, "keyId", None) is not None,
        site=around.site,
    )


def chain(device: Any) -> list[Any]:
    """The backings of a disk, top first: what the guest writes to, then what lies below it."""
    found: list[Any] = []
    backing = device.backing
    while backing is not None and len(found) < 256:  # vSphere allows 32 snapshots: more is a loop of references
        found.append(backing)
        backing = getattr(backing, "parent", None)
    return found


def _is_disk(device: Any) -> bool:
    return isinstance(device, vim.vm.device.VirtualDisk)


def _disk(device: Any, controller: Any, around: Surroundings) -> Disk:
    places = [address(device, backing, around) for backing in chain(device)]
    return Disk(
        key=disk_key(device, controller),
        size=size_of(device),
        format=Format.VMDK,
        location=places[0],
        excluded=_exclusion(device, controller, places[0]),
        below=tuple(place for place in places[1:] if place is not None),
    )


def _exclusion(device: Any, controller: Any, place: VmdkAddress | None) -> Reason | None:
    """The first reason that applies."""
    backing = device.backing
    mode = str(getattr(backing, "diskMode", "") or "")
    base = chain(device)[-1] if backing is not None else None
    bus = str(getattr(controller, "sharedBus", "") or "noSharing")
    sharing = str(getattr(backing, "sharing", "") or "")
    physical = str(getattr(base, "compatibilityMode", "") or "") == "physicalMode"
    lun = str(getattr(base, "deviceName", "") or "a LUN")
    rules = (
        (physical, ReasonCode.DISK_PASSTHROUGH, f"raw device mapping in physical mode of {lun}"),
        (bus != "noSharing", ReasonCode.DISK_SHARED, f"its SCSI controller shares its bus ({bus})"),
        (sharing == "sharingMultiWriter", ReasonCode.DISK_SHARED, "several machines write to it (multi-writer)"),
        (mode.startswith("independent"), ReasonCode.DISK_INDEPENDENT, f"mode {mode}: snapshots leave it out"),
        (mode in _VOLATILE, ReasonCode.DISK_UNSUPPORTED, f"mode {mode}: its changes are dropped or undone"),
        (place is None or not isinstance(backing, _FILES), ReasonCode.DISK_UNSUPPORTED, _kind(backing)),
    )
    return next((Reason(code, detail) for applies, code, detail in rules if applies), None)


# Backings that are files of a datastore; others (persistent memory, partitions of a host) are left out of snapshots.
_FILES = (
    vim.vm.device.VirtualDisk.FlatVer2BackingInfo,
    vim.vm.device.VirtualDisk.SeSparseBackingInfo,
    vim.vm.device.VirtualDisk.SparseVer2BackingInfo,
    vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo,
)

_VOLATILE = frozenset({"nonpersistent", "undoable", "append"})


def _passed_through(devices: Sequence[Any], controllers: Mapping[int, Any]) -> list[Disk]:
    """Devices that are no virtual disk and may hold data all the same, or that keep vSphere from making snapshots."""
    found = []
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualSCSIPassthrough):
            key, what = disk_key(device, controllers.get(device.controllerKey)), "SCSI device of the host"
        elif isinstance(device, vim.vm.device.VirtualPCIPassthrough):
            key, what = f"pci{device.key}", "PCI device of the host: a running machine with it takes no snapshot"
        elif isinstance(device, vim.vm.device.VirtualNVDIMM):
            key, what = f"nvdimm{device.key}", "persistent memory: a machine with it takes no snapshot"
        else:
            continue
        reason = Reason(ReasonCode.DISK_PASSTHROUGH, f"{what} ({_label(device)})")
        found.append(Disk(key=key, size=0, format=Format.RAW, location=None, excluded=reason))
    return found


def _label(device: Any) -> str:
    info = getattr(device, "deviceInfo", None)
    return str(getattr(info, "label", "") or _kind(device.backing))


def _kind(thing: object) -> str:
    return type(thing).__name__.rpartition(".")[2] if thing is not None else "no backing"


def _order(key: str) -> tuple[str, list[int]]:
    """``scsi0:2`` before ``scsi0:10``."""
    word = key.rstrip("0123456789:")
    return word, [int(part) for part in key[len(word) :].split(":") if part]
