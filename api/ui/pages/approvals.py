"""Approvals: what waits for a second person, and what became of it."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.access import Approval, Session
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import machine_page
from api.ui.parts.blocks import button, empty
from api.ui.parts.chips import chip
from api.ui.parts.dialogs import ask, confirm, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Filter, Table
from api.ui.visit import Visit
from api.ui.words import sentence

_TONES = {
    "waiting": ("run", "Waits"),
    "expired": ("idle", "Nobody decided in time"),
    "refused": ("warn", "Refused"),
    "approved": ("run", "Being done"),
    "performed": ("ok", "Done"),
    "failed": ("bad", "Failed"),
}


async def build(visit: Visit) -> None:
    """Draw them, the newest first."""
    session = await visit.api.get(Session, "/session")

    async def acted(act: Act) -> None:
        if act.act == "approve":
            await _approve(visit, message, [one for one in table.items if one.id == act.key])
        elif act.act == "refuse":
            await _refuse(visit, message, act.key)
        await table.load()

    Part().show(head("Approvals", "What one person asked for, and another one has to confirm"))
    message = Message()
    with ui.element("section").classes("lf-card"):
        table = Table(
            visit,
            Approval,
            "/approvals",
            _columns(visit),
            caption="Approvals",
            filters=(Filter("state", "State", tuple((value, words) for value, (_, words) in _TONES.items())),),
            nothing=_nothing(four_eyes=session.four_eyes),
            acts=acted,
        )
    await table.load()


def _nothing(*, four_eyes: bool) -> Markup:
    if four_eyes:
        return empty(
            "Nothing waits", "Deleting restore points and shortening retention appear here first.", sign="how_to_reg"
        )
    said = "Two pairs of eyes are not asked for. Whoever is root there switches it on: four_eyes = true in [web]."
    return empty("Nothing waits", said, sign="how_to_reg")


def _columns(visit: Visit) -> tuple[Column[Approval], ...]:
    clock = visit.clock
    return (
        Column("What", _what),
        Column("State", _state),
        Column("Asked by", lambda one: join(one.asked_by, ", ", clock.when(one.asked_at))),
        Column("Until", lambda one: clock.when(one.expires_at) if one.state.value == "waiting" else "", "", "nowrap"),
        Column(
            "Decided by", lambda one: join(one.decided_by, ", ", clock.when(one.decided_at)) if one.decided_by else ""
        ),
        Column("", lambda one: _acts(visit, one), "", "act"),
    )


def _what(one: Approval) -> Markup:
    machine = (
        tag("div", tag("a", one.machine_name, href=machine_page(one.machine)), cls="lf-small")
        if one.machine and one.machine_name
        else None
    )
    return join(sentence(one.summary), machine)


def _state(one: Approval) -> Markup:
    tone, words = _TONES[one.state.value]
    return join(
        chip(one.state.value, said=words, tone=tone),
        tag("div", one.outcome, cls="lf-dim lf-small") if one.outcome else None,
    )


def _acts(visit: Visit, one: Approval) -> Markup | None:
    if one.state.value != "waiting":
        return None
    own = one.asked_by == visit.name
    approve = (
        button("Approve", "approve", key=one.id, kind="small primary")
        if visit.may(Permission.APPROVE) and not own
        else None
    )
    if approve is None and not own:
        return None
    return join(approve, " ", button("Take back" if own else "Refuse", "refuse", key=one.id, kind="small"))


async def _approve(visit: Visit, message: Message, named: list[Approval]) -> None:
    if not named:
        return
    one = named[0]
    happens = (sentence(one.summary), f"{one.asked_by} asked for it. It is done at once, and recorded with both names.")
    if not await confirm("Approve this", happens, "Approve", danger=True):
        return
    done = await message.attempt("It was not approved", visit.api.post(Approval, f"/approvals/{one.id}/approve"))
    if done is None:
        return
    if done.state.value == "failed":
        message.refuse("It was approved, and failed", done.outcome)
    else:
        message.done("It was approved and done")


async def _refuse(visit: Visit, message: Message, id_: str) -> None:
    box = tag("input", type="text", id="w-why", name="why", maxlength="500")

    async def refuse(act: Act, said: Message) -> bool:
        doing = visit.api.post(Approval, f"/approvals/{id_}/refuse", {"why": act.one("why").strip()})
        answer = await said.attempt("It still waits", doing)
        if answer is not None:
            message.done("It was refused")
        return answer is not None

    why = field("Why", box, for_="w-why", help_="Whoever asked is shown it.")
    await ask("Say no", why, "Refuse", doing=refuse)
