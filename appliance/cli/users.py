"""``lanfree user``: who may sign in, for the person at this machine. Who can run it is root here, and may do all of it."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.auth import people
from api.auth.names import clean_name
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Role
from appliance.auditing import audit, caller
from appliance.cli.app import CONTEXT, app
from appliance.cli.output import table, when
from appliance.storage import secret_in
from appliance.web.access import access_of, set_password
from catalog.access.values import User
from proxy.errors import ConfigurationError

user = typer.Typer(no_args_is_help=True, help="People who may sign in to API and console, as root of this machine.")
app.add_typer(user, name="user")

Name = Annotated[str, typer.Argument(help="As they sign in.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File (0600) with the password in its first line; without, it is asked for or read from stdin."),
]


@user.command("list")
def list_users() -> None:
    """Everybody, with roles and reach."""
    with CONTEXT.services() as services, services.access.transaction(write=False) as unit:
        known = unit.users.list()
    rows = [
        (
            each.name,
            "disabled" if each.disabled else "",
            " ".join(each.roles),
            " ".join(each.machines),
            when(each.signed_in_at) if each.signed_in_at else "never",
        )
        for each in known
    ]
    CONTEXT.output.result(
        [_plain(each) for each in known], table("NAME", "", "ROLES", "MACHINES", "LAST SIGNED IN", rows=rows)
    )


@user.command("add")
def add(
    name: Name,
    role: Annotated[list[Role], typer.Option(help="What they may do; may be said again.")],
    machine: Annotated[
        list[str] | None, typer.Option(help="Pattern of names, or identity, that they reach; all, if none is said.")
    ] = None,
    display_name: Annotated[str, typer.Option(help="For people.")] = "",
    password_file: PasswordFile = None,
) -> None:
    """Let somebody sign in."""
    with CONTEXT.services() as services:
        given = _password(password_file)
        audit(services, "add-user", user=name, roles=[each.value for each in role], machines=list(machine or ("*",)))
        reach = tuple(machine or EVERY_MACHINE)
        made = people.add(access_of(services), _root(), name, given, role, display_name=display_name, machines=reach)
    CONTEXT.output.result(_plain(made), f"{made.name} may sign in as {', '.join(made.roles)}")


@user.command("reset-password")
def reset_password(
    name: Name,
    password_file: PasswordFile = None,
    administrator: Annotated[
        bool, typer.Option(help="Make them an enabled administrator of everything, too: when nobody else can sign in.")
    ] = False,
) -> None:
    """A new password for somebody, and an end to their sessions."""
    with CONTEXT.services() as services:
        given = _password(password_file)
        audit(services, "reset-password", user=name, administrator=administrator)
        if administrator:
            set_password(services, name, given)
        else:
            people.set_password(access_of(services), _root(), name, given)
    CONTEXT.output.result({"name": name, "administrator": administrator}, f"{name} has a new password")


@user.command("disable")
def disable(name: Name) -> None:
    """Let somebody sign in no more; sessions end, tokens hold no more."""
    _switch(name, disabled=True)


@user.command("enable")
def enable(name: Name) -> None:
    """Let somebody sign in again."""
    _switch(name, disabled=False)


def _switch(name: str, *, disabled: bool) -> None:
    with CONTEXT.services() as services:
        audit(services, "disable-user" if disabled else "enable-user", user=name)
        access = access_of(services)
        with services.access.transaction(write=False) as unit:
            revision = unit.users.get(clean_name(name)).revision
        changed = people.change(access, _root(), name, revision=revision, disabled=disabled)
    CONTEXT.output.result(_plain(changed), f"{changed.name} is {'disabled' if disabled else 'enabled'}")


def _root() -> Caller:
    """Whoever runs this reads and writes every file of the appliance."""
    return Caller(caller(), frozenset(Permission))


def _password(file: Path | None) -> str:
    """Never a word of the command line: other users of the machine see those. Raises ``ConfigurationError``."""
    if file is not None:
        return secret_in(file)
    if sys.stdin.isatty():
        given = getpass.getpass("password: ")
        if getpass.getpass("once more: ") != given:
            raise ConfigurationError("password", "the two are not the same")
        return given
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise ConfigurationError("password", "nothing came on stdin", hint="write it there, or name a --password-file")
    return given


def _plain(one: User) -> dict[str, object]:
    return {
        "name": one.name,
        "display_name": one.display_name,
        "roles": list(one.roles),
        "machines": list(one.machines),
        "disabled": one.disabled,
        "created_at": one.created_at,
        "signed_in_at": one.signed_in_at,
    }
