"""What is asked of an address, of a volume and of a map before a byte of the disk is believed. Pure."""

from collections.abc import Sequence
from typing import Protocol

from proxy.extents import Extent, Kind, aligned, intersect, normal, subtract, total
from proxy.model import Format, FrozenDisk, VmdkAddress
from proxy.transport.vmfs import Vmfs
from proxy.transport.vmfs_san.reasons import VmfsSanReason, refused
from proxy.units import KiB, MiB

VMFS, RAW_DEVICE = "vmfs", "rdm"
"""Kinds of a place as the hypervisor's driver tells them, in lower case."""

AREA_SMALLEST, AREA_LARGEST = 64 * KiB, MiB
"""Blocks in which a hypervisor tracks and reports areas of a disk. Not taken to be larger than a file block: of a base disk,
all of whose runs are whole file blocks, not one hole is overlooked then. Coarser reports only lead to a refusal."""


class AllocatedOracle(Protocol):
    """Whoever knows, without looking at the LUN, which areas of a frozen disk hold data (``QueryChangedDiskAreas("*")``)."""

    def allocated(self, address: VmdkAddress) -> Sequence[Extent]:
        """Every byte that was ever written lies in them. Raises ``ChangesUnknown`` when the hypervisor does not tell."""
        ...


def address_of(disk: FrozenDisk) -> VmdkAddress:
    """The one descriptor that a vSphere disk is known by. Raises ``TransportRefused`` unless its blocks can be on a SAN."""
    if len(disk.layers) != 1 or disk.layers[0].format is not Format.VMDK:
        raise refused(disk.key, VmfsSanReason.NOT_VSPHERE, f"{len(disk.layers)} layers", hint="")
    address = disk.layers[0].location
    if not isinstance(address, VmdkAddress):
        raise refused(disk.key, VmfsSanReason.NOT_VSPHERE, f"it is a {type(address).__name__}", hint="")
    if address.encrypted:
        raise refused(disk.key, VmfsSanReason.ENCRYPTED, f"{address.path} is encrypted by the hypervisor")
    if address.kind.lower() == RAW_DEVICE:
        # Its LUN is known, and not whether somebody's snapshot lies between it and what is frozen.
        raise refused(disk.key, VmfsSanReason.RAW_DEVICE, f"{address.path} stands for {', '.join(address.devices)}")
    if address.kind.lower() != VMFS:
        raise refused(disk.key, VmfsSanReason.NOT_VMFS, f"datastore {address.datastore} is {address.kind or 'unknown'}")
    if not address.volume:
        raise refused(disk.key, VmfsSanReason.NO_UUID, f"the UUID of datastore {address.datastore} is unknown")
    if not address.devices or not all(address.devices):
        raise refused(disk.key, VmfsSanReason.NO_DEVICES, f"the LUNs of datastore {address.datastore} are unknown")
    return address


def check_device_names(fs: Vmfs, address: VmdkAddress, disk: str) -> None:
    """The LUNs were found by the names that the hypervisor knows; what the hosts wrote on them must name the same ones.

    An array's copy of a datastore carries its origin's names: hosts take it for a snapshot, and so do we.
    """
    written = {name.rpartition(":")[0] or name for name in fs.volume.devices}
    if not written:
        detail = f"the volume manager on {', '.join(address.devices)} names no device"
        raise refused(disk, VmfsSanReason.DEVICE_NAMES, detail)
    if not written <= set(address.devices):
        detail = f"the volume was made on {', '.join(sorted(written))}, found on {', '.join(address.devices)}"
        raise refused(disk, VmfsSanReason.DEVICE_NAMES, detail, hint="is an array's copy presented instead of the LUN?")


def check_allocation(allocated: Sequence[Extent], extents: Sequence[Extent], size: int, disk: str) -> None:
    """Every area that the hypervisor calls allocated must be DATA in our map; the other way round is only reading too much.

    The hypervisor reports whole blocks of its own: our DATA is widened to them, or a block that a delta holds a grain of
    would look as if most of it were missing.
    """
    told = intersect(normal(Extent(e.start, e.length) for e in allocated), [Extent(0, size)] if size else [])
    data = [e for e in extents if e.kind is Kind.DATA]
    if not subtract(told, data):
        return
    missing = subtract(told, aligned(data, area_block(told, size), size))
    if missing:
        detail = (
            f"{total(missing)} bytes in {len(missing)} areas, the first {missing[0].length} at {missing[0].start},"
            " are allocated for the hypervisor and zero in the file system"
        )
        raise refused(disk, VmfsSanReason.ALLOCATION, detail)


def area_block(areas: Sequence[Extent], size: int) -> int:
    """The block that these areas were reported in: the largest power of two that divides all their bounds."""
    bounds = 0
    for area in areas:
        bounds |= area.start | (area.end if area.end != size else 0)
    lowest = bounds & -bounds or AREA_LARGEST
    return max(AREA_SMALLEST, min(lowest, AREA_LARGEST))
