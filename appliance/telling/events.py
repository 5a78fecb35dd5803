"""What happened, ready to be told: a title and lines for people, facts for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from appliance.telling.attention import Attention
from appliance.telling.kinds import EventKind
from appliance.telling.report import Item, JobRunReport
from appliance.telling.text import NAME, counted, duration, names, one_line
from catalog.jobs.values import JobRun, JobRunState, TaskState
from proxy.units import format_rate, format_size

# Lines and machines in a message: it is read on a telephone. The report has all of them.
LINES = 20

# Failed machines in the facts of a webhook: enough to open tickets from, and a document of some tens of KiB.
FAILED_NAMED = 100


@dataclass(frozen=True, slots=True)
class Event:
    """``about``: what it concerns, for people's filters and so that the same trouble is not told every minute. ``over``:
    the trouble ended; told only to whom the trouble was told. ``facts``: what JSON can hold. ``report``: name of the
    HTML file among the reports."""

    kind: EventKind
    about: str
    at: datetime
    title: str
    lines: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    job: str = ""
    run: str = ""
    over: bool = False
    report: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


_OF_STATE = {
    JobRunState.DONE: EventKind.DONE,
    JobRunState.ATTENTION: EventKind.ATTENTION,
    JobRunState.FAILED: EventKind.FAILED,
    JobRunState.STOPPED: EventKind.STOPPED,
    JobRunState.SKIPPED: EventKind.SKIPPED,
}

_WORDS = {
    EventKind.DONE: "done",
    EventKind.ATTENTION: "done, needs attention",
    EventKind.FAILED: "failed",
    EventKind.STOPPED: "stopped before its end",
    EventKind.SKIPPED: "did not run",
}


def run_ended(report: JobRunReport, file: str = "") -> Event:
    """One message for a whole run, however many machines it has. ``file``: name of its HTML report."""
    run = report.run
    kind = _OF_STATE.get(run.state, EventKind.ATTENTION)
    name = one_line(run.job_name, NAME)
    return Event(
        kind=kind,
        about=f"job {name}",
        at=run.ended_at or run.started_at,
        title=f"Lanfree: job {name} {_said(run, kind)}{_headline(report)}",
        lines=tuple(_lines(report)),
        facts=_facts(report),
        job=run.job_name,
        run=run.id,
        report=file,
    )


def _said(run: JobRun, kind: EventKind) -> str:
    """Who asks for a report may ask before the end."""
    if run.ended_at is not None:
        return _WORDS[kind]
    return "is being stopped" if run.stop_at is not None else "is running so far"


def _headline(report: JobRunReport) -> str:
    counts, all_ = report.counts, len(report.machines)
    if report.run.state is JobRunState.SKIPPED or not all_:
        return ""
    missing = counts[TaskState.FAILED] + counts[TaskState.STOPPED]
    if missing:
        return f": {missing} of {counted(all_, 'machine')} without a new restore point"
    return f": {counted(all_, 'machine')}"


def _lines(report: JobRunReport) -> list[str]:
    run, sums = report.run, report.figures
    lines = [f"{counts} {state}" for state in TaskState if (counts := report.counts[state])]
    head = [f"Machines: {', '.join(lines) or 'none'}"]
    if sums.bytes_read:
        rate = format_rate(sums.bytes_read, report.seconds or 0.0)
        head.append(
            f"Read {format_size(sums.bytes_read)} in {duration(report.seconds)} ({rate}), "
            f"stored {format_size(sums.bytes_stored)}; {format_size(sums.over_host)} went through the hosts"
        )
    head.append(f"Began {run.started_at:%Y-%m-%d %H:%M} UTC, {run.cause}; run {run.id}")
    found = [f"- {entry.line()}" for entry in report.attention]
    if len(found) > LINES:
        found = [*found[:LINES], f"- and {len(found) - LINES} more: see 'lanfree job report {run.id}'"]
    return [*head, *(["", "Needs attention:", *found] if found else [])]


def _facts(report: JobRunReport) -> Mapping[str, object]:
    run, sums, counts = report.run, report.figures, report.counts
    failed = [item for item in report.machines if item.task.state is TaskState.FAILED]
    attention = report.attention
    return {
        "job": run.job_name,
        "job_id": run.job,
        "run": run.id,
        "state": run.state.value,
        "cause": run.cause.value,
        "scheduled_for": run.scheduled_for.isoformat(),
        "started_at": run.started_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        "machines": {"selected": run.selected, **{state.value: counts[state] for state in TaskState}},
        "bytes": {
            "read": sums.bytes_read,
            "new": sums.bytes_new,
            "stored": sums.bytes_stored,
            "over_host": sums.over_host,
        },
        "attention": [_attention(entry) for entry in attention[:LINES]],
        "attention_count": len(attention),
        "failed": [_failed(item) for item in failed[:FAILED_NAMED]],
        "failed_count": len(failed),
        "reasons": [{"code": reason.code.value, "detail": reason.detail} for reason in run.reasons],
    }


def _attention(entry: Attention) -> dict[str, object]:
    return {
        "gravity": entry.gravity.name.lower(),
        "what": one_line(entry.what),
        "machines": list(entry.machines[:FAILED_NAMED]),
        "count": len(entry.machines),
        "detail": one_line(entry.detail),
    }


def _failed(item: Item) -> dict[str, object]:
    task = item.task
    return {
        "machine": task.machine,
        "name": task.machine_name,
        "host": task.host,
        "error": task.error,
        "message": one_line(task.message),
        "attempts": task.attempt,
    }


def proxy_gone(proxy: str, machine: str, at: datetime, taken_over: Sequence[str] = ()) -> Event:
    """``machine``: where it ran; ``taken_over``: names of the machines whose backups others go on with."""
    going_on = f"Others go on with {names(taken_over)}." if taken_over else "It had nothing under way."
    return Event(
        EventKind.PROXY_GONE,
        about=f"proxy {one_line(proxy, NAME)}",
        at=at,
        title=f"Lanfree: proxy on {one_line(machine, NAME)} gives no sign of life",
        lines=(f"Its name was {one_line(proxy, NAME)}.", going_on, "'lanfree proxies' shows who is there."),
        facts={"proxy": proxy, "machine": machine, "taken_over": list(taken_over[:FAILED_NAMED])},
    )


def repository_trouble(place: str, message: str, at: datetime, hint: str = "") -> Event:
    """Full, away, damaged: no run can go on there."""
    shown = one_line(place, NAME)
    return Event(
        EventKind.REPOSITORY,
        about=f"repository {shown}",
        at=at,
        title=f"Lanfree: trouble with repository {shown}",
        lines=(one_line(message), *((f"To do: {one_line(hint)}",) if hint else ())),
        facts={"repository": place, "message": message, "over": False},
    )


def repository_well(place: str, at: datetime) -> Event:
    """What ``repository_trouble`` told is over."""
    shown = one_line(place, NAME)
    return Event(
        EventKind.REPOSITORY,
        about=f"repository {shown}",
        at=at,
        title=f"Lanfree: repository {shown} works again",
        lines=("Runs go on.",),
        facts={"repository": place, "over": True},
        over=True,
    )


def coverage_lost(job: str, machines: Sequence[str], at: datetime, hours: float) -> Event:
    """Machines of a job that had their restore points in time, and have not any more. ``hours``: the objective."""
    name = one_line(job, NAME)
    return Event(
        EventKind.COVERAGE,
        about=f"job {name}",
        at=at,
        title=f"Lanfree: {counted(len(machines), 'machine')} of job {name} not protected any more",
        lines=(
            f"No restore point within {hours:g} hours: {names(machines, LINES)}.",
            "'lanfree coverage' shows all of it.",
        ),
        facts={"job": job, "machines": list(machines[:FAILED_NAMED]), "count": len(machines), "hours": hours},
        job=job,
    )


def trial(at: datetime) -> Event:
    """Asked for by a person."""
    return Event(
        EventKind.TEST,
        about="test",
        at=at,
        title="Lanfree: this is a test",
        lines=("If you can read this, Lanfree can tell you what needs attention.",),
    )
