"""``/settings``, ``/notifications/test``, ``/doctor``: the appliance itself."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import JSONResponse

from api.auth.approvals import four_eyes, performs
from api.auth.roles import Caller, Permission
from api.deps import requires, the_desk
from api.desk import Desk
from api.errors import PROBLEMS
from api.refusals import BeyondReach, ConditionMissing, Outdated
from api.schemas.access import Approval
from api.schemas.settings import Changeable, Diagnosis, NotificationResults, NotificationTest, Settings
from catalog.access.values import Approval as Waiting

router = APIRouter(tags=["system"])

CHANGE = "change-settings"
"""Name of the action that waits for a second person."""

TheDesk = Annotated[Desk, Depends(the_desk)]


@router.get("/settings", summary="What is configured, and what of it may be changed here", responses=PROBLEMS)
def settings(_: Annotated[Caller, requires(Permission.VIEW)], desk: TheDesk, response: Response) -> Settings:
    """The ``ETag`` is that of the configuration file."""
    found, version = desk.settings.get()
    response.headers["ETag"] = f'"{version}"'
    return found


@router.put(
    "/settings",
    summary="Change settings",
    responses=PROBLEMS | {202: {"model": Approval, "description": "A second person is asked first; see `Location`."}},
)
def change(
    values: Changeable,
    caller: Annotated[Caller, requires(Permission.CONFIGURE)],
    desk: TheDesk,
    response: Response,
    if_match: Annotated[str | None, Header(max_length=100)] = None,
) -> Settings:
    """All of them at once; ``If-Match`` says from which version they were made. Processes that back up take them over as soon
    as no task runs there."""
    version = _version(if_match)
    if shorter := desk.settings.shortens(values):
        said = {"values": values.model_dump(mode="json"), "version": version}
        asked = four_eyes(desk, caller, CHANGE, said, summary=f"keep fewer restore points: {shorter}")
        if asked is not None:
            return _asked(asked)  # type: ignore[return-value]  # an answer as it is, which FastAPI gives on
    found, version = desk.settings.change(caller, values, version)
    response.headers["ETag"] = f'"{version}"'
    return found


@performs(CHANGE, Permission.CONFIGURE)
def _change(desk: Desk, caller: Caller, params: Mapping[str, Any]) -> None:
    desk.settings.change(caller, Changeable.model_validate(params["values"]), params["version"])


def _version(said: str | None) -> str:
    if said is None:
        raise ConditionMissing("the configuration")
    if not (len(said) > 2 and said[0] == said[-1] == '"'):
        raise Outdated("the configuration")
    return said[1:-1]


def _asked(approval: Waiting) -> Response:
    headers = {"Location": f"/api/v1/approvals/{approval.id}"}
    return JSONResponse(Approval.of(approval).model_dump(mode="json"), 202, headers)


@router.post("/notifications/test", summary="Send a test message", responses=PROBLEMS)
def notify(
    what: NotificationTest, caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk
) -> NotificationResults:
    """By one way or by all, at once, past quiet hours."""
    return desk.settings.notify(caller, what.name)


@router.get("/doctor", summary="Look at this machine and what is configured", responses=PROBLEMS)
def doctor(caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk) -> Diagnosis:
    """Takes some seconds: every hypervisor, target and repository is asked."""
    if not caller.sees_all:
        raise BeyondReach(caller.name, "look at the whole site")
    return desk.settings.diagnose()
