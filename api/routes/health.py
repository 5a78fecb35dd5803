"""Whether the process lives, whether it can work, and what it is."""

from fastapi import APIRouter, Response

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.schemas.vitals import Health, Readiness, Version

router = APIRouter(tags=["system"], responses=PROBLEMS)


@router.get("/health/live", summary="Whether the process answers")
def live() -> Health:
    """Says so without asking anything else: for whoever would start it anew."""
    return Health()


@router.get(
    "/health/ready",
    summary="Whether everything that it needs answers",
    responses={503: {"model": Readiness, "description": "Something is away."}},
)
def ready(response: Response, desk: TheDesk) -> Readiness:
    """For load balancers and monitoring: 503 while a database or the repository does not answer."""
    found = desk.vitals.readiness()
    response.status_code = 200 if found.status == "ready" else 503
    return found


@router.get("/version", summary="Which version answers")
def version(_caller: Viewer, desk: TheDesk) -> Version:
    """Only for who is signed in: strangers look for old ones."""
    return desk.vitals.version()
