"""``lanfree job``: policies that back up by themselves. Made and changed here; ``job_files`` and ``job_runs`` hold the rest."""

import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Group, RenderableType

from appliance.cli.app import CONTEXT, app
from appliance.cli.job_options import Given, with_options
from appliance.cli.output import ATTENTION, local_zone, soon, table, when, zoned
from appliance.jobs import describing, editing, job_text, schedule
from appliance.jobs.describing import SHOWN_FIRES, gaps, in_zone, remarks, rules, timing
from catalog.jobs.policy import Policy
from catalog.jobs.values import Job, JobRun

job = typer.Typer(
    no_args_is_help=True, help="Policies that back up by themselves: which machines, when, how, how long kept."
)
app.add_typer(job, name="job")

Name = Annotated[str, typer.Argument(metavar="JOB", help="Its name.")]


@job.command("add")
@with_options
def add(
    name: Name,
    given: Given,
    disabled: Annotated[bool, typer.Option("--disabled", help="Its schedule begins nothing yet.")] = False,
) -> None:
    """Make a job. 'lanfree job preview' shows what it means; all that has no option here is set by 'job edit' or a file."""
    if "select.include" not in given:
        raise typer.BadParameter("choose machines with --select RULE, or say --all")
    job_text.check_name(name)
    policy = editing.changed(name, Policy(zone=local_zone()), given=given)
    with CONTEXT.services() as services:
        now = services.clock.now()
        with services.jobs.transaction() as unit:
            made = unit.jobs.add(name, policy, now)
            if disabled:
                made = unit.jobs.enable(name, False, now)
    tell(made, now, f"job {name} is made; 'lanfree job preview {name}' shows which machines it means")


@job.command("list")
def list_jobs() -> None:
    """All jobs: when they run next, how they ended last."""
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        now = services.clock.now()
        found = [(each, _last(unit.runs.list(each.id, 1))) for each in unit.jobs.list()]
    rows = [
        (
            each.name,
            rules(each.policy),
            timing(each.policy),
            next_text(each, now),
            "never" if run is None else f"{run.state.value} {soon(run.ended_at or run.started_at, now)}",
        )
        for each, run in found
    ]
    document = [{**plain_job(each, now), "last_run": run} for each, run in found]
    shown: RenderableType = table("JOB", "MACHINES", "WHEN", "NEXT", zoned("LAST RUN"), rows=rows)
    CONTEXT.output.result(document, shown if found else "there is no job yet; 'lanfree job add' makes one")


@job.command("show")
def show(
    name: Name,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Only its text, as 'job import' reads it.")] = False,
) -> None:
    """What a job is, and when it runs next."""
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        now = services.clock.now()
        found = unit.jobs.get(name)
        run = _last(unit.runs.list(found.id, 1))
    text = job_text.write({found.name: job_text.of(found)})
    if as_yaml:
        CONTEXT.output.result(plain_job(found, now), text.rstrip("\n"))
        return
    last = "never" if run is None else f"{run.id}: {run.state.value}, {when(run.ended_at or run.started_at)}"
    facts = [
        ("job", f"{found.name} (revision {found.revision}, changed {when(found.updated_at)})"),
        *(("next run", each) for each in next_text(found, now, SHOWN_FIRES).split(", ")),
        ("last run", last),
    ]
    body = textwrap.dedent("\n".join(text.splitlines()[2:])) or "all as by default"
    CONTEXT.output.result(
        {**plain_job(found, now), "last_run": run}, Group(*(f"{fact:<10} {said}" for fact, said in facts)), "", body
    )


@job.command("edit")
@with_options
def edit(
    name: Name,
    given: Given,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE as in YAML: 'retention.daily=7'; KEY+=VALUE for one more in a list."),
    ] = None,
    unset: Annotated[list[str] | None, typer.Option(help="This key as it is by default.")] = None,
    revision: Annotated[int | None, typer.Option(help="Only if it is still at this revision.")] = None,
    new_name: Annotated[str, typer.Option("--rename", help="Another name.")] = "",
) -> None:
    """Change a job: what an option says replaces what was there, all else stays. Runs under way go on as they began."""
    if not (given or assign or unset or new_name):
        raise typer.BadParameter(
            "say what to change: an option of 'job add', --set KEY=VALUE, --unset KEY, --rename NAME"
        )
    if new_name:
        job_text.check_name(new_name)
    with CONTEXT.services() as services:
        now = services.clock.now()
        with services.jobs.transaction() as unit:
            found = unit.jobs.get(name)
            policy = editing.changed(name, found.policy, assign or (), unset or (), given)
            known = found.revision if revision is None else revision
            done = unit.jobs.change(name, policy, known, now)
            if new_name:
                done = unit.jobs.rename(done.name, new_name, now)
    (change,) = editing.compare([found], {found.name: job_text.of(done)}, prune=False)
    tell(done, now, "\n".join(change.difference) or "nothing of it changed")


@job.command("remove")
def remove(name: Name) -> None:
    """Forget a job. Its restore points stay, and are kept by the rules that it had last; its runs stay in the history."""
    with CONTEXT.services() as services, services.jobs.transaction() as unit:
        gone = unit.jobs.remove(name)
    CONTEXT.output.result({"job": gone.name, "removed": True}, f"job {gone.name} is removed; its restore points stay")


@job.command("enable")
def enable(name: Name) -> None:
    """Let its schedule begin runs again. What passed meanwhile is not made up for."""
    _enable(name, enabled=True)


@job.command("disable")
def disable(name: Name) -> None:
    """Its schedule begins nothing; 'lanfree job run' still does. A run under way goes on."""
    _enable(name, enabled=False)


def _enable(name: str, *, enabled: bool) -> None:
    with CONTEXT.services() as services:
        now = services.clock.now()
        with services.jobs.transaction() as unit:
            done = unit.jobs.enable(name, enabled, now)
    CONTEXT.output.result(plain_job(done, now), f"job {done.name}: {next_text(done, now)}")


def tell(made: Job, now: datetime, said: str) -> None:
    """A job that was written, and what of it is perhaps not meant."""
    settings = CONTEXT.settings()
    wrong, found = gaps(settings, made.policy), remarks(settings, made.policy, now)
    CONTEXT.output.result(
        {**plain_job(made, now), "remarks": found}, said, f"next: {next_text(made, now, SHOWN_FIRES)}"
    )
    for remark in found:
        CONTEXT.output.warn(f"job {made.name}: {remark}")
    if wrong:
        raise typer.Exit(ATTENTION)


def plain_job(one: Job, now: datetime) -> dict[str, object]:
    """For ``--json``."""
    policy = one.policy.model_dump(mode="json")
    coming = schedule.fires_between(one.policy, now, now + timedelta(days=8))[:SHOWN_FIRES] if one.enabled else []
    facts = {"id": one.id, "name": one.name, "revision": one.revision, "enabled": one.enabled}
    return {**facts, "policy": policy, "created_at": one.created_at, "updated_at": one.updated_at, "next": coming}


def next_text(one: Job, now: datetime, count: int = 1) -> str:
    """The next fires in the job's own zone."""
    if not one.enabled:
        return "disabled"
    fires = describing.coming(one.policy, now, count)
    if count == 1 and fires:
        return soon(fires[0], now, ZoneInfo(one.policy.zone))
    return ", ".join(in_zone(fire, one.policy.zone) for fire in fires) or "by hand"


def _last(runs: Sequence[JobRun]) -> JobRun | None:
    return runs[0] if runs else None
