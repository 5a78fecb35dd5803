"""What goes on now and what waits: progress, speed, what holds it up, when it will be done, stop."""

from nicegui import ui

from api.auth.roles import Permission
from api.paging import Page
from api.schemas.job_runs import JobRun as Run
from api.schemas.job_runs import JobRunDetail, StopResult
from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import job_page, run_page, task_page, to
from api.ui.pages.progress import limits, now_line, task_rows
from api.ui.parts.blocks import button, card, empty, link_button, progress
from api.ui.parts.chips import chip
from api.ui.parts.dialogs import confirm
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.parts.tables import Column, Table, plain_table
from api.ui.visit import Visit
from api.ui.words import count, duration, plain
from proxy.errors import ServerRefused

LIVE_SECONDS = 2.0
"""Between looks: what people take for live, and a few indexed reads each."""


async def build(visit: Visit) -> None:
    """Draw it, and again every moment."""
    Part().show(head("Running", "Job runs and tasks that go on or wait; brought up to date by itself"))
    message = Message()

    async def acted(act: Act) -> None:
        if act.act == "stop-run":
            await stop_run(visit, message, act.key)
        elif act.act == "stop-task":
            await stop_task(visit, message, act.key)
        await look()

    live = Part(acted)
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", "Job runs")))
        ended = Table(
            visit,
            Run,
            "/job-runs",
            _columns(visit),
            caption="Job runs",
            nothing=empty("No job has run yet", "Runs are listed here."),
            rows=20,
        )
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", "Asked for by people")))
        asked = Table(
            visit,
            Task,
            "/tasks",
            _asked_columns(visit),
            caption="Restores and other tasks that people asked for",
            nothing=empty(
                "Nobody asked for anything yet", "Restores, single backups and verifications are listed here."
            ),
            extra={"asked": "true"},
            rows=20,
        )

    async def look() -> None:
        try:
            live.show(await _live(visit))
        except ServerRefused as refused:
            live.show(said(refused, "What runs is not known"))

    await look()
    await ended.load()
    await asked.load()
    ui.timer(LIVE_SECONDS, look)


async def _live(visit: Visit) -> Markup:
    runs = await visit.api.get(Page[Run], "/job-runs", background=True, state=["running"], limit=20)
    tasks = await visit.api.get(Page[Task], "/tasks", background=True, state=["running", "waiting"], limit=100)
    if not runs.items and not tasks.items:
        return card(
            "Now",
            empty(
                "Nothing runs",
                "Runs begin by their schedule, or when you let a job run.",
                action=link_button("Jobs", to("/jobs")),
                sign="bedtime",
            ),
        )
    details = [await visit.api.get(JobRunDetail, f"/job-runs/{run.id}", background=True) for run in runs.items[:5]]
    shown = [card(f"Run of {run.job}", _run(visit, run)) for run in details]
    running = [task for task in tasks.items if task.state == "running"]
    waiting = [task for task in tasks.items if task.state == "waiting"]
    if running:
        shown.append(card("Tasks that run", task_rows(visit, running), right=count(len(running), "task"), padded=False))
    if waiting:
        shown.append(card("Tasks that wait", _waiting(visit, waiting), right=count(len(waiting), "task"), padded=False))
    return tag("div", *shown, cls="lf-gapped")


def _run(visit: Visit, run: JobRunDetail) -> Markup:
    stop = (
        button("Stop", "stop-run", key=run.id, kind="small danger")
        if visit.may(Permission.BACK_UP) and run.stop_at is None
        else None
    )
    line = tag(
        "div",
        tag("a", tag("b", "Details"), href=run_page(run.id)),
        " ",
        tag("a", "Job", href=job_page(run.job)),
        cls="lf-inline",
    )
    tasks = run.tasks
    figures = (
        f"{tasks.done} done, {tasks.running} running, {tasks.waiting} waiting, {tasks.failed} failed of {tasks.total}"
    )
    return join(
        progress(run.progress.share, f"Progress of {run.job}"),
        tag("p", now_line(visit, run)),
        tag("p", figures, cls="lf-dim"),
        tag("div", line, stop, cls="lf-inline"),
    )


def _waiting(visit: Visit, tasks: list[Task]) -> Markup:
    rows = [
        (
            tag("a", task.title, href=task_page(task.id)),
            task.job or f"asked by {task.asked_by}",
            _why(visit, task),
            button("Stop", "stop-task", key=task.id, kind="small danger") if task.stoppable else None,
        )
        for task in tasks
    ]
    return plain_table("Tasks that wait", ("Task", "Of", "Waits for", ""), rows, stack=True)


def _why(visit: Visit, task: Task) -> str:
    if task.waits_for:
        return limits(task.waits_for)
    if task.not_before is not None:
        return f"another attempt {visit.clock.ago(task.not_before)}"
    return "a free slot of a proxy"


def _columns(visit: Visit) -> tuple[Column[Run], ...]:
    clock = visit.clock
    return (
        Column(
            "Began", lambda run: tag("a", clock.when(run.started_at), href=run_page(run.id)), "started_at", "nowrap"
        ),
        Column("Job", lambda run: tag("a", run.job, href=job_page(run.job))),
        Column("State", lambda run: chip(run.state)),
        Column("Because", lambda run: plain(run.cause)),
        Column("Took", lambda run: duration(run.seconds), "", "num"),
        Column("Tasks done", lambda run: f"{run.tasks.done} of {run.tasks.total}", "", "num"),
        Column("Failed", lambda run: str(run.tasks.failed), "", "num"),
    )


def _asked_columns(visit: Visit) -> tuple[Column[Task], ...]:
    return (
        Column("Asked", lambda task: visit.clock.when(task.created_at), "", "nowrap"),
        Column("Task", lambda task: tag("a", task.title, href=task_page(task.id))),
        Column("State", lambda task: chip(task.state)),
        Column("By", lambda task: task.asked_by),
        Column("Took", _took, "", "num"),
        Column("Why", lambda task: task.error.message if task.error is not None else ""),
    )


def _took(task: Task) -> str:
    if task.started_at is None or task.ended_at is None:
        return duration(None)
    return duration((task.ended_at - task.started_at).total_seconds())


async def stop_run(visit: Visit, message: Message, run: str) -> None:
    """Ask, then stop it."""
    happens = (
        "What runs ends cleanly: snapshots are removed, nothing half-made stays.",
        "Machines that are done keep their restore points.",
        "What waits is not begun; the next run takes it up.",
    )
    if not await confirm("Stop this run", happens, "Stop the run", danger=True):
        return
    result = await message.attempt("The run was not stopped", visit.api.post(StopResult, f"/job-runs/{run}/stop"))
    if result is not None:
        message.done(
            "It is being stopped",
            "" if result.served else "No proxy is alive: it ends when 'lanfree serve' runs again.",
        )


async def stop_task(visit: Visit, message: Message, task: str) -> None:
    """Ask, then stop it."""
    if not await confirm(
        "Stop this task", ("It ends cleanly; nothing half-made stays.",), "Stop the task", danger=True
    ):
        return
    if await message.attempt("The task was not stopped", visit.api.post(Task, f"/tasks/{task}/stop")) is not None:
        message.done("It is being stopped")
