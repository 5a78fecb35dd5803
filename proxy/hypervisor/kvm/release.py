"""The end of a snapshot: proof that it held, the merge back, the bitmaps that stay. Every step can be done twice."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress

from proxy.errors import HostUnreachable, HypervisorError, MachineNotFound, SnapshotBroken
from proxy.hypervisor.kvm import checkpoints, define, overlays, pull
from proxy.hypervisor.kvm.answers import Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.inventory import DomainXml, domain
from proxy.hypervisor.kvm.overlays import Found
from proxy.hypervisor.kvm.ownership import overlay_path
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.model import FrozenDisk, MachineId, PowerState, Reason, ReasonCode, RunId, Snapshot

OVERLAY, PULL, OFF = "overlay", "pull", "off"
"""``Snapshot.method``."""

ReadersGone = Callable[[MachineId], AbstractContextManager[None]]
"""Holds off readers of a machine's frozen disks while it is open; raises ``SnapshotInUse`` when there are some."""


class Releaser:
    """Confirms and ends snapshots on a site."""

    def __init__(self, hosts: Hosts, records: Records, readers_gone: ReadersGone) -> None:
        self._hosts = hosts
        self._records = records
        self._readers_gone = readers_gone

    def confirm(self, snapshot: Snapshot) -> None:
        """See ``Hypervisor.confirm``. What is checked for each method stands in the functions below."""
        place = self._hosts.find(snapshot.machine)
        if snapshot.method == OVERLAY:
            _confirm_overlay(place, snapshot)
        elif snapshot.method == PULL:
            job = pull.running_job(place)
            if job is None or job[0] != snapshot.run or not job[1] >= {d.key for d in snapshot.disks}:
                raise SnapshotBroken(snapshot.machine_name, "the hypervisor's backup job has ended")
        else:
            self._confirm_off(place, snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> list[Reason]:
        """See ``Hypervisor.release``."""
        reasons: list[Reason] = []
        if snapshot.method != OFF:
            self.undo_disks(snapshot.machine, snapshot.run, [d.key for d in snapshot.disks])
            reasons += self._settle_marks(snapshot, sealed)
        self._records.forget(snapshot.run)
        return reasons

    def undo(self, machine: MachineId, run: RunId) -> None:
        """Take back a snapshot that never came to be, or only in part: overlays, job, checkpoint, record."""
        record = self._records.load(run)
        known = record.snapshot if record is not None else None
        self.undo_disks(machine, run, [d.key for d in known.disks] if known else [])
        with suppress(MachineNotFound):
            checkpoints.retire(self._hosts.find(machine), None, [checkpoints.name_of(run)])
        self._records.forget(run)

    def undo_disks(self, machine: MachineId, run: RunId, keys: Sequence[str]) -> list[Found]:
        """End the run's backup job, merge its overlays wherever the machine is, and then delete them.

        Raises ``SnapshotInUse`` while somebody reads, ``HostUnreachable`` when the machine may run on a silent host.
        """
        with self._readers_gone(machine):
            return self._undo_disks(machine, run, keys)

    def _undo_disks(self, machine: MachineId, run: RunId, keys: Sequence[str]) -> list[Found]:
        known, silent = self._hosts.everywhere(machine)
        if silent and not (known and known[0].state().power in (PowerState.RUNNING, PowerState.PAUSED)):
            # Merging for a machine that runs on a host that we cannot see would ruin its disks.
            raise HostUnreachable(", ".join(silent), f"machine {machine} may run there, so nothing is merged")
        record = self._records.load(run)
        if known:
            stuck = known[0].state().stuck
            _end_job(known[0], run)
            merged = overlays.merge(known[0], lambda other: other == run)
            if stuck and merged:
                # The overlay's directory was full and QEMU stopped the guest at the write that failed: now there is room.
                known[0].resume()
            for place in known:
                overlays.mend_definition(place, lambda other: other == run)
            host: Host | None = known[0].host
        else:
            merged = self._merge_vanished(record)
            host = self._hosts.named(record.host) if record is not None else None
        if host is not None:
            paths = {overlay_path(host.settings, run, key) for key in keys} | {f.path for f in merged}
            overlays.delete_files(host, paths)
        return merged

    def _merge_vanished(self, record: RunRecord | None) -> list[Found]:
        """A transient machine is gone with its emulator, but its last writes are in the overlays: bring them home."""
        if record is None or not record.definition:
            return []
        host = self._hosts.named(record.host)
        if host is None:
            why = f"host {record.host}, where it last ran, is not configured any more"
            raise HypervisorError(f"look for overlays of the vanished machine {record.machine}", why)
        present = Directory(host, host.settings.overlay_directory).names()
        definition, found = record.definition, []
        for disk in domain(definition).disks:
            path = overlay_path(host.settings, record.run, disk.key)
            if path.rpartition("/")[2] in present and disk.excluded is None:
                definition = define.with_overlay(definition, disk.key, path)
                found.append(Found(record.run, disk.key, path, top=True))
        if found:
            overlays.merge_off(host, define.helper(definition), found)
        return found

    def _settle_marks(self, snapshot: Snapshot, sealed: bool) -> list[Reason]:
        try:
            place = self._hosts.find(snapshot.machine)
        except MachineNotFound:
            return []
        mine = checkpoints.name_of(snapshot.run)
        reasons = checkpoints.retire(place, mine) if sealed else checkpoints.retire(place, None, [mine])
        if place.host.name != snapshot.host:
            reasons.append(Reason(ReasonCode.MIGRATED, f"from {snapshot.host} to {place.host.name}"))
        return reasons

    def _confirm_off(self, place: Domain, snapshot: Snapshot) -> None:
        """It is off, and no host told of a start since the snapshot; a lost connection or a restarted proxy breaks the
        watch, and then nobody can say. What a machine on a host that is none of ours writes is not seen."""
        record = self._records.load(snapshot.run)
        starts, silent = self._hosts.ask(lambda host: host.starts(snapshot.machine))
        if place.state().power not in (PowerState.OFF, PowerState.SUSPENDED):
            raise SnapshotBroken(snapshot.machine_name, "the machine was started")
        if silent or record is None or dict(record.starts) != starts:
            raise SnapshotBroken(
                snapshot.machine_name, "it was started meanwhile, or could not be watched all the time"
            )


def _confirm_overlay(place: Domain, snapshot: Snapshot) -> None:
    """Writes still go to our overlay and what lies below is what was read: then the base cannot have changed. This
    holds for a machine that was shut down or killed meanwhile, and wherever it migrated."""
    text = place.xml()
    machine = domain(text)
    for frozen in snapshot.disks:
        why = _broken(machine, frozen)
        if (
            why is None
            and place.state().power in (PowerState.RUNNING, PowerState.PAUSED)
            and _has_job(place, frozen.key)
        ):
            why = f"a block job writes to disk {frozen.key}"
        if why is not None:
            raise SnapshotBroken(snapshot.machine_name, why)


def _broken(machine: DomainXml, frozen: FrozenDisk) -> str | None:
    disk = machine.disk(frozen.key)
    if disk is None:
        return f"disk {frozen.key} is gone"
    depth = next((i for i, link in enumerate(disk.chain) if link.path == frozen.overlay), None)
    if depth is None:
        return f"disk {frozen.key} does not write to {frozen.overlay} any more"
    below = disk.layers(depth + 1)
    # A definition of a machine that is off may leave the chain out; then the image itself says what lies below.
    if below and below != frozen.layers:
        return f"what lies below the overlay of disk {frozen.key} is not what was read"
    return None


def _has_job(place: Domain, key: str) -> bool:
    try:
        return place.job(key) is not None
    except Refused:
        return True  # not knowing is not holding


def _end_job(place: Domain, run: RunId) -> None:
    job = pull.running_job(place)
    if job is not None and job[0] == run:
        place.abort_job()
