"""The inventory in the catalog: what every site showed when it was last asked, so that lists and trees ask nobody.

::

    refresh(services)            look everywhere, write down; what serves does it every five minutes, people when they want to
    refresh_if_old(services)     the same, unless another proxy did it a moment ago

A site that is silent keeps its last known machines; the look says why it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.config_serving import Accepted
from appliance.selecting import Sight, look
from appliance.wiring import Services
from catalog.inventory import DiskFacts, Judged, LookedAt, Placed, SeenMachine
from catalog.jobs.values import Task
from catalog.runs import BACKUP, Run, RunState
from proxy.errors import ConfigurationError, LanfreeError
from proxy.machine_rules import Candidate, matches
from proxy.model import (
    DeviceAddress,
    Disk,
    FileAddress,
    Location,
    LunAddress,
    MachineId,
    NbdAddress,
    RestorePointId,
    VirtualMachine,
    VmdkAddress,
)
from proxy.repository.parallel import each

EVERY = timedelta(minutes=5)
"""Between two looks: a machine that was made is in the lists after so long at most. Each asks every host for everything."""

# A look of another proxy within it counts as this one's: clocks differ, and both began to wait at about the same time.
_ENOUGH = EVERY * 0.8

# Failures that are older say nothing of what keeps a machine from being backed up today.
_RUNS = timedelta(days=31)

# Records of verifications that one look reads, in turn: each is an object of the repository.
_RECORDS = 500

_KVM, _VCENTER = "kvm", "vcenter"

_HINTS = {
    _KVM: "check that libvirtd runs there, that the URI is right and that the proxy's key is accepted",
    _VCENTER: "check the address, the account and its password, and whether the certificate was renewed",
}

# What accepting these of a machine says: that it need have no restore point.
_NEED_NONE = frozenset({"no-job", "no-restore-point", "too-old"})


@dataclass(frozen=True, slots=True)
class Refreshed:
    """``machines``: that are shown now; ``new``, ``gone``: since the last look; ``silent``: host or vCenter -> why."""

    machines: int
    new: int
    gone: int
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Jobs:
    """What enabled jobs say of machines: their names, the smallest objective in hours, and what excludes."""

    names: Mapping[MachineId, tuple[str, ...]]
    objectives: Mapping[MachineId, float]
    excluded: Mapping[MachineId, str]


def refresh_if_old(services: Services) -> None:
    """As ``refresh``, unless somebody looked a moment ago."""
    with services.catalog.transaction(write=False) as unit:
        looks = [known.looked_at for known in unit.inventory.hypervisors() if known.looked_at is not None]
    if not looks or services.clock.now() - max(looks) >= _ENOUGH:
        refresh(services)


def refresh(services: Services) -> Refreshed:
    """Ask every site, and write down what it shows. Raises what catalog and job store say; a site that is silent raises
    nothing."""
    sight, now = _seen(services), services.clock.now()
    jobs, failures = _jobs(services, sight), _failures(services, now)
    machines = [_machine(services, one, jobs, failures) for one in sight.candidates if not one.helper]
    quiet = _Quiet(services, sight)
    with services.catalog.transaction() as unit:
        new = unit.inventory.seen(machines, now)
        shown = frozenset(one.machine.id for one in machines)
        looks = quiet.looks(machines)
        if services.settings.host or services.settings.vcenter:
            quiet.others = unit.inventory.others_look_at([each.name for each in looks], now)
        gone = unit.inventory.not_seen(shown, now, quiet.may_have)
        unit.inventory.looked_at(looks, now)
    note_standings(services)
    return Refreshed(len(machines), new, gone, dict(sight.silent))


def note_standings(services: Services, points: Sequence[RestorePointId] = ()) -> None:
    """Which restore points are held, and how verifications of these went, as the repository has it; without any, some of all of
    them, in turn. A repository that is away leaves the catalog as it is."""
    try:
        held, judged = _standings(services, points)
    except LanfreeError:
        return  # whoever needs the repository is told
    with services.catalog.transaction() as unit:
        unit.inventory.holds(held)
        unit.inventory.judged(judged)


def place_text(location: Location | None) -> str:
    """Where a disk is, for people."""
    match location:
        case LunAddress():
            return f"{location.target}/{location.lun}"
        case FileAddress() | DeviceAddress():
            return location.path
        case VmdkAddress():
            return f"[{location.datastore}] {location.path}"
        case NbdAddress():
            return "over NBD"
        case None:
            return ""


def _seen(services: Services) -> Sight:
    try:
        return look(services)
    except ConfigurationError:
        if services.settings.host or services.settings.vcenter:
            raise
        return Sight(())  # nothing is configured yet


def _jobs(services: Services, sight: Sight) -> _Jobs:
    with services.jobs.transaction(write=False) as unit:
        jobs = [job for job in unit.jobs.list() if job.enabled]
    names: dict[MachineId, list[str]] = {}
    objectives: dict[MachineId, float] = {}
    excluded: dict[MachineId, str] = {}
    for job in jobs:
        try:
            selected = sight.choose(job.policy.select)
        except LanfreeError:
            continue  # its page says what is wrong with it
        for one in selected.machines:
            names.setdefault(one.machine.id, []).append(job.name)
            known = objectives.get(one.machine.id, job.policy.objective)
            objectives[one.machine.id] = min(known, job.policy.objective)
        for one in selected.excluded:
            excluded.setdefault(one.machine.id, f"job {job.name} leaves it out: {one.rule}")
    return _Jobs({machine: tuple(sorted(some)) for machine, some in names.items()}, objectives, excluded)


def _failures(services: Services, now: datetime) -> Mapping[MachineId, tuple[datetime, str, str]]:
    """How last backups failed: a run, or a task that ended before it began one; the later of both."""
    with services.catalog.transaction(write=False) as unit:
        runs = unit.runs.last_of_each(BACKUP, now - _RUNS)
    with services.jobs.transaction(write=False) as unit:
        short = unit.tasks.fell_short(now - _RUNS)
    found: dict[MachineId, tuple[datetime, str, str]] = {}
    for machine in {*runs, *short}:
        said = [*_of_run(runs.get(machine)), *_of_task(short.get(machine))]
        if said:
            found[machine] = max(said)
    return found


def _of_run(run: Run | None) -> list[tuple[datetime, str, str]]:
    if run is None or run.state is not RunState.FAILED:
        return []
    return [(run.started_at, run.error or "unknown", run.message or "")]


def _of_task(task: Task | None) -> list[tuple[datetime, str, str]]:
    if task is None or task.ended_at is None:
        return []
    why = task.message or ", ".join(reason.code.value for reason in task.reasons)
    return [(task.ended_at, task.error or task.state.value, why)]


def _machine(
    services: Services, one: Candidate, jobs: _Jobs, failures: Mapping[MachineId, tuple[datetime, str, str]]
) -> SeenMachine:
    machine, settings = one.machine, services.settings.coverage
    excluded = _accepted(machine, settings.accept)
    if not excluded and machine.id not in jobs.names:
        excluded = jobs.excluded.get(machine.id, "")
    return SeenMachine(
        machine=machine,
        hypervisor=one.site or machine.host,
        disks=tuple(_disk(disk) for disk in machine.disks),
        cluster=one.cluster,
        folder=one.folder,
        tags=tuple(one.tags or ()),
        template=one.template,
        pool=one.pool,
        datastores=tuple(one.datastores),
        attributes=one.attributes,
        jobs=jobs.names.get(machine.id, ()),
        objective=jobs.objectives.get(machine.id, settings.objective),
        excluded=excluded,
        failure=failures.get(machine.id),
    )


def _accepted(machine: VirtualMachine, accepted: Sequence[Accepted]) -> str:
    for one in accepted:
        if _NEED_NONE & set(one.gap) and (one.machine == machine.id or matches(machine.name, one.machine)):
            return one.why
    return ""


def _disk(disk: Disk) -> DiskFacts:
    code, detail = (disk.excluded.code.value, disk.excluded.detail) if disk.excluded else ("", "")
    return DiskFacts(disk.key, disk.size, disk.format.value, place_text(disk.location), code, detail)


class _Quiet:
    """Who did not answer, and what machines those may have. ``others``: hypervisors that other proxies look at."""

    def __init__(self, services: Services, sight: Sight) -> None:
        settings = services.settings
        self.others: frozenset[str] = frozenset()
        self._silent = sight.silent
        self._vcenters = {section.name for section in settings.vcenter}
        self._hosts = [section.name for section in settings.host]
        others = [name for name in sight.silent if name not in self._vcenters]
        # A machine of a silent host may run on any other one by now. Of vCenters, the silent ones are hosts of theirs, too.
        whole = [name for name in others if name not in self._hosts]
        if self._hosts:
            self._kvm_silent = any(name in self._hosts or name == _KVM for name in others)
        else:
            self._kvm_silent = bool(whole) and not self._vcenters

    def may_have(self, placed: Placed) -> bool:
        """Whether somebody who is silent, or is not asked from here, may have this machine."""
        if placed.hypervisor in self.others:
            return True
        if placed.hypervisor in self._vcenters:
            return any(name in self._silent for name in (placed.hypervisor, placed.host, f"machine {placed.name}"))
        if not placed.hypervisor:  # only restore points know of it, so that it may be anywhere
            return bool(self._silent)
        return self._kvm_silent

    def looks(self, machines: Sequence[SeenMachine]) -> list[LookedAt]:
        """How it went at each that is configured, and at each that showed something."""
        found = {name: self._look(name, _VCENTER) for name in sorted(self._vcenters)}
        shown = {one.hypervisor for one in machines} - set(found)
        for name in sorted({*self._hosts, *shown, *(() if self._vcenters or self._hosts else self._silent)}):
            found[name] = self._look(name, _KVM)
        return [*found.values()]

    def _look(self, name: str, kind: str) -> LookedAt:
        # Where every host is silent, the site says so for all of them.
        why = self._silent.get(name, self._silent.get(_KVM, "") if kind == _KVM else "")
        return LookedAt(name, kind, why, _HINTS[kind] if why else "")


def _standings(services: Services, points: Sequence[RestorePointId]) -> tuple[list[RestorePointId], list[Judged]]:
    ledger = services.repository.ledger
    held = [_point_of(name) for name in ledger.holds.names()]
    names = sorted(ledger.verifications.names())
    if points:
        wanted = set(points)
        some = [name for name in names if _point_of(name) in wanted]
    else:
        # Another part at each look; without a memory of its own, so that any proxy goes on with it.
        turn = int(services.clock.now().timestamp() / EVERY.total_seconds())
        begin = turn * _RECORDS % len(names) if names else 0
        some = list(dict.fromkeys([*names, *names][begin : begin + _RECORDS]))
    judged: list[Judged] = []

    def read(name: str) -> None:
        try:
            known = ledger.verifications.get(name)
        except LanfreeError:
            return  # damaged: the next verification replaces it
        if known is not None:
            judged.append(Judged(known.point, known.health.value, known.verified_at))

    list(each(read, some))
    return held, judged


def _point_of(name: str) -> RestorePointId:
    """Of a manifest."""
    return name.rpartition("/")[2]
