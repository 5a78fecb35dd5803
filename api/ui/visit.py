"""Who looks at a page, with which rights and in which time zone; and the API as they may use it.

The console has no rights of its own: each call carries the session cookie of the browser that asked for the page, so that what
ends a session ends what its pages can show and do, at the next call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote
from zoneinfo import ZoneInfo

import httpx
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from api.auth.roles import Permission
from api.auth.sessions import COOKIE
from api.client import AsyncClient
from api.ui.words import Clock

PREFIX = "/console"
"""Where the console is, so that neither its pages nor its 404 stand in the API's way."""

ZONE_COOKIE = "lanfree_zone"
SHADE_COOKIE = "lanfree_shade"
THEME_COOKIE = "lanfree_theme"


@dataclass(frozen=True, slots=True)
class Visit:
    """One page in one browser. ``query``: of its address. ``theme``: what was chosen; ``dark``: what that comes to there."""

    api: AsyncClient
    name: str
    permissions: frozenset[str]
    csrf: str
    clock: Clock
    dark: bool = False
    theme: str = "auto"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)

    def may(self, permission: Permission) -> bool:
        """Whether a page or a button makes sense for them; the routes decide it again."""
        return permission.value in self.permissions


def zone_of(request: HTTPConnection) -> ZoneInfo:
    """The browser's, as its cookie says; UTC where it says nothing that is known."""
    try:
        return ZoneInfo(request.cookies.get(ZONE_COOKIE, "UTC"))
    except (KeyError, OSError, ValueError):  # not found is a KeyError; "" and directories are the others
        return ZoneInfo("UTC")


def client_for(request: HTTPConnection) -> AsyncClient:
    """The API as the browser that sent this may use it: its session's cookie and nothing else, and its address."""
    remote = (request.client.host, request.client.port) if request.client is not None else ("", 0)
    cookie = request.cookies.get(COOKIE)
    return AsyncClient(
        f"https://{request.headers.get('host', 'localhost')}",
        cookies={} if cookie is None else {COOKIE: cookie},
        transport=httpx.ASGITransport(Outside.the_app(), raise_app_exceptions=False, client=remote),
    )


def sign_in(request: HTTPConnection) -> str:
    """Address of the sign-in page that leads back to where the browser was."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/login?next={quote(asked, safe='')}"


class Outside:
    """The application whose API the pages ask: set once by ``mount``."""

    app: FastAPI | None = None

    @classmethod
    def the_app(cls) -> FastAPI:
        """Raises ``RuntimeError`` before ``mount``."""
        if cls.app is None:
            raise RuntimeError("the console is not mounted")
        return cls.app
