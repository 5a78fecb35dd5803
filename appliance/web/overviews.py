"""``api.ports.insight.Overviews``: the dashboard, out of the job store and the catalog. No hypervisor and no repository is
asked."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from heapq import nlargest

from api.auth.roles import Caller
from api.schemas.overview import (
    AttentionLine,
    DayFigures,
    MachineBar,
    NextRun,
    Night,
    Overview,
    ProtectionCount,
    RunBar,
    RunningNow,
    SuccessRate,
    WaitingFor,
    WaitingNow,
)
from appliance import overview
from appliance.overview import Overview as Seen
from appliance.web.speeds import Speeds
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.glance import Doing, Glance
from catalog.jobs.past import Day, Ended
from catalog.jobs.values import JobRun, TaskState
from catalog.machine_list import MachineQuery
from proxy.errors import LanfreeError
from proxy.model import MachineId

BARS = 400
"""Machines on the time line: more lines than a screen has pixels show nothing."""

RUNS = 200
"""Job runs on the time line, the newest."""

DAY = timedelta(days=1)

CHANGED = timedelta(minutes=10)
"""For so long the figures of days that are over are kept: they only change by what the history forgets."""

RATES = (1, 7, 30)
"""Days for which a success rate is told."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at: datetime
    days: Sequence[Day]


class Overviews:
    """See ``api.ports.insight.Overviews``."""

    def __init__(self, services: Services, speeds: Speeds) -> None:
        self._services = services
        self._speeds = speeds
        self._lock = threading.Lock()
        self._kept: dict[tuple[tuple[str, ...], int], _Kept] = {}

    def overview(self, caller: Caller, *, hours: float, days: int) -> Overview:
        """Of what the caller reaches."""
        settings = self._services.settings
        glance = _within(caller, overview.read(settings).glance)
        seen = overview.of(glance, settings.proxy.takeover)
        alive = [overview.alive(proxy, settings.proxy.takeover) for proxy in glance.proxies]
        figures = self._days(caller, glance.at, max(days, *RATES))
        protection = self._protection(caller, glance.at)
        return Overview(
            at=glance.at,
            attention=[*_attention(seen.attention), *self._unreadable(), *_unprotected(protection or ())],
            protection=protection,
            running=self._running(seen),
            waiting=_waiting(glance),
            next=[NextRun(job=each.job, zone=each.zone, at=each.at, opens=each.opens) for each in seen.coming],
            jobs=len(glance.jobs),
            proxies_alive=sum(alive),
            proxies_silent=len(alive) - sum(alive),
            night=self._night(caller, glance.at - timedelta(hours=hours), glance.at),
            days=_by_day(figures, glance.at.date(), days),
            success=[_rate(figures, glance.at.date(), number) for number in RATES],
        )

    def _unreadable(self) -> list[AttentionLine]:
        bad: dict[str, LanfreeError] = {}
        with self._services.jobs.transaction(write=False) as unit:
            unit.jobs.list(bad)
        return [AttentionLine(text=error.message, link=f"jobs/{name}") for name, error in bad.items()]

    def _protection(self, caller: Caller, now: datetime) -> list[ProtectionCount] | None:
        try:
            with self._services.catalog.transaction(write=False) as unit:
                if not unit.inventory.hypervisors():
                    return None
                counts = unit.machines.counts(MachineQuery(machines=caller.machines), now)
        except LanfreeError:
            return None  # the catalog is away: all else is worth showing
        return [ProtectionCount(status=status, machines=number) for status, number in counts.items()]

    def _running(self, seen: Seen) -> list[RunningNow]:
        people = {proxy.name: proxy.machine for proxy in seen.glance.proxies}
        speeds = self._speeds.seen({(one.id, one.attempt): one.done for one in seen.glance.doing})
        return [
            RunningNow(
                task=one.id,
                run=one.run,
                job=seen.job_of(one),
                kind=one.kind,
                name=one.machine or f"({one.kind})",
                host=one.host,
                proxy=people.get(one.proxy, one.proxy),
                since=one.since,
                attempt=one.attempt,
                full=one.full,
                done_bytes=one.done,
                total_bytes=one.total,
                share=one.share,
                bytes_per_second=speeds.get((one.id, one.attempt)),
            )
            for one in seen.glance.doing
        ]

    def _night(self, caller: Caller, begin: datetime, end: datetime) -> Night:
        with self._services.jobs.transaction(write=False) as unit:
            runs = unit.past.took_place(begin, end, RUNS)
            counts = unit.tasks.counts([run.id for run in runs])
            all_ = unit.past.ended(begin, end)
        bars = [one for one in all_ if caller.sees(one.machine, one.name)]
        drawn = bars if len(bars) <= BARS else sorted(nlargest(BARS, bars, key=lambda b: _weight(b, end)), key=_place)
        jobs = {run.id: run.job_name for run in runs}
        own: dict[str, dict[TaskState, int]] = {}
        if not caller.sees_all:
            for bar in bars:
                own.setdefault(bar.run, {}).setdefault(bar.state, 0)
                own[bar.run][bar.state] += 1
        return Night(
            begin=begin,
            end=end,
            runs=[_run_bar(run, counts.get(run.id, {}) if caller.sees_all else own.get(run.id, {})) for run in runs],
            machines=[_machine_bar(one, jobs.get(one.run, "")) for one in drawn],
            machines_left_out=len(bars) - len(drawn),
        )

    def _days(self, caller: Caller, now: datetime, days: int) -> Sequence[Day]:
        """Days that are over are read once in a while, today is read each time."""
        today = datetime(now.year, now.month, now.day, tzinfo=UTC)
        begin, key = today - DAY * (days - 1), (caller.machines, days)
        with self._lock:
            kept = self._kept.get(key)
        with self._services.jobs.transaction(write=False) as unit:
            machines: list[MachineId] | None = None
            if not caller.sees_all:
                known = unit.past.machines(begin)
                machines = [machine for machine, name in known.items() if caller.sees(machine, name)]
            if kept is None or not timedelta(0) <= now - kept.at < CHANGED or kept.at < today:
                kept = _Kept(now, unit.past.days(begin, today, machines))
                with self._lock:
                    if len(self._kept) > _KEPT:
                        self._kept.clear()
                    self._kept[key] = kept
            return [*kept.days, *unit.past.days(today, now + DAY, machines)]


_KEPT = 50
"""Figures by reach and number of days: as many as there are kinds of callers."""


def _within(caller: Caller, glance: Glance) -> Glance:
    """Without the work on machines that the caller does not reach; what says why runs are as they are names machines, too."""
    if caller.sees_all:
        return glance

    def seen(one: Doing) -> bool:
        return caller.sees(one.machine, one.machine)

    jobs = tuple(
        replace(job, last=None if job.last is None else replace(job.last, reasons=(), notes=())) for job in glance.jobs
    )
    alone = tuple(limits.key(kind, "") for kind in limits.ALONE)  # machines, and files that are called as machines are
    held_up = {key: number for key, number in glance.waiting.held_up.items() if not key.startswith(alone)}
    waiting = replace(glance.waiting, held_up=held_up)
    return replace(glance, doing=tuple(one for one in glance.doing if seen(one)), jobs=jobs, waiting=waiting)


_COMMAND = "; 'lanfree "
"""Begins what somebody at a shell should type to see more: here is the link."""


_UNPROTECTED = {"failed": "their last backup failed", "never": "never backed up", "overdue": "overdue"}
"""Protection that somebody has to see to, gravest first, in words."""


def _unprotected(counts: Sequence[ProtectionCount]) -> list[AttentionLine]:
    known = {count.status: count.machines for count in counts}
    return [
        AttentionLine(
            text=f"{known[status]} machine{'s' if known[status] > 1 else ''}: {words}",
            link=f"machines?protection={status}",
        )
        for status, words in _UNPROTECTED.items()
        if known.get(status)
    ]


def _attention(lines: Sequence[str]) -> list[AttentionLine]:
    return [AttentionLine(text=line.partition(_COMMAND)[0], link=_link(line)) for line in lines]


def _link(line: str) -> str:
    """What a line is about: they begin with it."""
    word, _, rest = line.partition(" ")
    if word == "job":
        return f"jobs/{rest.partition(':')[0]}"
    return "proxies" if word in {"proxy", "no"} else "tasks"


def _waiting(glance: Glance) -> WaitingNow:
    waiting = glance.waiting
    names = {job.now.id: job.name for job in glance.jobs if job.now is not None}
    held = [(key, number) for key, number in waiting.held_up.items()]
    held += [(f"job:{names.get(run, run)}", number) for run, number in waiting.jobs.items()]
    held.sort(key=lambda pair: (-pair[1], pair[0]))
    return WaitingNow(
        total=waiting.total,
        held_up=[WaitingFor(key=key, tasks=number) for key, number in held],
        again=waiting.again,
        next=waiting.next,
        free=waiting.free,
    )


def _weight(bar: Ended, now: datetime) -> tuple[bool, float]:
    """What failed is drawn before what took long."""
    return bar.state is not TaskState.DONE, ((bar.end or now) - bar.begin).total_seconds()


def _place(bar: Ended) -> tuple[datetime, str]:
    return bar.begin, bar.task


def _run_bar(run: JobRun, counts: Mapping[TaskState, int]) -> RunBar:
    return RunBar(
        run=run.id,
        job=run.job_name,
        state=run.state.value,
        cause=run.cause.value,
        begin=run.started_at,
        end=run.ended_at,
        machines=sum(counts.values()),
        failed=counts.get(TaskState.FAILED, 0),
    )


def _machine_bar(one: Ended, job: str) -> MachineBar:
    return MachineBar(
        task=one.task,
        run=one.run,
        job=job,
        machine=one.machine,
        name=one.name,
        host=one.host,
        state=one.state.value,
        begin=one.begin,
        end=one.end,
        bytes_read=one.bytes_read,
        error=one.error,
    )


def _by_day(figures: Sequence[Day], today: date, days: int) -> list[DayFigures]:
    """Without gaps, oldest first."""
    found: dict[date, list[Day]] = {}
    for one in figures:
        found.setdefault(one.day, []).append(one)
    wanted = (today - DAY * back for back in range(days - 1, -1, -1))
    return [_day(day, found.get(day, ())) for day in wanted]


def _day(day: date, parts: Sequence[Day]) -> DayFigures:
    number = {part.state: part.number for part in parts}
    read, new, stored = (
        sum(getattr(part, name) for part in parts) for name in ("bytes_read", "bytes_new", "bytes_stored")
    )
    return DayFigures(
        day=day,
        done=number.get(TaskState.DONE, 0),
        failed=number.get(TaskState.FAILED, 0),
        stopped=number.get(TaskState.STOPPED, 0),
        bytes_read=read,
        bytes_new=new,
        bytes_stored=stored,
        seconds=sum(part.seconds for part in parts),
        dedup=read / new if new else None,
        packed=new / stored if stored else None,
    )


def _rate(figures: Sequence[Day], today: date, days: int) -> SuccessRate:
    newest = [one for one in figures if one.day > today - DAY * days]
    ended = sum(one.number for one in newest)
    done = sum(one.number for one in newest if one.state is TaskState.DONE)
    return SuccessRate(days=days, done=done, ended=ended, share=done / ended if ended else None)
