"""What the metrics say, read from the job store in a few questions, whose number does not depend on how many machines there
are. What cannot be read is named among ``missing`` and never keeps the rest from being told."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.telling.text import number
from catalog.jobs.values import Job, JobRun, ProxyFacts, TaskState
from proxy.errors import LanfreeError
from proxy.model import MachineId

if TYPE_CHECKING:
    from catalog.jobs.store import JobStore, Unit

# Runs of which it is remembered how they ended: one a job, and some hundreds of jobs.
_REMEMBERED = 512

BYTES = {"read": "bytes_read", "new": "bytes_new", "stored": "bytes_stored", "over_host": "over_host"}
"""Kind -> name among a task's measures."""


@dataclass(frozen=True, slots=True)
class RunSums:
    """How an ended run went. ``machines``: those that it was about, with their names."""

    states: Mapping[TaskState, int]
    bytes: Mapping[str, int]
    machines: Mapping[MachineId, str]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """``last``: the newest run that ended. ``overdue``: its machines without a success within the job's objective."""

    job: Job
    running: bool = False
    last: JobRun | None = None
    sums: RunSums | None = None
    overdue: Mapping[MachineId, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the file system of a repository in a directory."""

    place: str
    size: int
    free: int


@dataclass(frozen=True, slots=True)
class Facts:
    """``tasks``: waiting and running ones. ``successes``: machine -> name, and when its newest backup ended. ``proxies``: with
    whether each gave a sign of life lately. ``closed``: keys under which nothing may begin now on one proxy at least."""

    jobs: tuple[JobFacts, ...] = ()
    tasks: Counter[TaskState] = field(default_factory=Counter)
    successes: Mapping[MachineId, tuple[str, datetime]] = field(default_factory=dict)
    proxies: tuple[tuple[ProxyFacts, bool], ...] = ()
    spaces: tuple[Space, ...] = ()
    closed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Gatherer:
    """``places``: repositories in directories, by name. Used by one thread at a time."""

    def __init__(
        self,
        jobs: "Callable[[], JobStore]",
        places: Mapping[str, Path],
        now: Callable[[], datetime],
        closed: Callable[[], Collection[str]],
    ) -> None:
        self._jobs, self._places, self._now, self._closed = jobs, places, now, closed
        # An ended run does not change any more: its thousands of tasks are read once.
        self._sums = lru_cache(maxsize=_REMEMBERED)(self._read_sums)

    def facts(self) -> Facts:
        """Never raises because something is away."""
        missing: list[str] = []
        spaces = []
        for name, path in self._places.items():
            try:
                found = os.statvfs(path)
            except OSError:
                missing.append("repository")
                continue
            spaces.append(Space(name, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
        closed = tuple(sorted(self._closed()))
        try:
            return self._stored(tuple(spaces), closed, missing)
        except LanfreeError:
            return Facts(spaces=tuple(spaces), closed=closed, missing=(*missing, "jobs"))

    def _stored(self, spaces: tuple[Space, ...], closed: tuple[str, ...], missing: Iterable[str]) -> Facts:
        with self._jobs().transaction(write=False) as unit:
            under_way = unit.runs.under_way()
            tasks: Counter[TaskState] = Counter()
            for counts in unit.tasks.counts([run.id for run in under_way]).values():
                tasks.update(counts)
            successes = unit.tasks.last_success()
            running = {run.job for run in under_way}
            jobs = [self._job(unit, job, job.id in running, successes) for job in unit.jobs.list()]
            living = {proxy.name: proxy.closed for proxy in unit.proxies.living()}
            proxies = [(proxy, proxy.name in living) for proxy in unit.proxies.list()]
        everywhere = tuple(sorted({*closed, *(key for keys in living.values() for key in keys)}))
        return Facts(tuple(jobs), tasks, successes, tuple(proxies), spaces, everywhere, tuple(missing))

    def _job(
        self, unit: "Unit", job: Job, running: bool, successes: Mapping[MachineId, tuple[str, datetime]]
    ) -> JobFacts:
        # The newest may go on, and one that was skipped says nothing of machines.
        last = next((run for run in unit.runs.list(job=job.id, limit=3) if run.ended_at is not None), None)
        if last is None:
            return JobFacts(job, running)
        sums = self._sums(last.id)
        since = self._now() - timedelta(hours=job.policy.objective)
        overdue = {
            machine: name
            for machine, name in sums.machines.items()
            if machine not in successes or successes[machine][1] < since
        }
        return JobFacts(job, running, last, sums, overdue)

    def _read_sums(self, run: str) -> RunSums:
        states: Counter[TaskState] = Counter()
        sums = dict.fromkeys(BYTES, 0)
        machines: dict[MachineId, str] = {}
        with self._jobs().transaction(write=False) as unit:
            for machine, name, state, measures in unit.tasks.outcomes(run):
                states[state] += 1
                machines[machine] = name
                for kind, measure in BYTES.items():
                    sums[kind] += int(number(measures, measure) or 0)
        return RunSums(states, sums, machines)
