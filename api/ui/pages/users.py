"""Users: who may sign in, as what, and to which machines."""

from urllib.parse import quote

from nicegui import ui

from api.auth.passwords import SHORTEST
from api.auth.roles import EVERY_MACHINE, Role
from api.schemas.access import User
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import to
from api.ui.parts.blocks import button, empty
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import ask, check, confirm, field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit

ROLE_WORDS = {
    Role.ADMINISTRATOR: ("Administrator", "Everything."),
    Role.OPERATOR: ("Operator", "Keeps backups going, and reads nobody's files."),
    Role.RESTORE_OPERATOR: ("Restore operator", "Looks into restore points and restores; changes no job."),
    Role.AUDITOR: ("Auditor", "Sees all but what files hold, and reads the access log; changes nothing."),
}


async def build(visit: Visit) -> None:
    """Draw them."""

    async def acted(act: Act) -> None:
        await _acted(visit, message, act, [one for one in table.items if one.name == act.key])
        await table.load()

    add = button("Add user", "add", kind="primary", sign="person_add")
    Part(acted).show(head("Users", "Who may sign in, as what, and which machines they reach", actions=add))
    message = Message()
    with ui.element("section").classes("lf-card"):
        table = Table(
            visit,
            User,
            "/users",
            _columns(visit),
            caption="Users",
            nothing=empty("Nobody yet", "Add the people who work with this.", sign="group"),
            acts=acted,
        )
    await table.load()


def _columns(visit: Visit) -> tuple[Column[User], ...]:
    return (
        Column("Name", _name),
        Column("Roles", lambda one: join(*(label(ROLE_WORDS[role][0]) for role in one.roles), between=" ")),
        Column("Machines", _machines),
        Column("State", _state),
        Column("Signed in", lambda one: visit.clock.when(one.signed_in_at), "", "nowrap"),
        Column("", lambda one: _acts(visit, one), "", "act"),
    )


def _name(one: User) -> Markup:
    full = tag("div", one.display_name, cls="lf-dim lf-small") if one.display_name != one.name else None
    return join(tag("b", one.name), full)


def _machines(one: User) -> Markup:
    return (
        tag("span", "all", cls="lf-dim") if "*" in one.machines else tag("span", ", ".join(one.machines), cls="lf-mono")
    )


def _state(one: User) -> Markup:
    if one.disabled:
        return chip("stopped", said="Disabled")
    if one.provider:
        return label("single sign-on", title=one.provider)
    return chip("done", said="Active") if one.has_password else chip("attention", said="No password")


def _acts(visit: Visit, one: User) -> Markup:
    if one.name == visit.name:
        return tag("a", "Your account", href=to("/account"), cls="lf-btn small")
    return join(
        button("Change", "change", key=one.name, kind="small"),
        " ",
        button("Password", "password", key=one.name, kind="small"),
        " ",
        button("Sign out", "sign-out", key=one.name, kind="small"),
        " ",
        button("Enable" if one.disabled else "Disable", "switch", key=one.name, kind="small"),
        " ",
        button("Remove", "remove", key=one.name, kind="small danger"),
    )


async def _acted(visit: Visit, message: Message, act: Act, named: list[User]) -> None:
    if act.act == "add":
        await _add(visit, message)
        return
    if not named:
        return
    one, path = named[0], f"/users/{quote(named[0].name, safe='')}"
    match act.act:
        case "change":
            await _change(visit, message, one, path)
        case "password":
            await _password(visit, message, one, path)
        case "sign-out":
            if await message.attempt("Nobody was signed out", visit.api.call("DELETE", f"{path}/sessions")) is not None:
                message.done(f"{one.name} is signed out everywhere")
        case "switch":
            await _switch(visit, message, one, path)
        case "remove":
            happens = ("Their tokens and sessions end at once.", "What they did stays in the access log.")
            if await confirm(f"Remove {one.name}", happens, "Remove", danger=True):
                doing = visit.api.call("DELETE", path)
                if await message.attempt(f"{one.name} was not removed", doing) is not None:
                    message.done(f"{one.name} was removed")


def _box(name: str, *, type_: str = "text", value: str = "", required: bool = True) -> Markup:
    fill = "new-password" if type_ == "password" else "off"
    return tag(
        "input",
        type=type_,
        id=f"u-{name}",
        name=name,
        value=value,
        required=required,
        autocomplete=fill,
        maxlength="1000",
    )


def _roles(chosen: list[Role]) -> Markup:
    boxes = [
        check(title, "role", value=role.value, checked=role in chosen, help_=words)
        for role, (title, words) in ROLE_WORDS.items()
    ]
    return tag("fieldset", tag("legend", "Roles"), *boxes)


def _reach(machines: list[str]) -> Markup:
    return field(
        "Machines that they reach",
        _box("machines", value=", ".join(machines)),
        for_="u-machines",
        help_="Patterns of names, with commas between: db-*, mail-01. * is all of them.",
    )


def patterns(said: str) -> list[str]:
    """What was typed, one pattern each; none where none was, which the API refuses: nobody reaches all machines by a slip."""
    return [one.strip() for one in said.split(",") if one.strip()]


async def _add(visit: Visit, message: Message) -> None:
    form = join(
        field("Name", _box("name"), for_="u-name", help_="What they sign in with: letters, digits, . _ @ + -"),
        field("Full name", _box("display", required=False), for_="u-display"),
        field(
            "Password",
            _box("password", type_="password"),
            for_="u-password",
            help_=f"At least {SHORTEST} characters, of any kind. They should change it.",
        ),
        _roles([Role.OPERATOR]),
        _reach(list(EVERY_MACHINE)),
    )

    async def add(act: Act, said: Message) -> bool:
        body = {"name": act.one("name").strip(), "password": act.one("password"), **_rights(act)}
        made = await said.attempt("The user was not added", visit.api.post(User, "/users", body))
        if made is not None:
            message.done(f"{made.name} may sign in", "Tell them name and password, and where this console is.")
        return made is not None

    await ask("Add a user", form, "Add user", doing=add)


def _rights(act: Act) -> dict[str, object]:
    """What both forms say."""
    return {
        "display_name": act.one("display").strip() or None,
        "roles": list(act.form.get("role", ())),
        "machines": patterns(act.one("machines")),
    }


async def _change(visit: Visit, message: Message, one: User, path: str) -> None:
    form = join(
        field("Full name", _box("display", value=one.display_name, required=False), for_="u-display"),
        _roles(one.roles),
        _reach(one.machines),
    )

    async def change(act: Act, said: Message) -> bool:
        doing = visit.api.patch(User, path, _rights(act), etag=f'"{one.revision}"')
        changed = await said.attempt(f"{one.name} was not changed", doing)
        if changed is not None:
            message.done(f"{one.name} was changed", "It counts from their next click on.")
        return changed is not None

    await ask(f"Change {one.name}", form, "Change", doing=change)


async def _password(visit: Visit, message: Message, one: User, path: str) -> None:
    form = join(
        tag("p", "All their sessions end. Tell them the new password; they should change it."),
        field(
            "New password",
            _box("password", type_="password"),
            for_="u-password",
            help_=f"At least {SHORTEST} characters.",
        ),
    )

    async def set_it(act: Act, said: Message) -> bool:
        doing = visit.api.call("PUT", f"{path}/password", {"password": act.one("password")})
        answer = await said.attempt("The password was not set", doing)
        if answer is not None:
            message.done(f"{one.name} has a new password")
        return answer is not None

    await ask(f"Set {one.name}'s password", form, "Set password", doing=set_it)


async def _switch(visit: Visit, message: Message, one: User, path: str) -> None:
    if not one.disabled:
        happens = ("They are signed out everywhere, and cannot sign in.", "Their tokens are no good meanwhile.")
        if not await confirm(f"Disable {one.name}", happens, "Disable", danger=True):
            return
    doing = visit.api.patch(User, path, {"disabled": not one.disabled}, etag=f'"{one.revision}"')
    if await message.attempt(f"{one.name} was not changed", doing) is not None:
        message.done(f"{one.name} is {'enabled' if one.disabled else 'disabled'}")
