"""A machine as a snapshot's maker and remover need to see it: asked in one question, then only looked at."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from proxy.errors import MachineNotFound
from proxy.hypervisor.vsphere import collector, ownership
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import chain, virtual_disks
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.inventory import find_machine
from proxy.hypervisor.vsphere.quiesce import Guest
from proxy.model import MachineId, PowerState

PATHS = (
    "name",
    "config.template",
    "config.version",
    "config.guestId",
    "config.flags",
    "config.changeTrackingEnabled",
    "config.changeVersion",
    "config.hardware.device",
    "capability.changeTrackingSupported",
    "runtime.powerState",
    "runtime.host",
    "runtime.cleanPowerOff",
    "runtime.consolidationNeeded",
    "guest.toolsRunningStatus",
    "guest.guestFamily",
    "snapshot",
    "disabledMethod",
    "recentTask",
)

# ``VirtualMachine.createSnapshot``, ``vm.Snapshot.remove``, ``VirtualMachine.consolidateDisks``: TaskInfo.descriptionId.
_SNAPSHOTS = re.compile("snapshot|consolidate", re.IGNORECASE)
_GOING_ON = frozenset({"queued", "running"})

_STATES = {"poweredOn": PowerState.RUNNING, "suspended": PowerState.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Look:
    """One machine at one moment. ``object``: ``vim.VirtualMachine``."""

    machine: MachineId
    object: Any
    found: Found

    @property
    def name(self) -> str:
        """Of the machine, for people."""
        return unquote(str(self.found.get("name") or self.machine))

    @property
    def state(self) -> PowerState:
        """Whether it runs."""
        return _STATES.get(str(self.found.get("runtime.powerState")), PowerState.OFF)

    @property
    def template(self) -> bool:
        """A template cannot run, and vCenter makes no snapshot of it."""
        return bool(self.found.get("config.template"))

    @property
    def hardware(self) -> str:
        """Version of its virtual hardware: ``vmx-19``."""
        return str(self.found.get("config.version") or "")

    @property
    def version(self) -> str:
        """New whenever its configuration was changed."""
        return str(self.found.get("config.changeVersion") or "")

    @property
    def devices(self) -> Sequence[Any]:
        """Virtual devices now."""
        return self.found.get("config.hardware.device") or ()

    @property
    def consolidation_needed(self) -> bool:
        """Files of a removed snapshot are still in a chain."""
        return bool(self.found.get("runtime.consolidationNeeded"))

    @property
    def guest(self) -> Guest:
        """What can be asked of it."""
        family = str(self.found.get("guest.guestFamily") or "")
        uuids = getattr(self.found.get("config.flags"), "diskUuidEnabled", None)
        return Guest(
            state=self.state,
            tools=self.found.get("guest.toolsRunningStatus") == "guestToolsRunning",
            windows=family == "windowsGuest"
            or (not family and str(self.found.get("config.guestId")).startswith("win")),
            clean=bool(self.found.get("runtime.cleanPowerOff")) or self.template,
            uuids=uuids is not False,
            ide=any(key.startswith("ide") for key in virtual_disks(self.devices)),
        )

    @property
    def snapshots(self) -> list[ownership.Found]:
        """Lanfree's, whichever installation made them."""
        return ownership.found_in(self.found.get("snapshot"), self.machine)

    @property
    def has_snapshot(self) -> bool:
        """Anybody's."""
        return any(True for _ in ownership.tree(self.found.get("snapshot")))

    def goes_on_from(self, snapshot: str) -> bool:
        """Whether it was not reverted to before this snapshot."""
        return ownership.above(self.found.get("snapshot"), snapshot)

    def chains(self) -> dict[str, list[str]]:
        """Disk key -> datastore paths of its files, the one that is written to first."""
        return {key: chain_of(device) for key, device in virtual_disks(self.devices).items()}


def chain_of(device: Any) -> list[str]:
    """Datastore paths of a disk's files, top first."""
    return [str(getattr(backing, "fileName", "") or "") for backing in chain(device)]


def look(vcenter: Vcenter, machine: MachineId) -> Look:
    """Raises ``MachineNotFound``, ``Refused``, ``HostUnreachable``."""
    one = find_machine(vcenter, machine)
    try:
        return Look(machine, one, collector.read_one(vcenter, one, *PATHS))
    except Refused as error:
        if error.refusal is Refusal.GONE:
            raise MachineNotFound(machine) from None
        raise


def host_name(vcenter: Vcenter, seen: Look) -> str:
    """Name of the host that has the machine now."""
    host = seen.found.get("runtime.host")
    found = collector.read(vcenter, [host], ("name",)) if host is not None else []
    return str(found[0].get("name")) if found else ""


def snapshot_task_runs(vcenter: Vcenter, seen: Look) -> bool:
    """Whether a task that makes, removes or consolidates snapshots is waiting or running on the machine."""
    recent = seen.found.get("recentTask") or ()
    infos = [found.get("info") for found in collector.read(vcenter, recent, ("info",), kind=vim.Task)]
    return any(i is not None and i.state in _GOING_ON and _SNAPSHOTS.search(i.descriptionId or "") for i in infos)


def snapshot_devices(vcenter: Vcenter, snapshot: Any) -> dict[str, Any]:
    """Disk key -> virtual disk as the snapshot holds it: its backing is the newest file that stands still."""
    found = collector.read_one(vcenter, snapshot, "config.hardware.device")
    return virtual_disks(found.get("config.hardware.device") or ())
