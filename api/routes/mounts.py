"""``/mount-sessions``: restore points opened for their files, for a while."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, requires
from api.errors import PROBLEMS
from api.schemas.mounts import Mount, MountRequest

router = APIRouter(prefix="/mount-sessions", tags=["mount-sessions"], responses=PROBLEMS)

Browser = Annotated[Caller, requires(Permission.BROWSE_FILES)]


@router.post("", status_code=201, summary="Open a restore point for its files")
def open_(request: MountRequest, caller: Browser, desk: TheDesk, response: Response) -> Mount:
    """With keys for encrypted volumes, if it needs some: they stay in memory, and nobody else gets to see what they open. The
    answer may say ``opening``: then ask for the session until it is ``open`` or ``failed``."""
    made = desk.mounts.open(caller, request)
    response.headers["Location"] = f"/api/v1/mount-sessions/{made.id}"
    return made


@router.get("", summary="Sessions that are held")
def list_(caller: Browser, desk: TheDesk) -> list[Mount]:
    """The caller's own; all of machines within reach for who may configure."""
    return desk.mounts.list(caller)


@router.get("/{session}", summary="One session")
def get(session: str, caller: Browser, desk: TheDesk) -> Mount:
    """Asking does not keep it from expiring."""
    return desk.mounts.get(caller, session)


@router.delete("/{session}", status_code=204, summary="Close a session")
def end(session: str, caller: Browser, desk: TheDesk) -> None:
    """Its keys are forgotten. What others have open of the same restore point without keys goes on."""
    desk.mounts.end(caller, session)
