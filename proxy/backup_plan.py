"""What a backup is asked, what it needs, and what it is going to do: the plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy import change_audit
from proxy.errors import RunFailed, TransportError
from proxy.interlock import Interlock
from proxy.model import (
    Disk,
    FrozenDisk,
    Layer,
    MachineConfiguration,
    MachineId,
    PowerState,
    QuiescePolicy,
    Reason,
    ReasonCode,
    RestorePoint,
    RunId,
    VirtualMachine,
    VmdkAddress,
)
from proxy.ports import Hypervisor, ImageRepository, ProgressSink, Transport
from proxy.transfer import SEGMENT, WORKERS, Pace

LAN = "lan"
"""The transport that reads through the hypervisor and so needs a snapshot of another kind (``SnapshotRequest.pull``)."""


@dataclass(frozen=True, slots=True)
class BackupPorts:
    """What a backup needs from the outside. ``transports``: in order of preference. ``audit_sample``: chunks of a disk that
    an incremental compares at most though tracking calls them unchanged (``change_audit.py``); 0: none. ``tracking_required``:
    a run fails rather than read everything because the change tracking was lost (a first backup, and one of which that was
    asked, read everything all the same). ``pace``: how fast a disk of a machine may be read, ``None`` for no limit."""

    hypervisor: Hypervisor
    transports: Sequence[Transport]
    repository: ImageRepository
    interlock: Interlock
    progress: ProgressSink | None = None
    cancelled: Callable[[], bool] | None = None
    workers: int = WORKERS
    segment: int = SEGMENT
    audit_sample: int = change_audit.SAMPLE
    tracking_required: bool = False
    pace: Callable[[VirtualMachine, Disk], Pace | None] | None = None


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """One run for one machine. ``full``: read everything; ``exclude``: disk keys to leave out on purpose. ``notes``: what is
    to be known of the restore point beside what the run finds out (the job that made it)."""

    run: RunId
    machine: MachineId
    quiesce: QuiescePolicy = QuiescePolicy.PREFER
    full: bool = False
    exclude: frozenset[str] = frozenset()
    notes: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run will do. ``pull``: no transport but the LAN can serve every disk, for the recorded reasons."""

    machine: VirtualMachine
    configuration: MachineConfiguration
    disks: tuple[Disk, ...]
    parent: RestorePoint | None
    pull: bool
    reasons: tuple[Reason, ...]


def make_plan(ports: BackupPorts, request: BackupRequest) -> Plan:
    """Which disks, on top of which restore point, and whether the hypervisor must serve the data. Raises ``RunFailed``."""
    machine = ports.hypervisor.machine(request.machine)
    reasons: list[Reason] = list(request.notes)
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


def could_pull(transports: Sequence[Transport], machine: VirtualMachine) -> bool:
    """Whether the hypervisor could hand out the data. On KVM the machine's own emulator does, so one that runs nowhere serves
    nothing: what keeps the SAN from it is then what a person needs. vSphere exports the snapshot of any."""
    runs = machine.state in (PowerState.RUNNING, PowerState.PAUSED)
    exported = any(isinstance(disk.location, VmdkAddress) for disk in machine.disks)
    return (runs or exported) and any(transport.mode == LAN for transport in transports)


def _needs_pull(
    transports: Sequence[Transport], machine: VirtualMachine, disks: Sequence[Disk]
) -> tuple[bool, list[Reason]]:
    """Whether some disk can only be had from the hypervisor, and why. Without a LAN transport the snapshot will tell."""
    if not could_pull(transports, machine):
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
