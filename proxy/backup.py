"""Back up one machine: the use case as its steps, over ports.

    plan -> freeze -> copy each disk -> confirm -> seal -> release

The **seal** is the commit point: before it there is no restore point, after it there is a whole one. Every step that
touches the outside goes through ``step`` (see ``Step``), so that a durable workflow engine can record its result: a step
that was recorded is not done again, and one that was cut off is done again, which each of them allows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from proxy.errors import ChangesUnknown, LanfreeError, RunFailed, TransportError, TransportRefused
from proxy.extents import Extent, aligned, intersect
from proxy.interlock import Interlock
from proxy.model import (
    ChangeId,
    Disk,
    FrozenDisk,
    ImageInfo,
    Layer,
    Level,
    MachineConfiguration,
    MachineId,
    PowerState,
    QuiescePolicy,
    Reason,
    ReasonCode,
    RestorePoint,
    RunId,
    Snapshot,
    SnapshotRequest,
    Tracking,
    VirtualMachine,
)
from proxy.ports import BlockSource, Hypervisor, ImageRepository, ImageWriter, ProgressSink, Transport
from proxy.transfer import SEGMENT, WORKERS, copy

T = TypeVar("T")

LAN = "lan"
"""The transport that reads through the hypervisor and so needs a snapshot of another kind (``SnapshotRequest.pull``)."""


class Step(Protocol):
    """Runs ``function(*arguments)`` under a name, once: a durable engine returns the recorded result the second time."""

    def __call__(self, name: str, function: Callable[..., T], /, *arguments: object) -> T: ...


def at_once(_name: str, function: Callable[..., T], /, *arguments: object) -> T:
    """The plain ``Step``: nothing is recorded."""
    return function(*arguments)


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """What a backup needs from the outside. ``transports``: in order of preference."""

    hypervisor: Hypervisor
    transports: Sequence[Transport]
    repository: ImageRepository
    interlock: Interlock
    progress: ProgressSink | None = None
    cancelled: Callable[[], bool] | None = None
    workers: int = WORKERS
    segment: int = SEGMENT


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """One run for one machine. ``full``: read everything; ``exclude``: disk keys to leave out on purpose."""

    run: RunId
    machine: MachineId
    quiesce: QuiescePolicy = QuiescePolicy.PREFER
    full: bool = False
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run will do. ``pull``: no transport but the LAN can serve every disk, for the recorded reasons."""

    machine: VirtualMachine
    configuration: MachineConfiguration
    disks: tuple[Disk, ...]
    parent: RestorePoint | None
    pull: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A sealed restore point, and what could not be tidied up after it (the next start's sweep tries again)."""

    point: RestorePoint
    problems: tuple[str, ...] = field(default=())


def back_up(ports: BackupPorts, request: BackupRequest, step: Step = at_once) -> BackupResult:
    """Make one restore point. Raises the error tree of ``proxy.errors``; then there is no restore point of this run."""
    with ports.interlock.run(request.machine, request.run):
        plan = step("plan", _plan, ports, request)
        try:
            return _attempt(ports, request, plan, step)
        except TransportError as error:
            if plan.pull or not _could_pull(ports.transports, plan.machine):
                raise
            # The SAN broke under the run. The hypervisor can still hand out the same machine over the LAN.
            reason = Reason(ReasonCode.TRANSPORT_FALLBACK, str(error))
            return _attempt(ports, request, replace(plan, pull=True, reasons=(*plan.reasons, reason)), step)


def _attempt(ports: BackupPorts, request: BackupRequest, plan: Plan, step: Step) -> BackupResult:
    snapshot = step("snapshot", _freeze, ports, request, plan)
    try:
        images = [step(f"copy {disk.key}", _copy_disk, ports, request, plan, snapshot, disk) for disk in snapshot.disks]
        step("confirm", ports.hypervisor.confirm, snapshot)
        point = step("seal", _seal, ports, plan, snapshot, tuple(images))
    except Exception as error:  # whatever went wrong, the guest must not stay on its overlays
        for problem in step("release", _release, ports, snapshot, False).problems:
            error.add_note(f"and afterwards: {problem}")
        raise
    released = step("release", _release, ports, snapshot, True)
    return BackupResult(point, released.problems)


def _plan(ports: BackupPorts, request: BackupRequest) -> Plan:
    machine = ports.hypervisor.machine(request.machine)
    reasons: list[Reason] = []
    disks: list[Disk] = []
    for disk in machine.disks:
        if disk.key in request.exclude:
            reasons.append(Reason(ReasonCode.DISK_EXCLUDED, disk.key))
        elif disk.excluded is not None:
            reasons.append(Reason(disk.excluded.code, f"{disk.key}: {disk.excluded.detail}"))
        else:
            disks.append(disk)
    if not disks:
        raise RunFailed(
            f"{machine.name} has no disk that can be backed up", hint="see 'lanfree vm list' for the reasons"
        )
    points = ports.repository.points(request.machine)
    damaged = ports.repository.damaged_points(request.machine)
    reasons.extend(Reason(ReasonCode.PARENT_DAMAGED, f"{each.object}: {each.why}") for each in damaged)
    pull, why = _needs_pull(ports.transports, machine, disks)
    return Plan(
        machine=machine,
        configuration=ports.hypervisor.configuration(request.machine),
        disks=tuple(disks),
        parent=points[-1] if points else None,
        pull=pull,
        reasons=(*reasons, *why),
    )


def _could_pull(transports: Sequence[Transport], machine: VirtualMachine) -> bool:
    """A machine that runs nowhere serves nothing over the LAN: what keeps the SAN from it is then what a person needs."""
    runs = machine.state in (PowerState.RUNNING, PowerState.PAUSED)
    return runs and any(transport.mode == LAN for transport in transports)


def _needs_pull(
    transports: Sequence[Transport], machine: VirtualMachine, disks: Sequence[Disk]
) -> tuple[bool, list[Reason]]:
    """Whether some disk can only be had from the hypervisor, and why. Without a LAN transport the snapshot will tell."""
    if not _could_pull(transports, machine):
        return False, []
    direct = [transport for transport in transports if transport.mode != LAN]
    if not direct:
        return True, [Reason(ReasonCode.TRANSPORT_PREFERRED, "only the LAN is configured")]
    refusals = [why for disk in disks if (why := _refused_by_all(direct, disk))]
    return bool(refusals), [Reason(ReasonCode.TRANSPORT_FALLBACK, why) for why in refusals]


def _refused_by_all(transports: Sequence[Transport], disk: Disk) -> str:
    if disk.location is None:
        return f"{disk.key}: its place is unknown"
    asleep = FrozenDisk(disk.key, disk.size, (Layer(disk.location, disk.format),))
    refusals = []
    for transport in transports:
        try:
            transport.probe(asleep)
            return ""
        except TransportError as error:
            refusals.append(str(error))
    return "; ".join(refusals)


def _freeze(ports: BackupPorts, request: BackupRequest, plan: Plan) -> Snapshot:
    since = {} if request.full else _marks(plan.parent)
    return ports.hypervisor.snapshot(
        SnapshotRequest(
            run=request.run,
            machine=request.machine,
            disks=tuple(disk.key for disk in plan.disks),
            quiesce=request.quiesce,
            since=since,
            pull=plan.pull,
        )
    )


def _marks(parent: RestorePoint | None) -> dict[str, ChangeId]:
    return {i.key: i.change_id for i in parent.images if i.change_id} if parent else {}


def _copy_disk(
    ports: BackupPorts, request: BackupRequest, plan: Plan, snapshot: Snapshot, disk: FrozenDisk
) -> ImageInfo:
    with ports.interlock.reading(request.machine), _opened(_usable(ports.transports, plan), disk) as (source, chosen):
        parent = plan.parent.image(disk.key) if plan.parent else None
        choice = _what_to_read(ports.hypervisor, snapshot, disk, source, parent, full=request.full)
        writer, choice = _image_writer(ports.repository, disk, source.size, parent, choice)
        with writer:
            extents = _chunk_aligned(source, choice.extents, writer.granularity)
            copied = copy(
                source,
                writer,
                extents,
                disk=disk.key,
                workers=ports.workers,
                segment=ports.segment,
                granularity=writer.granularity,
                progress=ports.progress,
                cancelled=ports.cancelled,
            )
            image = writer.seal()
        return replace(
            image,
            transport=chosen.mode,
            source=source.identity,
            bytes_read=copied.bytes_read,
            change_id=disk.change_id,
            level=choice.level,
            reasons=(choice.reason, *chosen.reasons),
        )


@dataclass(frozen=True, slots=True)
class _Choice:
    """``extents``: changed areas, or ``None`` for the whole disk; and why."""

    extents: Sequence[Extent] | None
    level: Level
    reason: Reason


def _what_to_read(
    hypervisor: Hypervisor,
    snapshot: Snapshot,
    disk: FrozenDisk,
    source: BlockSource,
    parent: ImageInfo | None,
    *,
    full: bool,
) -> _Choice:
    """Full or incremental, with the reason. Whenever in doubt everything is read: then only what differs is stored."""
    try:
        since = _mark_to_start_from(disk, source, parent, full=full)
        if disk.tracking is Tracking.HYPERVISOR:
            changed = hypervisor.changed(snapshot, disk, since)
        else:
            changed = source.changed(since)
    except ChangesUnknown as error:
        return _Choice(None, Level.FULL, _reason(disk, error))
    return _Choice(changed, Level.INCREMENTAL, Reason(_CHANGES_FROM[disk.tracking], disk.key))


def _mark_to_start_from(disk: FrozenDisk, source: BlockSource, parent: ImageInfo | None, *, full: bool) -> ChangeId:
    """The parent's change id, if it can be built on. Raises ``ChangesUnknown`` with the reason to read everything."""
    if parent is None:
        raise ChangesUnknown(disk.key, ReasonCode.FIRST_BACKUP)
    if full:
        raise ChangesUnknown(disk.key, ReasonCode.FULL_REQUESTED)
    if parent.size != source.size:
        raise ChangesUnknown(disk.key, ReasonCode.DISK_RESIZED, f"was {parent.size} bytes, is {source.size}")
    if parent.source != source.identity:
        raise ChangesUnknown(disk.key, ReasonCode.DISK_MOVED, f"was on {parent.source}, is on {source.identity}")
    if disk.tracking is Tracking.NONE:  # had the parent set a mark, the snapshot's reasons say what became of it
        raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST if parent.change_id else ReasonCode.NO_TRACKING)
    if parent.change_id is None:
        raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST, "the last restore point set no mark")
    return parent.change_id


def _image_writer(
    repository: ImageRepository, disk: FrozenDisk, size: int, parent: ImageInfo | None, choice: _Choice
) -> tuple[ImageWriter, _Choice]:
    """A writer on top of the parent's image; without it, and reading everything, when the parent cannot be built on."""
    if parent is not None and parent.size == size:
        try:
            return repository.image_writer(disk.key, size, parent), choice
        except ChangesUnknown as error:
            choice = _Choice(None, Level.FULL, _reason(disk, error))
    return repository.image_writer(disk.key, size, None), choice


def _reason(disk: FrozenDisk, error: ChangesUnknown) -> Reason:
    return Reason(ReasonCode(error.reason), f"{disk.key}: {error.detail}" if error.detail else disk.key)


_CHANGES_FROM = {
    Tracking.IMAGE: ReasonCode.CHANGES_FROM_BITMAP,
    Tracking.LAYER: ReasonCode.CHANGES_FROM_OVERLAY,
    Tracking.HYPERVISOR: ReasonCode.CHANGES_FROM_HYPERVISOR,
}


def _chunk_aligned(source: BlockSource, changed: Sequence[Extent] | None, granularity: int) -> list[Extent]:
    """What to copy, in whole chunks: a chunk that changed in one byte is read whole."""
    everything = aligned(source.extents(), granularity, source.size)
    if changed is None:
        return everything
    return intersect(everything, aligned(changed, granularity, source.size))


@dataclass(frozen=True, slots=True)
class _Chosen:
    mode: str
    reasons: tuple[Reason, ...]


def _usable(transports: Sequence[Transport], plan: Plan) -> Sequence[Transport]:
    """All in their order; once the hypervisor itself has to hand the machine out, its LAN alone: what broke is not tried again
    where the frozen disk would allow it."""
    return [transport for transport in transports if transport.mode == LAN] if plan.pull else transports


@contextmanager
def _opened(transports: Sequence[Transport], disk: FrozenDisk) -> Iterator[tuple[BlockSource, _Chosen]]:
    """The first transport that can, with the refusals of those before it as the reason."""
    refusals: list[str] = []
    for transport in transports:
        try:
            source = transport.open(disk)
        except TransportError as error:
            refusals.append(str(error))
            continue
        code = ReasonCode.TRANSPORT_FALLBACK if refusals else ReasonCode.TRANSPORT_PREFERRED
        with source:
            yield source, _Chosen(transport.mode, (Reason(code, "; ".join(refusals) or transport.mode),))
        return
    raise TransportRefused("any", disk.key, "no transport left", "; ".join(refusals))


def _seal(ports: BackupPorts, plan: Plan, snapshot: Snapshot, images: tuple[ImageInfo, ...]) -> RestorePoint:
    point = RestorePoint(
        id="",  # the repository names it, after machine, run and moment: sealing again gives the same name
        machine=snapshot.machine,
        machine_name=snapshot.machine_name,
        host=snapshot.host,
        run=snapshot.run,
        created_at=snapshot.created_at,
        level=Level.FULL if any(image.level is Level.FULL for image in images) else Level.INCREMENTAL,
        consistency=snapshot.consistency,
        images=images,
        configuration=plan.configuration,
        reasons=(*plan.reasons, *snapshot.reasons),
        parent=plan.parent.id if plan.parent else None,
        hypervisor=ports.hypervisor.name,
        frozen_seconds=snapshot.frozen_seconds,
    )
    return ports.repository.seal(point)


@dataclass(frozen=True, slots=True)
class _Released:
    problems: tuple[str, ...]


def _release(ports: BackupPorts, snapshot: Snapshot, sealed: bool) -> _Released:
    """Never hides the run's own outcome: what could not be undone is told, and the next start's sweep tries again."""
    try:
        ports.hypervisor.release(snapshot, sealed=sealed)
    except LanfreeError as error:
        return _Released((str(error),))
    return _Released(())
