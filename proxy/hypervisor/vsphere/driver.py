"""VsphereSite: the Hypervisor port over one vCenter. The parts are in the other modules.

A machine is frozen in one of two ways, named in ``Snapshot.method``:

``snapshot``  vSphere's snapshot; the proxy reads the files that stand still below it, whether the machine runs or not
``off``       a template: it has no snapshots and cannot run; ``confirm`` tells whether it stayed one
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from proxy.errors import ChangesUnknown
from proxy.extents import Extent
from proxy.hypervisor.vsphere import changes, collector, inventory
from proxy.hypervisor.vsphere import configuration as configurations
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import size_of
from proxy.hypervisor.vsphere.exports import ExportedDisk, Exports
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.guest_files import VsphereGuestFiles
from proxy.hypervisor.vsphere.imports import Imports
from proxy.hypervisor.vsphere.meters import VsphereMeters
from proxy.hypervisor.vsphere.ownership import installation
from proxy.hypervisor.vsphere.records import Records
from proxy.hypervisor.vsphere.release import ReadersGone, Releaser
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.hypervisor.vsphere.snapshots import SnapshotMaker
from proxy.hypervisor.vsphere.sweep import Sweeper
from proxy.model import (
    ChangeId,
    FrozenDisk,
    MachineConfiguration,
    MachineId,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    SnapshotRequest,
    VirtualMachine,
    VmdkAddress,
)
from proxy.ports import NewMachine, StateStore

# Seconds between two tries of what vCenter refused for the moment: another task holds the machine, a host was busy.
PAUSE = 5.0


class VsphereSite:
    """One vCenter and all that it manages.

    ``state``: what must outlive the proxy; all proxies that back up this vCenter need the same, since a sweep takes a run that
    it has not heard of for a dead one. ``readers_gone``: the interlock between readers of frozen
    disks and the merge that would change them under their hands; without one the caller sees to it. ``vcenter``: a
    connection to use in place of a new one. ``pause``: see ``PAUSE``.
    """

    def __init__(
        self,
        settings: VsphereSettings,
        *,
        state: StateStore,
        readers_gone: ReadersGone | None = None,
        vcenter: Vcenter | None = None,
        pause: float = PAUSE,
    ) -> None:
        self.name = settings.name
        self.vcenter = vcenter or Vcenter(settings)
        self.exports = Exports(self.vcenter)
        self.imports = Imports(self.vcenter)
        self._unreachable: Mapping[str, str] = {}
        # One name for all vCenters: a vCenter may be called otherwise in the configuration one day.
        by, records = installation(state), Records(state.folder(_file_name(settings.name)))
        self._releaser = Releaser(self.vcenter, records, by, readers_gone or _nobody_reads, pause=pause)
        self._maker = SnapshotMaker(self.vcenter, records, by, self._releaser.undo, pause=pause)
        self._sweeper = Sweeper(self.vcenter, records, by, self._releaser)

    def close(self) -> None:
        """Log out. The next call connects again."""
        self.vcenter.close()

    def machines(self) -> Sequence[VirtualMachine]:
        """See the port. Templates are among them, as machines that are off."""
        seen = inventory.read(self.vcenter, tags=False)
        silent = {host.name: "vCenter shows it as disconnected" for host in seen.hosts if not host.connected}
        self._unreachable = {**silent, **{f"machine {name}": why for name, why in seen.unreadable.items()}}
        return [machine.machine for machine in seen.machines]

    def unreachable(self) -> Mapping[str, str]:
        """Hosts, and machines that vCenter shows and cannot describe -> why."""
        return dict(self._unreachable)

    def machine(self, machine: MachineId) -> VirtualMachine:
        """See the port."""
        return inventory.read_machine(self.vcenter, machine).machine

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """See the port."""
        return configurations.capture(self.vcenter, machine)

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """See the port. Templates apart, a machine that is off is snapshotted, too: it may be started meanwhile.

        ``Snapshot.frozen_seconds`` is an upper bound: the call that quiesces, snapshots and thaws. The guest is given
        ``VsphereSettings.quiesce_timeout``: vSphere itself allows no less than five minutes."""
        return self._maker.make(request)

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """See the port."""
        place = disk.layers[0].location if disk.layers else None
        if not isinstance(place, VmdkAddress) or not place.snapshot:
            raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST, "it is not frozen by a snapshot")
        change = changes.usable(disk.key, since, disk.change_id)
        return changes.collect(disk.key, disk.size, self._ask(place, change))

    def allocated(self, address: VmdkAddress) -> Sequence[Extent]:
        """What vSphere calls allocated of a frozen disk: normal, DATA, within it. Raises ``ChangesUnknown`` where change
        tracking is off or vSphere does not tell."""
        try:
            kind, named = (
                (vim.vm.Snapshot, address.snapshot) if address.snapshot else (vim.VirtualMachine, address.machine)
            )
            found = collector.read_one(self.vcenter, self.vcenter.object(kind, named), "config.hardware.device")
        except Refused as error:
            raise ChangesUnknown(address.path, ReasonCode.TRACKING_LOST, error.why) from None
        sizes = {device.key: size_of(device) for device in _disks(found.get("config.hardware.device") or ())}
        if address.device not in sizes:
            raise ChangesUnknown(address.path, ReasonCode.TRACKING_LOST, f"{named} has no disk {address.device}")
        return changes.collect(address.path, sizes[address.device], self._ask(address, changes.ALLOCATED))

    def export(self, address: VmdkAddress) -> AbstractContextManager[ExportedDisk]:
        """A disk as a stream from its host (NFC), while the context is open. See ``Exports``."""
        return self.exports.export(address)

    def confirm(self, snapshot: Snapshot) -> None:
        """See the port."""
        self._releaser.confirm(snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """See the port. Change ids are vSphere's own: sealed or not, those that restore points hold stay good."""
        return self._releaser.release(snapshot)

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """See the port."""
        return self._sweeper.sweep(live)

    def meters(self) -> VsphereMeters:
        """See the port, and ``vsphere.meters`` for the counters."""
        return VsphereMeters(self.vcenter)

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """See the port, and ``Imports``."""
        self.imports.check_define(configuration, new)

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> VirtualMachine:
        """See the port, and ``Imports``: the machine is the one whose disks were imported for it."""
        return self.machine(self.imports.define(configuration, new))

    def guest_files(self, machine: MachineId, root: bytes, user: str, password_file: Path) -> VsphereGuestFiles:
        """Write files below ``root`` into the running guest, as one of its users; the caller closes it. See
        ``VsphereGuestFiles``."""
        return VsphereGuestFiles(self.vcenter, machine, root, user, password_file)

    def _ask(self, place: VmdkAddress, change: str) -> changes.Ask:
        machine = self.vcenter.object(vim.VirtualMachine, place.machine)
        snapshot = self.vcenter.object(vim.vm.Snapshot, place.snapshot) if place.snapshot else None
        return changes.query(machine, snapshot, place.device, change)


def _disks(devices: Sequence[object]) -> list[vim.vm.device.VirtualDisk]:
    return [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]


def _file_name(name: str) -> str:
    """A site's name as that of a folder."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".-") or "_"


def _nobody_reads(_machine: MachineId) -> AbstractContextManager[None]:
    return nullcontext()
