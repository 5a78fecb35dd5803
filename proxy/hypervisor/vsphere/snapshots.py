"""A snapshot is made: ``SnapshotMaker.make``. In this order, so that a kill at any place leaves what a sweep can undo::

    record      durable: this run works on that machine          (the limit of each datastore is held here)
    block       relocation is disabled                           (the record says so before)
    track       change tracking is switched on, where it can be
    create      quiesced as the policy asks, with a mark
    look        what stands still now, by the snapshot's own configuration and the machine's
    record      the whole snapshot: asked again, the run gets the same

A template has no snapshots in vSphere and cannot run: its disks are read as they are (method ``off``), and ``confirm`` tells
whether it stayed a template whose configuration nobody changed.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from proxy.errors import (
    HostUnreachable,
    HypervisorError,
    LanfreeError,
    MachineBusy,
    NoSpaceForOverlay,
    QuiesceFailed,
    SnapshotFailed,
)
from proxy.hypervisor.run_ids import checked_run
from proxy.hypervisor.vsphere import quiesce, relocation, room, tracking
from proxy.hypervisor.vsphere.changes import DiskMark
from proxy.hypervisor.vsphere.connection import Vcenter
from proxy.hypervisor.vsphere.devices import address, size_of
from proxy.hypervisor.vsphere.devices import disks as shown
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.inventory import surroundings
from proxy.hypervisor.vsphere.looking import Look, chain_of, host_name, look, snapshot_devices
from proxy.hypervisor.vsphere.making import Maker
from proxy.hypervisor.vsphere.ownership import Found, Mark
from proxy.hypervisor.vsphere.quiesce import Label, Step
from proxy.hypervisor.vsphere.records import Records, RunRecord
from proxy.model import (
    Format,
    FrozenDisk,
    Layer,
    PowerState,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    SnapshotRequest,
    Tracking,
    VmdkAddress,
)

SNAPSHOT = "snapshot"
OFF = "off"

NATIVE = "VVOL"
"""Kind of a datastore whose array makes the snapshots: what is written to is no file above the frozen one."""

# vCenter's names of the call; a template has both of them disabled.
_CREATING = frozenset({"CreateSnapshot_Task", "CreateSnapshotEx_Task"})

# Seconds that a run waits for others to end where a datastore has as many snapshots as it may: as long as a large machine's
# full backup; and between two looks.
SLOT_PATIENCE = 4 * 3600.0
SLOT_PAUSE = 10.0

Undo = Callable[[Look, RunId], None]
"""Takes back all that a run did to a machine, whatever it was; the record goes last."""


@dataclass(frozen=True, slots=True)
class _Made:
    """``found``: ``None`` for a template that is read as it is."""

    found: Found | None
    label: Label
    frozen_seconds: float = 0.0


class SnapshotMaker:
    """Makes snapshots on one vCenter. Any thread, one at a time a machine."""

    def __init__(self, vcenter: Vcenter, records: Records, by: str, undo: Undo, *, pause: float) -> None:
        self._vcenter = vcenter
        self._records = records
        self._by = by
        self._undo = undo
        self._maker = Maker(vcenter, pause=pause)

    def make(self, request: SnapshotRequest) -> Snapshot:
        """See ``Hypervisor.snapshot``."""
        checked_run(request.run)
        seen = look(self._vcenter, request.machine)
        self._alone(seen, request.run)
        record = self._records.load(request.run)
        found = next((f for f in seen.snapshots if self._is_ours(f.mark, request.run)), None)
        if record is not None and record.snapshot is not None and _holds(record.snapshot, found):
            return record.snapshot
        if found is not None:
            return self._or_undone(seen, request, lambda: self._resumed(seen, request, found))
        _wanted(seen, request)
        now = self._reserved(seen, request)
        return self._or_undone(now, request, lambda: self._freeze(now, request))

    def _or_undone(self, seen: Look, request: SnapshotRequest, work: Callable[[], Snapshot]) -> Snapshot:
        try:
            return work()
        except HostUnreachable:  # it was waited for already; the record tells a sweep what there is to undo
            raise
        except Exception as error:  # whatever went wrong, nothing is left behind
            try:
                self._undo(seen, request.run)
            except LanfreeError as problem:
                error.add_note(f"and afterwards: {problem}")
            raise

    # -- before ----------------------------------------------------------------------------------------------------

    def _alone(self, seen: Look, run: RunId) -> None:
        marks = [f.mark for f in seen.snapshots if not self._is_ours(f.mark, run)]
        others = [f"run {m.run}" + ("" if m.by == self._by else " of another Lanfree installation") for m in marks]
        others += [f"run {r.run}" for r in self._records.of_machine(seen.machine) if r.run != run]
        if others:
            raise MachineBusy(seen.name, others[0])

    def _places(self, seen: Look, request: SnapshotRequest) -> tuple[str, ...]:
        """Datastores of the deltas. Raises ``SnapshotFailed`` for disks that cannot be frozen, ``NoSpaceForOverlay``."""
        around = surroundings(self._vcenter, seen.object)
        disks = {disk.key: disk for disk in shown(seen.devices, around)}
        if not request.disks:
            raise SnapshotFailed(seen.name, "no disk was asked for")
        for key in request.disks:
            if key not in disks:
                raise SnapshotFailed(seen.name, f"it has no disk {key}")
            excluded = disks[key].excluded
            if excluded is not None:
                raise SnapshotFailed(
                    seen.name, f"disk {key} cannot be frozen: {excluded.code.value}: {excluded.detail}"
                )
        return room.guard(seen, disks.values(), around.datastores.values())

    def _reserved(self, seen: Look, request: SnapshotRequest) -> Look:
        """The run is on record, and its datastores have room for one more. The machine as it is then."""
        limit, deadline = self._vcenter.settings.snapshots_per_datastore, time.monotonic() + SLOT_PATIENCE
        while True:
            record = RunRecord(request.run, request.machine, self._places(seen, request))
            full = self._records.reserve(record, limit)
            if not full:
                return seen
            if time.monotonic() >= deadline:
                why = f"{limit} other runs, which have all snapshots that {full} may have at once"
                raise MachineBusy(seen.name, why)
            time.sleep(SLOT_PAUSE)
            seen = look(self._vcenter, request.machine)
            self._alone(seen, request.run)

    def _is_ours(self, mark: Mark, run: RunId) -> bool:
        return mark.run == run and mark.by == self._by

    # -- freezing --------------------------------------------------------------------------------------------------

    def _freeze(self, seen: Look, request: SnapshotRequest) -> Snapshot:
        steps, reasons = _wanted(seen, request), self._block(seen, request)
        if self._cannot_have_one(seen):
            return self._as_it_is(seen, request, reasons)
        reasons += tracking.enable(self._vcenter, seen)
        try:
            made = self._create(seen, request, steps)
        except Refused as error:
            if seen.template and error.refusal in {Refusal.NOT_SUPPORTED, Refusal.STATE, Refusal.DISABLED}:
                return self._as_it_is(seen, request, reasons)
            raise _failed(self._vcenter, seen, error) from error
        now = look(self._vcenter, request.machine)
        if now.state is not seen.state is not PowerState.RUNNING:
            raise SnapshotFailed(
                seen.name, f"it was {seen.state.value}, and {now.state.value} when its snapshot was made"
            )
        return self._known(now, request, made, (made.label.reason, *reasons))

    def _resumed(self, seen: Look, request: SnapshotRequest, found: Found) -> Snapshot:
        """The proxy was killed between the snapshot and its record. What the guest did is in the mark, and vSphere confirms it:
        had the guest refused, there would be no snapshot of that step."""
        self._records.save(self._record(request))
        blocked = self._block(seen, request)
        label = quiesce.resumed(found.mark.quiesce, seen.guest, quiesced=found.quiesced)
        return self._known(seen, request, _Made(found, label), (label.reason, Reason(ReasonCode.RESUMED), *blocked))

    def _block(self, seen: Look, request: SnapshotRequest) -> tuple[Reason, ...]:
        refused = relocation.block(self._vcenter, seen.object, request.run)
        if refused is None:
            return ()
        self._records.save(replace(self._record(request), blocked=False))
        return (refused,)

    def _cannot_have_one(self, seen: Look) -> bool:
        return seen.template and bool(_CREATING & set(seen.found.get("disabledMethod") or ()))

    def _create(self, seen: Look, request: SnapshotRequest, steps: Sequence[Step]) -> _Made:
        """The best step that works. Raises ``Refused`` of the last one, ``QuiesceFailed`` when all were quiesced."""
        failed: list[quiesce.Failed] = []
        for step in steps:
            if step is not Step.NONE and any(each.late for each in failed):
                continue
            begun = time.monotonic()
            mark = Mark(request.run, request.machine, self._by, quiesce.word(step, seen.guest))
            try:
                found = self._maker.make(seen, mark, step)
            except Refused as error:
                if step is Step.NONE or not _of_the_guest(error):
                    raise
                failed.append(quiesce.Failed(step, error))
                continue
            label = quiesce.label(step, seen.guest, request.quiesce, failed)
            return _Made(found, label, time.monotonic() - begun if step is not Step.NONE else 0.0)
        raise QuiesceFailed(seen.name, quiesce.why_failed(failed).detail)

    def _as_it_is(self, seen: Look, request: SnapshotRequest, reasons: Sequence[Reason]) -> Snapshot:
        label = quiesce.label(Step.NONE, seen.guest, request.quiesce, ())
        off = Reason(ReasonCode.TRACKING_OFF, "a template has no snapshots, so nothing tells what changed")
        return self._known(seen, request, _Made(None, label), (label.reason, off, *reasons))

    # -- what stands still -----------------------------------------------------------------------------------------

    def _known(self, seen: Look, request: SnapshotRequest, made: _Made, reasons: Sequence[Reason]) -> Snapshot:
        """All that is to be known of it, recorded. Raises ``SnapshotFailed`` when a disk is not what it has to be."""
        disks, untracked = self._disks(seen, request, made.found)
        snapshot = Snapshot(
            run=request.run,
            machine=request.machine,
            machine_name=seen.name,
            host=host_name(self._vcenter, seen),
            method=SNAPSHOT if made.found else OFF,
            created_at=made.found.created_at.astimezone(UTC) if made.found else datetime.now(UTC),
            disks=disks,
            consistency=made.label.consistency,
            reasons=(*reasons, *(untracked if made.found else ())),
            frozen_seconds=made.frozen_seconds,
        )
        record = self._record(request)
        self._records.save(replace(record, snapshot=snapshot, version="" if made.found else seen.version))
        return snapshot

    def _record(self, request: SnapshotRequest) -> RunRecord:
        return self._records.load(request.run) or RunRecord(request.run, request.machine)

    def _disks(
        self, seen: Look, request: SnapshotRequest, found: Found | None
    ) -> tuple[tuple[FrozenDisk, ...], list[Reason]]:
        around = surroundings(self._vcenter, seen.object)
        live = seen.chains()
        held = snapshot_devices(self._vcenter, found.snapshot if found else seen.object)
        frozen, untracked = [], []
        for key in request.disks:
            device = held.get(key)
            place = address(device, device.backing, around) if device is not None else None
            if device is None or place is None:
                raise SnapshotFailed(seen.name, f"the snapshot does not hold disk {key}")
            above = overlay_above(chain_of(device), live.get(key, []), place.kind) if found else None
            if found and not above:
                raise SnapshotFailed(
                    seen.name, f"disk {key} is written to where the snapshot says that it stands still"
                )
            change = str(getattr(device.backing, "changeId", None) or "") if found else ""
            mark = DiskMark(change, size_of(device), str(getattr(device.backing, "uuid", "") or ""), seen.hardware)
            if not change:
                untracked.append(Reason(ReasonCode.TRACKING_OFF, f"{key}: the snapshot has no change id of it"))
            frozen.append(
                FrozenDisk(
                    key=key,
                    size=size_of(device),
                    layers=(Layer(replace(place, snapshot=found.id if found else ""), Format.VMDK),),
                    tracking=Tracking.HYPERVISOR if change else Tracking.NONE,
                    change_id=str(mark) if change else None,
                    overlay=above,
                )
            )
        return tuple(frozen), untracked


def overlay_above(held: Sequence[str], live: Sequence[str], kind: str) -> str | None:
    """The file that the guest's writes went to when ``held`` (a chain, top first) was frozen: right above it in ``live``.

    A datastore whose array makes the snapshots (``kind`` VVOL) has no such order: what is frozen there is an object of its
    own, and the guest goes on with the one that it had.
    """
    if kind == NATIVE:
        return live[0] if live else None
    if not held or held[0] not in live[1:]:
        return None
    return live[live.index(held[0]) - 1]


def _holds(snapshot: Snapshot, found: Found | None) -> bool:
    """Whether the run's recorded snapshot is the one that the machine has."""
    if snapshot.method == OFF:
        return True  # nothing was made; ``confirm`` tells whether it held
    return found is not None and all(_address(disk).snapshot == found.id for disk in snapshot.disks)


def _wanted(seen: Look, request: SnapshotRequest) -> tuple[Step, ...]:
    """Raises ``QuiesceFailed`` when the policy demands what the machine cannot give."""
    steps = quiesce.steps(seen.guest, request.quiesce)
    if not steps:
        why = quiesce.label(Step.NONE, seen.guest, request.quiesce, ()).reason
        raise QuiesceFailed(seen.name, f"{why.code.value}: {why.detail}")
    return steps


def _of_the_guest(error: Refused) -> bool:
    """Whether asking for less may help: the guest refused, or something that only quiescing needs."""
    return error.refusal not in {Refusal.NO_PERMISSION, Refusal.GONE, Refusal.NO_SPACE, Refusal.BUSY, Refusal.DISABLED}


def _failed(vcenter: Vcenter, seen: Look, error: Refused) -> LanfreeError:
    if error.refusal is Refusal.BUSY:
        return MachineBusy(seen.name, f"another task of vCenter ({error.why})")
    if error.refusal is Refusal.NO_SPACE:
        with suppress(HypervisorError):
            stores = surroundings(vcenter, seen.object).datastores.values()
            least = min(stores, key=lambda store: store.free)  # vSphere does not say which one
            return NoSpaceForOverlay(f"datastore {least.name}", least.free, room.LEAST, hint=room.HINT)
    return SnapshotFailed(seen.name, error.why, hint=error.hint)


def _address(disk: FrozenDisk) -> VmdkAddress:
    location = disk.layers[0].location
    assert isinstance(location, VmdkAddress)  # noqa: S101 - made by this driver
    return location
