"""API tokens: 256 random bits that programs send; the store keeps their digest. ``lft_`` lets scanners of leaked secrets find
them."""

import secrets
from collections.abc import Iterable
from datetime import datetime

from api.auth.access import Access
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Via
from api.auth.scopes import within
from api.auth.sessions import digest
from api.refusals import NotAllowed, NotByToken, NotFound
from catalog.access.values import Token
from proxy.errors import ConfigurationError

PREFIX = "lft_"


def make(
    access: Access,
    caller: Caller,
    name: str,
    permissions: Iterable[Permission],
    *,
    machines: tuple[str, ...] = EVERY_MACHINE,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """A token of the caller's, and its secret, which is told once. ``*``: all machines of its owner, whichever these are then.
    Raises ``NotAllowed``: the caller lacks one of these permissions; ``NotByToken``: one that leaked would live on in others;
    ``ConfigurationError``: not all of these machines are the caller's, or it has expired already; ``UserConflict``: the name
    is taken."""
    if caller.via is Via.TOKEN:
        raise NotByToken("make tokens")
    wanted = frozenset(permissions)
    for permission in sorted(wanted - caller.permissions):
        raise NotAllowed(caller.name, permission)
    if machines != EVERY_MACHINE and set(machines) - set(within(machines, caller.machines)):
        raise ConfigurationError(
            "machines", "not all of these are within your own reach", hint="leave them out for all of yours"
        )
    now = access.now()
    if expires_at is not None and expires_at <= now:
        raise ConfigurationError("expires_at", "is over already")
    secret = PREFIX + secrets.token_urlsafe(32)
    kept = tuple(sorted(permission.value for permission in wanted))
    token = Token(secrets.token_hex(8), name, caller.name, digest(secret), kept, machines, now, expires_at)
    with access.store.transaction() as unit:
        unit.tokens.add(token)
    return token, secret


def of(access: Access, caller: Caller, identity: str) -> Token:
    """One of the caller's, or of anybody's for who manages access. Raises ``NotFound``."""
    with access.store.transaction(write=False) as unit:
        token = unit.tokens.get(identity)
    if token is None or not (token.owner == caller.name or caller.may(Permission.MANAGE_ACCESS)):
        raise NotFound("token", identity)
    return token


def remove(access: Access, identity: str) -> None:
    """It is no good any more from this moment."""
    with access.store.transaction() as unit:
        unit.tokens.remove(identity)
