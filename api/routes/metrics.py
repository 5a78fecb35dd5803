"""Metrics for Prometheus, behind a token."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.latencies import BOUNDS
from api.refusals import BeyondReach

router = APIRouter(tags=["system"], responses=PROBLEMS)

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get(
    "/metrics",
    summary="All metrics, as Prometheus reads them",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format 0.0.4."}},
)
def metrics(
    request: Request,
    caller: Viewer,
    desk: TheDesk,
) -> PlainTextResponse:
    """They name all machines: who reaches some only is refused."""
    if not caller.sees_all:
        raise BeyondReach(caller.name, "read metrics of all machines")
    return PlainTextResponse(desk.vitals.metrics(request.app.state.latencies.seen(), BOUNDS), media_type=TEXT)
