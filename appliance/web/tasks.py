"""Tasks for the API."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from api.auth.roles import Caller, Permission
from api.paging import Page, decode_moment, encode
from api.ports.tasks import TaskFilter
from api.refusals import NotAllowed, NotFound
from api.schemas.common import MachineRef, Reason
from api.schemas.tasks import Failure, Task, TaskProgress
from appliance.auditing import audit
from appliance.wiring import Services
from catalog.jobs import values
from catalog.jobs.claims import Occupied
from catalog.jobs.store import Unit
from catalog.jobs.tables import FIRST
from catalog.jobs.values import ENDED, TaskKind, TaskState
from proxy import model
from proxy.model import ReasonCode

_LOOKS = 20
"""Times that rows are fetched for one page, of which a caller with a narrow reach may see none. The page is short then, and the
next one goes on from there."""

_WORDS: Mapping[TaskKind, str] = {
    TaskKind.BACKUP: "Back up {}",
    TaskKind.RESTORE: "Restore {}",
    TaskKind.FILES: "Restore files of {}",
    TaskKind.VERIFY: "Verify restore points",
    TaskKind.PRUNE: "Delete what no rule keeps",
    TaskKind.COPY: "Copy restore points",
    TaskKind.PROTECT: "Protect the appliance itself",
    TaskKind.INDEX: "Record files",
    TaskKind.COLLECT: "Give back space",
    TaskKind.SWEEP: "Remove leftovers from hosts",
    TaskKind.INVENTORY: "Look at hypervisors",
    TaskKind.MEASURE: "Measure the repository",
    TaskKind.REPAIR: "Mend damage with a second repository",
    TaskKind.AUDIT: "Look for tampering",
    TaskKind.REBUILD: "Make the catalog again",
}


class WebTasks:
    """See ``api.ports.tasks.Tasks``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def page(self, caller: Caller, wanted: TaskFilter, limit: int, cursor: str | None) -> Page[Task]:
        """See the port."""
        before = decode_moment(cursor) if cursor else None
        if not all(name.isprintable() for name in (wanted.machine or "", wanted.job_run or "")):
            return Page[Task](items=[])
        found: list[values.Task] = []
        more = True
        with self._services.jobs.transaction(write=False) as unit:
            for _ in range(_LOOKS):
                some = _some(unit, caller, wanted, before, limit + 1)
                more = len(some) > limit
                found += [task for task in some[:limit] if within_reach(caller, task)]
                before = _key(some[limit - 1]) if more else before
                if not more or len(found) >= limit:
                    break
            if len(found) > limit:
                found, more = found[:limit], True
                before = _key(found[-1])
            short = [replace(task, result=_short(task.result)) for task in found]
            items = Shown.look(self._services, unit, short)
            return Page[Task](items=items, next=encode(before[0].isoformat(), before[1]) if more and before else None)

    def get(self, caller: Caller, task: str) -> Task:
        """See the port."""
        with self._services.jobs.transaction(write=False) as unit:
            return self.shown(unit, self._found(unit, caller, task))

    def stop(self, caller: Caller, task: str) -> Task:
        """See the port."""
        services = self._services
        with services.jobs.transaction(write=False) as unit:
            found = self._found(unit, caller, task)
        if not (caller.may(Permission.BACK_UP) or found.asked_by == caller.name):
            raise NotAllowed(caller.name, Permission.BACK_UP)
        audit(services, "stop-task", who=caller.who, about=found.machine or None, task=task, kind=found.kind.value)
        with services.jobs.transaction() as unit:
            why = model.Reason(ReasonCode.STOPPED_BY_PERSON, f"by {caller.name}")
            unit.tasks.stop_one(task, services.clock.now(), (why,))
            return self.shown(unit, unit.tasks.get(task) or found)

    def shown(self, unit: Unit, task: values.Task) -> Task:
        """One, as callers see it."""
        return Shown.look(self._services, unit, [task])[0]

    @staticmethod
    def _found(unit: Unit, caller: Caller, name: str) -> values.Task:
        task = unit.tasks.get(name) if name.isprintable() else None
        if task is None or not within_reach(caller, task):
            raise NotFound("task", name)
        return task


def within_reach(caller: Caller, task: values.Task) -> bool:
    """Whether a caller may see it. What is about the repository names machines, and is for who sees all of them."""
    if caller.sees_all or (task.asked_by and task.asked_by == caller.name):
        return True
    return bool(task.machine) and caller.sees(task.machine, task.machine_name)


def like_of(pattern: str) -> str:
    """A pattern of LIKE (escape: backslash) that fits whatever ``fnmatch`` says fits this one, and maybe more."""
    plain = re.sub(r"\[[^]]+\]", "?", pattern)
    escaped = re.sub(r"([\\%_])", r"\\\1", plain)
    return escaped.replace("*", "%").replace("?", "_")


def _some(
    unit: Unit, caller: Caller, wanted: TaskFilter, before: tuple[datetime, str] | None, limit: int
) -> Sequence[values.Task]:
    return unit.tasks.newest(
        before=before,
        states=wanted.states,
        kinds=wanted.kinds,
        machine=wanted.machine,
        job_run=wanted.job_run,
        asked=wanted.asked,
        since=wanted.since,
        like=None if caller.sees_all else [*caller.machines, *map(like_of, caller.machines)],
        limit=limit,
    )


def _key(task: values.Task) -> tuple[datetime, str]:
    return task.created_at or FIRST, task.id


@dataclass(frozen=True, slots=True)
class Shown:
    """What tasks are shown with. ``jobs``: names by job run; ``proxies``: what people call them."""

    now: datetime
    jobs: Mapping[str, str]
    proxies: Mapping[str, str]
    occupied: Occupied | None

    @classmethod
    def look(cls, services: Services, unit: Unit, tasks: Sequence[values.Task]) -> list[Task]:
        """All of them."""
        runs = {run: unit.runs.get(run) for run in sorted({task.job_run for task in tasks if task.job_run})}
        waits = any(task.state is TaskState.WAITING for task in tasks)
        known = unit.proxies.list() if waits or any(task.proxy for task in tasks) else ()
        closed = [proxy.closed for proxy in known]
        everywhere = frozenset.intersection(*closed) if closed else frozenset[str]()
        one = cls(
            now=services.clock.now(),
            jobs={id_: run.job_name for id_, run in runs.items() if run is not None},
            proxies={proxy.name: proxy.machine for proxy in known},
            occupied=Occupied(unit.session, services.limits, everywhere) if waits else None,
        )
        return [one.task(task) for task in tasks]

    def task(self, task: values.Task) -> Task:
        """One of them."""
        over = task.state in ENDED
        waits = self.occupied is not None and task.state is TaskState.WAITING
        return Task(
            id=task.id,
            kind=task.kind,
            state=task.state,
            title=_title(task),
            machine=MachineRef(id=task.machine, name=task.machine_name) if task.machine else None,
            job_run=task.job_run or None,
            job=self.jobs.get(task.job_run, ""),
            asked_by=task.asked_by,
            created_at=task.created_at or FIRST,
            started_at=task.claimed_at,
            ended_at=task.ended_at,
            not_before=task.not_before if not over else None,
            deadline=task.deadline,
            attempt=task.attempt,
            run=task.run,
            proxy=self.proxies.get(task.proxy, task.proxy),
            host=task.host,
            repository=task.target if task.kind in _OF_REPOSITORY else "",
            full=task.full,
            expected_seconds=task.expected_seconds,
            point=task.point,
            progress=self._progress(task),
            error=Failure(code=task.error, message=task.message) if task.error else None,
            reasons=tuple(self._reasons(task)),
            problems=tuple(task.problems),
            waits_for=tuple(self.occupied.full_keys(task.keys)) if waits and self.occupied else (),
            stopping=not over and task.stop_at is not None,
            stoppable=not over and task.stop_at is None and not task.by_hand,
            result=dict(task.result),
            measures=dict(task.measures),
        )

    def _progress(self, task: values.Task) -> TaskProgress:
        done, total = task.done_bytes, task.total_bytes
        share = min(1.0, done / total) if total else None
        if task.state is not TaskState.RUNNING or task.claimed_at is None:
            return TaskProgress(done=done, total=total, share=share, phase=task.phase)
        seconds = (self.now - task.claimed_at).total_seconds()
        rate = done / seconds if done and seconds >= 1 else None
        ends = self.now + timedelta(seconds=max(total - done, 0) / rate) if rate and total else None
        return TaskProgress(done=done, total=total, share=share, phase=task.phase, rate=rate, ends_at=ends)

    @staticmethod
    def _reasons(task: values.Task) -> Iterator[Reason]:
        made: Iterable[ReasonCode] = (ReasonCode.MADE_BY_JOB, ReasonCode.MADE_BY_JOB_ID)
        return (Reason.of(reason) for reason in task.reasons if reason.code not in made)


def _title(task: values.Task) -> str:
    if task.kind is TaskKind.PRUNE and task.parameters.get("dry_run"):
        return "Show what no rule keeps"
    return _WORDS[task.kind].format(task.machine_name or task.machine or "a machine")


def _short(result: Mapping[str, object]) -> Mapping[str, object]:
    """Without what is long: a list of tasks holds many of them."""
    return {name: value for name, value in result.items() if not isinstance(value, list | tuple)}


_OF_REPOSITORY = frozenset(
    {TaskKind.COPY, TaskKind.PRUNE, TaskKind.COLLECT, TaskKind.VERIFY, TaskKind.MEASURE, TaskKind.REPAIR}
)
