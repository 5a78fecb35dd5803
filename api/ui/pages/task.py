"""A task: what somebody asked for, how far it is, what it brought."""

from nicegui import ui

from api.schemas.tasks import Task
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page, point_page, run_page, to
from api.ui.pages.progress import limits
from api.ui.pages.running import LIVE_SECONDS, stop_task
from api.ui.pages.task_result import figures, lines
from api.ui.parts.blocks import button, card, facts, note, progress
from api.ui.parts.chips import chip, reason_list
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.visit import Visit
from api.ui.words import duration, plain, rate, share, size
from proxy.errors import ServerRefused


async def build(visit: Visit, task: str) -> None:
    """Draw it; while it goes on, again every moment."""

    async def acted(act: Act) -> None:
        if act.act == "stop":
            await stop_task(visit, message, task)
            await look()

    top = Part(acted, live=True)  # its state, that is; the figures below change too often to be read out
    message = Message()
    state = Part()

    async def look() -> Task:
        one = await visit.api.get(Task, f"/tasks/{task}", background=True)
        stop = button("Stop", "stop", kind="danger", sign="stop") if one.stoppable and not one.stopping else None
        top.show(
            head(
                one.title,
                join(chip(one.state.value), " ", _who(visit, one)),
                crumbs=(("Running", to("/running")),),
                actions=stop,
            )
        )
        state.show(_drawn(visit, one))
        return one

    async def again() -> None:
        try:
            one = await look()
        except ServerRefused as refused:
            top.show(said(refused, "This task cannot be brought up to date"))
            return
        if one.ended_at is not None:
            timer.deactivate()

    one = await look()
    timer = ui.timer(LIVE_SECONDS, again, active=one.ended_at is None)


def _who(visit: Visit, one: Task) -> Markup:
    by = f"asked by {one.asked_by}, " if one.asked_by else ""
    return join(by, visit.clock.when(one.created_at))


def _drawn(visit: Visit, one: Task) -> Markup:
    parts = [note(plain(one.error.code), one.error.message, tone="bad") if one.error else None]
    parts += [note("Done, but a person should look", problem, tone="warn") for problem in one.problems]
    if one.ended_at is None:
        parts.append(
            card(
                "Now",
                progress(one.progress.share, f"Progress of {one.title}"),
                tag("p", _now(visit, one), style="margin-top:8px"),
            )
        )
    results = figures(one)
    cards = [card("What it is", facts(_facts(visit, one)), width="w6")]
    if results:
        cards.append(card("What it brought", facts(results), width="w6"))
    if one.reasons:
        cards.append(card("Why it went so", reason_list(one.reasons), width="w6"))
    return tag("div", *parts, tag("div", *cards, cls="lf-grid"), lines(one), cls="lf-gapped")


def _now(visit: Visit, one: Task) -> str:
    if one.stopping:
        return "It is being stopped."
    if one.state.value == "waiting":
        waits = limits(one.waits_for) or "a free slot of a proxy"
        return f"It waits for {waits}."
    now = one.progress
    end = f"; done about {visit.clock.time(now.ends_at)}" if now.ends_at else ""
    return f"{now.phase or 'It runs'}: {share(now.share)}, {size(now.done)} of {size(now.total)}, {rate(now.rate)}{end}"


def _facts(visit: Visit, one: Task) -> list[tuple[str, Markup | str | None]]:
    took = (one.ended_at - one.started_at).total_seconds() if one.ended_at and one.started_at else None
    return [
        ("Kind", plain(one.kind.value)),
        *(
            [("Machine", tag("a", one.machine.name, href=machine_page(one.machine.id)))]
            if one.machine and one.machine.id
            else []
        ),
        *([("Job run", tag("a", one.job or one.job_run, href=run_page(one.job_run)))] if one.job_run else []),
        *([("Restore point", tag("a", one.point, href=point_page(one.point)))] if one.point else []),
        ("Began", visit.clock.when(one.started_at)),
        ("Ended", visit.clock.when(one.ended_at)),
        ("Took", duration(took)),
        ("Proxy", one.proxy),
        ("Attempt", str(one.attempt)),
    ]
