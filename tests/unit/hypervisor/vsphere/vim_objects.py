"""Objects of the vSphere API for tests, made by hand as vCenter would answer them."""

from collections.abc import Mapping
from typing import Any

from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import Datastore
from proxy.units import GiB

D = vim.vm.device

NAA = "naa.60060160a1b2c3d4e5f60718293a4b5c"

LUN1 = Datastore("datastore-1", "LUN1", "VMFS", volume="65a0-b1", devices=(NAA,), partitions=(1,))
NFS1 = Datastore("datastore-2", "NFS1", "NFS", server="filer:/export")


def store(reference: str = "datastore-1") -> Any:
    return vim.Datastore(reference, None)


def flat(file: str = "[LUN1] web/web.vmdk", parent: Any = None, **more: Any) -> Any:
    given = {"datastore": store(), "diskMode": "persistent", "thinProvisioned": True, **more}
    return D.VirtualDisk.FlatVer2BackingInfo(fileName=file, parent=parent, **given)


def raw(mode: str, **more: Any) -> Any:
    given = {"datastore": store(), "diskMode": "persistent", "deviceName": "vml.0200", "lunUuid": "0200lun", **more}
    return D.VirtualDisk.RawDiskMappingVer1BackingInfo(
        fileName="[LUN1] web/web_1.vmdk", compatibilityMode=mode, **given
    )


def disk(backing: Any, controller: int = 1000, unit: int = 0, key: int = 2000, size: int = 40 * GiB) -> Any:
    return D.VirtualDisk(
        key=key,
        controllerKey=controller,
        unitNumber=unit,
        backing=backing,
        capacityInBytes=size,
        capacityInKB=size // 1024,
        deviceInfo=vim.Description(label="Hard disk 1", summary="41,943,040 KB"),
    )


def scsi(bus: int = 0, shared: str = "noSharing", kind: Any = D.ParaVirtualSCSIController) -> Any:
    return kind(key=1000 + bus, busNumber=bus, sharedBus=shared, controllerKey=100)


def nic(key: int = 4000, mac: str = "00:50:56:9a:00:01", backing: Any = None, mac_type: str = "assigned") -> Any:
    return D.VirtualVmxnet3(
        key=key,
        macAddress=mac,
        addressType=mac_type,
        deviceInfo=vim.Description(label="Network adapter 1", summary="VM Network"),
        backing=backing or D.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network"),
        connectable=D.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=True),
    )


def found(kind: Any, reference: str, values: Mapping[str, Any], missing: Mapping[str, str] | None = None) -> Found:
    return Found(kind(reference, None), values, missing or {})
