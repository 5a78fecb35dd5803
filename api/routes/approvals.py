"""``/approvals``: what waits for a second person."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from starlette.responses import JSONResponse

from api.auth import approvals
from api.auth.roles import Caller, Permission
from api.deps import TheDesk, Viewer, requires
from api.errors import PROBLEMS
from api.paging import Cursor, Limit, Page, decode_moment, encode
from api.schemas.access import Approval, Refusing
from catalog.access import values
from catalog.access.values import ApprovalState

router = APIRouter(prefix="/approvals", tags=["approvals"], responses=PROBLEMS)

Id = Annotated[str, InPath(pattern="^[0-9a-f]{16}$")]

WAITS: dict[int | str, dict[str, Any]] = {
    202: {"model": Approval, "description": "A second person is asked first; see `Location`."}
}
"""For ``responses=`` of routes that may answer with ``waits``."""


def waits(asked: values.Approval) -> JSONResponse:
    """The answer where a second person is asked: nothing is done yet, and where to look."""
    said = Approval.of(asked)
    return JSONResponse(said.model_dump(mode="json"), 202, {"Location": f"/api/v1/approvals/{said.id}"})


@router.get("", name="list", summary="What waits, and what became of it")
def list_(
    caller: Viewer,
    desk: TheDesk,
    state: Annotated[list[ApprovalState], Query(default_factory=list, max_length=6)],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Approval]:
    """The newest first. A page may hold fewer than ``limit``, where some are out of reach."""
    before = decode_moment(cursor) if cursor is not None else None
    with desk.access.store.transaction(write=False) as unit:
        found = unit.approvals.list(desk.access.now(), state, before=before, limit=limit + 1)
    shown = [Approval.of(each) for each in found[:limit] if approvals.sees(caller, each)]
    last = found[:limit][-1] if len(found) > limit else None
    return Page(items=shown, next=encode(last.asked_at.isoformat(), last.id) if last is not None else None)


@router.get("/{id}", summary="One of them")
def get(id: Id, caller: Viewer, desk: TheDesk) -> Approval:  # noqa: A002  # as the path has it
    """What was asked for, and what became of it."""
    return Approval.of(approvals.seen(desk, caller, id))


@router.post("/{id}/approve", summary="Confirm, and perform it")
def approve(
    id: Id,  # noqa: A002
    caller: Annotated[Caller, requires(Permission.APPROVE)],
    desk: TheDesk,
) -> Approval:
    """Not by whoever asked, and not by a token. ``state`` says what became of it."""
    return Approval.of(approvals.approve(desk, caller, id))


@router.post("/{id}/refuse", summary="Say no")
def refuse(
    id: Id,  # noqa: A002
    asked: Refusing,
    caller: Viewer,
    desk: TheDesk,
) -> Approval:
    """By who could confirm it, or by whoever asked."""
    return Approval.of(approvals.refuse(desk, caller, id, asked.why))
