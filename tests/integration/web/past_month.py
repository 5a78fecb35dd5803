"""A month of backups of the estate, as proxies would have left it: job runs, tasks, restore points; the same at each call but
for the moment at which it ends. Everything is written by the stores' own functions."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from appliance.wiring import Services
from catalog.inventory import Judged
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.errors import HostUnreachable, LanfreeError, SnapshotFailed, TransportRefused
from proxy.model import (
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    Reason,
    ReasonCode,
    RestorePoint,
    RestorePointId,
)
from proxy.repository.manifest import point_id
from proxy.stages import StageTimes
from proxy.units import GiB, MiB
from tests.integration.web.estate import Listed

DAYS = 33
"""Longer than the charts: the first backups of all machines would dwarf every other one."""

SLOTS = 2
"""Backups at once, of both proxies together."""

PROXIES = ("backup01", "backup02")

YOUNG: Mapping[str, int] = {"web-08": 12, "branch-04": 3}
"""Machines that were made so many days ago."""

CHANGED: Mapping[str, float] = {"db": 0.07, "mail": 0.05, "files": 0.015, "erp": 0.05}
"""Share of what is used that changes in a day, where it is not the ordinary one."""

FAILS: Mapping[tuple[str, int], LanfreeError] = {
    ("mail-02", 0): SnapshotFailed("mail-02", "the datastore ds-prod-1 has 3.1 GiB left, a snapshot needs 8 GiB"),
    ("mail-02", 1): SnapshotFailed("mail-02", "the datastore ds-prod-1 has 5.8 GiB left, a snapshot needs 8 GiB"),
    ("print-01", 0): HostUnreachable("kvm02.branch.example", "no route to host"),
    ("app-05", 6): TransportRefused("san", "scsi0:1", "no-path", "naa.6001405b7a1 is not shown to this proxy"),
    ("web-03", 13): SnapshotFailed("web-03", "the machine is being moved to another host"),
    ("app-02", 20): SnapshotFailed("app-02", "the machine is being moved to another host"),
}
"""Machine, runs ago -> what went wrong."""

DAMAGED = ("app-03", 12)
"""Machine, days ago: of a restore point in which a verification found damage."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A machine's place in a run. ``ago``: how many runs of its job came after it."""

    run: JobRun
    machine: Listed
    task: str
    begin: datetime
    slot: int
    ago: int

    @property
    def backup(self) -> str:
        """Id of the backup's own run."""
        return f"b{self.begin:%Y%m%d%H%M%S}-{random.Random(self.task).getrandbits(32):08x}"


@dataclass(frozen=True, slots=True)
class _Done:
    """A backup of the past: its task, how long it took, and what it made."""

    task: Task
    end: datetime
    error: LanfreeError | None
    point: RestorePoint | None
    measures: Mapping[str, object]


class Month:
    """Writes into the stores of ``services``. ``newest``: of each machine's identity, its newest restore point so far."""

    def __init__(self, services: Services, now: datetime) -> None:
        self._services = services
        self._now = now
        self._random = random.Random(20261123)
        self.newest: dict[str, RestorePoint] = {}
        self.judged: list[Judged] = []

    def night(self, job: Job, begin: datetime, machines: Sequence[Listed], ago: int) -> str:
        """A run of the job at that moment. ``ago``: how many of its runs came after it. Returns its id."""
        run = JobRun(
            f"j{begin:%Y%m%d%H%M}-{job.name.split()[0].lower()}", job.id, job.name, job.policy, Cause.SCHEDULE,
            begin, JobRunState.RUNNING, begin, selected=len(machines),
        )  # fmt: skip
        there = [one for one in machines if (self._now - begin).days <= YOUNG.get(one.name, DAYS + 1)]
        done = list(self._backups(run, there, ago))
        with self._services.jobs.transaction() as unit:
            unit.runs.begin(run)
            unit.tasks.add([one.task for one in done])
            for one in done:
                state = TaskState.DONE if one.error is None else TaskState.FAILED
                error = {} if one.error is None else {"error": one.error.code, "message": one.error.message}
                point = one.point.id if one.point else None
                reasons = one.point.reasons if one.point else ()
                unit.tasks.end(
                    one.task.id, state, one.end, point=point, measures=one.measures, reasons=reasons, **error
                )
            failed = any(one.error is not None for one in done)
            end = max(one.end for one in done) + timedelta(seconds=20)
            unit.runs.end(run.id, JobRunState.FAILED if failed else JobRunState.DONE, end)
        with self._services.catalog.transaction() as catalog:
            for one in done:
                if one.point is not None:
                    catalog.restore_points.add(one.point)
        return run.id

    def judge(self) -> None:
        """Write down what verifications found."""
        with self._services.catalog.transaction() as unit:
            unit.inventory.judged(self.judged)

    def _backups(self, run: JobRun, machines: Sequence[Listed], ago: int) -> Iterator[_Done]:
        """One after the other in each slot."""
        free = [run.started_at + timedelta(seconds=4 + 3 * slot) for slot in range(SLOTS)]
        for number, one in enumerate(sorted(machines, key=lambda each: (-each.size, each.name))):
            slot = min(range(SLOTS), key=lambda slot: free[slot])
            made = self._backup(_Turn(run, one, f"{run.id}-{number:03}", free[slot], slot, ago))
            free[slot] = made.end + timedelta(seconds=2)
            yield made

    def _backup(self, turn: _Turn) -> _Done:
        one, begin, before = turn.machine, turn.begin, self.newest.get(turn.machine.id)
        error = FAILS.get((one.name, turn.ago))
        read = 0 if error else self._read(one, begin, before)
        seconds = 9.0 if error else 45 + read / (self._random.uniform(90, 170) * MiB)
        end = begin + timedelta(seconds=seconds)
        known = Task(
            turn.task, turn.run.id, TaskKind.BACKUP, TaskState.RUNNING, one.id, one.name, one.host,
            (f"host:{one.host}", f"place:{one.place}"), order=begin, full=before is None, expected_seconds=seconds,
            run=turn.backup, proxy=f"{PROXIES[turn.slot % 2]}-1", claimed_at=begin, created_at=turn.run.started_at,
        )  # fmt: skip
        if error is not None:
            return _Done(known, end, error, None, {})
        point = self._point(turn, end, read, before)
        self.newest[one.id] = point
        self._verify(one, point)
        return _Done(known, end, None, point, self._measures(one, point, seconds))

    def _read(self, one: Listed, begin: datetime, before: RestorePoint | None) -> int:
        used = 0.45 * one.size
        if before is None:
            return int(used)
        share = CHANGED.get(one.name.split("-")[0], 0.06) * (0.6 if begin.weekday() >= 5 else 1.0)
        days = (begin - before.created_at) / timedelta(days=1)
        return int(used * share * days * self._random.lognormvariate(0.0, 0.35))

    def _point(self, turn: _Turn, end: datetime, read: int, before: RestorePoint | None) -> RestorePoint:
        one, run_id = turn.machine, turn.backup
        new = read * self._random.uniform(0.42, 0.6)
        mode = "lan" if one.name.startswith("print") else "san"
        change = ReasonCode.CHANGES_FROM_HYPERVISOR if one.folder else ReasonCode.CHANGES_FROM_OVERLAY
        why = Reason(change, "") if before else Reason(ReasonCode.FIRST_BACKUP, "")
        consistency, quiesced = _consistency(one)
        packed = self._random.uniform(0.45, 0.58)
        images = tuple(
            ImageInfo(
                key, gib * GiB, f"indexes/{run_id}-{key}", "0" * 32, mode, one.place, int(read * part), int(new * part),
                int(new * part * packed), "lanfree-1", (why,), Level.INCREMENTAL if before else Level.FULL,
            )
            for key, gib, part in _parts(one)
        )  # fmt: skip
        reasons = (Reason(ReasonCode.MADE_BY_JOB, turn.run.job_name), why, quiesced)
        if mode == "lan":
            reasons += (Reason(ReasonCode.TRANSPORT_FALLBACK, "san: no path from this proxy to the disk's LUN"),)
        made = turn.begin + timedelta(seconds=6)
        return RestorePoint(
            point_id(made, one.id, run_id), one.id, one.name, one.host, run_id, made,
            Level.INCREMENTAL if before else Level.FULL, consistency, images, MachineConfiguration("memory-json", "{}"),
            reasons, before.id if before else None, "vcenter" if one.folder else "kvm",
            round(self._random.uniform(0.3, 2.1), 3), end,
        )  # fmt: skip

    def _verify(self, one: Listed, point: RestorePoint) -> None:
        name, days = DAMAGED
        damaged = one.name == name and (self._now - point.created_at).days == days
        if damaged or self._random.random() < 0.3:
            at = min(point.created_at + timedelta(hours=9), self._now)
            self.judged.append(Judged(point.id, "damaged" if damaged else "good", at))

    def _measures(self, one: Listed, point: RestorePoint, seconds: float) -> Mapping[str, object]:
        busy = seconds - 35
        slow = one.name.startswith(("files", "print"))
        stages = StageTimes(
            seconds=seconds,
            source=busy * (0.8 if slow else 0.5),
            proxy=busy * 0.35,
            repository=busy * (0.3 if slow else 0.62),
        )
        read, new, stored = (
            sum(getattr(image, name) for image in point.images) for name in ("bytes_read", "bytes_new", "bytes_stored")
        )
        transports = sorted({image.transport for image in point.images})
        return {
            "bytes_read": read,
            "bytes_new": new,
            "bytes_stored": stored,
            "over_host": read if "lan" in transports else 0,
            "frozen_seconds": point.frozen_seconds,
            "level": point.level.value,
            "consistency": point.consistency.value,
            "transports": transports,
            "stages": stages.as_json(),
        }


def sealed(services: Services, point: RestorePoint) -> RestorePointId:
    """A manifest of it in the repository, with small disks: what lists say of it is the catalog's."""
    images: list[ImageInfo] = []
    for image in point.images:
        with services.repository.image_writer(image.key, 64 * 1024, None) as writer:
            writer.write(0, memoryview(random.Random(point.id + image.key).randbytes(writer.granularity)))
            written = writer.seal()
        images.append(replace(image, index=written.index, digest=written.digest))
    return services.repository.seal(replace(point, images=tuple(images), parent=None)).id


def _consistency(one: Listed) -> tuple[Consistency, Reason]:
    if not one.agent:
        return Consistency.CRASH, Reason(ReasonCode.QUIESCE_NO_AGENT, "")
    if one.name.startswith(("db", "mail", "dc")):
        return Consistency.APPLICATION, Reason(ReasonCode.QUIESCED_HOOKS_CONFIRMED, "")
    return Consistency.FILESYSTEM, Reason(ReasonCode.QUIESCED_NO_HOOKS, "")


def _parts(one: Listed) -> Iterator[tuple[str, int, float]]:
    """Of each disk: key, GiB, its share of all of them."""
    for number, gib in enumerate(one.disks):
        yield (f"scsi0:{number}" if one.folder else f"vd{'abcd'[number]}"), gib, gib / sum(one.disks)
