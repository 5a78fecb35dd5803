"""How long requests take, by route: counts in buckets, so that a percentile can be told over any time."""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds. Lists promise 0.05 for 95 of 100; what looks into a volume takes some."""

Key = tuple[str, str, str]
"""Method, route, and class of the status (``2xx``)."""


class Latencies:
    """Counts since the process began. One for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Key, list[float]] = {}

    def note(self, key: Key, seconds: float) -> None:
        """One request that took so long."""
        with self._lock:
            counts = self._seen.setdefault(key, [0.0] * (len(BOUNDS) + 2))
            counts[bisect_left(BOUNDS, seconds)] += 1
            counts[-1] += seconds

    def seen(self) -> Mapping[Key, Sequence[float]]:
        """Counts of each bucket, of what took longer than the last, then all seconds together."""
        with self._lock:
            return {key: tuple(counts) for key, counts in self._seen.items()}


class Timed:
    """Notes how long it took until an answer began: what streams goes on for as long as somebody reads. Only routes are told
    apart, never paths: those are without number."""

    def __init__(self, app: ASGIApp, *, latencies: Latencies) -> None:
        self._app = app
        self._latencies = latencies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                key = (_method(scope), route_of(scope), f"{message['status'] // 100}xx")
                self._latencies.note(key, time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, noting)


def route_of(scope: Scope) -> str:
    """``/api/v1/machines/{id}``; ``other`` for all that is no route of the API."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    if context is not None and isinstance(context.original_route, APIRoute):
        return str(context.path_format)
    return "other"


def _method(scope: Scope) -> str:
    return str(scope["method"]) if scope["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD") else "other"
