"""Who comes to a page: a browser whose session lives. Who comes to the socket of one: the same, from a page of ours.

NiceGUI's pages are drawn and changed over a websocket. It knows its clients by an unguessable number alone; here the session is
asked for, too, so that a number that leaked, or outlived its session, is worth nothing. What is asked for a page is asked
before NiceGUI makes one: a stranger fills no memory.
"""

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nicegui import Client, core
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.sessions import COOKIE
from api.ui.markup import tag
from api.ui.parts.advice import advice
from api.ui.visit import PREFIX, ZONE_COOKIE, client_for, sign_in
from api.ui.words import sentence
from proxy.errors import ServerRefused

_LOG = logging.getLogger(__name__)

MOST_PAGES = 400
"""Open at once, in all browsers. A dashboard takes 0.3 MiB (60 of them, measured); whoever comes then is asked to wait."""

ASSETS = Path(__file__).parent / "static"

_SOCKETS = "/_nicegui_ws/"
_SAID = ("event", "javascript_response", "ack", "log")
"""Messages of a socket that name a page, once it is connected."""
_FILES = ("/_nicegui/", "/assets/")

_ASK_ZONE = (
    '<!doctype html><html lang="en"><head><title>Lanfree</title><meta charset="utf-8">'
    f'<script src="{PREFIX}/assets/console.js"></script></head><body><noscript><h1>Lanfree</h1>'
    "<p>The console needs scripts and cookies. Everything in it can be done with the command 'lanfree', too.</p>"
    "</noscript></body></html>"
)
"""To a browser whose time zone is not known yet: it says it by cookie, and asks again at once."""


class Guard:
    """Stands before everything that NiceGUI serves; its files, and ours, are for everybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        refusal = None
        if path.startswith(_SOCKETS):
            refusal = await _at_socket(HTTPConnection(scope))
        elif not path.startswith(_FILES):
            refusal = await _at_page(HTTPConnection(scope))
        if refusal is None:
            await self._pass(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401, "reason": "not signed in"})
        else:
            await refusal(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            # Starlette's middleware says so of a browser that went away before its answer was made; nobody is left to tell.
            if str(error) != "No response returned.":
                raise


async def _at_socket(connection: HTTPConnection) -> Response | None:
    if from_here(connection) and owner(connection) and await _refused(connection) is None:
        return None
    _LOG.info("a socket of the console was refused", extra={"event": "console-socket-refused"})
    return PlainTextResponse("not signed in", 401)


async def _at_page(connection: HTTPConnection) -> Response | None:
    if ZONE_COOKIE not in connection.cookies:
        return HTMLResponse(_ASK_ZONE)
    if (refused := await _refused(connection)) is not None:
        return turned_away(connection, refused)
    if len(Client.instances) >= MOST_PAGES:
        return _sorry("Too many pages are open", "Close some, then load this one again.", 503)
    return None


def from_here(connection: HTTPConnection) -> bool:
    """Whether a page of ours opened it: another site's script sends its own origin."""
    origin = connection.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == connection.headers.get("host", "")


def owner(connection: HTTPConnection) -> bool:
    """Whether the same session asked for the page that the socket names; one that names none is no browser's. A page that is
    not known (any more) is NiceGUI's to answer: it makes the browser ask anew, where the session is asked for."""
    number = parse_qs(connection.scope.get("query_string", b"").decode("ascii", "replace")).get("client_id", [""])[0]
    client = Client.instances.get(number)
    if client is None:
        return bool(number)
    return client.request.cookies.get(COOKIE) == connection.cookies.get(COOKIE)


def bind_sockets() -> None:
    """What comes over a socket counts for the socket's own page alone. NiceGUI itself takes it for whichever page the message
    names, so that whoever learns the number of somebody's page could press its buttons. Once a process."""
    handlers = core.sio.handlers["/"]
    for name in _SAID:
        core.sio.on(name, of_own_page(handlers[name], core.sio.rooms))


Heard = Callable[[str, Any], object]


def of_own_page(heard: Heard, rooms: Callable[[str], Sequence[str]]) -> Heard:
    """The handler behind a look at ``rooms``: those of a socket, one of which has the name of its page since they shook
    hands."""

    def checked(socket: str, message: Any) -> None:
        if isinstance(message, dict) and message.get("client_id") in rooms(socket):
            heard(socket, message)
        else:
            _LOG.warning("a socket spoke for a page that is not its own", extra={"event": "console-socket-refused"})

    return checked


def turned_away(connection: HTTPConnection, refused: ServerRefused) -> Response:
    """For who cannot be told who they are: to the sign-in page if they are nobody. What else went wrong is said here: whose
    session lives would be sent back from there, and come again at once."""
    if refused.status == HTTPStatus.UNAUTHORIZED:
        return RedirectResponse(sign_in(connection), 303)
    return _sorry(sentence(refused.message), sentence(advice(refused.code, refused.hint)), refused.status)


def _sorry(title: str, hint: str, status: int) -> Response:
    """A page that needs nothing but the style sheet."""
    said = tag("main", tag("h1", title), tag("p", hint) if hint else None, cls="lf lf-page")
    head = f'<meta charset="utf-8"><title>Lanfree</title><link rel="stylesheet" href="{PREFIX}/assets/console.css">'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{said}</body></html>'
    return HTMLResponse(page, status)


async def _refused(connection: HTTPConnection) -> ServerRefused | None:
    """What stands against it that the session lives."""
    try:
        async with client_for(connection) as api:
            await api.call("GET", "/session", background=True)
    except ServerRefused as refused:
        return refused
    return None
