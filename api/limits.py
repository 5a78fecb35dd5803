"""What one request may take of the process: room, depth, time. Each is a layer around the application (ASGI).

::

    Numbered         a number for each request; what nobody expected becomes a problem with it, and a line in the log
    Hosts            only under the names of this appliance
    Readers          who takes nothing of an answer for too long is hung up on
    (gate.Gate       only who is known; so many at once of each)
    Bodies           the body, whole: not larger, deeper or slower than allowed

Headers are bounded before any of this, where they are parsed (the server's own limits).
"""

import asyncio
import logging
import re
from collections.abc import Collection
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.asgi import header, headers, refuse, state_of
from api.refusals import TooLarge, TooSlow, WrongHost
from proxy.errors import ConfigurationError, LanfreeError

_LOG = logging.getLogger(__name__)


class Numbered:
    """A number for each request, and a problem for what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = str(uuid4())
        # A dictionary of its own: the server gives the same to all requests of its life.
        scope["state"] = {**scope.get("state", {}), "instance": f"urn:uuid:{number}"}
        begun = False

        async def numbered(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-Id"] = number
            await send(message)

        try:
            await self._app(scope, receive, numbered)
        except Exception as error:  # whatever it is, who asked gets an answer without a traceback in it
            answer = errors.of_exception(error, f"urn:uuid:{number}")
            if begun:
                raise  # the server breaks the connection off: a part must not look like the whole
            await answer(scope, receive, numbered)


class Hosts:
    """Refuses names that are not this appliance's: a page of a stranger's name that was led here (DNS rebinding) would have
    its own rights. ``names``: as ``WebSettings.hosts``."""

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = app
        self._any = "*" in names
        self._names = frozenset(name.lower() for name in names if not name.startswith("*"))
        self._below = tuple(name[1:].lower() for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._known(list(headers(scope, b"host"))):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refuse(WrongHost(), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, said: list[bytes]) -> bool:
        if len(said) != 1:
            return False
        if self._any:
            return True
        host = said[0].decode("latin-1").lower()
        name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
        return name in self._names or name.endswith(self._below)


class Bodies:
    """Reads a body whole before anything is done with it; routes find it as usual. ``most``: bytes; ``depth``: of JSON;
    ``patience``: seconds until it has to be there."""

    def __init__(self, app: ASGIApp, *, most: int, depth: int, patience: float) -> None:
        self._app = app
        self._most = most
        self._depth = depth
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._patience):
                body = await self._read(scope, receive)
            if body is not None and deeper(body, self._depth):
                raise ConfigurationError("the body", f"nested deeper than {self._depth} levels")
            if body is not None and has_half_letters(body):
                raise ConfigurationError("the body", "it has halves of letters (\\uD800 to \\uDFFF) that are no pair")
        except TimeoutError:
            await self._end(TooSlow(self._patience), scope, receive, send)
            return
        except LanfreeError as error:
            await self._end(error, scope, receive, send)
            return
        if body is None:
            return  # who sent it left
        state_of(scope)["body"] = body
        given = False

        async def read() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, read, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of it; ``None`` when its sender left. Raises ``TooLarge``."""
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._most:
            raise TooLarge("the body", self._most)
        parts: list[bytes] = []
        room = self._most
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            room -= len(part)
            if room < 0:
                raise TooLarge("the body", self._most)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _end(self, error: LanfreeError, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, and hang up: what is left of the body is not read."""
        answer = errors.of_error(error, state_of(scope).get("instance", ""))
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)


class _ReaderGone(Exception):
    """Nobody takes the answer: whatever makes it ends."""


class Readers:
    """Hangs up on readers that take nothing for ``patience`` seconds while the server's buffers are full. Answers that watch
    over that themselves say ``state.own_deadline``."""

    def __init__(self, app: ASGIApp, *, patience: float) -> None:
        self._app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def patient(message: Message) -> None:
            if state_of(scope).get("own_deadline"):
                await send(message)
                return
            try:
                async with asyncio.timeout(self._patience):
                    await send(message)
            except TimeoutError:
                raise _ReaderGone from None

        try:
            await self._app(scope, receive, patient)
        except _ReaderGone:
            # The server breaks off what has no end. Nobody is told, since nobody listens.
            _LOG.warning("a reader took nothing for %.0f s", self._patience, extra={"event": "reader-stalled"})


_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def deeper(body: bytes, most: int) -> bool:
    """Whether JSON is nested deeper than ``most`` levels. Of what is no JSON nothing is said that matters."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        depth += 1 if bracket[0] in (b"[", b"{") else -1
        if depth > most:
            return True
    return False


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPES = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F])|.)", re.DOTALL)


def has_half_letters(body: bytes) -> bool:
    """Whether JSON has halves of a surrogate pair on their own: no UTF-8 has them, so neither could databases keep them nor
    answers repeat them."""
    return _HALF.search(body) is not None and any(found[1] for found in _ESCAPES.finditer(body))
