"""Machines: lists, one of them, its time axis."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.paging import Page
from api.schemas.common import Moment
from api.schemas.machines import (
    Machine,
    MachineDetail,
    MachineFilter,
    MachineQuery,
    ProtectionCounts,
    TimelinePoint,
)
from api.schemas.points import PointFilter, RestorePoint

router = APIRouter(prefix="/machines", tags=["machines"], responses=PROBLEMS)

TheMachine = Annotated[str, Path(max_length=200, description="Identity of the machine.")]


@router.get("", summary="Machines of all hypervisors, and those of which only restore points are left")
def list_machines(query: Annotated[MachineQuery, Query()], caller: Viewer, desk: TheDesk) -> Page[Machine]:
    """In pages, as they were last seen; asks no hypervisor."""
    return desk.machines.page(caller, query)


@router.get("/protection", summary="Machines by protection")
def count_machines(which: Annotated[MachineFilter, Query()], caller: Viewer, desk: TheDesk) -> ProtectionCounts:
    """Of those that the filters let through."""
    return desk.machines.counts(caller, which)


@router.get("/{machine}", summary="One machine")
def get_machine(machine: TheMachine, caller: Viewer, desk: TheDesk) -> MachineDetail:
    """With its disks, and why restore points leave some of them out."""
    return desk.machines.get(caller, machine)


@router.get("/{machine}/timeline", summary="Its restore points, for a time axis")
def get_timeline(
    machine: TheMachine,
    caller: Viewer,
    desk: TheDesk,
    since: Moment | None = None,
    until: Moment | None = None,
) -> list[TimelinePoint]:
    """All in one answer, oldest first; of more than some thousand, the newest."""
    return list(desk.machines.timeline(caller, machine, since, until))


@router.get("/{machine}/restore-points", summary="Its restore points")
def list_points_of_machine(
    machine: TheMachine, query: Annotated[PointFilter, Query()], caller: Viewer, desk: TheDesk
) -> Page[RestorePoint]:
    """In pages, as `GET /restore-points?machine=`. A machine that is not known is a 404."""
    known = desk.machines.get(caller, machine)
    return desk.points.page(caller, query, known.id)
