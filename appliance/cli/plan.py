"""``lanfree plan``: the hours to come as a table and a timeline, what has no place in them, and what would help."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated

import typer

from appliance.cli.app import CONTEXT, app
from appliance.cli.output import ATTENTION, table, zoned
from appliance.jobs import timeline
from appliance.jobs.advice import Effect, Proposal, advise, effect, host_peaks
from appliance.jobs.estimating import RATE, Basis
from appliance.jobs.planner import Entry, Item, Plan, Unfit
from appliance.night import Preview, preview
from proxy.model import ReasonCode, VirtualMachine
from proxy.units import format_size

COLUMNS = 48
"""Of the timeline: half an hour each in a day."""

ROWS = 40
"""Lines of the table for people, unless they want all; ``--json`` has all of them."""

_WORDS = {
    ReasonCode.FIRST_BACKUP: ("first", "first backup"),
    ReasonCode.ACTIVE_FULL_DUE: ("due", "its active full is due"),
    ReasonCode.FULL_REQUESTED: ("asked", "a full was asked for"),
}

_MARKS = {Basis.MEASURED: "", Basis.HOST: "~", Basis.ASSUMED: "?"}

_LEGEND = {
    Basis.HOST: "~ not measured itself: by its size, at the pace of the other machines of its host",
    Basis.ASSUMED: f"? nothing is measured there yet: {format_size(int(RATE))}/s assumed",
}


@app.command("plan")
def plan_command(
    hours: Annotated[float, typer.Option(min=0.25, max=24 * 14, help="How far to look.")] = 24.0,
    job: Annotated[str | None, typer.Option(help="Show only this job; the others are planned all the same.")] = None,
    advice: Annotated[
        bool, typer.Option("--advise", help="Propose changes that would help, with their effect.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every machine in the table.")] = False,
    why: Annotated[
        bool, typer.Option("--why", help="For each machine: what its time is based on, for what it waits.")
    ] = False,
) -> None:
    """The coming night: which machine's backup begins when, as measured durations and limits allow. Nothing is begun."""
    with CONTEXT.services() as services:
        if job is not None:
            with services.jobs.transaction(write=False) as unit:
                job = unit.jobs.get(job).name
        seen = preview(services, hours, services.clock.now())
    shown = _only(seen.plan, job)
    proposals = advise(seen.night, seen.plan) if advice else None
    CONTEXT.output.result(
        _document(seen, shown, job, proposals), *_pages(seen, shown, job, proposals, every=every, reasons=why)
    )
    for place, silence in seen.silent.items():
        CONTEXT.output.warn(f"{place} does not answer, its machines are not in the plan: {silence}")
    if shown.unfit:
        CONTEXT.output.warn(f"{_machines(len(shown.unfit))} would not be backed up in time")
    if shown.unfit or seen.silent:
        raise typer.Exit(ATTENTION)


def _only(made: Plan, job: str | None) -> Plan:
    if job is None:
        return made
    return Plan(tuple(e for e in made.entries if e.item.job == job), tuple(u for u in made.unfit if u.item.job == job))


def _pages(
    seen: Preview, shown: Plan, job: str | None, proposals: Sequence[Proposal] | None, *, every: bool, reasons: bool
) -> Iterator[object]:
    yield _runs(seen, job)
    if shown.entries:
        entries = shown.entries if every else shown.entries[:ROWS]
        yield ""
        columns = [zoned("WHEN"), "MACHINE", "JOB", "HOST", "READS", "TAKES", *(["WHY"] if reasons else [])]
        yield table(*columns, rows=[_row(entry, reasons=reasons) for entry in entries])
        if len(entries) < len(shown.entries):
            yield f"... and {len(shown.entries) - len(entries)} more (--all)"
        bases = {entry.item.estimate.basis for entry in entries}
        yield from (words for basis, words in _LEGEND.items() if basis in bases)
        yield ""
        yield _timeline(seen, shown)
    if shown.unfit:
        yield ""
        unfit = [(u.item.name, u.item.job, _takes(u.item), u.reason.detail) for u in shown.unfit]
        yield table("NO PLACE FOR", "JOB", "TAKES", "WHY", rows=unfit if every else unfit[:ROWS])
    yield from _not_in_it(seen)
    if proposals is not None:
        yield ""
        yield from _advice(proposals, effect(seen.plan))


def _runs(seen: Preview, job: str | None) -> object:
    runs = [run for run in seen.runs if job in (None, run.job)]
    if not runs:
        until = _clock(seen.until, seen.now)
        return (
            f"no job begins before {until}; 'lanfree job add' makes one" if not seen.runs else f"nothing before {until}"
        )
    rows = [
        (
            run.job,
            "under way" if run.under_way else _clock(run.begin, seen.now),
            _clock(run.end, seen.now) if run.end else "none",
            run.machines,
        )
        for run in runs
    ]
    return table("JOB", zoned("BEGINS"), "WINDOW ENDS", "MACHINES", rows=rows)


def _row(entry: Entry, *, reasons: bool) -> tuple[object, ...]:
    item = entry.item
    because = [_WORDS[reason.code][0] for reason in item.why if reason.code in _WORDS]
    return (
        f"{entry.begin.astimezone():%a %H:%M}-{_minute_after(entry.end).astimezone():%H:%M}",
        item.name,
        item.job,
        item.host,
        "changes" if not item.full else f"all: {because[0]}" if because else "all",
        _takes(item),
        *((_why(entry),) if reasons else ()),
    )


def _minute_after(moment: datetime) -> datetime:
    """By then it has ended: what takes less than a minute does not end as it begins."""
    return moment if not (moment.second or moment.microsecond) else moment + timedelta(minutes=1)


def _takes(item: Item) -> str:
    return _span(item.estimate.seconds) + _MARKS[item.estimate.basis]


def _why(entry: Entry) -> str:
    """What it is, what its length is based on, for what it waits."""
    words = [_WORDS[reason.code][1] for reason in entry.item.why if reason.code in _WORDS]
    words.append(entry.item.estimate.detail)
    if entry.waited_for:
        words.append(f"waits {_span(entry.waited)} for {entry.waited_for}")
    return "; ".join(words)


def _timeline(seen: Preview, shown: Plan) -> object:
    """One line a host: how many of its machines are backed up at once, against the most of any time."""
    end = timeline.end_of(shown, seen.now)
    step = (end - seen.now) / COLUMNS
    peaks = host_peaks(shown)
    blocks = CONTEXT.output.console.encoding.lower().startswith("utf")
    rows = [
        (host, _line(timeline.busy(entries, seen.now, step, COLUMNS), peaks[host], blocks=blocks), peaks[host])
        for host, entries in timeline.by_host(shown).items()
    ]
    marks = f"{_clock(seen.now, seen.now)}{_clock(end, seen.now):>{COLUMNS - 5}}"
    return table("HOST", marks, "AT ONCE", rows=rows)


def _line(columns: Sequence[float], most: int, *, blocks: bool) -> str:
    """What is shorter than a column is seen, too."""
    if not blocks:
        return "".join("." if n == 0 else str(min(ceil(n), 9)) for n in columns)
    return "".join("·" if n == 0 else "▂▄▆█"[min(ceil(4 * n / most), 4) - 1] for n in columns)


def _not_in_it(seen: Preview) -> Iterator[object]:
    for words, machines in (
        ("in no job", seen.in_no_job),
        ("only in jobs that never begin by themselves", seen.unscheduled),
    ):
        if machines:
            yield ""
            yield f"{words}: {_names(machines)}"
    for note in seen.notes:
        yield f"note: {note}"


def _advice(proposals: Sequence[Proposal], before: Effect) -> Iterator[object]:
    yield f"as it is: {_effect(before)}"
    if not proposals:
        yield "no change of a begin, a machine's job or a limit would help"
    for proposal in proposals:
        yield f"{proposal.what}: {_effect(proposal.after)}"


def _effect(one: Effect) -> str:
    end = f"done {one.end.astimezone():%a %H:%M}" if one.end else "nothing planned"
    busiest = f", at most {one.peak} at once on {one.host}" if one.peak else ""
    return f"{one.unfit} without a place, {end}{busiest}"


def _document(
    seen: Preview, shown: Plan, job: str | None, proposals: Sequence[Proposal] | None
) -> Mapping[str, object]:
    found: dict[str, object] = {
        "from": seen.now,
        "until": seen.until,
        "runs": [run for run in seen.runs if job in (None, run.job)],
        "entries": [_planned(entry) for entry in shown.entries],
        "unfit": [_unfit(unfit) for unfit in shown.unfit],
        "effect": effect(seen.plan),
        "hosts": [{"host": host, "at_once": peak} for host, peak in sorted(host_peaks(seen.plan).items())],
        "in_no_job": [_machine(machine) for machine in seen.in_no_job],
        "unscheduled": [_machine(machine) for machine in seen.unscheduled],
        "unreachable": seen.silent,
        "notes": seen.notes,
    }
    return found if proposals is None else {**found, "advice": proposals}


def _planned(entry: Entry) -> Mapping[str, object]:
    item = entry.item
    return {
        "begin": entry.begin,
        "end": entry.end,
        "machine": item.machine,
        "name": item.name,
        "job": item.job,
        "host": item.host,
        "keys": item.keys,
        "full": item.full,
        "expected_seconds": item.estimate.seconds,
        "basis": item.estimate.basis,
        "based_on": item.estimate.detail,
        "reasons": item.why,
        "waited_for": entry.waited_for,
        "waited_seconds": entry.waited,
    }


def _unfit(unfit: Unfit) -> Mapping[str, object]:
    item, reason = unfit.item, unfit.reason
    return {
        "machine": item.machine,
        "name": item.name,
        "job": item.job,
        "host": item.host,
        "expected_seconds": item.estimate.seconds,
        "reason": reason,
        "waited_for": unfit.waited_for,
    }


def _machine(machine: VirtualMachine) -> Mapping[str, object]:
    return {"machine": machine.id, "name": machine.name, "host": machine.host}


def _names(machines: Sequence[VirtualMachine]) -> str:
    names = ", ".join(machine.name for machine in machines[:12])
    return names if len(machines) <= 12 else f"{names} and {len(machines) - 12} more"


def _machines(number: int) -> str:
    return "1 machine" if number == 1 else f"{number} machines"


def _clock(moment: datetime, now: datetime) -> str:
    local, today = moment.astimezone(), now.astimezone()
    return f"{local:%H:%M}" if local.date() == today.date() else f"{local:%a %H:%M}"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{max(round(seconds), 0)} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
