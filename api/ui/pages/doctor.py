"""The doctor: looks at the appliance and what is configured, and says what to do about what is wrong."""

from nicegui import ui

from api.schemas.settings import CheckResult, Diagnosis
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import to
from api.ui.parts.blocks import button, card, note
from api.ui.parts.chips import chip
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import count

_WORDS = {"ok": ("ok", "Good"), "warn": ("warn", "Slower, or with less"), "fail": ("bad", "Does not work")}
_WRAPS = "overflow-wrap:anywhere"
"""Paths have no blanks to break at."""

_ORDER = ("fail", "warn", "ok")


async def build(visit: Visit) -> None:
    """Draw it; looking takes some seconds."""

    async def acted(act: Act) -> None:
        if act.act == "look":
            await look()

    again = button("Look again", "look", sign="refresh")
    said = "Every hypervisor, storage target and repository is asked"
    Part(acted).show(head("Doctor", said, crumbs=(("Settings", to("/settings")),), actions=again))
    message = Message()
    part = Part(live=True)

    async def look() -> None:
        part.show(card("Checks", tag("p", "Looking…", cls="lf-dim")))
        found = await message.attempt("It cannot be looked at", visit.api.get(Diagnosis, "/doctor"))
        part.show(_drawn(visit, found) if found is not None else join())

    ui.timer(0.05, look, once=True)
    part.show(card("Checks", tag("p", "Looking…", cls="lf-dim")))


def _drawn(visit: Visit, found: Diagnosis) -> Markup:
    wrong = [one for one in found.results if one.outcome.value != "ok"]
    if found.worst.value == "ok":
        verdict = note("All is well", f"{count(len(found.results), 'check')} passed.", tone="ok")
    else:
        tone = "bad" if found.worst.value == "fail" else "warn"
        verdict = note(f"{count(len(wrong), 'check')} of {len(found.results)} found something", tone=tone)
    results = sorted(found.results, key=lambda one: _ORDER.index(one.outcome.value))
    table = plain_table("Checks", ("Check", "Result", "What was seen, and what to do"), map(_row, results), stack=True)
    return tag("div", verdict, card("Checks", table, right=visit.clock.when(found.at), padded=False), cls="lf-gapped")


def _row(one: CheckResult) -> tuple[Markup | str, ...]:
    tone, words = _WORDS[one.outcome.value]
    what = tag("div", one.detail, tag("p", tag("b", "Do: "), one.remedy) if one.remedy else None, style=_WRAPS)
    return tag("b", one.check), chip(one.outcome.value, said=words, tone=tone), what
