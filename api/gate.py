"""Nobody passes who is not known: the API's paths are closed, but for those that are listed as public.

It stands before the routes and before a body is read, so that a stranger can make the process neither parse nor hold
anything, and a route that forgot to ask for a permission is not open to the world. What the caller may do, routes ask
(``api.deps.requires``).
"""

from collections.abc import Collection

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi import PREFIX, refuse, state_of
from api.at_once import AtOnce
from api.deps import identify
from proxy.errors import LanfreeError


class Gate:
    """Lets known callers pass to the paths below ``/api/v1``. ``public``: methods and paths that anybody may ask for;
    ``at_once``: requests of one caller, who else could take all threads there are."""

    def __init__(self, app: ASGIApp, *, public: Collection[tuple[str, str]], at_once: int) -> None:
        self._app = app
        self._public = public
        self._at_once = AtOnce(at_once, "requests")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _of_the_api(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            name = await self._name(scope)
            with self._at_once.one_more(name):
                await self._app(scope, receive, send)
        except LanfreeError as error:
            await refuse(error, scope, receive, send)

    async def _name(self, scope: Scope) -> str:
        """Of the caller; of a stranger at a public path, their address."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if (method, scope["path"]) in self._public:
            host, _ = scope.get("client") or ("", 0)
            return f"address {host}"
        caller = await run_in_threadpool(identify, HTTPConnection(scope))
        state_of(scope)["caller"] = caller
        return caller.name


def _of_the_api(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")
