"""``api.ports.job_runs`` over the job store."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from api.auth.roles import Caller
from api.paging import Page, decode_moment, encode
from api.refusals import BeyondReach
from api.schemas.job_runs import (
    AttentionItem,
    JobRun,
    JobRunDetail,
    RunEvent,
    RunFigures,
    RunNews,
    RunTask,
    StopResult,
    TaskCounts,
)
from appliance.auditing import audit
from appliance.serving import by_command
from appliance.telling.attention import NOTEWORTHY
from appliance.telling.report import Item, JobRunReport, made, points_of, report_of
from appliance.telling.text import seconds_between
from appliance.web import job_words, run_words
from appliance.web.run_words import Around
from appliance.web.speeds import Speeds
from appliance.wiring import Services
from catalog.jobs.past import MOVED, Wanted, Work
from catalog.jobs.store import Unit
from catalog.jobs.values import JobRun as Stored
from catalog.jobs.values import JobRunState, Task, TaskState
from proxy.errors import JobRunNotFound

LATELY = timedelta(days=31)
"""Where a machine's backup before is looked for."""

REPORTS = 64
"""Summaries of runs that are kept: who looks at a run asks again each second, and its tasks may be ten thousand."""

COUNTED = 10_000
"""Runs whose counts of tasks are kept."""

FEW = 300
"""Tasks of a run up to which its summary asks the catalog what their restore points say."""

NOTABLE = 2000
"""Tasks that a summary tells of: who has more failures than that mends one cause."""

ALL = 1_000_000
"""More tasks than any run has."""

STALE = 5.0
"""Seconds for which the summary of a run that goes on is good enough; its progress is always new."""


@dataclass(frozen=True, slots=True)
class _Summary:
    at: float
    figures: RunFigures
    attention: list[AttentionItem]


class StoredRuns:
    """See ``api.ports.job_runs.JobRuns``."""

    def __init__(self, services: Services, speeds: Speeds) -> None:
        self._services = services
        self._speeds = speeds
        self._lock = threading.Lock()
        self._counts: dict[str, TaskCounts] = {}
        self._summaries: OrderedDict[tuple[str, object, tuple[str, ...]], _Summary] = OrderedDict()

    def page(
        self,
        caller: Caller,
        *,
        limit: int,
        cursor: str | None = None,
        sort: str = "-started_at",
        job: str | None = None,
        states: Collection[JobRunState] = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[JobRun]:
        """By begin and id."""
        after = None if cursor is None else decode_moment(cursor)
        with self._services.jobs.transaction(write=False) as unit:
            wanted = Wanted(unit.jobs.get(job).id if job else None, frozenset(states), since, until)
            runs = unit.past.runs(wanted, limit + 1, after, newest_first=sort != "started_at")
            shown, now = runs[:limit], self._services.clock.now()
            if caller.sees_all:
                tasks = self._counted(unit, shown)
            else:
                tasks = {run.id: _counts(_seen(caller, unit.past.work(run.id))) for run in shown}
        items = [job_words.run_shown(run, tasks[run.id], now, whole=caller.sees_all) for run in shown]
        more = len(runs) > limit
        return Page[JobRun](items=items, next=encode(_iso(shown[-1].started_at), shown[-1].id) if more else None)

    def get(self, caller: Caller, run: str) -> JobRunDetail:
        """One."""
        with self._services.jobs.transaction(write=False) as unit:
            return self._detail(caller, unit, _run(unit, run))

    def tasks(
        self, caller: Caller, run: str, *, limit: int, cursor: str | None = None, states: Collection[TaskState] = ()
    ) -> Page[RunTask]:
        """By planned begin and id. Of those beyond reach as many are passed over as there are."""
        after = None if cursor is None else decode_moment(cursor)
        found: list[tuple[datetime, Task]] = []
        with self._services.jobs.transaction(write=False) as unit:
            known = _run(unit, run)
            while len(found) <= limit:
                some = unit.past.tasks(known.id, limit + 1, states=states, after=after)
                found += [each for each in some if _sees(caller, each[1].machine, each[1].machine_name)]
                if len(some) <= limit:
                    break
                after = (some[-1][0], some[-1][1].id)
            around = self._around(unit, [task for _, task in found[:limit]])
        items = [run_words.task_shown(task, around) for _, task in found[:limit]]
        last = found[limit - 1] if len(found) > limit else None
        return Page[RunTask](items=items, next=None if last is None else encode(_iso(last[0]), last[1].id))

    def news(self, caller: Caller, run: str) -> RunNews:
        """What an event stream tells."""
        with self._services.jobs.transaction(write=False) as unit:
            known = _run(unit, run)
            detail = self._detail(caller, unit, known)
            going = unit.tasks.of_run(known.id, TaskState.RUNNING) if known.ended_at is None else ()
            running = [task for task in going if _sees(caller, task.machine, task.machine_name)]
            around = self._around(unit, running)
        return RunNews(run=detail, running=[run_words.task_shown(task, around) for task in running])

    def log(self, caller: Caller, run: str, *, limit: int) -> list[RunEvent]:
        """Out of what rows say: when tasks began and ended, what was decided, what went wrong."""
        with self._services.jobs.transaction(write=False) as unit:
            known = _run(unit, run)
            # Each has a line at its last moment: the newest lines are of as many tasks at most.
            tasks = unit.past.lately(known.id, limit if caller.sees_all else ALL)
        seen = [task for task in tasks if _sees(caller, task.machine, task.machine_name)]
        return run_words.events(known, seen, whole=caller.sees_all)[-limit:]

    def report(self, caller: Caller, run: str) -> str:
        """As it is sent to people."""
        from appliance.telling.html import rendered  # noqa: PLC0415  # the template engine loads when it is needed

        found = report_of(self._services.jobs, self._services.catalog, run)
        if not all(_sees(caller, item.task.machine, item.task.machine_name) for item in found.items):
            raise BeyondReach(caller.name, "see the report of a run with machines of others")
        return rendered(found, self._services.clock.now())

    def stop(self, caller: Caller, run: str) -> StopResult:
        """Recorded before."""
        with self._services.jobs.transaction(write=False) as unit:
            known = _run(unit, run)
            work = unit.past.work(known.id)
        if not caller.sees_all and (not work or len(_seen(caller, work)) < len(work)):
            raise BeyondReach(caller.name, "stop a run with machines of others")
        audit(self._services, "stop-job-run", who=caller.who, job=known.job_name, run=known.id)
        done = by_command.stop(self._services, known.id)
        return StopResult(id=known.id, state=done.run.state.value, stopped=done.stopped, served=done.served)

    def _detail(self, caller: Caller, unit: Unit, run: Stored) -> JobRunDetail:
        now, work = self._services.clock.now(), _seen(caller, unit.past.work(run.id))
        running = [one for one in work if one.state is TaskState.RUNNING]
        speeds = self._speeds.seen({(one.id, one.attempt): one.done_bytes for one in running})
        before = unit.past.bottlenecks([one.machine for one in running], now - LATELY) if running else {}
        summary = self._summary(caller, unit, run, work)
        facts = job_words.run_facts(run, _counts(work), now, whole=caller.sees_all)
        return JobRunDetail(
            **facts,
            policy=run.policy,
            progress=run_words.progress(work, speeds, now, _most(list(before.values()))),
            figures=summary.figures,
            attention=summary.attention,
        )

    def _summary(self, caller: Caller, unit: Unit, run: Stored, work: Sequence[Work]) -> _Summary:
        """What needs all of its tasks' rows."""
        key, now = (run.id, run.state, caller.machines), self._services.clock.now().timestamp()
        with self._lock:
            known = self._summaries.get(key)
        if known is not None and (run.ended_at is not None or 0 <= now - known.at < STALE):
            return known
        tasks = unit.past.notable(run.id, NOTEWORTHY, NOTABLE)
        seen = [task for task in tasks if _sees(caller, task.machine, task.machine_name)]
        items = self._items(run, work, seen, unit)
        made_of = run if caller.sees_all else job_words.without_notes(run)
        summary = _Summary(now, _figures(caller, run, unit), _attention(made(made_of, items)))
        with self._lock:
            self._summaries[key] = summary
            while len(self._summaries) > REPORTS:
                self._summaries.popitem(last=False)
        return summary

    def _items(self, run: Stored, work: Sequence[Work], notable: Sequence[Task], unit: Unit) -> list[Item]:
        """With what restore points say, of runs with few machines: the report of a run has it of all."""
        if len(work) > FEW or run.ended_at is None:
            return [Item(task) for task in notable]
        mine = {one.id for one in work}
        tasks = [task for task in unit.tasks.of_run(run.id) if task.id in mine]
        points = points_of(self._services.catalog, [task.point for task in tasks if task.point is not None])
        return [Item(task, points.get(task.point or "")) for task in tasks]

    def _counted(self, unit: Unit, runs: Sequence[Stored]) -> dict[str, TaskCounts]:
        """Those of ended runs never change: they are counted once."""
        with self._lock:
            known = {run.id: self._counts[run.id] for run in runs if run.id in self._counts}
        new = [run for run in runs if run.id not in known]
        counts = unit.tasks.counts([run.id for run in new]) if new else {}
        found = {run.id: job_words.counts(counts.get(run.id, {})) for run in new}
        with self._lock:
            if len(self._counts) > COUNTED:
                self._counts.clear()
            self._counts.update({run.id: found[run.id] for run in new if run.ended_at is not None})
        return {**known, **found}

    def _around(self, unit: Unit, tasks: Sequence[Task]) -> Around:
        now = self._services.clock.now()
        running = [task for task in tasks if task.state is TaskState.RUNNING]
        waits = any(task.state is TaskState.WAITING for task in tasks)
        return Around(
            now=now,
            people={proxy.name: proxy.machine for proxy in unit.proxies.list()},
            full=set(unit.tasks.waiting_for(now, self._services.limits)) if waits else set(),
            speeds=self._speeds.seen({(task.id, task.attempt): task.done_bytes for task in running}),
            before=unit.past.bottlenecks([task.machine for task in running], now - LATELY) if running else {},
        )


def _run(unit: Unit, run: str) -> Stored:
    found = unit.runs.get(run)
    if found is None:
        raise JobRunNotFound(run, [other.id for other in unit.runs.list(limit=5)])
    return found


def _sees(caller: Caller, machine: str, name: str) -> bool:
    """Work on the repository names machines of all, and is for who sees all of them."""
    return caller.sees_all or (bool(machine) and caller.sees(machine, name))


def _seen(caller: Caller, work: Sequence[Work]) -> Sequence[Work]:
    return work if caller.sees_all else [one for one in work if _sees(caller, one.machine, one.name)]


def _counts(work: Sequence[Work]) -> TaskCounts:
    return job_words.counted(one.state for one in work)


def _most(words: Sequence[str]) -> str | None:
    return max(sorted(set(words)), key=words.count, default=None)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _figures(caller: Caller, run: Stored, unit: Unit) -> RunFigures:
    machines = failed = 0
    sums = dict.fromkeys(MOVED, 0)
    for machine, name, state, counts in unit.past.moved(run.id):
        if _sees(caller, machine, name):
            machines, failed = machines + 1, failed + (state is TaskState.FAILED)
            for key, count in zip(MOVED, counts, strict=True):
                sums[key] += count
    seconds = seconds_between(run.started_at, run.ended_at)
    pace = sums["bytes_read"] / seconds if seconds else None
    return RunFigures(machines=machines, failed=failed, **sums, bytes_per_second=pace)


def _attention(report: JobRunReport) -> list[AttentionItem]:
    return [
        AttentionItem(gravity=one.gravity.name.lower(), what=one.what, machines=list(one.machines), detail=one.detail)
        for one in report.attention
    ]
