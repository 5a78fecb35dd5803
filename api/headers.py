"""Headers that protect those who ask, and names of files in headers."""

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Answers of the API are data: nothing in them is ever to be run or shown as a page."""

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Pages without any script: sign in, set up."""

CONSOLE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""The console's: its Vue compiles templates in the browser, and its pages begin with a script in the page. What is shown is
never put there as HTML; nothing is loaded from elsewhere."""

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""Reports are whole documents with their style in them, and run nothing."""

PLAIN: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
)
"""Of every answer."""

HSTS = "max-age=31536000"
"""A year, of this name alone: names beside it are not ours to speak for."""

CONSOLE = "/console"
_ASSETS = (f"{CONSOLE}/_nicegui/", f"{CONSOLE}/assets/")


class SecurityHeaders:
    """Puts them onto every answer; what a route said itself stays."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                self._complete(MutableHeaders(scope=message), scope["path"])
            await send(message)

        await self._app(scope, receive, guarded)

    def _complete(self, said: MutableHeaders, path: str) -> None:
        for name, value in PLAIN.items():
            said.setdefault(name, value)
        said.setdefault("Content-Security-Policy", _policy(path, said.get("Content-Type", "")))
        if not path.startswith(_ASSETS):
            said.setdefault("Cache-Control", "no-store")
        if self._https:
            said.setdefault("Strict-Transport-Security", HSTS)


def _policy(path: str, kind: str) -> str:
    if path == CONSOLE or path.startswith(f"{CONSOLE}/"):
        return CONSOLE_POLICY
    if kind.startswith("text/html"):
        return REPORT_POLICY if path.startswith("/api/") else PAGE_POLICY
    return API_POLICY


def attachment(name: str) -> str:
    """The value of ``Content-Disposition`` for a file to be kept under this name (RFC 6266, RFC 8187), whatever it holds: of
    a path the last part, without anything that ends a line or a word, and once more with all its letters for programs that
    understand that. What cannot be encoded (bytes that are no UTF-8) becomes a question mark."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    known = "".join(letter for letter in last if not unicodedata.category(letter).startswith("C")).strip(". ")
    known = known[:200] or "download"
    plain = unicodedata.normalize("NFKD", known).encode("ascii", "ignore").decode()
    plain = "".join(letter if letter not in '"%;\\' else "_" for letter in plain).strip(". ") or "download"
    # Quoted by hand: what RFC 8187 allows in an extended value is less than what urllib leaves as it is.
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(known.encode('utf-8', 'replace'), safe='')}"
