"""``/restores``: whole machines back, in two steps."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.auth.roles import Caller, Permission
from api.deps import requires, the_desk
from api.desk import Desk
from api.errors import PROBLEMS
from api.routes.work import begun
from api.schemas.restores import RestoreOrder, RestorePlan, RestorePreview, RestoreTargets
from api.schemas.tasks import Task

router = APIRouter(prefix="/restores", tags=["restores"])

_Restorer = Annotated[Caller, requires(Permission.RESTORE_MACHINES)]
_Desk = Annotated[Desk, Depends(the_desk)]


@router.get("/targets", summary="Where a restore can go", responses=PROBLEMS)
def targets(caller: _Restorer, desk: _Desk) -> RestoreTargets:
    """Hosts, LUNs, datastores, directories, with what lives there."""
    return desk.restores.targets(caller)


@router.post("/preview", summary="Exactly what a restore would do", responses=PROBLEMS)
def preview(plan: RestorePlan, caller: _Restorer, desk: _Desk) -> RestorePreview:
    """Writes nothing. ``confirm`` is for the order; what stands against it is in ``refusals``."""
    return desk.restores.preview(caller, plan)


@router.post("", status_code=202, summary="Restore a machine", responses=PROBLEMS)
def order(order: RestoreOrder, caller: _Restorer, desk: _Desk, response: Response) -> Task:
    """Refused with 409 when it is not any more what the preview showed. It begins within an hour or not at all."""
    return begun(response, desk.restores.order(caller, order))
