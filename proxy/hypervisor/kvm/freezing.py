"""Making a snapshot, in the three ways of ``driver.py``, or finding the one that a killed run of the proxy made."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from proxy.errors import LanfreeError, MachineBusy, QuiesceFailed, SnapshotFailed
from proxy.hypervisor.kvm import checkpoints, define, overlays, pull, rolling
from proxy.hypervisor.kvm.answers import DomainState, Refused
from proxy.hypervisor.kvm.checkpoints import TrackingPlan
from proxy.hypervisor.kvm.connection import Domain
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.inventory import DomainXml, domain
from proxy.hypervisor.kvm.ownership import overlay_path
from proxy.hypervisor.kvm.quiesce import THAW_PATIENCE, Freezer, Frozen, GuestAgent, Thawing
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.hypervisor.kvm.release import OFF, OVERLAY, PULL, Releaser
from proxy.hypervisor.kvm.rolling import Rolling, RollingPlan
from proxy.hypervisor.run_ids import checked_run
from proxy.model import (
    ChangeId,
    Consistency,
    Format,
    FrozenDisk,
    Layer,
    PowerState,
    QuiescePolicy,
    Reason,
    ReasonCode,
    Snapshot,
    SnapshotRequest,
    Tracking,
)


@dataclass(slots=True)
class _Attempt:
    """A machine about to be frozen: what was asked, what it looks like, what is known of its changes."""

    place: Domain
    machine: DomainXml
    state: DomainState
    request: SnapshotRequest
    plan: TrackingPlan
    rolls: RollingPlan
    sizes: dict[str, int] = field(default_factory=dict)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def paths(self) -> dict[str, str]:
        """Disk -> the overlay that this run puts on; in pull mode its scratch file."""
        host = self.place.host.settings
        return {
            key: self.rolls.begun.get(key) or overlay_path(host, self.request.run, key) for key in self.request.disks
        }

    def disk(self, key: str, layers: tuple[Layer, ...], overlay: str | None) -> FrozenDisk:
        """One frozen disk with what the plans say of its changes: raw disks roll, qcow2 disks have bitmaps."""
        of_layer = overlay is not None and self.rolls.tracking(key) is Tracking.LAYER
        return FrozenDisk(
            key=key,
            size=self.sizes.get(key, 0),
            layers=layers,
            tracking=Tracking.LAYER if of_layer else self.plan.tracking(key),
            change_id=self.rolls.change_id(key) or self.plan.change_id(key),
            overlay=overlay,
        )

    def snapshot(self, method: str, moment: Frozen, disks: list[FrozenDisk]) -> Snapshot:
        """The whole."""
        return Snapshot(
            run=self.request.run,
            machine=self.machine.machine,
            machine_name=self.machine.name,
            host=self.place.host.name,
            method=method,
            created_at=self.began,
            disks=tuple(disks),
            consistency=moment.consistency,
            reasons=(*moment.reasons, *self.plan.reasons, *self.rolls.reasons),
            frozen_seconds=moment.seconds,
        )


class SnapshotMaker:
    """Makes snapshots on a site. Whatever fails in between is undone before the error leaves."""

    def __init__(self, hosts: Hosts, records: Records, rolls: Rolling, releaser: Releaser, thawing: Thawing) -> None:
        self._hosts = hosts
        self._records = records
        self._rolling = rolls
        self._releaser = releaser
        self._thawing = thawing

    def make(self, request: SnapshotRequest) -> Snapshot:
        """See ``Hypervisor.snapshot``."""
        checked_run(request.run)
        place = self._hosts.find(request.machine)
        if self._records.load(request.run) is not None:
            place.settle()  # it was begun before, and libvirt may still be at it
        machine, state = domain(place.xml()), place.state()
        if (earlier := self._earlier(place, machine, state, request)) is not None:
            return earlier
        machine = domain(place.xml())
        _refuse(place, machine, state, request, self._rolling)
        rolls = rolling.look(machine, request, place.host.owned)
        attempt = _Attempt(place, machine, state, request, TrackingPlan(request.run), rolls)
        attempt.sizes = {key: place.disk_size(key) for key in request.disks}
        try:
            snapshot = self._made(attempt)
        except BaseException as error:
            with suppress(LanfreeError):  # what cannot be undone now, the next sweep undoes
                self._releaser.undo(request.machine, request.run)
            if isinstance(error, Refused):
                raise SnapshotFailed(machine.name, error.message) from None
            raise
        return self._kept(snapshot)

    def _made(self, attempt: _Attempt) -> Snapshot:
        if attempt.state.power in (PowerState.OFF, PowerState.SUSPENDED):
            return self._off(attempt)
        if self._rolling.asked(attempt.machine) and not attempt.request.pull:
            rolling.begin(attempt.rolls, attempt.place, attempt.machine, attempt.request)
        short = [size for key, size in attempt.sizes.items() if key not in attempt.rolls.begun]
        overlays.guard_space(attempt.place.host, short, rolling.growth(attempt.rolls, attempt.place, attempt.sizes))
        attempt.plan = checkpoints.prove(attempt.place, attempt.machine, attempt.request)
        self._announce(attempt, {})
        attempt.began = datetime.now(UTC)
        return self._pull(attempt) if attempt.request.pull else self._overlay(attempt)

    def _overlay(self, attempt: _Attempt) -> Snapshot:
        place, request, machine = attempt.place, attempt.request, attempt.machine
        checkpoints.begin(place, machine, attempt.plan)
        paths = attempt.paths
        xml = overlays.snapshot_xml(request.run, paths, machine.targets)

        def taken() -> bool:
            return {f.path for f in overlays.found_on(place)} >= set(paths.values())

        agent = GuestAgent(place, self._records)
        freezer = Freezer(
            agent, self._thawing, lambda quiesce: place.snapshot(xml, quiesce=quiesce), taken, one_call=True
        )
        moment = freezer.freeze(machine.name, request, attempt.state.power)
        _alone(place, machine, request)
        rolling.align([place])
        attempt.rolls.reasons += rolling.unseen(attempt.rolls, self._hosts)
        disks = [attempt.disk(d.key, d.layers(0), paths[d.key]) for d in machine.disks if d.key in paths]
        return attempt.snapshot(OVERLAY, moment, disks)

    def _pull(self, attempt: _Attempt) -> Snapshot:
        place, request, machine, plan = attempt.place, attempt.request, attempt.machine, attempt.plan
        server = pull.server_of(place.host, request.run, machine.name)

        def take(_quiesce: bool) -> None:
            begin = pull.Job(place.host.settings, server, request, machine.targets)
            try:
                checkpoint = checkpoints.checkpoint_xml(checkpoints.name_of(request.run), plan.keys, machine.targets)
                place.backup_begin(begin.xml(plan.sound), checkpoint if plan.keys else None)
                plan.started = bool(plan.keys)
            except Refused as error:
                if not plan.keys:
                    raise
                plan.reasons.append(Reason(ReasonCode.NO_TRACKING, error.why))
                plan.keys, plan.sound = [], {}
                place.backup_begin(begin.xml({}), None)

        def taken() -> bool:
            return pull.running_job(place) is not None

        agent = GuestAgent(place, self._records)
        freezer = Freezer(agent, self._thawing, take, taken, one_call=False)
        moment = freezer.freeze(machine.name, request, attempt.state.power)
        disks = []
        for key in request.disks:
            export = server.export(key, incremental=key in plan.sound)
            disks.append(attempt.disk(key, (Layer(export, Format.RAW),), None))
        return attempt.snapshot(PULL, moment, disks)

    def _off(self, attempt: _Attempt) -> Snapshot:
        """Nothing runs, nothing is made. A qcow2 disk's old mark stays valid: nobody can have written since."""
        request, machine = attempt.request, attempt.machine
        known, silent = self._hosts.everywhere(request.machine)
        if len({tuple(overlays.found_on(place)) for place in known}) > 1:
            where = ", ".join(place.host.name for place in known)
            raise SnapshotFailed(
                machine.name,
                f"its definitions on {where} name different overlays",
                hint="look which one is right (where it ran last), and undefine the others",
            )
        if silent:
            raise SnapshotFailed(
                machine.name, f"it seems to be off, but may run on {', '.join(silent)}, which is silent"
            )
        if request.pull:
            raise SnapshotFailed(machine.name, "a machine that is off serves nothing over the LAN")
        consistency, reason = _when_off(attempt.state)
        if consistency is Consistency.CRASH and request.quiesce is QuiescePolicy.REQUIRE:
            raise QuiesceFailed(
                machine.name, f"it is off ({reason.code.value}), and nobody knows that it ended cleanly"
            )
        starts, _ = self._hosts.ask(lambda host: host.starts(request.machine))
        self._announce(attempt, starts)
        disks = []
        for key in request.disks:
            disk = machine.disk(key)
            layers = disk.layers(0) if disk else ()
            mark: ChangeId | None = request.since.get(key) if disk and checkpoints.trackable(disk) else None
            tracking = Tracking.IMAGE if mark else attempt.rolls.tracking(key)
            mark = mark or attempt.rolls.resting_mark(key)
            disks.append(FrozenDisk(key, attempt.sizes[key], layers, tracking, mark))
        return attempt.snapshot(OFF, Frozen(consistency, (reason,)), disks)

    def _earlier(
        self, place: Domain, machine: DomainXml, state: DomainState, request: SnapshotRequest
    ) -> Snapshot | None:
        """The run's snapshot if it exists already. A part of one, or one made in the other way, is undone first."""
        record = self._records.load(request.run)
        if record is not None and self._records.maybe_frozen(request.machine):
            # This very run was killed between freeze and thaw. The guest has waited long enough, and no sweep comes to it
            # while the run lives again; where its agent does not answer, the sweep after the run tries on.
            GuestAgent(place, self._records).thaw(THAW_PATIENCE)
        known = record.snapshot if record is not None else None
        frozen = {f.key: f.path for f in overlays.found_in(machine, place.host.owned) if f.run == request.run}
        job = pull.running_job(place)
        pulled = job is not None and job[0] == request.run
        unheard = record is not None and known is None and request.quiesce is not QuiescePolicy.NEVER
        if frozen and set(frozen) == set(request.disks) and not request.pull and not unheard:
            if known is not None and known.method == OVERLAY:
                return known
            below = _without_top(machine, frozen)
            rolls = rolling.look(below, request, place.host.owned)
            rolls.begun = {key: path for key, path in frozen.items() if place.host.owned.rolls(path)}
            attempt = _Attempt(place, machine, state, request, TrackingPlan(request.run), rolls)
            return self._kept(_found_again(attempt, frozen))
        if pulled and request.pull and known is not None and known.method == PULL:
            return known
        if frozen or pulled or known is not None:
            # Also where all is there but what the guest said of its freeze: nothing was read yet, and another snapshot can be
            # proven consistent.
            self._releaser.undo(request.machine, request.run)
        return None

    def _announce(self, attempt: _Attempt, starts: Mapping[str, str]) -> None:
        place, request = attempt.place, attempt.request
        clean = define.without_overlays(place.xml(inactive=True), place.host.owned.owns)
        record = RunRecord(
            request.run, place.machine, place.host.name, clean, None, dict(starts), attempt.paths, pull=request.pull
        )
        self._records.save(record)

    def _kept(self, snapshot: Snapshot) -> Snapshot:
        record = self._records.load(snapshot.run) or RunRecord(snapshot.run, snapshot.machine, snapshot.host, "")
        self._records.save(replace(record, host=snapshot.host, snapshot=snapshot))
        return snapshot


def _without_top(machine: DomainXml, frozen: Mapping[str, str]) -> DomainXml:
    """The machine as it was before these overlays were put on."""
    disks = (replace(disk, chain=disk.chain[1:]) if disk.key in frozen else disk for disk in machine.disks)
    return replace(machine, disks=tuple(disks))


def _found_again(attempt: _Attempt, frozen: Mapping[str, str]) -> Snapshot:
    """The proxy died after the snapshot and before it could note what the guest had said: crash consistent."""
    place, machine, plan = attempt.place, attempt.machine, attempt.plan
    attempt.sizes = {key: place.disk_size(key) for key in frozen}
    if checkpoints.name_of(plan.run) in place.checkpoints():
        below = {key: disk.layers(1) for key in frozen if (disk := machine.disk(key)) is not None}
        plan.keys = [key for key, layers in below.items() if len(layers) == 1 and layers[0].format is Format.QCOW2]
        plan.sound = {key: mark for key, mark in attempt.request.since.items() if key in plan.keys}
        plan.first = set(plan.keys)
        plan.started = True
    why = Reason(ReasonCode.QUIESCED_UNCONFIRMED, "the proxy was interrupted before the guest's report was kept")
    moment = Frozen(Consistency.CRASH, (why, Reason(ReasonCode.RESUMED)))
    disks = [attempt.disk(d.key, d.layers(1), frozen[d.key]) for d in machine.disks if d.key in frozen]
    return attempt.snapshot(OVERLAY, moment, disks)


def _refuse(place: Domain, machine: DomainXml, state: DomainState, request: SnapshotRequest, rolls: Rolling) -> None:
    """Raises where this run must not or cannot freeze the machine now."""
    for found in overlays.found_in(machine, place.host.owned):
        if not rolls.at_rest(found):
            raise MachineBusy(machine.name, f"run {found.run} (overlay {found.path})")
    if (job := pull.running_job(place)) is not None:
        raise MachineBusy(machine.name, f"run {job[0]}" if job[0] else "a backup job of another program")
    if state.incoming:
        raise MachineBusy(machine.name, "a migration")
    for key in request.disks:
        disk = machine.disk(key)
        if disk is None:
            raise SnapshotFailed(machine.name, f"it has no disk {key}")
        if disk.excluded is not None:
            raise SnapshotFailed(machine.name, f"disk {key} cannot be frozen: {disk.excluded.code.value}")
        if disk.chain[-1].path and place.host.owned.rolls(disk.chain[-1].path):
            why = f"nothing is known below {disk.chain[-1].path}, an overlay of disk {key}"
            raise SnapshotFailed(
                machine.name, why, hint="its definition must name the whole chain, with the raw disk last"
            )
    if not request.disks:
        raise SnapshotFailed(machine.name, "no disk was asked for")


def _alone(place: Domain, before: DomainXml, request: SnapshotRequest) -> None:
    """Two runs that looked at the same moment: libvirt stacked their overlays. The one that came on top gives up."""
    resting = {f.path for f in overlays.found_in(before, place.host.owned)}
    others = [f for f in overlays.found_on(place) if f.run != request.run and f.path not in resting]
    if others:
        raise MachineBusy(place.machine, f"run {others[0].run}")


def _when_off(state: DomainState) -> tuple[Consistency, Reason]:
    if state.power is PowerState.SUSPENDED:
        return Consistency.CRASH, Reason(
            ReasonCode.MACHINE_SUSPENDED, "its memory is saved, its caches are not written"
        )
    if state.clean:
        return Consistency.FILESYSTEM, Reason(ReasonCode.MACHINE_OFF_CLEAN, "the guest shut itself down")
    return Consistency.CRASH, Reason(ReasonCode.MACHINE_OFF, "how it ended is not known")
