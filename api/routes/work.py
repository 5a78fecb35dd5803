"""What is asked for and becomes a task: backups, verification, and what keeps a repository in shape."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, requires
from api.errors import PROBLEMS
from api.schemas import work
from api.schemas.tasks import Task

router = APIRouter(tags=["tasks"], responses=PROBLEMS)

_Maintainer = Annotated[Caller, requires(Permission.MAINTAIN)]

_AS_CONFIGURED = work.BackupOrder()
_SWEEP = work.SweepOrder()
_AUDIT = work.AuditOrder()
_PROTECTION = work.ProtectionOrder()
_REBUILD = work.CatalogRebuildOrder()


def begun(response: Response, task: Task) -> Task:
    """202, and where to look."""
    response.headers["Location"] = f"/api/v1/tasks/{task.id}"
    return task


@router.post("/machines/{machine}/backups", status_code=202, summary="Protect a machine now")
def back_up(
    machine: str,
    caller: Annotated[Caller, requires(Permission.BACK_UP)],
    desk: TheDesk,
    response: Response,
    order: Annotated[work.BackupOrder, Body()] = _AS_CONFIGURED,
) -> Task:
    """Without a job: its restore point follows the configured retention."""
    return begun(response, desk.work.back_up(caller, machine, order))


@router.post("/verifications", status_code=202, summary="Read restore points back and check them")
def verify(order: work.VerificationOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """Damage is told with the task, and recorded with each restore point."""
    return begun(response, desk.work.verify(caller, order))


@router.post("/prunes", status_code=202, summary="Delete what no rule keeps")
def prune(
    order: work.PruneOrder,
    caller: _Maintainer,
    desk: TheDesk,
    response: Response,
) -> Task:
    """Then gives its space back. Never a machine's last good restore point, none that is held or in use. Needs the permission
    to delete restore points, too, unless `dry_run` is set: then it only says what would go, and why."""
    return begun(response, desk.work.prune(caller, order))


@router.post("/collections", status_code=202, summary="Give back space")
def collect(order: work.CollectionOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """Only what no restore point needs."""
    return begun(response, desk.work.collect(caller, order))


@router.post("/copies", status_code=202, summary="Copy restore points between repositories")
def copy(order: work.CopyOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """Only chunks that are not there."""
    return begun(response, desk.work.copy(caller, order))


@router.post("/repairs", status_code=202, summary="Mend damage with a second repository")
def repair(order: work.RepairOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """Verifies first. What stays damaged is told with the task."""
    return begun(response, desk.work.repair(caller, order))


@router.post("/repository-audits", status_code=202, summary="Look for tampering")
def audit(
    caller: _Maintainer,
    desk: TheDesk,
    response: Response,
    order: Annotated[work.AuditOrder, Body()] = _AUDIT,
) -> Task:
    """Compares every chain of restore points with itself and with what witnesses noted."""
    return begun(response, desk.work.audit(caller, order))


@router.post("/protections", status_code=202, summary="Protect the appliance itself")
def protect(
    caller: _Maintainer,
    desk: TheDesk,
    response: Response,
    _: Annotated[work.ProtectionOrder, Body()] = _PROTECTION,
) -> Task:
    """As after each job run by itself; nothing where the repositories hold this state already."""
    return begun(response, desk.work.protect(caller))


@router.post("/catalog-rebuilds", status_code=202, summary="Make the catalog again")
def rebuild_catalog(
    caller: _Maintainer,
    desk: TheDesk,
    response: Response,
    order: Annotated[work.CatalogRebuildOrder, Body()] = _REBUILD,
) -> Task:
    """From the repository, which is right where the two differ."""
    return begun(response, desk.work.rebuild_catalog(caller, order))


@router.post("/sweeps", status_code=202, summary="Remove leftovers of dead runs from hosts")
def sweep(
    caller: _Maintainer,
    desk: TheDesk,
    response: Response,
    _: Annotated[work.SweepOrder, Body()] = _SWEEP,
) -> Task:
    """Asks every host for everything."""
    return begun(response, desk.work.sweep(caller))


@router.post("/indexings", status_code=202, summary="Record the files of restore points")
def index(order: work.IndexingOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """So that they can be listed and searched."""
    return begun(response, desk.work.index(caller, order))


@router.post("/measurements", status_code=202, summary="Measure what a repository holds")
def measure(order: work.MeasurementOrder, caller: _Maintainer, desk: TheDesk, response: Response) -> Task:
    """Shown with the repository until it is measured again."""
    return begun(response, desk.work.measure(caller, order))
