"""Coverage: what of each machine is protected, against its objective, and what is not. Pure.

A **gap** is something that is not covered: the report then says so to monitoring (exit code 7), until it is mended or a person
accepts it with a reason (``[[coverage.accept]]``). A **note** is worth knowing and costs no protection.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from appliance.config_serving import Accepted
from catalog.jobs.policy import Policy
from proxy.machine_rules import matches
from proxy.model import Consistency, Disk, MachineId, Reason, ReasonCode, RestorePoint, RestorePointId, VirtualMachine
from proxy.repository.collection.retention import of_future


class Kind(StrEnum):
    """Of a finding. What monitoring and ``[[coverage.accept]]`` call it."""

    NO_JOB = "no-job"
    NO_POINT = "no-restore-point"
    NO_GOOD_POINT = "no-good-restore-point"
    TOO_OLD = "too-old"
    DISK_MISSING = "disk-not-held"
    LESS_CONSISTENT = "less-consistent"
    NETWORK_VOLUME = "network-volume"
    NOT_COPIED = "not-copied"
    NEWEST_NOT_GOOD = "newest-not-good"
    UNREADABLE = "restore-points-unreadable"
    READ_EVERYTHING = "read-everything"
    LAST_RUN_FAILED = "last-run-failed"
    LEFT_OUT = "disk-left-out"
    NOT_LOOKED_INTO = "not-looked-into"

    @property
    def is_gap(self) -> bool:
        """Whether it means that something is not covered."""
        return self not in _NOTES


_NOTES = frozenset(
    {
        Kind.NEWEST_NOT_GOOD,
        Kind.UNREADABLE,
        Kind.READ_EVERYTHING,
        Kind.LAST_RUN_FAILED,
        Kind.LEFT_OUT,
        Kind.NOT_LOOKED_INTO,
    }
)

# Nothing that a restore would miss, or left out because somebody said so.
_ON_PURPOSE = frozenset({ReasonCode.DISK_EXCLUDED, ReasonCode.DISK_EMPTY_DRIVE, ReasonCode.DISK_READ_ONLY})

_NOT_HELD = frozenset(
    {
        ReasonCode.DISK_SHARED,
        ReasonCode.DISK_INDEPENDENT,
        ReasonCode.DISK_PASSTHROUGH,
        ReasonCode.DISK_UNSUPPORTED,
    }
)

# Quiesce was asked for, and this came of it. A machine that was off or paused was not asked.
_LESS_THAN_ASKED = frozenset(
    {
        ReasonCode.QUIESCE_NO_AGENT,
        ReasonCode.QUIESCE_FAILED,
        ReasonCode.QUIESCE_TIMEOUT,
        ReasonCode.QUIESCED_HOOK_FAILED,
        ReasonCode.QUIESCED_BUT_DIRTY,
    }
)

# Disks are told in sectors by some and in bytes by others: what differs by less is no change.
_SECTOR = 4096

# Why a disk was read whole although there was a restore point to build upon, and nobody asked for it.
_UNWANTED_FULL = frozenset(
    {
        ReasonCode.NO_TRACKING,
        ReasonCode.TRACKING_LOST,
        ReasonCode.TRACKING_INCONSISTENT,
        ReasonCode.TRACKING_LIED,
        ReasonCode.TRACKING_NOT_READABLE,
        ReasonCode.TRANSPORT_WITHOUT_CHANGES,
        ReasonCode.PARENT_DAMAGED,
        ReasonCode.DISK_MOVED,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a machine's last run failed. ``error``: the error's code."""

    at: datetime
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the repository has of a machine. ``newest``: of those that can be read; ``good``: the newest that rules may count
    on; ``why_not``: why ``newest`` is not that one. ``unreadable``: manifests newer than ``good`` that cannot be read."""

    newest: RestorePoint | None = None
    good: RestorePoint | None = None
    why_not: str = ""
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of one machine. ``jobs``: that protect it, by name; ``index_reasons``: what the newest restore point
    whose files are recorded says of itself; ``network_volumes``: those in it, ``None`` if none is recorded and that is to be
    told; ``copies``: second repository -> whether it has the newest good point (``None``: it could not be looked at)."""

    machine: VirtualMachine
    jobs: Mapping[str, Policy]
    held: Held = Held()
    index_reasons: Sequence[Reason] = ()
    network_volumes: Sequence[str] | None = ()
    failure: Failure | None = None
    copies: Mapping[str, bool | None] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """``accepted``: why a person said that it is right so; then it does not count."""

    kind: Kind
    text: str
    accepted: str = ""

    @property
    def counts(self) -> bool:
        """Whether the machine is not covered because of it."""
        return self.kind.is_gap and not self.accepted


@dataclass(frozen=True, slots=True)
class Covered:
    """One machine. ``age`` and ``objective`` in hours; ``point``: its newest good one; ``copies``: second repositories that
    have it."""

    machine: MachineId
    name: str
    host: str
    jobs: tuple[str, ...]
    objective: float
    point: RestorePointId | None
    created_at: datetime | None
    age: float | None
    consistency: Consistency | None
    copies: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def covered(self) -> bool:
        """Nothing is missing that nobody accepted."""
        return not any(finding.counts for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Former:
    """A machine that is in the repository and on no site any more."""

    machine: MachineId
    name: str
    host: str
    newest: RestorePointId
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Coverage:
    """``former``: known only where every host answered, else these are ``unseen``. ``silent``: host -> why nobody knows what
    runs there; ``problems``: what else could not be looked at."""

    machines: tuple[Covered, ...]
    former: tuple[Former, ...]
    unseen: tuple[Former, ...]
    silent: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def covered(self) -> bool:
        """All machines, and all of the site was seen."""
        return all(each.covered for each in self.machines) and not self.silent and not self.problems


def assess(
    known: Known, now: datetime, *, objective: float, asked: float | None = None, accepted: Sequence[Accepted] = ()
) -> Covered:
    """``objective``: hours, for machines of no job; ``asked``: instead of all others."""
    hours = asked or min((policy.objective for policy in known.jobs.values()), default=objective)
    good = known.held.good
    age = max((now - good.created_at).total_seconds() / 3600, 0.0) if good else None
    machine = known.machine
    findings = (*_points(known, age, hours), *_contents(known), *_around(known, now))
    return Covered(
        machine=machine.id,
        name=machine.name,
        host=machine.host,
        jobs=tuple(sorted(known.jobs)),
        objective=hours,
        point=good.id if good else None,
        created_at=good.created_at if good else None,
        age=age,
        consistency=good.consistency if good else None,
        copies=tuple(sorted(name for name, there in (known.copies or {}).items() if there)),
        findings=tuple(Finding(kind, text, _accepted(machine, kind, accepted)) for kind, text in findings),
    )


def _points(known: Known, age: float | None, objective: float) -> Iterable[tuple[Kind, str]]:
    """Is there a restore point to count on, and is it young enough?"""
    held = known.held
    if not known.jobs:
        yield Kind.NO_JOB, "no job that is enabled selects it: nobody makes its next restore point"
    if held.unreadable:
        yield Kind.UNREADABLE, f"{held.unreadable} newer restore points cannot be read: 'lanfree points' names them"
    if age is None and held.newest is None:
        yield Kind.NO_POINT, "it was never backed up, or all its restore points are gone"
    elif age is None:
        yield Kind.NO_GOOD_POINT, f"no restore point can be counted on; the newest: {held.why_not}"
    elif age > objective:
        yield Kind.TOO_OLD, f"the newest good restore point is {_hours(age)} old, the objective is {_hours(objective)}"
    if held.good and held.newest and held.newest.id != held.good.id:
        yield Kind.NEWEST_NOT_GOOD, f"restore point {held.newest.id} is newer and cannot be counted on: {held.why_not}"


def _contents(known: Known) -> Iterable[tuple[Kind, str]]:
    """What does it hold, and how well?"""
    good = known.held.good
    if good is None:
        return
    for reason in good.reasons:
        if reason.code is ReasonCode.DISK_EXCLUDED:
            yield Kind.LEFT_OUT, _said(reason)
        elif reason.code in _NOT_HELD:
            yield Kind.DISK_MISSING, _said(reason)
    yield from _new_disks(known.machine, good)
    for reason in (*good.reasons, *known.index_reasons):
        # A hook that did not say how it went leaves what the file systems' freezing gave; where that failed too, it is less.
        unconfirmed = reason.code is ReasonCode.QUIESCED_UNCONFIRMED and good.consistency is Consistency.CRASH
        if reason.code in _LESS_THAN_ASKED or unconfirmed:
            yield Kind.LESS_CONSISTENT, f"{good.consistency.value} consistent only: {_said(reason)}"
    if good.parent is not None:
        whole = [f"{i.key}: {_said(r)}" for i in good.images for r in i.reasons if r.code in _UNWANTED_FULL]
        whole += [_said(reason) for reason in good.reasons if reason.code in _UNWANTED_FULL]
        if whole:
            yield Kind.READ_EVERYTHING, "; ".join(whole)


def _new_disks(machine: VirtualMachine, good: RestorePoint) -> Iterable[tuple[Kind, str]]:
    """Disks that the machine has now and the restore point does not mention, or holds in another size."""
    mentioned = {reason.detail.partition(": ")[0] for reason in good.reasons if reason.code in _ON_PURPOSE | _NOT_HELD}
    for disk in machine.disks:
        image = good.image(disk.key)
        if image is None and disk.key not in mentioned and not _is_drive(disk):
            yield Kind.DISK_MISSING, f"disk {disk.key} is newer than the newest good restore point"
        elif image is not None and image.size and disk.size and abs(disk.size - image.size) >= _SECTOR:
            sizes = f"{disk.size} bytes now, {image.size} in the newest good restore point"
            yield Kind.DISK_MISSING, f"disk {disk.key} has {sizes}"


def _is_drive(disk: Disk) -> bool:
    return disk.excluded is not None and disk.excluded.code in _ON_PURPOSE


def _around(known: Known, now: datetime) -> Iterable[tuple[Kind, str]]:
    """What lies outside of its own restore points."""
    if known.network_volumes is None and known.held.good is not None:
        yield Kind.NOT_LOOKED_INTO, "no files of it are recorded: nobody knows what it uses over its network"
    for volume in known.network_volumes or ():
        yield Kind.NETWORK_VOLUME, f"{volume} is used over the guest's network and is in no restore point"
    wanted = {copy.name for policy in known.jobs.values() for copy in policy.copy_to}
    if known.held.good is not None:
        for name in sorted(wanted):
            there = (known.copies or {}).get(name)
            if there is False:
                yield Kind.NOT_COPIED, f"the newest good restore point is not in {name}"
    newest = known.held.newest
    if newest is not None and of_future(newest.created_at, now):
        newest = known.held.good
    if known.failure is not None and (newest is None or known.failure.at > newest.created_at):
        yield (
            Kind.LAST_RUN_FAILED,
            f"{known.failure.at:%Y-%m-%d %H:%M} UTC, {known.failure.error}: {known.failure.message}",
        )


def _accepted(machine: VirtualMachine, kind: Kind, accepted: Sequence[Accepted]) -> str:
    for each in accepted:
        if kind.value in each.gap and (each.machine == machine.id or matches(machine.name, each.machine)):
            return each.why
    return ""


def _said(reason: Reason) -> str:
    return f"{reason.code.value}{f' ({reason.detail})' if reason.detail else ''}"


def _hours(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
