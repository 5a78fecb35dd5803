"""What the parts of the application that stand around its routes have in common: state of a request, headers, answers."""

from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Scope, Send

from api import errors
from proxy.errors import LanfreeError

PREFIX = "/api/v1"
"""Of all routes of the API; a version of it changes by additions only."""


def state_of(scope: Scope) -> dict[str, Any]:
    """What parts of the application know of a request; ``request.state`` in routes."""
    known: dict[str, Any] = scope.setdefault("state", {})
    return known


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name, which is lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


def headers(scope: Scope, name: bytes) -> Iterable[bytes]:
    """All of this name."""
    return [value for key, value in scope["headers"] if key == name]


async def refuse(error: LanfreeError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what is refused, before any route was asked."""
    await errors.of_error(error, state_of(scope).get("instance", ""))(scope, receive, send)
