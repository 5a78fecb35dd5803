"""``/settings``, ``/notifications/test``, ``/doctor``: the appliance itself."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from api.auth.approvals import four_eyes, performs
from api.auth.roles import Caller, Permission
from api.conditions import IfMatch, etag, version_of
from api.deps import TheDesk, Viewer, requires
from api.desk import Desk
from api.errors import PROBLEMS
from api.refusals import BeyondReach
from api.routes.approvals import WAITS, waits
from api.schemas.settings import Changeable, Diagnosis, NotificationResults, NotificationTest, Settings

router = APIRouter(tags=["system"], responses=PROBLEMS)

CHANGE = "change-settings"
"""Name of the action that waits for a second person."""


@router.get("/settings", summary="What is configured, and what of it may be changed here")
def settings(_: Viewer, desk: TheDesk, response: Response) -> Settings:
    """The ``ETag`` is that of the configuration file."""
    found, version = desk.settings.get()
    response.headers["ETag"] = etag(version)
    return found


@router.put(
    "/settings",
    summary="Change settings",
    response_model=Settings,
    responses=WAITS,
)
def change(
    values: Changeable,
    caller: Annotated[Caller, requires(Permission.CONFIGURE)],
    desk: TheDesk,
    response: Response,
    if_match: IfMatch = None,
) -> Settings | JSONResponse:
    """All of them at once; ``If-Match`` says from which version they were made. Processes that back up take them over as soon
    as no task runs there."""
    version = version_of(if_match, "the configuration")
    if shorter := desk.settings.shortens(values):
        said = {"values": values.model_dump(mode="json"), "version": version}
        asked = four_eyes(desk, caller, CHANGE, said, summary=f"keep fewer restore points: {shorter}")
        if asked is not None:
            return waits(asked)
    found, version = desk.settings.change(caller, values, version)
    response.headers["ETag"] = etag(version)
    return found


@performs(CHANGE, Permission.CONFIGURE)
def _change(desk: Desk, caller: Caller, params: Mapping[str, Any]) -> None:
    desk.settings.change(caller, Changeable.model_validate(params["values"]), params["version"])


@router.post("/notifications/test", summary="Send a test message")
def notify(
    what: NotificationTest, caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk
) -> NotificationResults:
    """By one way or by all, at once, past quiet hours."""
    return desk.settings.notify(caller, what.name)


@router.get("/doctor", summary="Look at this machine and what is configured")
def doctor(caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk) -> Diagnosis:
    """Takes some seconds: every hypervisor, target and repository is asked."""
    if not caller.sees_all:
        raise BeyondReach(caller.name, "look at the whole site")
    return desk.settings.diagnose()
