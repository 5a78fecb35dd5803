"""``/tokens``: ways in for programs."""

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath

from api.auth import people, tokens
from api.auth.roles import Permission
from api.deps import Anybody, TheDesk
from api.errors import PROBLEMS
from api.paging import Cursor, Limit, Page, decode, encode
from api.schemas.access import MadeToken, NewToken, Token

router = APIRouter(prefix="/tokens", tags=["tokens"], responses=PROBLEMS)

Id = Annotated[str, InPath(pattern="^[0-9a-f]{16}$")]


@router.get("", name="list", summary="Tokens by name")
def list_(caller: Anybody, desk: TheDesk, limit: Limit = 100, cursor: Cursor = None) -> Page[Token]:
    """One's own; everybody's for who manages access."""
    name, identity = (str(part) for part in decode(cursor, 2)) if cursor is not None else ("", "")
    owner = None if caller.may(Permission.MANAGE_ACCESS) else caller.name
    with desk.access.store.transaction(write=False) as unit:
        found = unit.tokens.list(owner, after=(name, identity), limit=limit + 1)
    items = [Token.of(token) for token in found[:limit]]
    return Page(items=items, next=encode(items[-1].name, items[-1].id) if len(found) > limit else None)


@router.post("", status_code=201, summary="Make a token")
def create(asked: NewToken, response: Response, caller: Anybody, desk: TheDesk) -> MadeToken:
    """Of one's own, with at most what one may. The secret is in this answer and nowhere else."""
    desk.audit.record(
        caller.who, "token-add", token=asked.name, permissions=sorted(asked.permissions), machines=asked.machines
    )
    token, secret = tokens.make(
        desk.access, caller, asked.name, asked.permissions, machines=asked.machines, expires_at=asked.expires_at
    )
    response.headers["Location"] = f"/api/v1/tokens/{token.id}"
    response.headers["Cache-Control"] = "no-store"
    return MadeToken(**Token.of(token).model_dump(), secret=secret)


@router.get("/{id}", summary="One token")
def get(id: Id, caller: Anybody, desk: TheDesk) -> Token:  # noqa: A002  # as the path has it
    """Never its secret."""
    return Token.of(tokens.of(desk.access, caller, id))


@router.delete("/{id}", status_code=204, summary="Delete a token")
def delete(id: Id, caller: Anybody, desk: TheDesk) -> None:  # noqa: A002
    """It is no good any more from this moment. A token deletes itself, and others only if it manages access."""
    token = tokens.of(desk.access, caller, id)
    if (token.owner, token.name) != (caller.name, caller.token):
        people.make_sure_of(desk.access, caller, token.owner, what="delete other tokens")
    desk.audit.record(caller.who, "token-remove", token=token.name, owner=token.owner)
    tokens.remove(desk.access, token.id)
