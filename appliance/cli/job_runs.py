"""``lanfree job preview``, ``run``, ``stop``, ``history`` and ``tasks``: what a job means, and what became of it."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from appliance import operations
from appliance.cli import endings
from appliance.cli.app import CONTEXT
from appliance.cli.jobs import Name, job, next_text
from appliance.cli.output import ATTENTION, local, table, when, zoned
from appliance.jobs import describing, schedule
from appliance.jobs.describing import SHOWN_FIRES
from appliance.jobs.task_text import limits_of, named, of_run, reason_text, reasons_of
from appliance.overview import ago
from catalog.jobs.store import Unit
from catalog.jobs.values import ENDED, JobRun, Task, TaskState
from proxy.errors import JobNotFound, JobRunNotFound, MachineNotFound, NoSuchMachine
from proxy.model import MachineId
from proxy.units import format_size

if TYPE_CHECKING:
    from appliance.wiring import Services

LOOK_SECONDS = 1.0
"""Between two looks of ``--wait``: people wait for minutes, and each look is one read."""

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run, the beginning of its id is enough; or a job: its newest.")
]


@job.command("preview")
def preview(name: Name) -> None:
    """Which machines a job means now, by which rule, and when it runs. Begins nothing."""
    from appliance.selecting import facts_of, look  # noqa: PLC0415  # the others do without a hypervisor

    with CONTEXT.services() as services:
        now = services.clock.now()
        with services.jobs.transaction(write=False) as unit:
            found = unit.jobs.get(name)
        selected = look(services).choose(found.policy.select)
        facts = facts_of(services)
        where = {chosen.machine.id: facts.of(chosen.machine) for chosen in selected.machines}
    rows = [
        (
            chosen.machine.name,
            chosen.machine.host,
            chosen.machine.state.value,
            chosen.rule or "every machine",
            ", ".join(sorted(chosen.exclude_disks)) or "-",
            ", ".join(where[chosen.machine.id].places),
        )
        for chosen in selected.machines
    ]
    left = [(chosen.machine.name, chosen.machine.host, f"not {chosen.rule}") for chosen in selected.excluded]
    document = {
        "job": found.name,
        "machines": [
            {
                "rule": chosen.rule,
                "exclude_disks": chosen.exclude_disks,
                "where": where[chosen.machine.id],
                "machine": chosen.machine,
            }
            for chosen in selected.machines
        ],
        "excluded": [{"rule": chosen.rule, "machine": chosen.machine} for chosen in selected.excluded],
        "idle": selected.idle,
        "silent": selected.silent,
        "next": schedule.next_fire(found.policy, now) if found.enabled else None,
    }
    shown: list[RenderableType] = [
        f"{len(rows)} machines",
        *([table("MACHINE", "HOST", "STATE", "BY RULE", "WITHOUT DISKS", "PLACES", rows=rows)] if rows else []),
        *([table("EXCLUDED", "HOST", "BY RULE", rows=left)] if left else []),
        *(f"next run {each}" for each in next_text(found, now, SHOWN_FIRES).split(", ")),
        *describing.window_of(found.policy, now),
    ]
    CONTEXT.output.result(document, *shown)
    for line in selected.idle:
        CONTEXT.output.warn(line)
    for host, why in selected.silent.items():
        CONTEXT.output.warn(f"{host} does not answer, nobody knows what it has: {why}")
    if selected.idle or selected.silent or not rows:
        raise typer.Exit(ATTENTION)


@job.command("run")
def run(
    name: Name,
    full: Annotated[bool, typer.Option(help="Read everything (only what differs is stored anyway).")] = False,
    machine: Annotated[list[str] | None, typer.Option(help="Only this one, by name or identity; of several.")] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Work on it in this process, whether a proxy serves or not.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and tell it by the exit code.")] = False,
) -> None:
    """Begin a run of a job now, whatever its schedule and window say. A proxy that serves works on it."""
    from appliance.serving import scheduler  # noqa: PLC0415  # brings the engine

    with CONTEXT.services() as services:
        with services.jobs.transaction(write=False) as unit:
            found = unit.jobs.get(name)
        only = [_machine(services, each) for each in machine or ()]
        begun = scheduler.begin_now(services, found, full=full, machines=only)
        if here:
            CONTEXT.output.note(f"run {begun.id} of job {found.name}")
            _work_here(services, begun)
        elif wait:
            CONTEXT.output.note(f"run {begun.id} of job {found.name}: waiting; to leave it alone ends nothing")
            _nobody_serves(services)
            _wait(services, begun)
        else:
            _nobody_serves(services)
            CONTEXT.output.result(
                {"run": begun.id, "job": found.name}, f"run {begun.id} begins; 'lanfree job tasks {found.name}'"
            )
            return
        with services.jobs.transaction(write=False) as unit:
            ended, listed = unit.runs.get(begun.id) or begun, unit.tasks.of_run(begun.id)
            people = _people(unit)
    _show(ended, listed, people)
    raise typer.Exit(endings.of_run(ended.state))


@job.command("stop")
def stop(
    run_or_job: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run, or a job whose run goes on.")],
) -> None:
    """End a run cleanly: what is copied now ends at its next chunk and stays stored, the rest is not begun."""
    from appliance.serving import scheduler  # noqa: PLC0415  # brings the engine

    with CONTEXT.services() as services:
        with services.jobs.transaction(write=False) as unit:
            found = _under_way(unit, run_or_job)
        done = None if found is None else scheduler.stop(services, found.id)
    if done is None or not done.stopped:
        CONTEXT.output.result(
            {"run": found.id if found else None, "stopped": False, "state": done.run.state if done else None},
            f"{run_or_job} does not run",
        )
        return
    over = done.run.ended_at is not None
    CONTEXT.output.result(
        {"run": done.run.id, "stopped": True, "state": done.run.state},
        f"run {done.run.id} of job {done.run.job_name} is {'stopped' if over else 'being stopped'}",
    )
    if not (over or done.served):
        CONTEXT.output.warn("no proxy serves, and one of its tasks was cut off: 'lanfree serve' tidies up and ends it")


@job.command("history")
def history(
    name: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Of this job; of all without.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="So many of the newest.")] = 20,
) -> None:
    """Runs, the newest first."""
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        now = services.clock.now()
        runs = unit.runs.list(unit.jobs.get(name).id if name else None, limit)
        counted = unit.tasks.counts([each.id for each in runs])
    rows = [
        (
            each.id,
            each.job_name,
            local(each.started_at)[:-3],
            ago(((each.ended_at or now) - each.started_at).total_seconds()),
            each.state.value,
            _tally(counted.get(each.id, {})),
        )
        for each in runs
    ]
    document = [{"tasks": counted.get(each.id, {}), "run": each} for each in runs]
    shown = table("RUN", "JOB", zoned("BEGAN"), "TOOK", "STATE", "TASKS", rows=rows)
    # Reasons are sentences: beside the facts they would make towers of words.
    why = [f"{each.id}: {each.cause.value}; {'; '.join(said)}" for each in runs if (said := of_run(each))]
    CONTEXT.output.result(document, shown if rows else "nothing ran yet", *(["", *why] if why else []))


@job.command("tasks")
def tasks(
    run_or_job: Run,
    state: Annotated[
        list[TaskState] | None, typer.Option(help="Only those: waiting, running, done, failed, stopped.")
    ] = None,
) -> None:
    """Each machine of a run: how far, which attempt, which proxy, and why it is as it is."""
    with CONTEXT.services() as services, services.jobs.transaction(write=False) as unit:
        found = run_of(unit, run_or_job)
        listed = [task for task in unit.tasks.of_run(found.id) if not state or task.state in state]
        waits = unit.tasks.waiting_for(services.clock.now(), services.limits)
        people = _people(unit)
    _show(found, listed, people, set(waits))


def run_of(unit: Unit, text: str) -> JobRun:
    """A run by its id or the beginning of that, or the newest of a job. Raises ``JobNotFound``."""
    if (exact := unit.runs.get(text)) is not None:
        return exact
    try:
        found = unit.jobs.get(text)
    except JobNotFound:
        fitting = [each for each in unit.runs.list(limit=1000) if each.id.startswith(text)]
        if len(fitting) != 1:
            raise
        return fitting[0]
    newest = unit.runs.list(found.id, 1)
    if not newest:
        raise JobRunNotFound(f"of {text}: it did not run yet")
    return newest[0]


def _machine(services: "Services", name: str) -> MachineId:
    try:
        return operations.machine_named(services, name).id
    except MachineNotFound as error:  # of a run it would be the end of this machine's; here there is no run yet
        raise NoSuchMachine(name) from error


def _under_way(unit: Unit, text: str) -> JobRun | None:
    found = unit.runs.get(text)
    return found if found is not None else unit.runs.active(unit.jobs.get(text).id)


def _work_here(services: "Services", begun: JobRun) -> None:
    from appliance.serving import service  # noqa: PLC0415  # brings the engine

    CONTEXT.engaged = True  # a signal ends its tasks cleanly, and them before the command
    try:
        service.work_off(services, begun.id)
    finally:
        CONTEXT.engaged = False


def _wait(services: "Services", begun: JobRun) -> None:
    while True:
        with services.jobs.transaction(write=False) as unit:
            now = unit.runs.get(begun.id)
        if now is None or now.ended_at is not None:
            return
        time.sleep(LOOK_SECONDS)


def _nobody_serves(services: "Services") -> None:
    with services.jobs.transaction(write=False) as unit:
        if not unit.proxies.living(services.settings.proxy.takeover):
            CONTEXT.output.warn("no proxy serves: nothing works on it until 'lanfree serve' runs; --here works at once")


def _show(found: JobRun, listed: Sequence[Task], people: Mapping[str, str], full: set[str] | None = None) -> None:
    held = full or set()
    rows = [
        (
            named(task),
            _progress(task),
            task.attempt,
            task.host or "-",
            people.get(task.proxy, task.proxy) or "-",
            _took(task),
            _read(task),
            ", ".join(sorted({reason.code.value for reason in reasons_of(task)})),
        )
        for task in listed
    ]
    head = f"run {found.id} of job {found.job_name}: {found.state.value}, began {when(found.started_at)}"
    head += f", ended {when(found.ended_at)}" if found.ended_at else ""
    shown = table("MACHINE", "STATE", "TRY", "HOST", "PROXY", "TOOK", "READ", "WHY", rows=rows) if rows else "no tasks"
    # What went wrong is a sentence: beside the facts it would make towers of words.
    why = [f"{named(task)}: {'; '.join(said)}" for task in listed if (said := _why(task, held))]
    document = {"run": found, "tasks": [{"waits_for": limits_of(task, held), "task": task} for task in listed]}
    CONTEXT.output.result(document, head, *(f"  {line}" for line in of_run(found)), shown, *(["", *why] if why else []))


def _people(unit: Unit) -> dict[str, str]:
    """What people call the proxies."""
    return {proxy.name: proxy.machine for proxy in unit.proxies.list()}


def _progress(task: Task) -> str:
    if task.state is TaskState.RUNNING and task.total_bytes:
        return f"running {100 * min(1.0, task.done_bytes / task.total_bytes):.0f} %"
    return task.state.value


def _took(task: Task) -> str:
    if task.claimed_at is None or task.ended_at is None:
        return "-"
    return ago(max(0.0, (task.ended_at - task.claimed_at).total_seconds()))


def _read(task: Task) -> str:
    read = task.measures.get("bytes_read")
    return format_size(read) if isinstance(read, int) else "-"


def _why(task: Task, full: set[str]) -> list[str]:
    said = [f"{task.error}: {task.message}" if task.error else task.message] if task.message or task.error else []
    said += [reason_text(reason) for reason in reasons_of(task) if reason.detail not in ("", task.message)]
    said += list(task.problems)
    if task.state is TaskState.WAITING:
        said += [f"waits for {key}" for key in limits_of(task, full)]
        said += [f"not before {when(task.not_before)}"] if task.not_before else []
    return said


def _tally(counted: Mapping[TaskState, int]) -> str:
    """``11 of 12, 1 failed``: how many are over."""
    if not counted:
        return "-"
    over = sum(number for state, number in counted.items() if state in ENDED)
    failed = counted.get(TaskState.FAILED, 0)
    return f"{over} of {sum(counted.values())}" + (f", {failed} failed" if failed else "")
