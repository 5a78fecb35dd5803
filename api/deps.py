"""What routes ask for: the desk, and a caller who may do what the route does.

::

    @router.get("/machines/{machine}/restore-points")
    def list_points(machine: str, caller: Viewer, desk: TheDesk): ...

    @router.post("/hypervisors")
    def add_hypervisor(new: NewHypervisor, caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk): ...

Each route names exactly one permission this way, or is listed as public in ``api.app.PUBLIC``; tests hold them to it.
"""

from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from api.auth import identify as identity
from api.auth.roles import Caller, Permission
from api.desk import Desk
from api.refusals import NotAllowed


def the_desk(request: Request) -> Desk:
    """All ports."""
    return cast("Desk", request.app.state.desk)


TheDesk = Annotated[Desk, Depends(the_desk)]


def identify(request: HTTPConnection, *, background: bool = False) -> Caller:
    """Whoever sent it, asked anew. ``background``: by no person, see ``api.auth.identify``. Raises ``NotSignedIn``,
    ``CsrfRefused``."""
    desk: Desk = request.app.state.desk
    return identity.identify(request, desk.access, background=background)


def the_caller(request: Request) -> Caller:
    """Whoever sent the request, by session or token: as ``api.gate`` found, which looks before anything is read of it. For
    routes that anybody may use who is signed in. Raises ``NotSignedIn``."""
    known = request.scope.get("state", {}).get("caller")
    return known if isinstance(known, Caller) else identify(request)


Anybody = Annotated[Caller, Depends(the_caller)]


class Requires:
    """Lets a caller with the permission pass, and says of its route which one that is."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    def __call__(self, caller: Anybody) -> Caller:
        if not caller.may(self.permission):
            raise NotAllowed(caller.name, self.permission)
        return caller


def requires(permission: Permission) -> Any:
    """A dependency that gives the ``Caller``. Raises ``NotSignedIn``, ``NotAllowed``."""
    return Depends(Requires(permission))


Viewer = Annotated[Caller, requires(Permission.VIEW)]
"""What most routes that change nothing ask for."""


def permission_of(route: BaseRoute) -> Permission | None:
    """What a route needs; ``None`` where it names nothing."""
    if not isinstance(route, APIRoute):
        return None
    found = [call.permission for call in _calls(route.dependant) if isinstance(call, Requires)]
    return found[0] if found else None


def needs_caller(route: BaseRoute) -> bool:
    """Whether somebody has to be signed in for it."""
    return isinstance(route, APIRoute) and the_caller in _calls(route.dependant)


def _calls(dependant: Dependant) -> list[Any]:
    return [dependant.call, *(call for one in dependant.dependencies for call in _calls(one))]
