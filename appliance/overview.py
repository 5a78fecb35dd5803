"""What goes on now and what needs a person, for ``lanfree status`` and whoever else asks often. No hypervisor, no repository
and no engine is touched: a few reads of the job store, and what follows from them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance import databases
from appliance.config import Settings
from appliance.jobs import schedule, window
from appliance.jobs.limiting import limited
from catalog.jobs.glance import Doing, Glance, JobSeen, ProxySeen, Reader, RunSeen
from catalog.jobs.policy import Policy
from catalog.jobs.values import JobRunState, TaskState
from proxy.errors import JobStoreFailed

LATE = timedelta(minutes=10)
"""A fire that nobody acted on for so long was missed: whoever serves looks every few seconds, and a restart takes a minute."""

BAD = frozenset({JobRunState.FAILED, JobRunState.ATTENTION})
"""Ends of a run that stay to be looked at until the next run ends better."""


CUT = frozenset({JobRunState.STOPPED, JobRunState.SKIPPED})
"""A window that closed too early, or a time that passed: machines went without their backup."""


@dataclass(frozen=True, slots=True)
class Coming:
    """``at``: the next fire of a job; ``opens``: when its window lets it begin, if that is later."""

    job: str
    zone: str
    at: datetime
    opens: datetime | None


@dataclass(frozen=True, slots=True)
class Overview:
    """``attention``: one line each, gravest first; empty when nobody has to do anything."""

    glance: Glance
    coming: tuple[Coming, ...]
    attention: tuple[str, ...]

    def job_of(self, doing: Doing) -> str:
        """Name of the job that a running task belongs to; empty for what a person started by hand."""
        runs = {job.now.id: job.name for job in self.glance.jobs if job.now is not None}
        return runs.get(doing.run, "")


def read(settings: Settings) -> Overview:
    """Raises ``DatabaseAway``, ``JobStoreFailed``."""
    url, password, limits = databases.catalog_url(settings), databases.password(settings), limited(settings.limits)
    reader = Reader(url, password)
    glance = reader.look(limits)
    if glance is None:
        from catalog.jobs.store import JobStore  # noqa: PLC0415  # the object mapper takes longer to load than all the rest

        settings.state.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        JobStore(url, password).close()  # makes the tables, or brings them up to date
        glance = reader.look(limits)
    if glance is None:
        raise JobStoreFailed(databases.catalog_url(settings), "its tables are not there")
    return of(glance, settings.proxy.takeover)


def of(glance: Glance, takeover: float) -> Overview:
    """Pure. ``takeover``: seconds of silence after which others take over from a proxy."""
    policies = {job.id: Policy.model_validate(job.policy) for job in glance.jobs}
    coming = (_coming(job, policies[job.id], glance.at) for job in glance.jobs if job.enabled)
    ordered = sorted(filter(None, coming), key=lambda each: (each.at, each.job))
    attention = (*_of_proxies(glance, takeover), *_of_jobs(glance, policies))
    return Overview(glance, tuple(ordered), attention)


def alive(proxy: ProxySeen, takeover: float) -> bool:
    """Whether it was heard of lately enough to be counted on."""
    return proxy.silent_for < takeover


def _coming(job: JobSeen, policy: Policy, now: datetime) -> Coming | None:
    at = schedule.next_fire(policy, now)
    if at is None:
        return None
    opens = window.next_open(policy, at)
    return Coming(job.name, policy.zone, at, None if opens in (None, at) else opens)


def _of_proxies(glance: Glance, takeover: float) -> Iterator[str]:
    living = [proxy for proxy in glance.proxies if alive(proxy, takeover)]
    scheduled = any(job.enabled and job.policy.get("schedule") for job in glance.jobs)
    if not living and (scheduled or glance.waiting.total or any(job.now for job in glance.jobs)):
        yield "no proxy serves: nothing begins until 'lanfree serve' runs"
    for proxy in glance.proxies:
        if not alive(proxy, takeover):
            yield f"proxy {proxy.machine} was last heard of {ago(proxy.silent_for)} ago"
    names = {proxy.name for proxy in living}
    lost = [one for one in glance.doing if one.proxy and one.proxy not in names]
    if lost:
        yield f"{_machines(lost)}: the proxy that works on it is not heard of; another one takes over"


def _of_jobs(glance: Glance, policies: dict[str, Policy]) -> Iterator[str]:
    for job in glance.jobs:
        if job.last is not None and job.last.state in BAD:
            yield f"job {job.name}: its last run {_ended(job.last)}; 'lanfree job tasks {job.last.id}' says what"
        elif job.last is not None and job.last.state in CUT and job.last.stop_at is None:  # who stopped it knows
            why = "; ".join(job.last.reasons)
            yield f"job {job.name}: its last run was {job.last.state.value}{f' ({why})' if why else ''}"
        if job.enabled and job.now is None and (since := _missed(job, policies[job.id], glance.at)) is not None:
            yield f"job {job.name}: nobody acted on its schedule of {since:%Y-%m-%d %H:%M} UTC"


def _missed(job: JobSeen, policy: Policy, now: datetime) -> datetime | None:
    """The fire that is overdue. One that waits for its window is not."""
    due = schedule.due(policy, job.seen, now)
    late = due is not None and now - due.scheduled_for > LATE
    return due.scheduled_for if due is not None and late else None


def _ended(run: RunSeen) -> str:
    failed = run.tasks.get(TaskState.FAILED, 0)
    total = sum(run.tasks.values())
    if failed:
        return f"{run.state.value}: {failed} of {total} tasks failed"
    said = "; ".join((*run.reasons, *run.notes))
    return f"needs attention{f': {said}' if said else ''}" if run.state is JobRunState.ATTENTION else f"failed: {said}"


def _machines(doing: Sequence[Doing]) -> str:
    named = ", ".join(one.machine or one.kind for one in doing[:3])
    return f"{named} and {len(doing) - 3} more" if len(doing) > 3 else named


def ago(seconds: float) -> str:
    """Two units are precise enough: ``42 s``, ``5 min``, ``3 h 10 min``, ``4 d 2 h``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{days} d {hours % 24} h"
