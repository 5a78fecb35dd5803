"""All jobs: what each backs up, when next, how it went last."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.jobs import JobLine, RunBrief
from api.ui.frame import head
from api.ui.markup import EMPTY, Markup, join, tag
from api.ui.pages.addresses import job_page, run_page, to
from api.ui.pages.job_acts import begin, switch
from api.ui.parts.blocks import button, empty, link_button
from api.ui.parts.chips import chip
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit


async def build(visit: Visit) -> None:
    """Draw it."""
    actions = (
        link_button("New job", to("/jobs/new"), kind="primary", sign="add") if visit.may(Permission.EDIT_JOBS) else None
    )
    Part().show(head("Jobs", "Which machines are backed up, when, and for how long", actions=actions))
    message = Message()

    async def acted(act: Act) -> None:
        match act.act:
            case "run":
                await begin(visit, message, act.key)
            case "enable" | "disable":
                await switch(visit, message, act.key, on=act.act == "enable")
        await table.load()

    with ui.element("section").classes("lf-card"):
        table = Table(visit, JobLine, "/jobs", _columns(visit), caption="Jobs", nothing=_nothing(visit), acts=acted)
    await table.load()


def _nothing(visit: Visit) -> Markup:
    action = (
        link_button("Create a job", to("/jobs/new"), kind="primary", sign="add")
        if visit.may(Permission.EDIT_JOBS)
        else None
    )
    return empty(
        "No job yet",
        "A job says which machines are backed up, when, and how long restore points are kept.",
        action=action,
        sign="event",
    )


def _columns(visit: Visit) -> tuple[Column[JobLine], ...]:
    return (
        Column("Name", _name),
        Column("Machines", lambda one: one.machines),
        Column("When", lambda one: one.timing),
        Column("Next", lambda one: _next(visit, one), "", "nowrap"),
        Column("Last run", lambda one: last(visit, one.current_run or one.last_run)),
        Column("", lambda one: _actions(visit, one), "", "act"),
    )


def _name(one: JobLine) -> Markup:
    off = None if one.enabled else chip("skipped", said="Disabled")
    below = tag("div", one.description, cls="lf-dim lf-small") if one.description else None
    return join(tag("a", one.name, href=job_page(one.name)), " ", off, below)


def _next(visit: Visit, one: JobLine) -> Markup:
    if not one.next:
        return tag("span", "by hand" if one.enabled else "not while disabled", cls="lf-dim")
    return join(visit.clock.when(one.next[0]), tag("span", f" ({visit.clock.ago(one.next[0])})", cls="lf-dim"))


def last(visit: Visit, run: RunBrief | None) -> Markup:
    """A run in a cell."""
    if run is None:
        return tag("span", "never ran", cls="lf-dim")
    return join(
        tag("a", chip(run.state), href=run_page(run.id)),
        " ",
        tag("span", visit.clock.when(run.started_at), cls="lf-dim"),
    )


def _actions(visit: Visit, one: JobLine) -> Markup:
    run = (
        button("Run", "run", key=one.name, kind="small")
        if visit.may(Permission.BACK_UP) and one.current_run is None
        else EMPTY
    )
    if not visit.may(Permission.EDIT_JOBS):
        return run
    act, said = ("disable", "Disable") if one.enabled else ("enable", "Enable")
    return join(run, " ", button(said, act, key=one.name, kind="small"))
