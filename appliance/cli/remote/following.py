"""Work that goes on over there: watched by its events, with a bar where somebody looks. To leave it alone ends nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from api.client import Client
from api.schemas.job_runs import RunNews
from api.schemas.tasks import Task
from appliance.cli.app import CONTEXT
from appliance.cli.output import ATTENTION, exit_code
from catalog.jobs.values import JobRunState, TaskState
from proxy.errors import Cancelled, RunFailed, ServerAway
from proxy.ports import Progress
from proxy.units import format_size

Result = Mapping[str, Any]
"""Of a task, by its kind (``appliance.serving.asked``)."""

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end, and tell it by the exit code.")]

_ENDS: Mapping[TaskState, int] = {
    TaskState.DONE: 0,
    TaskState.FAILED: exit_code(RunFailed("")),
    TaskState.STOPPED: exit_code(Cancelled("")),
}

RUN_ENDS: Mapping[str, int] = {
    JobRunState.DONE.value: 0,
    JobRunState.ATTENTION.value: ATTENTION,
    JobRunState.FAILED.value: exit_code(RunFailed("")),
    JobRunState.STOPPED.value: exit_code(Cancelled("")),
    JobRunState.SKIPPED.value: ATTENTION,
}


def followed(
    server: Client, task: Task, *, wait: bool, shown: Callable[[Result], Sequence[object]] | None = None
) -> None:
    """Tell what became of it. Ends the command: with 0 where all is well, or nobody waits. ``shown``: what is printed of the
    result of a task that is done."""
    if not wait:
        CONTEXT.output.result(task.model_dump(mode="json"), f"task {task.id}: {task.title} is {task.state.value}")
        return
    ended = _ended(server, task)
    lines = shown(ended.result) if shown is not None and ended.state is TaskState.DONE else ()
    CONTEXT.output.result(ended.model_dump(mode="json"), *lines, *_told(ended))
    if ended.result.get("more"):
        CONTEXT.output.warn(f"{ended.result['more']} more lines are not kept with the task")
    for problem in ended.problems:
        CONTEXT.output.warn(problem)
    code = _ENDS.get(ended.state, exit_code(Cancelled("")))
    raise typer.Exit(ATTENTION if code == 0 and ended.problems else code)


def run_ended(server: Client, run: str) -> None:
    """Wait for the end of a job run."""
    with CONTEXT.output.progress("run") as sink:
        for event in server.events(f"/job-runs/{run}/events"):
            if event.name != "run":
                continue
            going = event.value(RunNews).run.progress
            if sink is not None and going.total_bytes:
                sink(Progress(run, going.done_bytes, going.total_bytes, going.done_bytes))


def _ended(server: Client, task: Task) -> Task:
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
