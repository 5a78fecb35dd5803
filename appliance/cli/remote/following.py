"""Work that goes on over there: watched by its events, with a bar where somebody looks. To leave it alone ends nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from api.client import Client
from api.schemas.job_runs import RunNews
from api.schemas.tasks import Task
from appliance.cli.app import CONTEXT
from appliance.cli.endings import STOPPED
from appliance.cli.output import ATTENTION, exit_code, exit_code_of
from catalog.jobs.values import TaskKind, TaskState
from proxy.errors import IntegrityError, ServerAway
from proxy.ports import Progress
from proxy.units import format_size

Result = Mapping[str, Any]
"""Of a task, by its kind (``appliance.serving.asked``)."""

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end, and tell it by the exit code.")]

_DAMAGE: Mapping[TaskKind, Callable[[Result], bool]] = {
    TaskKind.VERIFY: lambda result: bool(result.get("damaged")),
    TaskKind.REPAIR: lambda result: bool(result.get("damaged", 0) > result.get("mended", 0)),
    TaskKind.AUDIT: lambda result: bool(result.get("tampered")),
}
"""Kinds that look for damaged data -> whether there is any, that they did not mend."""


def followed(
    server: Client, task: Task, *, wait: bool, shown: Callable[[Result], Sequence[object]] | None = None
) -> None:
    """Tell what became of it. Ends the command: with 0 where all is well, or nobody waits. ``shown``: what is printed of the
    result of a task that is done."""
    if not wait:
        CONTEXT.output.result(task.model_dump(mode="json"), f"task {task.id}: {task.title} is {task.state.value}")
        return
    ended = at_its_end(server, task)
    lines = shown(ended.result) if shown is not None and ended.state is TaskState.DONE else ()
    CONTEXT.output.result(ended.model_dump(mode="json"), *lines, *_told(ended))
    if ended.result.get("more"):
        CONTEXT.output.warn(f"{ended.result['more']} more lines are not kept with the task")
    for problem in ended.problems:
        CONTEXT.output.warn(problem)
    raise typer.Exit(ending(ended))


def ending(task: Task) -> int:
    """The exit code of a task that has ended: that of the command which does the same on this machine."""
    if task.state is TaskState.FAILED:
        return exit_code_of(task.error.code if task.error is not None else "")
    if task.state is not TaskState.DONE:
        return STOPPED
    if task.kind in _DAMAGE and _DAMAGE[task.kind](task.result):
        return exit_code(IntegrityError("", ""))
    return ATTENTION if task.problems else 0


def run_ended(server: Client, run: str) -> None:
    """Wait for the end of a job run."""
    with CONTEXT.output.progress("run") as sink:
        for event in server.events(f"/job-runs/{run}/events"):
            if event.name != "run":
                continue
            going = event.value(RunNews).run.progress
            if sink is not None and going.total_bytes:
                sink(Progress(run, going.done_bytes, going.total_bytes, going.done_bytes))


def at_its_end(server: Client, task: Task) -> Task:
    """Wait until it has ended. Raises ``ServerAway``."""
    seen, said = task, ""
    with CONTEXT.output.progress(task.kind.value) as sink:
        for event in server.events(f"/tasks/{task.id}/events"):
            if event.name != "task":
                continue
            seen = event.value(Task)
            if sink is not None and seen.progress.total:
                done = seen.progress.done
                sink(Progress(seen.machine.name if seen.machine else "", done, seen.progress.total, done))
            waits = f"waits for {', '.join(seen.waits_for)}" if seen.waits_for else seen.state.value
            if seen.state is TaskState.WAITING and waits != said:
                said = waits
                CONTEXT.output.note(f"task {seen.id} {waits}; to leave it alone ends nothing")
    if seen.ended_at is None:  # the stream ended for another reason
        seen = server.get(Task, f"/tasks/{task.id}")
    if seen.ended_at is None:
        raise ServerAway(server.base_url, "it ended before the task did", hint=f"the task goes on: {task.id}")
    return seen


def _told(task: Task) -> list[str]:
    said = [f"{task.title}: {task.state.value}"]
    if task.error is not None:
        said.append(f"  {task.error.code}: {task.error.message}")
    said += [f"  {reason.code.value}: {reason.detail}" for reason in task.reasons if reason.detail]
    read = task.measures.get("bytes_read")
    said += [f"  {format_size(read)} read"] if isinstance(read, int) else []
    said += [f"  restore point {task.point}"] if task.point else []
    return said
