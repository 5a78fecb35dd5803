"""``/users``: people, their roles, and the machines that they reach."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from api.auth import people, sessions, sign_in
from api.auth.identify import remote_of
from api.auth.names import clean_name
from api.auth.roles import Caller, Permission
from api.conditions import IfMatch, etag, revision_of
from api.deps import Anybody, TheDesk, requires
from api.errors import PROBLEMS
from api.paging import Cursor, Limit, Page, decode, encode
from api.schemas.access import NewUser, PasswordChange, User, UserChange

router = APIRouter(prefix="/users", tags=["users"], responses=PROBLEMS)

Manager = Annotated[Caller, requires(Permission.MANAGE_ACCESS)]
Name = Annotated[str, InPath(max_length=64, description="Of the user, in any case.")]


@router.get("", name="list", summary="Users by name")
def list_(_: Manager, desk: TheDesk, limit: Limit = 100, cursor: Cursor = None) -> Page[User]:
    """Everybody who may sign in, or might again."""
    after = str(decode(cursor, 1)[0]) if cursor is not None else ""
    with desk.access.store.transaction(write=False) as unit:
        found = unit.users.list(after=after, limit=limit + 1)
    items = [User.of(user) for user in found[:limit]]
    return Page(items=items, next=encode(items[-1].name) if len(found) > limit else None)


@router.post("", status_code=201, summary="Add a user")
def create(asked: NewUser, response: Response, caller: Manager, desk: TheDesk) -> User:
    """With a password that they should change. Nobody gives more than they have themselves."""
    desk.audit.record(caller.who, "user-add", user=asked.name.lower(), roles=asked.roles, machines=asked.machines)
    user = people.add(
        desk.access,
        caller,
        asked.name,
        asked.password.get_secret_value(),
        asked.roles,
        display_name=asked.display_name or "",
        machines=asked.machines,
    )
    response.headers["Location"] = f"/api/v1/users/{user.name}"
    response.headers["ETag"] = etag(user.revision)
    return User.of(user)


@router.get("/{name}", summary="One user")
def get(name: Name, response: Response, _: Manager, desk: TheDesk) -> User:
    """The ``ETag`` is what a change names."""
    with desk.access.store.transaction(write=False) as unit:
        user = unit.users.get(clean_name(name))
    response.headers["ETag"] = etag(user.revision)
    return User.of(user)


@router.patch("/{name}", summary="Change a user")
def change(
    *, name: Name, asked: UserChange, response: Response, caller: Manager, desk: TheDesk, if_match: IfMatch = None
) -> User:
    """Who is disabled is signed out everywhere. The last administrator who has a password stays one."""
    revision = revision_of(if_match, f"user {clean_name(name)}")
    changed = asked.model_dump(exclude_none=True, mode="json")
    desk.audit.record(caller.who, "user-change", user=clean_name(name), changed=changed)
    user = people.change(
        desk.access,
        caller,
        name,
        revision=revision,
        display_name=asked.display_name,
        roles=asked.roles,
        machines=asked.machines,
        disabled=asked.disabled,
    )
    response.headers["ETag"] = etag(user.revision)
    return User.of(user)


@router.delete("/{name}", status_code=204, summary="Remove a user")
def delete(name: Name, caller: Manager, desk: TheDesk) -> None:
    """With all tokens and sessions. What they did stays in the access log."""
    desk.audit.record(caller.who, "user-remove", user=clean_name(name))
    people.remove(desk.access, caller, name)


@router.put("/{name}/password", status_code=204, summary="Set a password")
def set_password(
    name: Name,
    asked: PasswordChange,
    request: Request,
    caller: Anybody,
    desk: TheDesk,
) -> None:
    """One's own, with the current one; or another user's, for who manages access. All their other sessions end."""
    new = asked.password.get_secret_value()
    own = clean_name(name) == caller.name
    if own:
        given = asked.current.get_secret_value() if asked.current is not None else ""
        sign_in.prove(desk, caller, given, remote=remote_of(request))
    else:
        people.make_sure(caller, Permission.MANAGE_ACCESS)
    desk.audit.record(caller.who, "user-password", user=clean_name(name))
    kept = sessions.digest(request.cookies.get(sessions.COOKIE, "")) if own else ""
    people.set_password(desk.access, caller, name, new, keep=kept)


@router.delete("/{name}/sessions", status_code=204, summary="Sign a user out everywhere")
def end_sessions(name: Name, caller: Anybody, desk: TheDesk) -> None:
    """One's own sessions, this one among them; or another user's, for who manages access."""
    known = clean_name(name)
    people.make_sure_of(desk.access, caller, known, what="sign people out")
    desk.audit.record(caller.who, "sign-out-everywhere", user=known)
    with desk.access.store.transaction() as unit:
        unit.sessions.end_all(unit.users.get(known).name)
