"""``/restores``: whole machines back, in two steps."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, requires
from api.errors import PROBLEMS
from api.routes.work import begun
from api.schemas.restores import RestoreOrder, RestorePlan, RestorePreview, RestoreTargets
from api.schemas.tasks import Task

router = APIRouter(prefix="/restores", tags=["restores"], responses=PROBLEMS)

_Restorer = Annotated[Caller, requires(Permission.RESTORE_MACHINES)]


@router.get("/targets", summary="Where a restore can go")
def targets(caller: _Restorer, desk: TheDesk) -> RestoreTargets:
    """Hosts, LUNs, datastores, directories, with what lives there."""
    return desk.restores.targets(caller)


@router.post("/preview", summary="Exactly what a restore would do")
def preview(plan: RestorePlan, caller: _Restorer, desk: TheDesk) -> RestorePreview:
    """Writes nothing. ``confirm`` is for the order; what stands against it is in ``refusals``."""
    return desk.restores.preview(caller, plan)


@router.post("", status_code=202, summary="Restore a machine")
def order(order: RestoreOrder, caller: _Restorer, desk: TheDesk, response: Response) -> Task:
    """Refused with 409 when it is not any more what the preview showed. It begins within an hour or not at all."""
    return begun(response, desk.restores.order(caller, order))
