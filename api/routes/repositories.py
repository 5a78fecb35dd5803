"""``/repositories``: where restore points are, and how much room there is."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, Viewer, requires
from api.errors import PROBLEMS
from api.paging import Page
from api.schemas.repositories import Growth, KeySlot, Repository

router = APIRouter(prefix="/repositories", tags=["repositories"], responses=PROBLEMS)


@router.get("", summary="All repositories")
def repositories(caller: Viewer, desk: TheDesk) -> Page[Repository]:
    """``main`` is our own. They are few: one page has them all."""
    return Page[Repository](items=list(desk.repositories.list(caller)))


@router.get("/{name}", summary="One repository")
def get(name: str, caller: Viewer, desk: TheDesk) -> Repository:
    """With what was measured last, and when."""
    return desk.repositories.get(caller, name)


@router.get("/{name}/growth", summary="How it grew, and when it will be full")
def growth(
    name: str,
    caller: Viewer,
    desk: TheDesk,
    days: Annotated[int, Query(ge=7, le=1100, description="So many, up to today.")] = 90,
) -> Growth:
    """By day, UTC."""
    return desk.repositories.growth(caller, name, days)


@router.get("/{name}/key-slots", summary="Who may open it")
def key_slots(name: str, caller: Annotated[Caller, requires(Permission.CONFIGURE)], desk: TheDesk) -> Page[KeySlot]:
    """What anybody sees who reads the storage; keys and passphrases stay where they are."""
    return Page[KeySlot](items=list(desk.repositories.get(caller, name).key_slots))
