"""What is put together from many places: dashboard, plan, coverage, impact, proxies."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.schemas.coverage import Coverage
from api.schemas.impact import Impact, ImpactNow
from api.schemas.overview import Overview
from api.schemas.plan import Plan
from api.schemas.proxies import Proxies

router = APIRouter(responses=PROBLEMS)

Hours = Annotated[float | None, Query(gt=0, le=24 * 3660, description="Instead of the objectives of jobs.")]

_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/overview", tags=["reports"], summary="All at one glance")
def overview(
    caller: Viewer,
    desk: TheDesk,
    hours: Annotated[float, Query(ge=1, le=24 * 7, description="Of the time line.")] = 24.0,
    days: Annotated[int, Query(ge=1, le=366, description="Of the figures.")] = 30,
) -> Overview:
    """What needs a person, how well all is protected, last night, what goes on, what comes."""
    return desk.overview.overview(caller, hours=hours, days=days)


@router.get("/plan", tags=["reports"], summary="The hours to come")
def plan(
    *,
    caller: Viewer,
    desk: TheDesk,
    hours: Annotated[float, Query(ge=0.25, le=24 * 14)] = 24.0,
    job: Annotated[str | None, Query(max_length=200, description="Show only this one.")] = None,
    limit: Annotated[int, Query(ge=0, le=10000, description="Machines that are named, at most.")] = 1000,
    columns: Annotated[int, Query(ge=1, le=1000, description="Of the time line.")] = 48,
    advice: Annotated[bool, Query(description="Propose changes that would help; takes some seconds.")] = False,
) -> Plan:
    """Which machine's backup begins when, as measured durations and limits allow. Nothing is begun."""
    return desk.plan.plan(caller, hours=hours, job=job, limit=limit, columns=columns, advice=advice)


@router.get("/coverage", tags=["reports"], summary="What is protected, and what is not")
def coverage(
    caller: Viewer,
    desk: TheDesk,
    objective: Hours = None,
    gaps: Annotated[bool, Query(description="Only machines that are not covered.")] = False,
    fresh: Annotated[bool, Query(description="Look now, rather than up to a minute ago.")] = False,
) -> Coverage:
    """By machine, against its objective, with what counts and what is only worth knowing."""
    return desk.coverage.coverage(caller, objective=objective, gaps=gaps, fresh=fresh)


@router.get(
    "/reports/coverage.csv",
    tags=["reports"],
    summary="Coverage for spreadsheets",
    responses=_CSV,
    response_class=PlainTextResponse,
)
def coverage_csv(caller: Viewer, desk: TheDesk, objective: Hours = None, gaps: bool = False) -> PlainTextResponse:
    """A line a machine."""
    text = desk.coverage.as_csv(caller, objective=objective, gaps=gaps)
    headers = {"Content-Disposition": 'attachment; filename="coverage.csv"'}
    return PlainTextResponse(text, headers=headers, media_type="text/csv")


@router.get("/impact", tags=["reports"], summary="What backups cost the hosts")
def impact(
    caller: Viewer,
    desk: TheDesk,
    machine: Annotated[str, Query(max_length=255, description="Of this one: name or identity.")] = "",
    run: Annotated[str, Query(max_length=200, description="Of this job run.")] = "",
    last: Annotated[int, Query(ge=1, le=10000, description="So many of the newest.")] = 20,
) -> Impact:
    """Bytes that crossed the host, stages and the bottleneck, host and places before, during and after."""
    return desk.impact.backups(caller, machine=machine, run=run, last=last)


@router.get("/impact/now", tags=["reports"], summary="How hosts and places do now")
def impact_now(caller: Viewer, desk: TheDesk) -> ImpactNow:
    """Asks the hosts, for some seconds."""
    del caller
    return desk.impact.now()


@router.get("/proxies", tags=["proxies"], name="list", summary="Who works on tasks")
def proxies(caller: Viewer, desk: TheDesk) -> Proxies:
    """Alive or not, how busy, which fabrics they reach."""
    del caller
    return desk.proxies.proxies()
