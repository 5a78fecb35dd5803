"""``/tasks``: what goes on, waits or has ended."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.events import EVENTS, EventStream, Look
from api.paging import Cursor, Limit, Page
from api.ports.tasks import TaskFilter
from api.schemas.common import Moment
from api.schemas.tasks import Task
from catalog.jobs.values import ENDED, TaskKind, TaskState

router = APIRouter(prefix="/tasks", tags=["tasks"], responses=PROBLEMS)


@router.get("", summary="Tasks, the newest first")
def page(  # noqa: PLR0917  # parameters of the query
    caller: Viewer,
    desk: TheDesk,
    state: Annotated[list[TaskState] | None, Query()] = None,
    kind: Annotated[list[TaskKind] | None, Query()] = None,
    machine: Annotated[str | None, Query(max_length=200)] = None,
    job_run: Annotated[str | None, Query(max_length=200)] = None,
    asked: bool | None = None,
    since: Moment | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Task]:
    """``asked``: for by a person (true), or part of a job run (false)."""
    wanted = TaskFilter(state or (), kind or (), machine, job_run, asked, since)
    return desk.tasks.page(caller, wanted, limit, cursor)


@router.get("/{task}", summary="One task")
def get(task: str, caller: Viewer, desk: TheDesk) -> Task:
    """With its progress, as it was told last."""
    return desk.tasks.get(caller, task)


@router.post("/{task}/stop", status_code=202, summary="End a task cleanly")
def stop(task: str, caller: Viewer, desk: TheDesk) -> Task:
    """What is copied now ends at its next chunk and stays stored. Whoever asked for it may, and whoever may begin runs."""
    return desk.tasks.stop(caller, task)


@router.get(
    "/{task}/events",
    summary="Follow a task",
    response_class=EventStream,
    status_code=200,
    responses=EVENTS,
)
def events(request: Request, task: str, caller: Viewer, desk: TheDesk) -> EventStream:
    """Events ``task``, until it has ended."""

    def look() -> Look:
        seen = desk.tasks.get(caller, task)
        return Look(seen, over=seen.state in ENDED)

    return EventStream(request, caller, look, name="task")
