"""``lanfree --server URL job preview``, ``run``, ``stop``, ``history``, ``tasks`` and ``report``."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from api.client import Client
from api.schemas.job_runs import JobRun, JobRunDetail, RunTask, StopResult
from api.schemas.jobs import Job, JobPreview, RunBegun
from appliance.cli import endings
from appliance.cli.app import CONTEXT
from appliance.cli.output import ATTENTION, local, table, when, zoned
from appliance.cli.remote.asking import at
from appliance.cli.remote.following import run_ended
from appliance.cli.remote.jobs import Name, job
from appliance.overview import ago
from catalog.jobs.values import TaskState
from proxy.errors import JobRunNotFound, ServerRefused
from proxy.units import format_size

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run; or a job: its newest.")]

_NOT_FOUND = 404


@job.command("preview")
def preview(name: Name) -> None:
    """Which machines a job means now, by which rule, and when it runs. Begins nothing."""
    with CONTEXT.asking() as server:
        seen = server.get(JobPreview, at("jobs", name, "preview"), limit=10000)
    rows = [
        (m.name, m.host, m.state, m.rule or "every machine", ", ".join(m.exclude_disks) or "-", ", ".join(m.places))
        for m in seen.machines
    ]
    left = [(m.name, m.host, f"not {m.rule}") for m in seen.excluded]
    shown = [
        f"{seen.chosen} machines",
        *([table("MACHINE", "HOST", "STATE", "BY RULE", "WITHOUT DISKS", "PLACES", rows=rows)] if rows else []),
        *([table("EXCLUDED", "HOST", "BY RULE", rows=left)] if left else []),
        *(f"next run {fire.local}" for fire in seen.fires),
    ]
    CONTEXT.output.result(seen.model_dump(mode="json"), *shown)
    for line in seen.idle:
        CONTEXT.output.warn(line)
    for silence in seen.silent:
        CONTEXT.output.warn(f"{silence.where} does not answer, nobody knows what it has: {silence.why}")
    if seen.idle or seen.silent or not rows:
        raise typer.Exit(ATTENTION)


@job.command("run")
def run(
    name: Name,
    full: Annotated[bool, typer.Option(help="Read everything (only what differs is stored anyway).")] = False,
    machine: Annotated[list[str] | None, typer.Option(help="Only this one, by name or identity; of several.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and tell it by the exit code.")] = False,
) -> None:
    """Begin a run of a job now, whatever its schedule and window say."""
    with CONTEXT.asking() as server:
        asked = {"full": full, "machines": machine or []}
        begun = server.post(RunBegun, at("jobs", name, "runs"), asked, key=server.new_key())
        if not begun.served:
            CONTEXT.output.warn("no proxy serves: nothing works on it until 'lanfree serve' runs there")
        if not wait:
            said = f"run {begun.id} begins; 'job tasks {begun.id}'"
            CONTEXT.output.result({"run": begun.id, "job": begun.job}, said)
            return
        CONTEXT.output.note(f"run {begun.id} of job {begun.job}: waiting; to leave it alone ends nothing")
        run_ended(server, begun.id)
        ended = _show(server, server.get(JobRunDetail, f"/job-runs/{begun.id}"), ())
    raise typer.Exit(endings.of_run(ended.state))


@job.command("stop")
def stop(
    run_or_job: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run, or a job whose run goes on.")],
) -> None:
    """End a run cleanly: what is copied now ends at its next chunk and stays stored, the rest is not begun."""
    with CONTEXT.asking() as server:
        done = server.post(StopResult, f"/job-runs/{_run_of(server, run_or_job).id}/stop")
    said = f"run {done.id} is {'being ' if done.state == 'running' else ''}stopped"
    CONTEXT.output.result(done.model_dump(mode="json"), said if done.stopped else f"{run_or_job} does not run")


@job.command("history")
def history(
    name: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Of this job; of all without.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="So many of the newest.")] = 20,
) -> None:
    """Runs, the newest first."""
    with CONTEXT.asking() as server:
        runs = list(islice(server.items(JobRun, "/job-runs", job=name, limit=min(limit, 1000)), limit))
    rows = [
        (each.id, each.job, local(each.started_at)[:-3], ago(each.seconds), each.state, _tally(each)) for each in runs
    ]
    shown = table("RUN", "JOB", zoned("BEGAN"), "TOOK", "STATE", "TASKS", rows=rows)
    why = [f"{each.id}: {each.cause}; {'; '.join(said)}" for each in runs if (said := _whys(each))]
    document = [each.model_dump(mode="json") for each in runs]
    CONTEXT.output.result(document, shown if rows else "nothing ran yet", *(["", *why] if why else []))


@job.command("tasks")
def tasks(
    run_or_job: Run,
    state: Annotated[
        list[TaskState] | None, typer.Option(help="Only those: waiting, running, done, failed, stopped.")
    ] = None,
) -> None:
    """Each machine of a run: how far, which attempt, which proxy, and why it is as it is."""
    with CONTEXT.asking() as server:
        _show(server, _run_of(server, run_or_job), state or ())


@job.command("report")
def report(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run, see 'job history'; or a job: its newest.")],
    html: Annotated[Path | None, typer.Option(help="Write it as a single HTML file there.")] = None,
) -> None:
    """What became of a job run: what needs attention, and every machine."""
    with CONTEXT.asking() as server:
        found = _show(server, _run_of(server, name), ())
        if html is not None:
            html.write_text(server.call("GET", f"/job-runs/{found.id}/report").text, encoding="utf-8")
            CONTEXT.output.note(f"written: {html}")
    for each in found.attention:
        CONTEXT.output.warn(f"{each.what}{': ' if each.detail else ''}{each.detail}")


def _run_of(server: Client, text: str) -> JobRunDetail:
    """A run by its id, or the newest of a job."""
    try:
        return server.get(JobRunDetail, at("job-runs", text))
    except ServerRefused as error:
        if error.status != _NOT_FOUND:
            raise
    found = server.get(Job, at("jobs", text))
    newest = found.current_run or found.last_run
    if newest is None:
        raise JobRunNotFound(f"of {text}: it did not run yet")
    return server.get(JobRunDetail, f"/job-runs/{newest.id}")


def _show(server: Client, found: JobRunDetail, states: "tuple[TaskState, ...] | list[TaskState]") -> JobRunDetail:
    wanted = [state.value for state in states]
    listed = list(server.items(RunTask, f"/job-runs/{found.id}/tasks", state=wanted or None))
    rows = [
        (
            _named(task),
            f"running {100 * task.share:.0f} %" if task.state == "running" and task.share else task.state,
            task.attempt,
            task.host or "-",
            task.proxy or "-",
            ago(task.seconds) if task.seconds and task.ended_at else "-",
            format_size(task.bytes_read) if task.bytes_read is not None else "-",
            ", ".join(sorted({reason.code.value for reason in task.reasons})),
        )
        for task in listed
    ]
    head = f"run {found.id} of job {found.job}: {found.state}, began {when(found.started_at)}"
    head += f", ended {when(found.ended_at)}" if found.ended_at else ""
    shown = table("MACHINE", "STATE", "TRY", "HOST", "PROXY", "TOOK", "READ", "WHY", rows=rows) if rows else "no tasks"
    why = [f"{_named(task)}: {'; '.join(said)}" for task in listed if (said := _why(task))]
    document = {
        "run": found.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json") for task in listed],
    }
    CONTEXT.output.result(document, head, *(f"  {line}" for line in _whys(found)), shown, *(["", *why] if why else []))
    return found


def _named(task: RunTask) -> str:
    return task.name or f"({' '.join(part for part in (task.kind, task.target) if part)})"


def _why(task: RunTask) -> list[str]:
    said = [f"{task.error}: {task.message}" if task.error else task.message] if task.message or task.error else []
    said += [
        f"{reason.code.value}: {reason.detail}" for reason in task.reasons if reason.detail not in ("", task.message)
    ]
    return [*said, *task.problems, *(f"waits for {key}" for key in task.waits_for)]


def _whys(one: JobRun) -> list[str]:
    return [*(f"{r.code.value}: {r.detail}" if r.detail else r.code.value for r in one.reasons), *one.notes]


def _tally(one: JobRun) -> str:
    tasks = one.tasks
    over = tasks.done + tasks.failed + tasks.stopped
    return f"{over} of {tasks.total}" + (f", {tasks.failed} failed" if tasks.failed else "") if tasks.total else "-"
