"""``/session``: signing in and out, and who is signed in."""

from fastapi import APIRouter, Request, Response

from api.auth import sessions, sign_in
from api.auth.identify import find_session, remote_of, roles_of
from api.auth.roles import Via, allowed
from api.deps import Anybody, TheDesk
from api.desk import Desk
from api.errors import PROBLEMS
from api.refusals import NotSignedIn
from api.schemas.access import Session, SignIn

router = APIRouter(prefix="/session", tags=["session"], responses=PROBLEMS)


@router.post("", status_code=201, summary="Sign in with a browser")
def create(asked: SignIn, request: Request, response: Response, desk: TheDesk) -> Session:
    """Sets the session's cookie. After some failed attempts the next ones have to wait. Programs need no session: they send a
    token with each request."""
    sessions.refuse_foreign(request)
    begun = sign_in.sign_in(
        desk,
        asked.name,
        asked.password.get_secret_value(),
        remote=remote_of(request),
        agent=request.headers.get("user-agent", ""),
        before=request.cookies.get(sessions.COOKIE, ""),
    )
    sessions.set_cookie(response, begun.cookie)
    return told(desk, begun.cookie)


@router.get("", summary="Who is signed in, and what they may")
def get(request: Request, caller: Anybody, desk: TheDesk) -> Session:
    """Of a session, or of a token's owner."""
    if caller.via is Via.SESSION and sessions.COOKIE in request.cookies:
        return told(desk, request.cookies[sessions.COOKIE])
    with desk.access.store.transaction(write=False) as unit:
        user = unit.users.find(caller.name)
    return Session(
        name=caller.name,
        display_name=user.display_name if user is not None else caller.name,
        roles=roles_of(user.roles) if user is not None else [],
        permissions=sorted(caller.permissions),
        machines=list(caller.machines),
        via=caller.via,
        four_eyes=desk.access.rules().four_eyes,
    )


@router.delete("", status_code=204, summary="Sign out")
def delete(request: Request, response: Response, caller: Anybody, desk: TheDesk) -> None:
    """Ends the session of the cookie; a token ends when it is deleted."""
    sign_in.sign_out(desk, request.cookies.get(sessions.COOKIE, ""), caller.who)
    sessions.remove_cookie(response)


def told(desk: Desk, cookie: str) -> Session:
    """A session, as its own browser is told. Raises ``NotSignedIn``."""
    found = find_session(desk.access, cookie)
    if found is None:
        raise NotSignedIn
    session, user = found
    rules = desk.access.rules()
    return Session(
        name=user.name,
        display_name=user.display_name,
        roles=roles_of(user.roles),
        permissions=sorted(allowed(roles_of(user.roles))),
        machines=list(user.machines),
        via=Via.SESSION,
        csrf=sessions.csrf_of(cookie),
        expires_at=session.expires_at,
        idle_seconds=rules.idle.total_seconds(),
        four_eyes=rules.four_eyes,
        provider=user.issuer,
    )
