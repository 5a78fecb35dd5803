"""``/setup``: the first administrator. Anybody may ask; the one-time code is what counts."""

from fastapi import APIRouter, Request, Response

from api.auth import sessions, sign_in
from api.auth.identify import remote_of
from api.deps import TheDesk
from api.errors import PROBLEMS
from api.routes.session import told
from api.schemas.access import Session, Setup, SetupState

router = APIRouter(prefix="/setup", tags=["setup"], responses=PROBLEMS)


@router.get("", summary="Whether the first administrator is still to be made")
def get(desk: TheDesk) -> SetupState:
    """For whoever comes to a new appliance."""
    return SetupState(needed=sign_in.needs_setup(desk.access))


@router.post("", status_code=201, summary="Make the first administrator")
def create(asked: Setup, request: Request, response: Response, desk: TheDesk) -> Session:
    """With the code that ``lanfree web code`` shows on the appliance. Who made it is signed in then."""
    sessions.refuse_foreign(request)
    agent = request.headers.get("user-agent", "")
    code, password = asked.code.get_secret_value(), asked.password.get_secret_value()
    begun = sign_in.set_up(desk, code, asked.name, password, remote=remote_of(request), agent=agent)
    sessions.set_cookie(response, begun.cookie)
    return told(desk, begun.cookie)
