"""A job run: how far, what came of each machine, why, and the log."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.job_runs import JobRunDetail, RunEvent, RunTask
from api.ui.frame import head
from api.ui.markup import EMPTY, Markup, join, tag
from api.ui.pages.addresses import job_page, machine_page, point_page, to
from api.ui.pages.progress import BOTTLENECK_NAMES, BOTTLENECKS, limits, now_line, stages_table
from api.ui.pages.running import LIVE_SECONDS, stop_run
from api.ui.parts.blocks import button, card, empty, note, progress, tile
from api.ui.parts.chips import chip, consistency, reason_list, transports
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit
from api.ui.words import duration, plain, rate, share, size
from proxy.errors import ServerRefused

_LINES = 300


async def build(visit: Visit, run: str) -> None:
    """Draw it; while it goes on, again every moment."""

    async def acted(act: Act) -> None:
        if act.act == "stop":
            await stop_run(visit, message, run)
            await look()

    top = Part(acted)
    message = Message()
    state = Part()
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", "Machines")))
        table = Table(
            visit,
            RunTask,
            f"/job-runs/{run}/tasks",
            _columns(visit),
            caption="Machines of this run",
            nothing=empty("No task yet", "Tasks are made once its machines are selected."),
        )
    log = Part()

    async def look() -> JobRunDetail:
        one = await visit.api.get(JobRunDetail, f"/job-runs/{run}", background=True)
        events = await visit.api.get(list[RunEvent], f"/job-runs/{run}/log", background=True, limit=_LINES)
        top.show(_heading(visit, one))
        state.show(_state(visit, one))
        await table.load(background=True)
        log.show(
            card(
                "Log",
                _log(visit, events),
                right=tag("a", "Report", href=f"/api/v1/job-runs/{run}/report"),
                padded=False,
            )
        )
        return one

    async def again() -> None:
        try:
            one = await look()
        except ServerRefused as refused:
            top.show(said(refused, "This run cannot be brought up to date"))
            return
        if one.ended_at is not None:
            timer.deactivate()

    one = await look()
    timer = ui.timer(LIVE_SECONDS, again, active=one.ended_at is None)


def _heading(visit: Visit, one: JobRunDetail) -> Markup:
    stop = one.ended_at is None and one.stop_at is None and visit.may(Permission.BACK_UP)
    action = button("Stop", "stop", kind="danger", sign="stop") if stop else None
    began = join(
        chip(one.state),
        " ",
        plain(one.cause).lower(),
        ", began ",
        visit.clock.when(one.started_at),
        f", {duration(one.seconds)}",
    )
    return head(
        f"Run of {one.job}",
        began,
        crumbs=(("Jobs", to("/jobs")), (one.job, job_page(one.job))),
        actions=action,
    )


def _state(visit: Visit, one: JobRunDetail) -> Markup:
    now = None
    if one.ended_at is None:
        now = card(
            "Now",
            progress(one.progress.share, f"Progress of {one.job}"),
            tag("p", now_line(visit, one), style="margin-top:8px"),
        )
    attention = [
        note(f"{item.what}: {', '.join(item.machines[:5])}", item.detail, tone=_TONES.get(item.gravity, ""))
        for item in one.attention
    ]
    notes = tag("ul", *(tag("li", line) for line in one.notes)) if one.notes else None
    reasons = reason_list(one.reasons) if one.reasons else None
    why = card("Why it went so", reasons, notes) if one.reasons or one.notes else None
    return tag("div", now, *attention, tag("div", *_tiles(visit, one), cls="lf-tiles"), why, cls="lf-gapped")


_TONES = {"error": "bad", "warning": "warn", "info": "run"}


def _tiles(visit: Visit, one: JobRunDetail) -> list[Markup]:
    sums, tasks = one.figures, one.tasks
    others = (
        (tasks.failed, "failed"),
        (tasks.stopped, "stopped"),
        (tasks.running, "running"),
        (tasks.waiting, "waiting"),
    )
    rest = ", ".join(f"{number} {word}" for number, word in others if number)
    tone = "bad" if tasks.failed else "ok" if one.ended_at and tasks.done == tasks.total else ""
    shown = [
        tile(f"{tasks.done} of {tasks.total}", f"tasks done{', ' + rest if rest else ''}", tone=tone),
        tile(size(sums.bytes_read), f"read, {rate(sums.bytes_per_second)}"),
        tile(size(sums.bytes_new), "new to the repository"),
        tile(size(sums.bytes_stored), "stored, compressed"),
        tile(size(sums.over_host), "sent by hosts, not over the SAN"),
    ]
    if one.deadline is not None and one.ended_at is None:
        shown.append(tile(visit.clock.time(one.deadline), "the window closes"))
    return shown


def _columns(visit: Visit) -> tuple[Column[RunTask], ...]:
    return (
        Column("Machine", _name),
        Column("State", lambda task: join(_task_state(task), _progress(task)), "", "nowrap"),
        Column("Took", lambda task: duration(task.seconds), "", "num"),
        Column("Read", lambda task: size(task.bytes_read), "", "num"),
        Column("Stored", lambda task: size(task.bytes_stored), "", "num"),
        Column("How", _how, "", "nowrap"),
        Column("Slowed by", _slowed_by),
        Column("", lambda task: _why(visit, task)),
    )


def _how(task: RunTask) -> Markup:
    if not task.consistency and not task.transports:
        return EMPTY
    return join(consistency(task.consistency), " ", transports(task.transports))


def _slowed_by(task: RunTask) -> Markup | str:
    short = BOTTLENECK_NAMES.get(task.bottleneck or "", task.bottleneck or "")
    return tag("span", short, title=BOTTLENECKS.get(task.bottleneck or "")) if short else ""


def _name(task: RunTask) -> Markup:
    if task.machine is None:
        return join(plain(task.kind), f" {task.target}" if task.target else None)
    return tag("a", task.name, href=machine_page(task.machine))


def _task_state(task: RunTask) -> Markup:
    again = tag("span", f" attempt {task.attempt}", cls="lf-dim") if task.attempt > 1 else None
    point = join(" ", tag("a", "restore point", href=point_page(task.point))) if task.point else None
    return join(chip(task.state), again, point)


def _progress(task: RunTask) -> Markup | str:
    if task.state == "running":
        figures = f"{share(task.share)} {rate(task.bytes_per_second)}"
        return tag("div", progress(task.share, f"Progress of {task.name}"), tag("div", figures, cls="lf-dim lf-small"))
    if task.state == "waiting":
        return tag("span", " ", limits(task.waits_for) or "its turn", cls="lf-dim")
    return ""


def _why(visit: Visit, task: RunTask) -> Markup | None:
    failed = tag("p", f"{plain(task.error)}: {task.message}") if task.error else None
    problems = [tag("p", problem) for problem in task.problems]
    if failed is None and not problems and not task.reasons and not task.stages:
        return None
    reasons = reason_list(task.reasons) if task.reasons else None
    inner = (failed, *problems, reasons, stages_table(task.stages))
    return tag(
        "details", tag("summary", "Why"), *inner, cls="lf-more", open=task.error is not None, data_keep=f"why-{task.id}"
    )


def _log(visit: Visit, events: list[RunEvent]) -> Markup:
    if not events:
        return tag("p", "Nothing has happened yet.", cls="lf-body lf-dim")
    lines = [
        tag(
            "li",
            tag("time", visit.clock.second(event.at), title=visit.clock.full(event.at)),
            tag("b", f"{event.name} ") if event.name else None,
            event.text,
            cls=event.gravity,
        )
        for event in events
    ]
    return tag("ol", *lines, cls="lf-log", tabindex=0, aria_label="Log", data_keep="log")
