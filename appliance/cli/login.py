"""``lanfree login`` and ``logout``: a token of one's own at another appliance, for ``lanfree --server``."""

import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from getpass import getpass, getuser
from secrets import token_hex
from socket import gethostname
from typing import Annotated

import typer

from api.auth.roles import Permission
from api.client import Client
from api.schemas.access import MadeToken, Session
from api.trust import Authority, place_of, shown_by
from appliance.cli.app import CONTEXT, app
from appliance.cli.commands import SERVER
from appliance.cli.servers import Known, servers
from proxy.errors import CertificateRefused, LanfreeError, ServerRefused

Url = Annotated[str, typer.Argument(metavar="URL", help="https://NAME:PORT, as the console is opened by.")]


@app.command()
def login(
    url: Url,
    name: Annotated[str | None, typer.Option(help="User there; asked for, if not said.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="The token ends by itself after so many.")] = 90,
    fingerprint: Annotated[
        str | None, typer.Option(help="SHA-256 of its authority, as 'lanfree web fingerprint' shows it there.")
    ] = None,
) -> None:
    """Sign in to an appliance, and keep a token for 'lanfree --server URL'. The password is asked for, or read from stdin."""
    place_of(url)  # nothing is said to an address without TLS
    authority = _trusted(url, fingerprint)
    user = name or (input("name: ") if sys.stdin.isatty() else getuser())
    password = getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    with Client(url, authority=authority) as door:
        answer = door.call("POST", "/session", {"name": user, "password": password})
        session = Session.model_validate_json(answer.content)
        cookies = dict(answer.cookies.items())
    with Client(url, authority=authority, cookies=cookies, csrf=session.csrf) as signed_in:
        try:
            made = signed_in.post(MadeToken, "/tokens", _token(session.permissions, days))
            before = servers().of(url).token_id
            servers().keep(url, Known(authority, made.secret, made.id))  # at once: nobody else knows of it
            if before is not None:
                with suppress(ServerRefused):  # it has ended, or was somebody else's
                    signed_in.delete(f"/tokens/{before}")
        finally:
            with suppress(LanfreeError):  # it ends by itself
                signed_in.delete("/session")
    CONTEXT.output.result(
        {"server": url, "user": session.name, "permissions": session.permissions, "expires_at": made.expires_at},
        f"signed in to {url} as {session.name}; the token '{made.name}' ends in {days} days",
    )


@app.command()
def logout(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help=f"That of --server and {SERVER} without.")] = None,
) -> None:
    """Delete the token that is kept for an appliance, here and there."""
    url = url or CONTEXT.server
    if url is None:
        raise typer.BadParameter("say of which appliance")
    place_of(url)
    known = servers().forget(url)
    if known.token is None or known.token_id is None:
        CONTEXT.output.result({"server": url, "signed_out": False}, f"you were not signed in to {url}")
        return
    try:
        with Client(url, token=known.token, authority=known.authority) as server:
            server.delete(f"/tokens/{known.token_id}")
    except ServerRefused as error:  # it ended before
        CONTEXT.output.note(f"it did not know the token any more: {error.message}")
    except LanfreeError as error:
        CONTEXT.output.warn(f"forgotten here, and still good there until it ends: {error.message}")
    CONTEXT.output.result({"server": url, "signed_out": True}, f"signed out of {url}")


def _token(permissions: list[Permission], days: int) -> dict[str, object]:
    now = datetime.now(UTC)  # several users of one machine may sign in with the same name there
    return {
        "name": f"lanfree of {getuser()}@{gethostname()} {now:%Y-%m-%d %H:%M:%S} {token_hex(2)}",
        "permissions": [permission.value for permission in permissions],
        "expires_at": (now + timedelta(days=days)).isoformat(),
    }


def _trusted(url: str, fingerprint: str | None) -> str | None:
    """PEM of the server's own authority, when a person said that it is the right one, or did so before; ``None`` where the
    system's authorities vouch for the server. Raises ``CertificateRefused``."""
    known = servers().of(url).authority
    if known is not None and fingerprint is None:
        return known
    if fingerprint is None and _vouched_for(url):
        return None
    shown = shown_by(url)
    if fingerprint is not None:
        if _digits(fingerprint) != _digits(shown.fingerprint):
            raise CertificateRefused(url, fingerprint, shown.fingerprint)
        return shown.pem
    return _agreed(url, shown)


def _agreed(url: str, shown: Authority) -> str:
    refused = CertificateRefused(url, "none", shown.fingerprint, why="nobody vouches for it")
    if not sys.stdin.isatty():
        raise refused
    CONTEXT.output.notes.print(f"{url} is known to nobody here. Fingerprint of its authority (SHA-256):", markup=False)
    CONTEXT.output.notes.print(f"  {shown.fingerprint}", markup=False)
    CONTEXT.output.notes.print("Compare it with what 'lanfree web fingerprint' shows on that machine.", markup=False)
    if input("the same? [yes/no] ").strip().lower() != "yes":
        raise refused
    return shown.pem


def _vouched_for(url: str) -> bool:
    try:
        with Client(url) as server:
            server.call("GET", "/health/live")
    except ServerRefused:
        return True
    except LanfreeError:
        return False
    return True


def _digits(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()
