"""Downloads on their way out: bytes that a thread makes, sent as fast as the client takes them and no faster.

::

    maker's thread ──> pieces (some MiB at most) ──> here ──> server's buffer (64 KiB) ──> client
       waits          <──────────────── nobody takes anything ────────────────┘

A download that cannot be ended as it should be is broken off: the connection is closed before the length that was said, or
before the last chunk, which every client takes for what it is.
"""

import logging
import re
from functools import cache

import anyio
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import errors
from api.asgi import state_of
from api.headers import attachment
from api.ports.files import Download, RangeRefused, Span

_LOG = logging.getLogger(__name__)

STALL = 60.0
"""Seconds in which a client has to take one piece, of up to 256 KiB: 4 KiB/s."""

THREADS = 64
"""That wait for pieces: more than there can be downloads. Their own, so that downloads keep no other request waiting."""

_RANGE = re.compile(r"bytes=(?:(?P<start>\d{1,18})-(?P<end>\d{1,18})?|-(?P<last>\d{1,18}))", re.ASCII)


def span_of(request: Request) -> Span | None:
    """The part that is asked for. Several parts at once, and what is no range of bytes, count as none (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None:
        return None
    only_if = request.headers.get("if-range")
    etag = None if only_if is None else only_if.strip().strip('"')
    if found["last"] is not None:
        return Span(None, int(found["last"]), etag)
    return Span(int(found["start"]), int(found["end"]) if found["end"] else None, etag)


def out_of_range(refused: RangeRefused, request: Request) -> Response:
    """The answer to a part that a file does not have."""
    headers = {"Content-Range": f"bytes */{refused.size}"}
    told = errors.said(416, refused.code, refused.message, hint=refused.hint, instance=errors.instance_of(request))
    return errors.answer(told, headers)


@cache
def _waiting() -> CapacityLimiter:
    return CapacityLimiter(THREADS)


class DownloadResponse(Response):
    """Sends a ``Download``. Whatever happens, its pieces are closed at the end."""

    def __init__(self, download: Download, *, stall: float = STALL) -> None:
        self._download = download
        self._stall = stall
        self._whole = False
        part = download.size is not None and download.length != download.size
        super().__init__(status_code=206 if part else 200, media_type=download.media_type)
        del self.headers["content-length"]  # of the empty body that is never sent
        self.headers["Content-Disposition"] = attachment(download.name)
        self.headers["X-Accel-Buffering"] = "no"  # a reverse proxy that keeps it all would be a client without end
        if download.size is not None:
            self.headers["Content-Length"] = str(download.length)
            self.headers["Accept-Ranges"] = "bytes"
        if part and download.length is not None:
            last = download.start + download.length - 1
            self.headers["Content-Range"] = f"bytes {download.start}-{last}/{download.size}"
        if download.etag is not None:
            self.headers["ETag"] = f'"{download.etag}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state_of(scope)["own_deadline"] = True
        try:
            async with anyio.create_task_group() as both:
                both.start_soon(self._watch, receive, both.cancel_scope)
                await self._send(send)
                both.cancel_scope.cancel()
        finally:
            self._download.pieces.close()
        if not self._whole:
            _LOG.info("a download was broken off", extra={"event": "download-broken-off"})

    async def _watch(self, receive: Receive, both: anyio.CancelScope) -> None:
        """Until the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        both.cancel()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            with anyio.fail_after(self._stall):
                await send(start)
            while piece := await self._next():
                with anyio.fail_after(self._stall):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            _LOG.warning("a client took nothing of its download for %.0f s", self._stall)
            return
        except Exception as error:  # noqa: BLE001  # whatever ended it: the maker has logged it, and nobody can be told here
            _LOG.info("a download ends early: %s", error)
            return
        self._whole = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes:
        return await run_sync(self._download.pieces.read, abandon_on_cancel=True, limiter=_waiting())
