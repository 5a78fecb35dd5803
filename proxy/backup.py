"""Back up one machine: the use case as its steps, over ports.

    plan -> freeze -> copy each disk -> confirm -> seal -> release

The **seal** is the commit point: before it there is no restore point, after it there is a whole one. Every step that
touches the outside goes through ``step`` (see ``Step``), so that a durable workflow engine can record its result: a step
that was recorded is not done again, and one that was cut off is done again, which each of them allows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from proxy import change_audit
from proxy.backup_disk import CopiedDisk, copy_disk
from proxy.backup_plan import BackupPorts, BackupRequest, Plan, could_pull, make_plan
from proxy.errors import LanfreeError, TransportError
from proxy.model import (
    ChangeId,
    ImageInfo,
    Level,
    Reason,
    ReasonCode,
    RestorePoint,
    Snapshot,
    SnapshotRequest,
)
from proxy.ports import ImageRepository
from proxy.stages import StageTimes

__all__ = ["BackupPorts", "BackupRequest", "BackupResult", "Step", "at_once", "back_up"]

T = TypeVar("T")


class Step(Protocol):
    """Runs ``function(*arguments)`` under a name, once: a durable engine returns the recorded result the second time."""

    def __call__(self, name: str, function: Callable[..., T], /, *arguments: object) -> T: ...


def at_once(_name: str, function: Callable[..., T], /, *arguments: object) -> T:
    """The plain ``Step``: nothing is recorded."""
    return function(*arguments)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A sealed restore point, and what a person has to know: what could not be tidied up after it (the next start's sweep tries
    again), and that the change tracking was found to lie. ``stages``: where the time went, by disk; ``over_host``: bytes that
    hypervisor hosts had to send."""

    point: RestorePoint
    problems: tuple[str, ...] = field(default=())
    stages: Mapping[str, StageTimes] = field(default_factory=dict)
    over_host: int = 0


def back_up(ports: BackupPorts, request: BackupRequest, step: Step = at_once) -> BackupResult:
    """Make one restore point. Raises the error tree of ``proxy.errors``; then there is no restore point of this run."""
    with ports.interlock.run(request.machine, request.run):
        plan = step("plan", make_plan, ports, request)
        try:
            return _attempt(ports, request, plan, step)
        except TransportError as error:
            if plan.pull or not could_pull(ports.transports, plan.machine):
                raise
            # The SAN broke under the run. The hypervisor can still hand out the same machine over the LAN.
            reason = Reason(ReasonCode.TRANSPORT_FALLBACK, str(error))
            return _attempt(ports, request, replace(plan, pull=True, reasons=(*plan.reasons, reason)), step)


def _attempt(ports: BackupPorts, request: BackupRequest, plan: Plan, step: Step) -> BackupResult:
    snapshot = step("snapshot", _freeze, ports, request, plan)
    try:
        copied = [step(f"copy {disk.key}", copy_disk, ports, request, plan, snapshot, disk) for disk in snapshot.disks]
        step("confirm", ports.hypervisor.confirm, snapshot)
        point = step("seal", _seal, ports, plan, snapshot, tuple(each.image for each in copied))
    except Exception as error:  # whatever went wrong, the guest must not stay on its overlays
        for problem in step("release", _release, ports, snapshot, False).problems:
            error.add_note(f"and afterwards: {problem}")
        raise
    released = step("release", _release, ports, snapshot, True)
    lies = tuple(f"change tracking lied: {reason.detail}" for reason in _lies(point))
    return _result(point, (*released.problems, *lies), copied)


def _result(point: RestorePoint, problems: tuple[str, ...], copied: Sequence[CopiedDisk]) -> BackupResult:
    stages = {each.image.key: each.stages for each in copied}
    return BackupResult(point, problems, stages, sum(each.over_host for each in copied))


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
    _doubt(ports.repository, point)
    return ports.repository.seal(point)


def _doubt(repository: ImageRepository, point: RestorePoint) -> None:
    """Mark what rests on a change tracking that was found to lie. Not before the snapshot was confirmed: had the disk moved
    under the run, what differs would be the run's fault."""
    for image in point.images:
        for reason in _lies(replace(point, images=(image,))):
            repository.doubt(change_audit.suspects(repository.points(point.machine), image.key), reason.detail)


def _lies(point: RestorePoint) -> list[Reason]:
    return [reason for image in point.images for reason in image.reasons if reason.code is ReasonCode.TRACKING_LIED]


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
