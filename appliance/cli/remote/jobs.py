"""``lanfree --server URL job``: made, changed and shown there. ``job_runs`` holds what they do."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from api.client import Client
from api.conditions import etag
from api.schemas.access import Approval
from api.schemas.jobs import ImportResult, Job, JobLine
from appliance.cli.app import CONTEXT, app
from appliance.cli.job_options import Given, with_options
from appliance.cli.output import ATTENTION, local_zone, soon, table, zoned
from appliance.cli.remote.asking import at
from appliance.jobs import editing, job_text
from catalog.jobs.policy import Policy
from proxy.errors import ConfigurationError

job = typer.Typer(no_args_is_help=True, help="Policies that back up by themselves, on that appliance.")
app.add_typer(job, name="job")

Name = Annotated[str, typer.Argument(metavar="JOB", help="Its name.")]


@job.command("add")
@with_options
def add(
    name: Name,
    given: Given,
    disabled: Annotated[bool, typer.Option("--disabled", help="Its schedule begins nothing yet.")] = False,
) -> None:
    """Make a job. 'job preview' shows what it means."""
    if "select.include" not in given:
        raise typer.BadParameter("choose machines with --select RULE, or say --all")
    job_text.check_name(name)
    policy = editing.changed(name, Policy(zone=local_zone()), given=given)
    with CONTEXT.asking() as server:
        made = server.post(Job, "/jobs", {"name": name, "policy": _plain(policy), "enabled": not disabled})
    _tell(made, f"job {name} is made; 'job preview {name}' shows which machines it means")


@job.command("list")
def list_jobs() -> None:
    """All jobs: when they run next, how they ended last."""
    now = datetime.now(UTC)
    with CONTEXT.asking() as server:
        found = list(server.items(JobLine, "/jobs"))
    rows = [
        (
            each.name,
            each.machines,
            each.timing,
            _next(each, now),
            f"{each.last_run.state} {soon(each.last_run.ended_at or each.last_run.started_at, now)}"
            if each.last_run
            else "never",
        )
        for each in found
    ]
    shown = table("JOB", "MACHINES", "WHEN", "NEXT", zoned("LAST RUN"), rows=rows)
    document = [each.model_dump(mode="json") for each in found]
    CONTEXT.output.result(document, shown if found else "there is no job yet; 'job add' makes one")


@job.command("show")
def show(
    name: Name,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Only its text, as 'job import' reads it.")] = False,
) -> None:
    """What a job is, and when it runs next."""
    with CONTEXT.asking() as server:
        found = server.get(Job, at("jobs", name))
        text = _written(server, [found.name])
    head = [] if as_yaml else [f"job {found.name}, revision {found.revision}; next {_next(found, datetime.now(UTC))}"]
    CONTEXT.output.result(found.model_dump(mode="json"), *head, text.rstrip("\n"))


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
        raise typer.BadParameter("say what to change: an option of 'job add', --set, --unset or --rename")
    with CONTEXT.asking() as server:
        found = server.get(Job, at("jobs", name))
        policy = editing.changed(name, found.policy, assign or (), unset or (), given)
        body = {"policy": _plain(policy), "name": new_name or None}
        known = found.revision if revision is None else revision
        answer = server.call("PUT", f"/jobs/{found.id}", body, etag=etag(known))
    if answer.status_code == 202:  # Accepted: not done yet
        _waits(Approval.model_validate_json(answer.content))
    _tell(Job.model_validate_json(answer.content), f"job {new_name or name} is changed")


@job.command("remove")
def remove(name: Name) -> None:
    """Forget a job. Its restore points stay, and are kept by the rules that it had last."""
    with CONTEXT.asking() as server:
        server.delete(at("jobs", name))
    CONTEXT.output.result({"job": name, "removed": True}, f"job {name} is removed; its restore points stay")


@job.command("enable")
def enable(name: Name) -> None:
    """Let its schedule begin runs again. What passed meanwhile is not made up for."""
    _enable(name, "enable")


@job.command("disable")
def disable(name: Name) -> None:
    """Its schedule begins nothing; 'job run' still does. A run under way goes on."""
    _enable(name, "disable")


@job.command("export")
def export(
    names: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Which ones; all without.")] = None,
) -> None:
    """Jobs as YAML on stdout. What is as by default is left out."""
    with CONTEXT.asking() as server:
        if CONTEXT.output.as_json:
            found = [server.get(Job, at("jobs", name)) for name in names or [j.name for j in _lines(server)]]
            CONTEXT.output.result([each.model_dump(mode="json") for each in found])
            return
        text = _written(server, names or [])
    sys.stdout.write(text)


@job.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="As 'job export' writes it; - is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove jobs that the file does not name.")] = False,
) -> None:
    """Make the jobs there as a file says: all of it, or nothing where anything is wrong."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(str(file), "is no text in UTF-8") from None
    with CONTEXT.asking() as server:
        answer = server.call("POST", "/jobs/import", {"text": text, "dry_run": dry_run, "prune": prune})
    if answer.status_code == 202:  # Accepted: not done yet
        _waits(Approval.model_validate_json(answer.content))
    done = ImportResult.model_validate_json(answer.content)
    lines = [line for each in done.jobs for line in (f"{each.name}: {each.what}", *each.difference)]
    CONTEXT.output.result(done.model_dump(mode="json"), "\n".join(lines))
    for each in done.jobs:
        for remark in each.remarks:
            CONTEXT.output.warn(f"job {each.name}: {remark.text}")


def _enable(name: str, word: str) -> None:
    with CONTEXT.asking() as server:
        done = server.post(Job, at("jobs", name, word))
    CONTEXT.output.result(done.model_dump(mode="json"), f"job {done.name}: {_next(done, datetime.now(UTC))}")


def _tell(made: Job, said: str) -> None:
    CONTEXT.output.result(made.model_dump(mode="json"), said, f"next: {_next(made, datetime.now(UTC))}")
    for remark in made.remarks:
        CONTEXT.output.warn(f"job {made.name}: {remark.text}")
    if any(remark.kind == "gap" for remark in made.remarks):
        raise typer.Exit(ATTENTION)


def _waits(asked: Approval) -> None:
    """It shortens what is kept, and two people have to want that."""
    CONTEXT.output.result(asked.model_dump(mode="json"), f"nothing is changed yet: {asked.summary}")
    CONTEXT.output.warn(f"somebody else has to approve it: request {asked.id}")
    raise typer.Exit(ATTENTION)


def _lines(server: Client) -> list[JobLine]:
    return list(server.items(JobLine, "/jobs"))


def _written(server: Client, names: list[str]) -> str:
    return server.call("GET", "/jobs/export", name=names).text


def _next(one: JobLine, now: datetime) -> str:
    if not one.enabled:
        return "disabled"
    return soon(one.next[0], now, ZoneInfo(one.zone)) if one.next else "by hand"


def _plain(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(mode="json", exclude_defaults=True) | {"zone": policy.zone}
