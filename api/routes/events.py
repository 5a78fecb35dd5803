"""That something changed, for consoles that would else ask again and again."""

from fastapi import APIRouter, Request

from api.deps import TheDesk, Viewer
from api.errors import PROBLEMS
from api.events import EVENTS, EventStream, Look

router = APIRouter(tags=["events"], responses=PROBLEMS)

INTERVAL = 2.0
"""Seconds between two looks: nobody notices that a list is two seconds old, and every open console looks."""


@router.get(
    "/events",
    summary="Tell when something changed",
    response_class=EventStream,
    responses=EVENTS,
)
def changes(
    request: Request,
    caller: Viewer,
    desk: TheDesk,
) -> EventStream:
    """Events `changes`, each with marks by kind of resource: get anew what has another mark than before."""
    return EventStream(request, caller, lambda: Look(desk.vitals.changes()), name="changes", interval=INTERVAL)
