"""``Idempotency-Key``: a request whose answer was lost can be sent again, and is not done twice.

A POST that brings a key is done once; who sends the same again is given the same answer, for a day. Only what succeeded is
kept: what was refused did nothing, and may succeed the next time. A key belongs to its caller and to one request: with another
body it is refused, and while the first is under way the second is told to wait. So it is told, too, where the first succeeded
and its answer could not be kept (no database): to do it again would be worse.
"""

import hmac
import json
import re
from collections.abc import Collection
from hashlib import sha256
from typing import TYPE_CHECKING, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.asgi import header, refuse, state_of
from api.auth.roles import Caller
from api.auth.sessions import COOKIE
from api.ports.idempotency import Idempotency, Kept
from api.refusals import AnswerNotKept, KeyInUse, KeyReused
from proxy.errors import ConfigurationError, LanfreeError
from proxy.units import KiB

if TYPE_CHECKING:
    from api.desk import Desk

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")

LARGEST = 32 * KiB
"""Bytes of an answer that is kept: a run resource has a few hundred. What is larger was only asked for, and changed nothing."""

_KEPT_HEADERS = frozenset({"content-type", "location", "etag"})


class Once:
    """Does what has a key once. It stands where the caller is known and the body was read (``state.body``). ``secret``: paths
    whose answers hold secrets, which are never kept: who asks again is told that it was done."""

    def __init__(self, app: ASGIApp, *, secret: Collection[str] = ()) -> None:
        self._app = app
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = state_of(scope).get("caller") if scope["type"] == "http" and scope["method"] == "POST" else None
        key = header(scope, b"idempotency-key") if isinstance(caller, Caller) else None
        if key is None or not isinstance(caller, Caller):
            await self._app(scope, receive, send)
            return
        if not _KEY.fullmatch(key):
            error = ConfigurationError("Idempotency-Key", "1 to 255 visible ASCII characters are one")
            await refuse(error, scope, receive, send)
            return
        store = cast("Desk", scope["app"].state.desk).idempotency
        await self._once(_Asked(store, _owner(caller), key.decode(), _digest(scope)), scope, receive, send)

    async def _once(self, asked: "_Asked", scope: Scope, receive: Receive, send: Send) -> None:
        try:
            known = await run_in_threadpool(asked.begin)
        except LanfreeError as error:
            await refuse(error, scope, receive, send)
            return
        if known is not None:
            await Response(known.body, known.status or 200, {**known.headers, "Idempotency-Replayed": "true"})(
                scope, receive, send
            )
            return
        answer = _Answer(send, asked, keep_body=scope["path"] not in self._secret)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            if not answer.succeeded:
                await run_in_threadpool(asked.forget)


class _Asked:
    """A request with a key."""

    def __init__(self, store: Idempotency, caller: str, key: str, digest: str) -> None:
        self._store = store
        self._caller = caller
        self._key = key
        self._digest = digest

    def begin(self) -> Kept | None:
        """The answer that is known, or ``None`` for "do it". Raises ``KeyReused``, ``KeyInUse``, ``AnswerNotKept``."""
        known = self._store.begin(self._caller, self._key, self._digest)
        if known is None:
            return None
        if known.digest != self._digest:
            raise KeyReused
        if known.status is None:
            raise KeyInUse
        if known.headers.get("kept") == "no":
            raise AnswerNotKept
        return known

    def keep(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._store.keep(self._caller, self._key, status, headers, body)

    def forget(self) -> None:
        self._store.forget(self._caller, self._key)


class _Answer:
    """Passes an answer on, and keeps it before its last part goes out: whoever has seen it can rely on it."""

    def __init__(self, send: Send, asked: _Asked, *, keep_body: bool) -> None:
        self._send = send
        self._asked = asked
        self._keep_body = keep_body
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._too_large = False
        self.succeeded = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self.succeeded = 200 <= self._status < 300
            known = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message["headers"])
            self._headers = {name: value for name, value in known if name in _KEPT_HEADERS}
        elif message["type"] == "http.response.body":
            self._too_large = self._too_large or len(self._body) + len(message.get("body", b"")) > LARGEST
            if not self._too_large:
                self._body += message.get("body", b"")
            if not message.get("more_body", False) and self.succeeded:
                await run_in_threadpool(self._keep)
        await self._send(message)

    def _keep(self) -> None:
        if self._keep_body and not self._too_large:
            self._asked.keep(self._status, self._headers, bytes(self._body))
        else:
            self._asked.keep(self._status, {"kept": "no"}, b"")


def _owner(caller: Caller) -> str:
    """Whose key it is: two tokens of one person are two programs that know nothing of each other's keys."""
    return sha256(json.dumps([caller.name, caller.token]).encode()).hexdigest()


def _digest(scope: Scope) -> str:
    """Of what is asked: where, and with which body. Bodies may hold passwords, which a plain digest would let anybody guess
    who reads the store: it is keyed with what the caller proved themselves by, of which nothing is stored."""
    connection = HTTPConnection(scope)
    proof = connection.headers.get("authorization") or connection.cookies.get(COOKIE, "")
    said = json.dumps([scope["path"], scope.get("query_string", b"").decode("latin-1")]).encode()
    return hmac.digest(proof.encode(), said + b"\0" + state_of(scope).get("body", b""), "sha256").hex()
