"""A job run with all that people are told about it: its tasks, what became of each, what needs attention, the runs before.

Where a task made a restore point, the catalog says how it was read and what it is worth (transport, consistency and their
reasons); what the run measured is in the task's ``measures``. A catalog that is away makes a report poorer, never impossible.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from appliance.telling.attention import Attention, attention
from appliance.telling.text import number, seconds_between
from catalog.jobs.values import JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.errors import JobRunNotFound, LanfreeError
from proxy.model import MachineId, Reason, RestorePoint

if TYPE_CHECKING:
    from catalog.jobs.store import JobStore
    from catalog.unit_of_work import Catalog

# Runs before this one, for the charts: two weeks of nights. More would be thinner than a line on a telephone.
EARLIER = 14

# Charts of many runs of many machines would read hundreds of thousands of tasks; so many show a trend.
TASKS_READ = 60_000


@dataclass(frozen=True, slots=True)
class Item:
    """One task, and the restore point that it made, if it did and the catalog knows it."""

    task: Task
    point: RestorePoint | None = None

    @property
    def name(self) -> str:
        """Of the machine; of work on the repository, what it was."""
        task = self.task
        return task.machine_name or task.machine or (f"{task.kind} {task.target}".strip())

    @property
    def seconds(self) -> float | None:
        """From its claim to its end; ``None`` for one that never ran, or runs."""
        return seconds_between(self.task.claimed_at, self.task.ended_at)

    @property
    def bytes_read(self) -> int | None:
        return self._bytes("bytes_read")

    @property
    def bytes_new(self) -> int | None:
        return self._bytes("bytes_new")

    @property
    def bytes_stored(self) -> int | None:
        return self._bytes("bytes_stored")

    def _bytes(self, key: str) -> int | None:
        if self.point is not None:
            return sum(int(getattr(image, key)) for image in self.point.images)
        found = number(self.task.measures, key)
        return None if found is None else int(found)

    @property
    def over_host(self) -> int | None:
        """Bytes that its host had to send."""
        found = number(self.task.measures, "over_host")
        return None if found is None else int(found)

    @property
    def consistency(self) -> str:
        """Empty where nothing is known, as the next three."""
        return self.point.consistency.value if self.point is not None else self._word("consistency")

    @property
    def level(self) -> str:
        return self.point.level.value if self.point is not None else self._word("level")

    @property
    def transports(self) -> tuple[str, ...]:
        """Without repetition, in the order of the disks."""
        if self.point is not None:
            return tuple(dict.fromkeys(image.transport for image in self.point.images))
        found = self.task.measures.get("transports")
        return tuple(str(each) for each in found) if isinstance(found, list | tuple) else ()

    @property
    def bottleneck(self) -> str:
        stages = self.task.measures.get("stages")
        found = stages.get("bottleneck") if isinstance(stages, dict) else None
        return found if isinstance(found, str) else ""

    def _word(self, key: str) -> str:
        found = self.task.measures.get(key)
        return found if isinstance(found, str) else ""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Of the task, the restore point and its images, without repetition."""
        point = self.point
        of_point = () if point is None else (*point.reasons, *(r for image in point.images for r in image.reasons))
        return tuple(dict.fromkeys((*self.task.reasons, *of_point)))


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run as a bar in a chart. Bytes; ``over_host``: those that hosts had to send; ``seconds``: from begin to end."""

    id: str
    state: JobRunState
    at: datetime
    seconds: float | None
    machines: int
    failed: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    over_host: int = 0


@dataclass(frozen=True, slots=True)
class JobRunReport:
    """``items``: all tasks, those first that need attention. ``earlier``: oldest first, without this run."""

    run: JobRun
    items: tuple[Item, ...] = ()
    earlier: tuple[RunFigures, ...] = ()

    @property
    def machines(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.task.kind is TaskKind.BACKUP)

    @property
    def work(self) -> tuple[Item, ...]:
        """On the repository."""
        return tuple(item for item in self.items if item.task.kind is not TaskKind.BACKUP)

    @property
    def counts(self) -> Counter[TaskState]:
        """Machines by state."""
        return Counter(item.task.state for item in self.machines)

    @property
    def seconds(self) -> float | None:
        return seconds_between(self.run.started_at, self.run.ended_at)

    @property
    def attention(self) -> tuple[Attention, ...]:
        """What a person should look at, gravest first; empty when nothing."""
        return attention(self.run, self.items)

    @property
    def figures(self) -> RunFigures:
        """Of this run."""
        return figures(self.run, self.machines)


_SUMMED = ("bytes_read", "bytes_new", "bytes_stored", "over_host")

_FIRST = (TaskState.FAILED, TaskState.STOPPED, TaskState.RUNNING, TaskState.WAITING, TaskState.DONE)


def made(run: JobRun, items: Sequence[Item], earlier: Sequence[RunFigures] = ()) -> JobRunReport:
    """With the items in order."""

    def place(item: Item) -> tuple[int, bool, str, str]:
        return _FIRST.index(item.task.state), not item.task.problems, item.name.casefold(), item.task.id

    return JobRunReport(run, tuple(sorted(items, key=place)), tuple(earlier))


def figures(run: JobRun, machines: Iterable[Item]) -> RunFigures:
    """Sums over the machines; what is not known counts as nothing."""
    count, failed, sums = 0, 0, dict.fromkeys(_SUMMED, 0)
    for item in machines:
        count += 1
        failed += item.task.state is TaskState.FAILED
        for name in _SUMMED:
            sums[name] += getattr(item, name) or 0
    return RunFigures(
        run.id, run.state, run.started_at, seconds_between(run.started_at, run.ended_at), count, failed, **sums
    )


def report_of(jobs: "JobStore", catalog: "Catalog | None", run: str) -> JobRunReport:
    """Read a run's report from the job store and the catalog. Raises ``JobRunNotFound`` for a run that is not known or
    forgotten, and what the job store raises."""
    with jobs.transaction(write=False) as unit:
        found = unit.runs.get(run)
        if found is None:
            raise JobRunNotFound(run, [other.id for other in unit.runs.list(limit=5)])
        tasks = unit.tasks.of_run(run)
        before = [
            other
            for other in unit.runs.list(job=found.job, limit=2 * EARLIER)
            if other.started_at < found.started_at and other.ended_at is not None and other.id != run
        ]
        readable = max(1, TASKS_READ // max(1, len(tasks)))
        earlier = [_earlier(other, unit.tasks.outcomes(other.id)) for other in before[: min(EARLIER, readable)]]
    points = points_of(catalog, [task.point for task in tasks if task.point is not None])
    items = [Item(task, points.get(task.point or "")) for task in tasks]
    return made(found, items, sorted(earlier, key=lambda figures: figures.at))


def _earlier(run: JobRun, outcomes: Iterable[tuple[MachineId, str, TaskState, Mapping[str, object]]]) -> RunFigures:
    tasks = (Task("", run.id, TaskKind.BACKUP, state, measures=measures) for _, _, state, measures in outcomes)
    return figures(run, map(Item, tasks))


def points_of(catalog: "Catalog | None", wanted: Sequence[str]) -> dict[str, RestorePoint]:
    """Those that the catalog knows; none where it is away."""
    if catalog is None or not wanted:
        return {}
    try:
        with catalog.transaction(write=False) as unit:
            return {listed.point.id: listed.point for listed in unit.restore_points.several(wanted)}
    except LanfreeError:
        return {}
