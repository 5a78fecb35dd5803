"""Restore points: lists, one of them, holding and deleting."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, status
from starlette.responses import JSONResponse

from api.auth.approvals import four_eyes, performs
from api.auth.roles import Caller, Permission
from api.deps import TheDesk, Viewer, requires
from api.desk import Desk
from api.errors import PROBLEMS
from api.paging import Page
from api.routes.approvals import WAITS, waits
from api.schemas.common import Why
from api.schemas.points import HoldRequest, PointQuery, RestorePoint, RestorePointDetail
from api.schemas.sizes import SizeExplanation

router = APIRouter(prefix="/restore-points", tags=["restore-points"], responses=PROBLEMS)

ThePoint = Annotated[str, Path(max_length=200, description="Id of the restore point.")]
Keeper = Annotated[Caller, requires(Permission.MAINTAIN)]

DELETE = "delete-restore-point"
"""What a second person is asked to approve."""


@router.get("", summary="Restore points")
def list_points(query: Annotated[PointQuery, Query()], caller: Viewer, desk: TheDesk) -> Page[RestorePoint]:
    """In pages, newest first unless another order is asked for. Every one of them restores like a full."""
    return desk.points.page(caller, query, query.machine)


@router.get("/{point}", summary="One restore point")
def get_point(point: ThePoint, caller: Viewer, desk: TheDesk, *, copies: bool = False) -> RestorePointDetail:
    """With its disks, the reasons of all decisions, and what verification says. `copies`: look into the second repositories,
    too, which may take its time."""
    return desk.points.get(caller, point, copies=copies)


@router.get("/{point}/why-big", summary="What its size is due to")
def why_big(
    point: ThePoint,
    caller: Annotated[Caller, requires(Permission.BROWSE_FILES)],
    desk: TheDesk,
    *,
    most: Annotated[int, Query(ge=1, le=500, description="Files and directories, at most.")] = 20,
    quick: Annotated[bool, Query(description="Count changed chunks by all that is in them.")] = False,
) -> SizeExplanation:
    """Files, directories, journals, free space that its changed chunks are due to. Reads what changed: it may take its time,
    and one is explained after the other (429 meanwhile)."""
    return desk.points.why_big(caller, point, most, quick=quick)


@router.post("/{point}/hold", summary="Keep it from being deleted", status_code=status.HTTP_204_NO_CONTENT)
def hold_point(point: ThePoint, said: HoldRequest, caller: Keeper, desk: TheDesk) -> None:
    """By retention or by people, until it is released. Copies elsewhere have their own holds."""
    desk.points.hold(caller, point, said.why)


@router.post("/{point}/release", summary="Let it be deleted again", status_code=status.HTTP_204_NO_CONTENT)
def release_point(point: ThePoint, caller: Keeper, desk: TheDesk) -> None:
    """Takes the hold off; one that is not held stays so."""
    desk.points.release(caller, point)


@router.delete(
    "/{point}",
    summary="Delete it",
    status_code=status.HTTP_204_NO_CONTENT,
    response_model=None,
    responses=WAITS,
)
def delete_point(
    point: ThePoint,
    why: Annotated[Why, Query(description="Recorded with the deletion.")],
    caller: Annotated[Caller, requires(Permission.DELETE_POINTS)],
    desk: TheDesk,
) -> JSONResponse | None:
    """Never a machine's last good one, and none that is held. Its space comes back with the next collection."""
    found = desk.points.get(caller, point)
    if desk.access.rules().four_eyes:
        desk.points.check_deletable(caller, found.id)  # nobody is asked for what would be refused
    summary = f"delete restore point {found.id} of {found.machine_name}: {why}"
    said, of = {"point": found.id, "why": why}, {"machine": found.machine, "machine_name": found.machine_name}
    asked = four_eyes(desk, caller, DELETE, said, summary=summary, **of)
    if asked is not None:
        return waits(asked)
    desk.points.delete(caller, found.id, why)
    return None


@performs(DELETE, Permission.DELETE_POINTS)
def _delete(desk: Desk, caller: Caller, params: Mapping[str, Any]) -> None:
    desk.points.delete(caller, params["point"], params["why"])
