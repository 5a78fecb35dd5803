"""One disk of a restore point into a machine that exists: imported with a carrier, a machine that is only its disk, then handed
over.

::

    carrier(…)   what to import: the disk and its controller, one processor, no network
    attach(…)    carrier ──lets go──► [datastore] carrier/carrier.vmdk ◄──takes── the machine, in a free slot

The machine's own disks stay as they are: files are taken from the restored disk by the guest itself, or the person swaps them.
The file stays in the carrier's folder; the carrier goes.
"""

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from proxy.errors import LanfreeError, RestoreRefused
from proxy.hypervisor.vsphere import collector, inventory, tasks
from proxy.hypervisor.vsphere.configuration import parse
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import disk_key, size_of
from proxy.model import MachineConfiguration, MachineId, RunId, VirtualMachine, VmdkAddress
from proxy.ports import DiskPlace, NewMachine

TASK_LIMIT = 600.0

# Slots of a controller: kind of controller, how many, and the one that is the controller's own.
_SLOTS = (
    ("VirtualSCSIController", 16, 7),
    ("VirtualNVMEController", 15, -1),
    ("VirtualSATAController", 30, -1),
)

# Settings that a machine must have to exist; the carrier is never started.
_LEAST = {"numCPUs": 1, "memoryMB": 128}


def carrier(
    configuration: MachineConfiguration, key: str, *, into: VirtualMachine, datastore: str, run: RunId
) -> tuple[MachineConfiguration, NewMachine]:
    """What to import for disk ``key`` of a restore point; ``into``: the machine that will get it.

    Raises ``FormatError``, ``RestoreRefused``.
    """
    saved = parse(configuration)
    disk = next((disk for disk in saved.disks if disk.key == key), None)
    if disk is None:
        raise RestoreRefused(into.name, f"the saved configuration has no disk {key}")
    document = json.loads(configuration.text)
    held = next(device for device in document["devices"] if device.get("key") == disk.device)
    document["devices"] = [d for d in document["devices"] if d is held or d.get("key") == held.get("controllerKey")]
    document["disks"] = [d for d in document["disks"] if d["key"] == key]
    document["settings"] = {**_LEAST, "guestId": document["settings"].get("guestId", "otherGuest64")}
    document |= {"nics": [], "extra": {}, "tags": None, "attributes": {}, "template": False}
    new = NewMachine(
        name=f"{into.name} disk {key.replace(':', '-')} (restore {run})",
        host=into.host,
        disks={key: DiskPlace(datastore=datastore, disk=key)},
        identity=str(uuid.uuid4()),
    )
    return MachineConfiguration(configuration.kind, json.dumps(document)), new


def check_attach(vcenter: Vcenter, machine: MachineId) -> None:
    """Everything that ``attach`` would refuse, asked before the import. Raises ``RestoreRefused``, ``MachineNotFound``."""
    _free_slot(*_machine(vcenter, machine)[1:])


def attach(vcenter: Vcenter, disk: VmdkAddress, machine: MachineId) -> str:
    """Hand the imported disk over from its carrier. Returns the key that it has in the machine.

    Raises ``RestoreRefused``, ``Refused``; then the disk is still the carrier's, or lies in the datastore with nobody.
    """
    live, name, devices = _machine(vcenter, machine)
    controller, unit = _free_slot(name, devices)
    what = f"attach [{disk.datastore}] {disk.path} to {name}"
    size = _let_go(vcenter, disk, what)
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"[{disk.datastore}] {disk.path}", diskMode="persistent"
    )
    added = vim.vm.device.VirtualDisk(key=-1, controllerKey=controller.key, unitNumber=unit, backing=backing)
    added.capacityInBytes, added.capacityInKB = size, size // 1024
    change = vim.vm.device.VirtualDeviceSpec(operation="add", device=added)
    tasks.wait(vcenter, live.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])), what, limit=TASK_LIMIT)
    return disk_key(added, controller)


def _let_go(vcenter: Vcenter, disk: VmdkAddress, what: str) -> int:
    """The carrier goes, its disk stays; returns its size. The carrier is not destroyed: its folder would go with it."""
    live = vcenter.object(vim.VirtualMachine, disk.machine)
    found = collector.read_one(vcenter, live, "config.hardware.device", "config.files.vmPathName")
    held = next(device for device in found.values["config.hardware.device"] if device.key == disk.device)
    gone = vim.vm.device.VirtualDeviceSpec(operation="remove", device=held)  # no file operation: the file stays
    tasks.wait(vcenter, live.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[gone])), what, limit=TASK_LIMIT)
    center = _datacenter(vcenter, live)
    with suppress(LanfreeError):  # an empty machine, or its definition, that stays behind harms nobody
        live.UnregisterVM()
        vmx = str(found.values["config.files.vmPathName"])
        delete = vcenter.content.fileManager.DeleteDatastoreFile_Task(vmx, center)
        tasks.wait(vcenter, delete, what, limit=TASK_LIMIT)
    return size_of(held)


def _datacenter(vcenter: Vcenter, machine: Any) -> Any:
    above = machine
    while above is not None and not isinstance(above, vim.Datacenter):
        above = collector.read_one(vcenter, above, "parent").get("parent")
    return above


def _machine(vcenter: Vcenter, machine: MachineId) -> tuple[Any, str, Sequence[Any]]:
    live = inventory.find_machine(vcenter, machine)
    found = collector.read_one(vcenter, live, "name", "config.hardware.device", "config.template")
    if found.get("config.template"):
        raise RestoreRefused(str(found.get("name")), "it is a template")
    return live, str(found.get("name")), found.get("config.hardware.device") or ()


def _free_slot(name: str, devices: Sequence[Any]) -> tuple[Any, int]:
    """A controller that the machine has, and a unit of it that nothing is plugged into."""
    taken = {(device.controllerKey, device.unitNumber) for device in devices if device.controllerKey is not None}
    for kind, count, own in _SLOTS:
        for controller in (d for d in devices if isinstance(d, getattr(vim.vm.device, kind))):
            if str(getattr(controller, "sharedBus", "") or "noSharing") != "noSharing":
                continue
            for unit in range(count):
                if unit != own and (controller.key, unit) not in taken:
                    return controller, unit
    raise RestoreRefused(name, "it has no free slot for a disk", hint="give it another SCSI controller first")
