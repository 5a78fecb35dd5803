"""A snapshot is confirmed, and ended: removed, consolidated, seen to be gone; then the machine may be relocated again.

::

    before    scsi0:0 -> web.vmdk                        (the guest writes to it)
    snapshot  scsi0:0 -> web-000001.vmdk -> web.vmdk     (the proxy reads web.vmdk, nobody writes to it)
    removed   scsi0:0 -> web.vmdk                        vSphere merged the delta; the snapshot's name is gone
    left over scsi0:0 -> web-000001.vmdk -> web.vmdk     … or only the name is: "consolidation needed"
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from proxy.errors import MachineNotFound, SnapshotBroken
from proxy.hypervisor.vsphere import relocation
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.looking import Look, chain_of, host_name, look, snapshot_devices
from proxy.hypervisor.vsphere.making import Maker
from proxy.hypervisor.vsphere.ownership import Found
from proxy.hypervisor.vsphere.records import Records, RunRecord
from proxy.hypervisor.vsphere.snapshots import NATIVE, OFF, overlay_above
from proxy.model import FrozenDisk, MachineId, PowerState, Reason, ReasonCode, RunId, Snapshot, VmdkAddress

ReadersGone = Callable[[MachineId], AbstractContextManager[None]]
"""Holds off readers of a machine's frozen disks while it is open; raises ``SnapshotInUse`` when there are some."""


class Releaser:
    """Confirms and ends snapshots on one vCenter. Any thread, one at a time a machine."""

    def __init__(self, vcenter: Vcenter, records: Records, by: str, readers_gone: ReadersGone, *, pause: float) -> None:
        self._vcenter = vcenter
        self._records = records
        self._by = by
        self._readers_gone = readers_gone
        self._maker = Maker(vcenter, pause=pause)

    def confirm(self, snapshot: Snapshot) -> None:
        """See ``Hypervisor.confirm``."""
        try:
            seen = look(self._vcenter, snapshot.machine)
        except MachineNotFound:
            raise SnapshotBroken(snapshot.machine_name, "the machine is gone") from None
        why = self._off_broken(seen, snapshot) if snapshot.method == OFF else self._broken(seen, snapshot)
        if why:
            raise SnapshotBroken(snapshot.machine_name, why)

    def release(self, snapshot: Snapshot) -> list[Reason]:
        """See ``Hypervisor.release``."""
        with self._readers_gone(snapshot.machine):
            try:
                seen = look(self._vcenter, snapshot.machine)
            except MachineNotFound:
                self._records.forget(snapshot.run)
                return []
            if not self._anything(seen, snapshot.run):
                return []
            reasons = self._end(seen, snapshot.run)
            now = host_name(self._vcenter, seen)
            if now != snapshot.host:
                reasons.append(Reason(ReasonCode.MIGRATED, f"from {snapshot.host} to {now}"))
            return reasons

    def end_dead(self, machine: MachineId, run: RunId) -> None:
        """End a run that nobody works on any more. Raises what stands in the way; its record stays then."""
        with self._readers_gone(machine):
            try:
                seen = look(self._vcenter, machine)
            except MachineNotFound:
                self._records.forget(run)
                return
            self._end(seen, run)

    def undo(self, seen: Look, run: RunId) -> None:
        """Take back a snapshot that never came to be, or only in part."""
        self._end(look(self._vcenter, seen.machine), run)

    # -- ending ----------------------------------------------------------------------------------------------------

    def _anything(self, seen: Look, run: RunId) -> bool:
        return bool(self._ours(seen, run)) or self._records.load(run) is not None

    def _ours(self, seen: Look, run: RunId) -> list[Found]:
        return [found for found in seen.snapshots if found.mark.run == run and found.mark.by == self._by]

    def _end(self, seen: Look, run: RunId) -> list[Reason]:
        """Everything of the run on this machine. Relocation is enabled whatever becomes of the rest; the record stays until
        all of it went well, so that a sweep comes back to it."""
        record = self._records.load(run)
        try:
            for found in self._ours(seen, run):
                self._maker.remove(seen, found)
            reasons = self._consolidated(seen.machine, record)
        finally:
            if record is None or record.blocked:
                relocation.allow(self._vcenter, seen.object, run)
        self._records.forget(run)
        return reasons

    def _consolidated(self, machine: MachineId, record: RunRecord | None) -> list[Reason]:
        """Nothing of the snapshot is in a chain any more. Raises ``Refused``."""
        seen = look(self._vcenter, machine)
        left = _left_over(seen, record)
        if not left:
            return self._not_ours(seen) if seen.consolidation_needed else []
        self._maker.consolidate(seen)
        seen = look(self._vcenter, machine)
        still = _left_over(seen, record)
        if still or seen.consolidation_needed:
            raise Refused(
                f"consolidate the disks of {seen.name}",
                f"after it was done {', '.join(sorted(still)) or 'vCenter'} still shows that it is needed",
                Refusal.STATE,
                hint="look for who has the files open (another backup appliance?), then consolidate in vCenter",
            )
        return [Reason(ReasonCode.CONSOLIDATED, ", ".join(sorted(left)))]

    def _not_ours(self, seen: Look) -> list[Reason]:
        """What somebody else's snapshot left in the chains is merged too; if that fails it is not this run that failed."""
        try:
            self._maker.consolidate(seen)
        except Refused as error:
            return [Reason(ReasonCode.CONSOLIDATED, f"not yet, and not of this run: {error.why}")]
        return [Reason(ReasonCode.CONSOLIDATED, "not of this run")]

    # -- confirming ------------------------------------------------------------------------------------------------

    def _broken(self, seen: Look, snapshot: Snapshot) -> str:
        """Why the frozen disks may have changed, empty if they did not."""
        frozen = {_address(disk).snapshot for disk in snapshot.disks}
        found = next((f for f in self._ours(seen, snapshot.run) if {f.id} == frozen), None)
        if found is None:
            return "it is gone: somebody removed or consolidated it"
        if not seen.goes_on_from(found.id):
            return "the machine was reverted to an older snapshot"
        held = snapshot_devices(self._vcenter, found.snapshot)
        live = seen.chains()
        for disk in snapshot.disks:
            device = held.get(disk.key)
            chain = chain_of(device) if device is not None else []
            why = _moved(disk, chain, live.get(disk.key, []))
            if why:
                return f"disk {disk.key}: {why}"
        return ""

    def _off_broken(self, seen: Look, snapshot: Snapshot) -> str:
        record = self._records.load(snapshot.run)
        if record is None or record.snapshot is None:
            return "nothing is known of it any more"
        if seen.state is not PowerState.OFF or not seen.template:
            return "the template was made a machine"
        if seen.version != record.version:
            return "the template's configuration was changed"
        live = seen.chains()
        for disk in snapshot.disks:
            if live.get(disk.key, [""])[0] != _path(disk):
                return f"disk {disk.key} was moved"
        return ""


def _moved(disk: FrozenDisk, held: list[str], live: list[str]) -> str:
    """``held``: the disk's chain in the snapshot, ``live``: in the machine; top first."""
    if not held or held[0] != _path(disk):
        return f"its files were moved: {_path(disk)} is {held[0] if held else 'gone'}"
    above = overlay_above(held, live, _address(disk).kind)
    if _address(disk).kind == NATIVE:
        return "" if above else "the machine has it no more"
    if above is None:
        return f"{held[0]} is not frozen any more"
    if above != disk.overlay:
        return f"the guest's writes went to {disk.overlay} and now go to {above}: the machine was reverted"
    return ""


def _address(disk: FrozenDisk) -> VmdkAddress:
    """Where it is frozen; of another driver's disk nothing."""
    place = disk.layers[0].location if disk.layers else None
    return place if isinstance(place, VmdkAddress) else VmdkAddress("", "")


def _path(disk: FrozenDisk) -> str:
    place = _address(disk)
    return f"[{place.datastore}] {place.path}"


def _left_over(seen: Look, record: RunRecord | None) -> set[str]:
    """Deltas of the run's snapshot that are still in the machine's chains."""
    disks = record.snapshot.disks if record is not None and record.snapshot is not None else ()
    chains = seen.chains()
    deltas = {disk.key: disk.overlay for disk in disks if disk.overlay and _address(disk).kind != NATIVE}
    return {delta for key, delta in deltas.items() if delta in chains.get(key, [])}
