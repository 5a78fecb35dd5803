"""The access log: who did what, and whether anything in it was changed."""

import json

from nicegui import ui

from api.schemas.audit import AuditCheck, AuditEntry
from api.ui.frame import head
from api.ui.markup import Markup, tag
from api.ui.pages.audit_names import Named
from api.ui.parts.blocks import button, empty
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Filter, Table
from api.ui.visit import Visit
from api.ui.words import plain

_SHOWN = 160
"""Characters of an entry's details in a row; all of them are one click away."""


async def build(visit: Visit) -> None:
    """Draw it, the newest first."""

    async def acted(act: Act) -> None:
        if act.act == "check":
            await _check(visit, message)

    check = button("Check the chain", "check", sign="link")
    said = "Every change and every look into files, in a chain that shows what was removed"
    Part(acted).show(head("Access log", said, actions=check))
    message = Message()
    named = Named(visit)
    with ui.element("section").classes("lf-card"):
        table = Table(
            visit,
            AuditEntry,
            "/audit",
            _columns(visit, named),
            caption="Access log",
            filters=(
                Filter("who", "Who: first letters"),
                Filter("action", "Action: browse…"),
                Filter("machine", "Machine: its name"),
                Filter("restore_point", "Restore point: its identity"),
            ),
            nothing=empty("Nothing is recorded yet", "Whatever people do here appears in it.", sign="receipt_long"),
            rows=100,
            asking=named.asking,
            seen=named.look_up,
        )
    await table.load()


def _columns(visit: Visit, named: Named) -> tuple[Column[AuditEntry], ...]:
    return (
        Column(
            "When", lambda one: tag("span", visit.clock.second(one.at), title=visit.clock.full(one.at)), "", "nowrap"
        ),
        Column("Who", lambda one: one.who),
        Column("What", lambda one: tag("span", plain(one.action), title=one.action), "", "nowrap"),
        Column("Concerning", named.about),
        Column("Details", _detail),
        Column("No.", lambda one: tag("span", f"{one.number:,}", title=one.digest), "", "num"),
    )


def _detail(one: AuditEntry) -> Markup:
    words = ", ".join(f"{name}: {_plain(value)}" for name, value in one.detail.items() if value is not None)
    if len(words) <= _SHOWN:
        return tag("span", words, cls="lf-small", style="overflow-wrap:anywhere")
    return tag(
        "details",
        tag("summary", f"{words[:_SHOWN]}…"),
        tag("span", words, cls="lf-small", style="overflow-wrap:anywhere"),
        cls="lf-more",
    )


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def _check(visit: Visit, message: Message) -> None:
    found = await message.attempt("It cannot be checked", visit.api.post(AuditCheck, "/audit/check"))
    if found is None:
        return
    if found.good:
        message.done(
            f"All {found.entries:,} entries are as they were written",
            "Keep this elsewhere: it shows later that everything up to here is still the same.",
            tag("span", found.head, cls="lf-mono", style="overflow-wrap:anywhere"),
        )
        return
    lines = [f"From entry {fault.number:,} on: {fault.why}" for fault in found.faults]
    message.refuse("The access log was changed", *lines, "Compare it with what syslog has, and with the last copy.")
