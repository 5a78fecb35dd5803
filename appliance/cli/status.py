"""``lanfree status``: what runs, what waits and for what, what comes, and what needs a person."""

from collections.abc import Iterator
from datetime import datetime

import typer
from rich.console import RenderableType

from appliance import overview
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, soon, table, zoned
from appliance.overview import Overview, ago
from catalog.jobs.glance import Doing, JobSeen, ProxySeen, RunSeen
from catalog.jobs.values import TaskState

SHOWN_JOBS = 20
"""Rows about jobs. Sites with more ask 'lanfree job list'; those that need attention are named anyway."""

SHOWN_LIMITS = 5
"""Limits that tasks wait for, those with most tasks first."""


@app.command("status")
def status() -> None:
    """What goes on now. Exit code 7 when something needs attention."""
    settings = CONTEXT.settings()
    seen = overview.read(settings)
    takeover = settings.proxy.takeover
    document = {
        "at": seen.glance.at,
        "running": [{**_plain(seen, one), "share": one.share} for one in seen.glance.doing],
        "waiting": seen.glance.waiting,
        "jobs": seen.glance.jobs,
        "coming": seen.coming,
        "proxies": [{"alive": overview.alive(proxy, takeover), "proxy": proxy} for proxy in seen.glance.proxies],
        "attention": seen.attention,
    }
    CONTEXT.output.result(document, *_human(seen, takeover))
    for line in seen.attention:
        CONTEXT.output.warn(line)
    if seen.attention:
        raise typer.Exit(ATTENTION)


def _plain(seen: Overview, one: Doing) -> dict[str, object]:
    facts = (
        "id", "kind", "machine", "host", "proxy", "since", "attempt", "full", "done", "total", "asked_by", "phase"
    )  # fmt: skip
    return {"job": seen.job_of(one), "run": one.run, **{name: getattr(one, name) for name in facts}}


def _human(seen: Overview, takeover: float) -> Iterator[RenderableType]:
    glance = seen.glance
    people = {proxy.name: proxy.machine for proxy in glance.proxies}
    if glance.doing:
        running = [
            (
                one.machine or f"({one.kind})",
                seen.job_of(one) or (f"asked by {one.asked_by}" if one.asked_by else "by hand"),
                one.host,
                people.get(one.proxy, one.proxy),
                "-" if one.share is None else f"{100 * one.share:.0f} %",
                ago((glance.at - one.since).total_seconds()) if one.since else "-",
                ", ".join(filter(None, (_how(one.kind, one.attempt, full=one.full), one.phase))),
            )
            for one in glance.doing
        ]
        yield table("RUNNING", "JOB", "HOST", "PROXY", "DONE", "FOR", "", rows=running)
    else:
        yield "nothing runs"
    yield from _waiting(seen)
    if glance.jobs:
        coming = {each.job: each for each in seen.coming}
        ordered = sorted(
            glance.jobs, key=lambda job: (job.now is None, coming[job.name].at if job.name in coming else glance.at)
        )
        jobs = [
            (job.name, _now(job, glance.at), _last(job.last, glance.at), _next(job, coming.get(job.name), glance.at))
            for job in ordered[:SHOWN_JOBS]
        ]
        yield table("JOB", "NOW", zoned("LAST RUN"), zoned("NEXT"), rows=jobs)
        if len(ordered) > SHOWN_JOBS:
            yield f"and {len(ordered) - SHOWN_JOBS} more jobs: 'lanfree job list'"
    rows = [
        (
            proxy.machine,
            ago((glance.at - proxy.started_at).total_seconds()),
            _heard(proxy, takeover),
            _load(seen, proxy),
        )
        for proxy in glance.proxies
    ]
    yield table("PROXY", "UP", "HEARD OF", "TASKS", rows=rows) if rows else "no proxy serves"


def _how(kind: str, attempt: int, *, full: bool) -> str:
    said = ["reads everything"] if full else []
    said += [f"attempt {attempt}"] if attempt > 1 else []
    said += [kind] if kind != "backup" else []
    return ", ".join(said)


def _waiting(seen: Overview) -> Iterator[str]:
    waiting = seen.glance.waiting
    if not waiting.total:
        return
    names = {job.now.id: job.name for job in seen.glance.jobs if job.now is not None}
    closed = frozenset[str]().union(*(proxy.closed for proxy in seen.glance.proxies))
    most = sorted(waiting.held_up.items(), key=lambda one: -one[1])[:SHOWN_LIMITS]
    said = [f"{number} for {key}{' (closed for now)' if key in closed else ''}" for key, number in most]
    said += [f"{number} for job {names.get(run, run)} (its own limit)" for run, number in waiting.jobs.items()]
    said += (
        [f"{waiting.again} for another attempt, from {soon(waiting.next, seen.glance.at)}"]
        if waiting.next is not None
        else []
    )
    said += [f"{waiting.free} for a free slot"] if waiting.free else []
    yield f"{waiting.total} tasks wait: {'; '.join(said)}"


def _now(job: JobSeen, now: datetime) -> str:
    if job.now is None:
        return "-" if job.enabled else "disabled"
    tasks = job.now.tasks
    ended = sum(number for state, number in tasks.items() if state not in (TaskState.WAITING, TaskState.RUNNING))
    failed = tasks.get(TaskState.FAILED, 0)
    said = f"{ended} of {sum(tasks.values())}" if tasks else "begins"
    said += f", {failed} failed" if failed else ""
    said += ", is being stopped" if job.now.stop_at else ""
    return f"{said}, until {soon(job.now.deadline, now)}" if job.now.deadline else said


def _last(run: RunSeen | None, now: datetime) -> str:
    return "never" if run is None else f"{run.state.value} {soon(run.ended_at or run.started_at, now)}"


def _next(job: JobSeen, coming: overview.Coming | None, now: datetime) -> str:
    if coming is None:
        return "by hand" if job.enabled else "-"
    return soon(coming.at, now) + (f", begins {soon(coming.opens, now)}" if coming.opens else "")


def _heard(proxy: ProxySeen, takeover: float) -> str:
    said = f"{ago(proxy.silent_for)} ago"
    return said if overview.alive(proxy, takeover) else f"{said}: silent"


def _load(seen: Overview, proxy: ProxySeen) -> str:
    return f"{sum(one.proxy == proxy.name for one in seen.glance.doing)} of {proxy.slots}"
