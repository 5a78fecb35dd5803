"""The end of a snapshot: proof that it held, the merge back, the bitmaps that stay. Every step can be done twice."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from proxy.errors import HostUnreachable, HypervisorError, MachineNotFound, SnapshotBroken
from proxy.hypervisor.kvm import checkpoints, define, overlays, pull, rolling
from proxy.hypervisor.kvm.answers import Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.inventory import DomainXml, domain
from proxy.hypervisor.kvm.overlays import Found, Note
from proxy.hypervisor.kvm.ownership import overlay_path, run_in
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.hypervisor.kvm.rolling import Ending, Rolling
from proxy.model import FrozenDisk, MachineId, PowerState, Reason, ReasonCode, RunId, Snapshot

OVERLAY, PULL, OFF = "overlay", "pull", "off"
"""``Snapshot.method``."""

ReadersGone = Callable[[MachineId], AbstractContextManager[None]]
"""Holds off readers of a machine's frozen disks while it is open; raises ``SnapshotInUse`` when there are some."""


class Releaser:
    """Confirms and ends snapshots on a site."""

    def __init__(self, hosts: Hosts, records: Records, rolls: Rolling, readers_gone: ReadersGone) -> None:
        self._hosts = hosts
        self._records = records
        self._rolling = rolls
        self._readers_gone = readers_gone

    def confirm(self, snapshot: Snapshot) -> None:
        """See ``Hypervisor.confirm``. What is checked for each method stands in the functions below."""
        place = self._hosts.find(snapshot.machine)
        if snapshot.method == OVERLAY:
            _confirm_overlay(place, snapshot)
            self._confirm_held(place, snapshot)
        elif snapshot.method == PULL:
            job = pull.running_job(place)
            if job is None or job[0] != snapshot.run or not job[1] >= {d.key for d in snapshot.disks}:
                raise SnapshotBroken(snapshot.machine_name, "the hypervisor's backup job has ended")
        else:
            self._confirm_off(place, snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> list[Reason]:
        """See ``Hypervisor.release``. What becomes of rolling overlays is drawn in ``rolling.py``."""
        reasons: list[Reason] = []
        if snapshot.method != OFF:
            if sealed:
                self._note_sealed(snapshot)
            ending = rolling.sealed if sealed else rolling.failed
            self._end(snapshot.machine, snapshot.run, ending, self._scratch(snapshot))
            reasons += self._settle_marks(snapshot, sealed)
        self._records.forget(snapshot.run)
        return reasons

    def undo(self, machine: MachineId, run: RunId) -> None:
        """Take back a snapshot that never came to be, or only in part: overlays, job, checkpoint, record."""
        self._end(machine, run, rolling.failed)
        with suppress(MachineNotFound):
            checkpoints.retire(self._hosts.find(machine), None, [checkpoints.name_of(run)])
        self._records.forget(run)

    def end_dead(self, machine: MachineId, run: RunId) -> list[Found]:
        """End a run that nobody works on any more: if its restore point is known to be sealed as it would have done, else
        by taking it back. Its checkpoint stays: nobody knows. What was merged. Raises as ``_end``."""
        record = self._records.load(run)
        if record is None:
            ending: Ending = rolling.unrecorded
        else:
            ending = rolling.sealed if record.sealed else rolling.failed
        merged = self._end(machine, run, ending)
        self._records.forget(run)
        return merged

    def _note_sealed(self, snapshot: Snapshot) -> None:
        """Whoever finds the run dead from now on goes on with this end of it, and not with the other."""
        record = self._records.load(snapshot.run)
        if record is not None and not record.sealed:
            self._records.save(replace(record, snapshot=snapshot, sealed=True))

    def _note_ending(self, run: RunId) -> Note:
        """A run that is killed between a merge and the deletion is gone on with by what its record says."""

        def note(found: Found) -> None:
            record = self._records.load(run)
            if record is not None and found.path not in record.ending:
                self._records.save(replace(record, ending=(*record.ending, found.path)))

        return note

    def _scratch(self, snapshot: Snapshot) -> set[str]:
        """Scratch files of a pull backup."""
        host = self._hosts.named(snapshot.host)
        if host is None or snapshot.method != PULL:
            return set()
        return {overlay_path(host.settings, snapshot.run, disk.key) for disk in snapshot.disks}

    def _done_with(self, run: RunId) -> set[str]:
        """Files that the run's record says nobody needs: scratch files, and what it merged before it was killed."""
        record = self._records.load(run)
        if record is None:
            return set()
        return {*record.ending, *(record.overlays.values() if record.pull else ())}

    def _end(
        self, machine: MachineId, run: RunId, ending: Ending, scratch: Collection[str] = frozenset()
    ) -> list[Found]:
        """End the run's backup job, merge overlays wherever the machine is, and then delete them and ``scratch``. What was
        merged. An overlay that no chain names and that was not merged is left: it holds the only copy of a machine's writes.

        Raises ``SnapshotInUse`` while somebody reads, ``HostUnreachable`` when the machine may run on a silent host.
        """
        with self._readers_gone(machine):
            known, silent = self._hosts.everywhere(machine)
            if silent and not (known and known[0].state().power in (PowerState.RUNNING, PowerState.PAUSED)):
                # Merging for a machine that runs on a host that we cannot see would ruin its disks.
                raise HostUnreachable(", ".join(silent), f"machine {machine} may run there, so nothing is merged")
            for place in known:
                place.settle()  # else a pivot that a dead process began could end between a look at the chain and a step
            if known:
                merged, host = self._merge(known, run, ending), known[0].host
            else:
                record = self._records.load(run)
                merged = self._merge_vanished(record) if record is not None else []
                found = self._hosts.named(record.host) if record is not None else None
                if found is None:
                    return merged
                host = found
            overlays.delete_files(host, {*scratch, *self._done_with(run), *(f.path for f in merged)}, known)
            return merged

    def _merge(self, known: Sequence[Domain], run: RunId, ending: Ending) -> list[Found]:
        now = known[0]
        stuck = now.state().stuck
        _end_job(now, run)
        which = ending(run, stays=self._rolling.on(now))
        rolling.align(known)  # if it stops in mid-merge, its definition is what tells how to go on
        merged = overlays.merge(now, which, self._note_ending(run))
        if stuck and merged:
            # The overlay's directory was full and QEMU stopped the guest at the write that failed: now there is room.
            now.resume()
        rolling.align(known)
        for place in known:
            overlays.mend_definition(place, which)
        return merged

    def _merge_vanished(self, record: RunRecord) -> list[Found]:
        """A transient machine is gone with its emulator, but its last writes are in the overlays: bring them home.

        Transient machines never roll. One that did was undefined, or moved to where we do not see it and runs on: its
        overlays are for a person. Scratch files hold old bytes, which must not go home."""
        if not record.definition or record.pull or any(map(self._hosts.owned.rolls, record.overlays.values())):
            return []
        host = self._hosts.named(record.host)
        if host is None:
            why = f"host {record.host}, where it last ran, is not configured any more"
            raise HypervisorError(f"look for overlays of the vanished machine {record.machine}", why)
        present = Directory(host, host.settings.overlay_directory).names()
        definition, found = record.definition, []
        for disk in domain(definition).disks:
            path = overlay_path(host.settings, record.run, disk.key)
            name = path.rpartition("/")[2]
            if name in present and disk.excluded is None:
                self._refuse_upon_other(host, record, name)
                definition = define.with_overlay(definition, disk.key, path)
                found.append(Found(record.run, disk.key, path, top=True))
        if found:
            overlays.merge_off(host, define.helper(definition), found, self._note_ending(record.run))
        return found

    @staticmethod
    def _refuse_upon_other(host: Host, record: RunRecord, name: str) -> None:
        """The definition in the record knows no overlay but this one: what lies below must be its base."""
        below = Directory(host, host.settings.overlay_directory).backing(name) or ""
        if run_in(below.rpartition("/")[2]) is not None:
            raise HypervisorError(
                f"bring home overlays of the vanished machine {record.machine}",
                f"{name} rests on {below}",
                hint="define the machine with both of them as its disk, then sweep again",
            )

    def _confirm_held(self, place: Domain, snapshot: Snapshot) -> None:
        """A rolling overlay stays on after the end, so its being there does not show that the run still has it."""
        if any(place.host.owned.rolls(disk.overlay or "") for disk in snapshot.disks):
            record = self._records.load(snapshot.run)
            if record is None or record.sealed:
                raise SnapshotBroken(snapshot.machine_name, "it was released")

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
