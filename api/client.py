"""The API for programs in Python: ``Client`` for commands, ``AsyncClient`` for the console. What the API refuses is a
``ServerRefused``, what did not come at all a ``ServerAway``.

::

    with Client("https://backup.example:9728", token=TOKEN, authority=pem) as server:
        for machine in server.items(Machine, "/machines", q="db-"): ...
        run = server.post(Task, f"/machines/{machine.id}/backups", {})
        for event in server.events(f"/tasks/{run.id}/events"): ...

Paths are those below ``/api/v1``. Types are what ``TypeAdapter`` takes: models, lists of them, ``dict[str, Any]``.
"""

import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx

from api.asgi import PREFIX
from api.client_answers import Event, EventLines, away, content, parsed, place, query, refusal
from api.paging import Page
from api.trust import context_for
from proxy.errors import LanfreeError, ServerAway

T = TypeVar("T")

TIMES = httpx.Timeout(60.0, connect=10.0)
"""Seconds. Lists come in milliseconds; what looks at a hypervisor or a volume takes its time."""

QUIET = 45.0
"""Seconds without a word after which an event stream is dead: three heartbeats of the server."""

AGAIN = 2.0
"""Seconds until a broken event stream is asked for again."""


class _Client:
    """What both have in common: how they say who asks."""

    def __init__(self, base_url: str, token: str | None, cookies: Mapping[str, str] | None, csrf: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if csrf is not None:
            headers["X-CSRF-Token"] = csrf
        self._facts: dict[str, Any] = {
            "base_url": self.base_url + PREFIX,
            "headers": headers,
            "cookies": dict(cookies or {}),
            "timeout": TIMES,
        }

    def _options(self, body: Any, params: Mapping[str, Any], etag: str | None, key: str | None) -> dict[str, Any]:
        headers = {}
        if etag is not None:
            headers["If-Match"] = etag
        if key is not None:
            headers["Idempotency-Key"] = key
        options: dict[str, Any] = {"params": query(params), "headers": headers}
        if body is not None:
            options["json"] = content(body)
        return options

    @staticmethod
    def new_key() -> str:
        """For one thing that is to be done once, however often it has to be asked for."""
        return str(uuid4())


class Client(_Client):
    """``token``, or ``cookies`` with ``csrf``: who asks. ``authority``: PEM of what signed the server's certificate, where
    that is no public one. May be shared by threads."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        cookies: Mapping[str, str] | None = None,
        csrf: str | None = None,
        authority: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, token, cookies, csrf)
        verify = True if authority is None else context_for(authority)
        self._http = httpx.Client(**self._facts, transport=transport, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        etag: str | None = None,
        key: str | None = None,
        **params: Any,
    ) -> httpx.Response:
        """The answer as it is. Raises ``ServerRefused`` unless it is a success, ``ServerAway``."""
        try:
            answer = self._http.request(method, path, **self._options(body, params, etag, key))
        except httpx.HTTPError as error:
            raise away(self.base_url, error) from None
        if not answer.is_success:
            raise refusal(answer)
        return answer

    def get(self, type_: type[T], path: str, **params: Any) -> T:
        """One resource, or one page as ``Page[Machine]``."""
        return parsed(type_, self.call("GET", path, **params))

    def items(self, type_: type[T], path: str, **params: Any) -> Iterator[T]:
        """All of a list, page after page."""
        cursor: str | None = None
        while True:
            page: Page[T] = parsed(Page[type_], self.call("GET", path, **{**params, "cursor": cursor}))  # type: ignore[valid-type]
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def post(self, type_: type[T], path: str, body: Any = None, *, key: str | None = None, **params: Any) -> T:
        """Begin or make something; with a key (``new_key``) once at the most."""
        return parsed(type_, self.call("POST", path, body, key=key, **params))

    def put(self, type_: type[T], path: str, body: Any, *, etag: str | None = None) -> T:
        """``etag``: of what it takes the place of, where that is asked for."""
        return parsed(type_, self.call("PUT", path, body, etag=etag))

    def patch(self, type_: type[T], path: str, body: Any, *, etag: str | None = None) -> T:
        """Change a part."""
        return parsed(type_, self.call("PATCH", path, body, etag=etag))

    def delete(self, path: str, *, etag: str | None = None, **params: Any) -> None:
        """Remove it."""
        self.call("DELETE", path, etag=etag, **params)

    def events(self, path: str) -> Iterator[Event]:
        """Until the stream says that there are no more; one that breaks off is asked for again, and goes on where it was.
        Raises ``ServerRefused`` where the server does not want to, ``ServerAway`` when it cannot be reached any more."""
        lines, failures = EventLines(), 0
        while True:
            try:
                for event in self._stream(path, lines):
                    failures = 0
                    yield event
                    if event.name in ("end", "problem"):
                        return
                error: LanfreeError = ServerAway(place(self.base_url), "the events broke off")
            except ServerAway as caught:
                error = caught
            failures += 1
            if failures > 5:
                raise error
            time.sleep(AGAIN)

    def _stream(self, path: str, lines: EventLines) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": lines.last} if lines.last else {})}
        try:
            with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(QUIET, connect=10)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(answer)
                for line in answer.iter_lines():
                    yield from lines.line(line)
        except httpx.HTTPError as error:
            raise away(self.base_url, error) from None

    def download(self, path: str, file: Path, **params: Any) -> int:
        """Stream an answer into a new file; its size in bytes. The file is there whole or not at all: there is no going on
        where one broke off. Raises ``FileExistsError``, ``ServerRefused``, ``ServerAway``."""
        draft = file.with_name(f".{file.name}.{os.getpid()}.part")
        if file.exists():
            raise FileExistsError(file)
        try:
            with draft.open("xb") as out:
                size = self._fetched(path, out, params)
                out.flush()
                os.fsync(out.fileno())
            os.link(draft, file)  # unlike a rename it overwrites nothing
        finally:
            draft.unlink(missing_ok=True)
        return size

    def _fetched(self, path: str, out: Any, params: Mapping[str, Any]) -> int:
        return sum(out.write(part) for part in self.stream(path, **params))

    def stream(self, path: str, **params: Any) -> Iterator[bytes]:
        """An answer's bytes as they come. Raises ``ServerRefused``, ``ServerAway`` also in the middle."""
        try:
            with self._http.stream("GET", path, params=query(params), headers={"Accept": "*/*"}) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise away(self.base_url, error) from None


class AsyncClient(_Client):
    """The same for the console, which waits for many things at once and asks in its own process: ``transport`` is an
    ``httpx.ASGITransport(app)``, which gives answers whole, so that there are no events. ``background``: what is asked is
    nobody's doing, and does not keep a session from ending."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        cookies: Mapping[str, str] | None = None,
        csrf: str | None = None,
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        super().__init__(base_url, token, cookies, csrf)
        self._http = httpx.AsyncClient(**self._facts, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()

    def use_csrf(self, csrf: str) -> None:
        """The session's token, once ``GET /session`` has told it."""
        self._http.headers["X-CSRF-Token"] = csrf

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        etag: str | None = None,
        key: str | None = None,
        background: bool = False,
        **params: Any,
    ) -> httpx.Response:
        """See ``Client.call``."""
        options = self._options(body, params, etag, key)
        if background:
            options["headers"]["X-Lanfree-Background"] = "1"
        try:
            answer = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise away(self.base_url, error) from None
        if not answer.is_success:
            raise refusal(answer)
        return answer

    async def get(self, type_: type[T], path: str, *, background: bool = False, **params: Any) -> T:
        """One resource, or one page as ``Page[Machine]``."""
        return parsed(type_, await self.call("GET", path, background=background, **params))

    async def items(self, type_: type[T], path: str, **params: Any) -> AsyncIterator[T]:
        """All of a list, page after page."""
        cursor: str | None = None
        while True:
            answer = await self.call("GET", path, **{**params, "cursor": cursor})
            page: Page[T] = parsed(Page[type_], answer)  # type: ignore[valid-type]
            for item in page.items:
                yield item
            cursor = page.next
            if cursor is None:
                return

    async def post(self, type_: type[T], path: str, body: Any = None, *, key: str | None = None, **params: Any) -> T:
        """Begin or make something; with a key (``new_key``) once at the most."""
        return parsed(type_, await self.call("POST", path, body, key=key, **params))

    async def put(self, type_: type[T], path: str, body: Any, *, etag: str | None = None) -> T:
        """``etag``: of what it takes the place of, where that is asked for."""
        return parsed(type_, await self.call("PUT", path, body, etag=etag))

    async def patch(self, type_: type[T], path: str, body: Any, *, etag: str | None = None) -> T:
        """Change a part."""
        return parsed(type_, await self.call("PATCH", path, body, etag=etag))

    async def delete(self, path: str, *, etag: str | None = None, **params: Any) -> None:
        """Remove it."""
        await self.call("DELETE", path, etag=etag, **params)
