"""Server-sent events: what goes on, told as it changes.

A stream tells a *state*: it is looked at again and again, and sent when it is another than the one that was sent last. Its id
is a digest of it, so that who comes again with ``Last-Event-ID`` is told nothing that they know. A stream ends when what it
tells of has ended, when the process is to end, when nobody reads any more, and when whoever reads it may not any more.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.at_once import AtOnce
from api.auth.roles import Caller
from api.deps import identify
from api.errors import problem_of
from api.refusals import NotSignedIn
from proxy.errors import LanfreeError

HEARTBEAT = 15.0
"""Seconds of silence before a comment is sent: proxies in between close what says nothing, many after 30 or 60."""

RECHECK = 30.0
"""Seconds after which it is asked again whether the reader may still read: how long a session that was ended goes on."""

_NOTICED = 0.25
"""Seconds after which the end of the process is noticed."""

RETRY = 3000
"""Milliseconds after which a browser comes again: all of them do at once when the process was restarted."""

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events, each with the state as it is then; `end` is the last one, `problem` says why there is no more.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""For ``responses=`` of a route that gives a stream."""


@dataclass(frozen=True, slots=True)
class Look:
    """``state``: as it is now. ``over``: whether it will not change any more."""

    state: BaseModel
    over: bool = False


class EventStream(Response):
    """An answer that goes on. ``look``: called in a thread every ``interval`` seconds; the first time before anything is
    answered, so that what is not there is a plain 404. What it raises later ends the stream with an event ``problem``.
    ``name``: of the events."""

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        caller: Caller,
        look: Callable[[], Look],
        *,
        name: str = "state",
        interval: float = 1.0,
        status_code: int = 200,  # FastAPI looks for it when it describes the route
    ) -> None:
        super().__init__(status_code=status_code, headers={"X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._request = request
        self._caller = caller
        self._look = look
        self._name = name
        self._interval = interval

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams: AtOnce = self._request.app.state.streams
        with streams.one_more(self._caller.name):
            seen = await run_in_threadpool(self._look)
            telling = asyncio.ensure_future(self._tell(seen, send))
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                for task in (telling, leaving):
                    task.cancel()
                await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, seen: Look, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._events(seen):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, seen: Look) -> AsyncIterator[bytes]:
        last = self._request.headers.get("Last-Event-ID", "")
        spoke = checked = time.monotonic()
        yield f"retry: {RETRY}\n\n".encode()
        while True:
            # In ASCII: clients take U+2028 and the like for ends of lines, and names of files have whatever they have.
            data = seen.state.model_dump_json(ensure_ascii=True)
            number = blake2b(data.encode(), digest_size=8).hexdigest()
            if number != last:
                yield message(self._name, data, number)
                last, spoke = number, time.monotonic()
            if seen.over:
                yield message("end", "{}", number)
                return
            if time.monotonic() - spoke >= HEARTBEAT:
                yield b": still here\n\n"
                spoke = time.monotonic()
            if await self._ends_within(self._interval):
                return
            try:
                if time.monotonic() - checked >= RECHECK:
                    await run_in_threadpool(self._check)
                    checked = time.monotonic()
                seen = await run_in_threadpool(self._look)
            except LanfreeError as error:
                yield message("problem", problem_of(error).model_dump_json(exclude_none=True, ensure_ascii=True))
                return

    async def _ends_within(self, seconds: float) -> bool:
        """Wait for the next look; whether the process is to end meanwhile."""
        ending: threading.Event = self._request.app.state.web.ending
        until = time.monotonic() + seconds
        while not ending.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, _NOTICED))
        return True

    def _check(self) -> None:
        """Whether the same caller may still do all that they could when the stream began. Raises ``NotSignedIn``."""
        before, now = self._caller, identify(self._request, background=True)
        if now.name != before.name or not before.permissions <= now.permissions or now.machines != before.machines:
            raise NotSignedIn("what the caller may do was changed")


async def _left(receive: Receive) -> None:
    """Until nobody reads any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


def message(name: str, data: str, number: str = "") -> bytes:
    """One event as it goes over the wire. ``data``: may have several lines."""
    lines = [f"event: {name}", *(f"data: {line}" for line in data.splitlines() or [""])]
    return "\n".join([f"id: {number}", *lines] if number else lines).encode() + b"\n\n"
