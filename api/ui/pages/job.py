"""A job: what it means now, its coming runs, its history, which moves on while a run does."""

from http import HTTPStatus

from nicegui import ui

from api.auth.roles import Permission
from api.client_answers import parsed
from api.schemas.job_runs import JobRun
from api.schemas.jobs import Job, JobPreview
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import job_page, run_page, to
from api.ui.pages.job_acts import begin, path_of, remove, switch
from api.ui.pages.job_fields import window_text
from api.ui.pages.job_more import beside, retries_said
from api.ui.pages.job_preview import drawn
from api.ui.pages.running import LIVE_SECONDS
from api.ui.parts.blocks import button, card, empty, facts, link_button, note
from api.ui.parts.chips import chip
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit
from api.ui.words import duration, plain
from catalog.jobs.policy import Policy
from proxy.errors import ServerRefused


async def build(visit: Visit, job: str) -> None:
    """Draw it."""
    one, etag = await _looked_up(visit, job)

    async def look() -> None:
        """Its heading and history, as they are now; the tag stays that of what was shown when somebody decided."""
        try:
            answer = await visit.api.call("GET", path_of(job), background=True)
        except ServerRefused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                timer.cancel()  # somebody else deleted it; what is shown stays readable
            return
        top.show(_heading(visit, parsed(Job, answer)))
        await history.load(background=True)

    async def acted(act: Act) -> None:
        nonlocal etag
        match act.act:
            case "run":
                await begin(visit, message, one.name)
            case "enable" | "disable":
                if await switch(visit, message, one.name, on=act.act == "enable"):
                    shown, etag = await _looked_up(visit, job)
                    top.show(_heading(visit, shown))
            case "delete":
                if await remove(visit, message, one.name, etag):
                    ui.navigate.to("/jobs")
        await history.load()

    top = Part(acted)
    message = Message()
    top.show(_heading(visit, one))
    Part().show(
        join(
            *(
                note("To be mended" if r.kind == "gap" else "Perhaps not meant", r.text, tone="warn")
                for r in one.remarks
            )
        )
    )
    with ui.element("div").classes("lf-grid"):
        Part(cls="w5").show(card("Policy", facts(_policy(one.policy, one))))
        preview = Part(cls="w7")
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", "History")))
        history = Table(
            visit,
            JobRun,
            "/job-runs",
            _columns(visit),
            caption="Runs of this job",
            extra={"job": one.name},
            nothing=empty("It never ran", "Its runs are listed here."),
            rows=20,
        )
    await history.load()
    await _preview(visit, one, preview)
    timer = ui.timer(LIVE_SECONDS, look, immediate=False)


async def _looked_up(visit: Visit, job: str) -> tuple[Job, str]:
    """The job, and the tag of this state of it."""
    answer = await visit.api.call("GET", path_of(job))
    return parsed(Job, answer), answer.headers.get("etag", "")


async def _preview(visit: Visit, one: Job, part: Part) -> None:
    try:
        found = await visit.api.get(JobPreview, f"{path_of(one.name)}/preview")
    except ServerRefused as refused:
        part.show(card("What it means now", said(refused)))
        return
    part.show(card("What it means now", drawn(visit, found)))


def _heading(visit: Visit, one: Job) -> Markup:
    acts: list[Markup] = []
    if visit.may(Permission.EDIT_JOBS):
        acts += [
            button("Delete", "delete", kind="danger"),
            button("Disable", "disable") if one.enabled else button("Enable", "enable"),
            link_button("Edit", f"{job_page(one.name)}/edit", sign="edit"),
        ]
    if visit.may(Permission.BACK_UP):
        acts.append(button("Run now", "run", kind="primary", sign="play_arrow"))
    state = chip("done", said="Enabled") if one.enabled else chip("skipped", said="Disabled")
    running = join(" ", tag("a", chip("running"), href=run_page(one.current_run.id))) if one.current_run else None
    return head(
        one.name, join(state, running, " ", one.description), crumbs=(("Jobs", to("/jobs")),), actions=join(*acts)
    )


def _policy(policy: Policy, one: Job) -> list[tuple[str, Markup | str | None]]:
    keep = policy.retention
    rules = (
        ", ".join(f"{name} {value}" for name, value in keep.model_dump().items() if value) if keep else "as configured"
    )
    return [
        ("Machines", one.machines),
        *([("But not", ", ".join(policy.select.exclude))] if policy.select.exclude else []),
        *([("Without disks", ", ".join(policy.select.exclude_disks))] if policy.select.exclude_disks else []),
        ("When", f"{one.timing} ({one.zone})"),
        ("Window", ", ".join(map(window_text, policy.window)) or "any time"),
        ("Objective", f"a restore point not older than {duration(policy.objective * 3600)}"),
        ("Keeps", rules or "everything"),
        ("Quiesce", policy.quiesce.value if policy.quiesce else "as configured"),
        ("Transports", ", ".join(policy.transports).upper() if policy.transports else "as configured"),
        (
            "Active full",
            f"every {policy.active_full.days} days" if policy.active_full.days else "never: incremental for ever",
        ),
        ("Verified", f"every {policy.verify.days} days" if policy.verify.days else "never by this job"),
        ("Copied to", ", ".join(copy.name for copy in policy.copy_to) or "nowhere"),
        ("At once", str(policy.parallel) if policy.parallel else "as the hosts' limits allow"),
        ("Attempts", retries_said(policy.retries)),
        *beside(policy),
    ]


def _columns(visit: Visit) -> tuple[Column[JobRun], ...]:
    clock = visit.clock
    return (
        Column("Began", lambda run: tag("a", clock.when(run.started_at), href=run_page(run.id)), "", "nowrap"),
        Column("State", lambda run: chip(run.state)),
        Column("Because", lambda run: plain(run.cause)),
        Column("Took", lambda run: duration(run.seconds), "", "num"),
        Column("Tasks done", lambda run: f"{run.tasks.done} of {run.tasks.total}", "", "num"),
        Column("Failed", lambda run: str(run.tasks.failed), "", "num"),
        Column("Why", lambda run: "; ".join(r.detail or plain(r.code) for r in run.reasons)),
    )
