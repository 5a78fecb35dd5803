"""Job runs: what went on, what goes on, how it is watched and ended."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api.auth.roles import Caller, Permission
from api.deps import TheDesk, Viewer, requires
from api.errors import PROBLEMS
from api.events import EVENTS, EventStream, Look
from api.paging import Cursor, Limit, Page
from api.schemas.common import Moment
from api.schemas.job_runs import JobRun, JobRunDetail, RunEvent, RunTask, StopResult
from catalog.jobs.values import JobRunState, TaskState

router = APIRouter(prefix="/job-runs", tags=["job-runs"], responses=PROBLEMS)

Operator = Annotated[Caller, requires(Permission.BACK_UP)]

LOOKED = 2.0
"""Seconds between two looks of an event stream: proxies write progress about each second, people read slower."""


@router.get("", summary="Runs of all jobs", name="list")
def list_runs(
    *,
    caller: Viewer,
    desk: TheDesk,
    state: Annotated[list[JobRunState], Query(default_factory=list, max_length=10)],
    limit: Limit = 100,
    cursor: Cursor = None,
    sort: Literal["started_at", "-started_at"] = "-started_at",
    job: Annotated[str | None, Query(max_length=200, description="Of this job: name or identity.")] = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> Page[JobRun]:
    """The newest first. `since` and `until`: begun then."""
    return desk.job_runs.page(
        caller, limit=limit, cursor=cursor, sort=sort, job=job, states=state, since=since, until=until
    )


@router.get("/{run}", summary="One run")
def get(run: str, caller: Viewer, desk: TheDesk) -> JobRunDetail:
    """With its progress, and what needs attention."""
    return desk.job_runs.get(caller, run)


@router.get("/{run}/tasks", summary="Each machine of a run")
def tasks(
    *,
    run: str,
    caller: Viewer,
    desk: TheDesk,
    state: Annotated[list[TaskState], Query(default_factory=list, max_length=10)],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[RunTask]:
    """In planned order: how far, how fast, what slows it, until when, why."""
    return desk.job_runs.tasks(caller, run, limit=limit, cursor=cursor, states=state)


@router.get("/{run}/log", summary="What happened in a run")
def log(run: str, caller: Viewer, desk: TheDesk, limit: Annotated[int, Query(ge=1, le=10000)] = 500) -> list[RunEvent]:
    """The newest lines, oldest first."""
    return desk.job_runs.log(caller, run, limit=limit)


@router.get("/{run}/events", summary="A run as it goes on", response_class=EventStream, responses=EVENTS)
def events(run: str, request: Request, caller: Viewer, desk: TheDesk) -> EventStream:
    """Server-sent events `run`, each with a `RunNews`: the run as it is, and its tasks that run. Ends with it."""

    def look() -> Look:
        news = desk.job_runs.news(caller, run)
        return Look(news, over=news.run.ended_at is not None)

    return EventStream(request, caller, look, name="run", interval=LOOKED)


@router.get("/{run}/report", summary="A run as its people get it", response_class=HTMLResponse)
def report(run: str, caller: Viewer, desk: TheDesk) -> HTMLResponse:
    """A single page without scripts, which loads nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    return HTMLResponse(desk.job_runs.report(caller, run), headers={"Content-Security-Policy": policy})


@router.post("/{run}/stop", summary="End a run", status_code=202)
def stop(run: str, caller: Operator, desk: TheDesk) -> StopResult:
    """Cleanly: what is copied now ends at its next chunk and stays stored, the rest is not begun."""
    return desk.job_runs.stop(caller, run)
