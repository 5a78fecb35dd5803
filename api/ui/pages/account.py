"""One's own account: who one is here, the password, tokens for programs."""

from datetime import timedelta
from urllib.parse import quote

from nicegui import ui

from api.auth.passwords import SHORTEST
from api.auth.roles import Permission
from api.schemas.access import MadeToken, Session, Token
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import go
from api.ui.pages.users import ROLE_WORDS, patterns
from api.ui.parts.blocks import button, card, empty, facts, note
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import ask, check, confirm, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit
from api.ui.words import duration, plain

DAYS = 90
"""For which a token is good unless somebody says otherwise."""


async def build(visit: Visit) -> None:
    """Draw it."""
    session = await visit.api.get(Session, "/session")

    async def acted(act: Act) -> None:
        match act.act:
            case "password":
                await _password(visit, message)
            case "sign-out":
                await _sign_out(visit, message)
            case "token":
                message.clear()
                await _make(visit, secret, session)
            case "delete":
                await _delete(visit, message, act.key, [one for one in table.items if one.id == act.key])
        await table.load()

    actions = join(
        button("Sign out everywhere", "sign-out", sign="logout"),
        button("Change password", "password", sign="password") if session.provider is None else None,
    )
    full = session.display_name if session.display_name != session.name else None
    Part(acted).show(head("Your account", full, actions=actions))
    message = Message()
    secret = Part(live=True)
    Part().show(card("Who you are here", facts(_facts(visit, session))))
    with ui.element("section").classes("lf-card"):
        make = button("Make a token", "token", kind="small primary", sign="add")
        Part(acted).show(tag("header", tag("h2", "Tokens"), tag("div", make, cls="lf-right")))
        table = Table(
            visit,
            Token,
            "/tokens",
            _columns(visit),
            caption="Tokens",
            nothing=empty(
                "No token",
                "Programs and “lanfree --server” sign in with tokens, each with no more rights than it needs.",
                sign="vpn_key",
            ),
            acts=acted,
        )
    await table.load()


def _facts(visit: Visit, session: Session) -> list[tuple[str, Markup | str | None]]:
    roles = join(*(label(ROLE_WORDS[role][0], title=ROLE_WORDS[role][1]) for role in session.roles), between=" ")
    machines = "all" if "*" in session.machines else ", ".join(session.machines)
    idle = f", and {duration(session.idle_seconds)} after the last click" if session.idle_seconds else ""
    return [
        ("Name", session.name),
        ("Roles", roles),
        ("Machines", machines),
        ("You may", ", ".join(plain(one.value).lower() for one in session.permissions)),
        ("Signed in by", session.provider or "password"),
        ("This session ends", join(visit.clock.when(session.expires_at), idle)),
    ]


def _columns(visit: Visit) -> tuple[Column[Token], ...]:
    clock = visit.clock
    return (
        Column("Name", lambda one: tag("b", one.name)),
        Column("Whose", lambda one: one.owner),
        Column("May", lambda one: join(*(label(plain(each.value)) for each in one.permissions), between=" ")),
        Column("Machines", lambda one: "all" if "*" in one.machines else ", ".join(one.machines)),
        Column("Expires", lambda one: _expires(visit, one), "", "nowrap"),
        Column("Used", lambda one: clock.when(one.used_at), "", "nowrap"),
        Column("", lambda one: button("Delete", "delete", key=one.id, kind="small danger"), "", "act"),
    )


def _expires(visit: Visit, one: Token) -> Markup:
    if one.expires_at is None:
        return chip("attention", said="Never")
    if visit.clock.here(one.expires_at) < visit.clock.now():
        return chip("stopped", said="Expired")
    return visit.clock.when(one.expires_at)


async def _password(visit: Visit, message: Message) -> None:
    def box(name: str, fill: str) -> Markup:
        return tag("input", type="password", id=f"a-{name}", name=name, required=True, autocomplete=fill)

    form = join(
        field("Your password now", box("current", "current-password"), for_="a-current"),
        field(
            "The new one",
            box("password", "new-password"),
            for_="a-password",
            help_=f"At least {SHORTEST} characters, of any kind.",
        ),
        field("The new one again", box("again", "new-password"), for_="a-again"),
        tag("p", "Your other sessions end.", cls="lf-dim"),
    )

    async def change(act: Act, said: Message) -> bool:
        if act.one("password") != act.one("again"):
            said.refuse("Your password was not changed", "The new one was not the same both times.")
            return False
        body = {"password": act.one("password"), "current": act.one("current")}
        doing = visit.api.call("PUT", f"/users/{quote(visit.name, safe='')}/password", body)
        answer = await said.attempt("Your password was not changed", doing)
        if answer is not None:
            message.done("Your password was changed", "All your other sessions have ended.")
        return answer is not None

    await ask("Change your password", form, "Change password", doing=change)


async def _sign_out(visit: Visit, message: Message) -> None:
    happens = ("All your sessions end, on all machines; this one, too.", "Tokens stay good.")
    if await confirm("Sign out everywhere", happens, "Sign out everywhere"):
        doing = visit.api.call("DELETE", f"/users/{quote(visit.name, safe='')}/sessions")
        if await message.attempt("You are still signed in", doing) is not None:
            go("/login")


async def _make(visit: Visit, secret: Part, session: Session) -> None:
    async def make(act: Act, said: Message) -> bool:
        days = act.one("days").strip()
        body = {
            "name": act.one("name").strip(),
            "permissions": list(act.form.get("may", ())),
            "machines": patterns(act.one("machines")),
            "expires_at": (visit.clock.now() + timedelta(days=int(days))).isoformat()
            if days.isdecimal() and len(days) < 6
            else None,
        }
        made = await said.attempt("No token was made", visit.api.post(MadeToken, "/tokens", body))
        if made is not None:
            secret.show(_shown_once(made))
        return made is not None

    await ask("Make a token", _token_form(session), "Make token", doing=make)


def _shown_once(made: MadeToken) -> Markup:
    return note(
        f"The token “{made.name}”: copy it now",
        "It is not kept here, and is never shown again.",
        actions=tag("div", made.secret, cls="lf-secret", tabindex=0),
        tone="ok",
    )


def _token_form(session: Session) -> Markup:
    kinds = [
        check(plain(one.value), "may", value=one.value, checked=one is Permission.VIEW) for one in session.permissions
    ]
    return join(
        field(
            "Name",
            tag("input", type="text", id="t-name", name="name", required=True, maxlength="128"),
            for_="t-name",
            help_="What it is for.",
        ),
        tag("fieldset", tag("legend", "What it may"), tag("div", *kinds, cls="lf-pair")),
        field(
            "Machines",
            tag(
                "input", type="text", id="t-machines", name="machines", value=", ".join(session.machines), required=True
            ),
            for_="t-machines",
            help_="Patterns of names, with commas between. * is all that you reach.",
        ),
        field(
            "Good for days",
            tag("input", type="number", id="t-days", name="days", value=DAYS, min="1", max="3660"),
            for_="t-days",
            help_="Empty: for ever, which is seldom wise.",
        ),
    )


async def _delete(visit: Visit, message: Message, id_: str, named: list[Token]) -> None:
    name = named[0].name if named else id_
    happens = ("Whatever uses it is refused from this moment on.",)
    if await confirm(f"Delete the token “{name}”", happens, "Delete token", danger=True):
        doing = visit.api.call("DELETE", f"/tokens/{quote(id_, safe='')}")
        if await message.attempt("The token was not deleted", doing) is not None:
            message.done(f"The token “{name}” was deleted")
