"""Proxies: who works on tasks, and over which fabrics."""

from nicegui import ui

from api.schemas.proxies import Proxies, Proxy
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import to
from api.ui.parts.blocks import card, empty, note, progress
from api.ui.parts.chips import chip, label
from api.ui.parts.part import Part
from api.ui.parts.problems import said
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import duration
from proxy.errors import ServerRefused

LIVE_SECONDS = 5.0
"""Between looks: heartbeats come about as often."""


async def build(visit: Visit) -> None:
    """Draw them, again and again."""
    Part().show(head("Proxies", "Who reads disks and writes to the repository; brought up to date by itself"))
    part = Part()  # not read out: how long each is up changes with each look

    async def look() -> None:
        try:
            part.show(_drawn(visit, await visit.api.get(Proxies, "/proxies", background=True)))
        except ServerRefused as refused:
            part.show(said(refused, "Proxies are not known"))

    await look()
    ui.timer(LIVE_SECONDS, look)


def _drawn(visit: Visit, found: Proxies) -> Markup:
    if not found.items:
        nothing = empty(
            "No proxy yet", "Start 'lanfree serve' on a machine that reaches the storage: it appears here.", sign="lan"
        )
        return tag("section", nothing, cls="lf-card")
    trouble = None
    if not found.serves:
        trouble = note(
            "No proxy is alive",
            "Nothing begins: no backup, no restore.",
            "Start 'lanfree serve' on one of them.",
            tone="bad",
        )
    rows = [_row(visit, one) for one in found.items]
    titles = ("Proxy", "State", "Works on", "Fabrics", "Up for", "Version")
    return tag(
        "div",
        trouble,
        card("All of them", plain_table("Proxies", titles, rows, stack=True), padded=False),
        cls="lf-gapped",
    )


def _row(visit: Visit, one: Proxy) -> tuple[Markup | str | None, ...]:
    state = chip("alive", said="Alive") if one.alive else chip("silent", said=f"Silent for {duration(one.silent_for)}")
    busy = join(
        progress(one.tasks / one.slots if one.slots else 0.0, f"Slots of {one.machine}"),
        tag("a", f"{one.tasks} of {one.slots} slots", href=to("/running"), cls="lf-small"),
    )
    closed = tag("div", "Begins nothing at ", ", ".join(one.closed), cls="lf-small") if one.closed else None
    return (
        join(tag("b", one.machine), tag("div", one.name, cls="lf-dim lf-small lf-mono")),
        state,
        busy if one.alive else None,
        join(*(join(label(path), " ") for path in one.paths), closed),
        join(
            duration(one.up_seconds),
            " ",
            tag("span", "since ", visit.clock.when(one.started_at), cls="lf-dim lf-small"),
        ),
        one.version,
    )
