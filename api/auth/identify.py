"""Who sent a request: the owner of its token, or whoever signed in with its browser."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from starlette.requests import HTTPConnection

from api.auth.access import Access
from api.auth.roles import Caller, Permission, Role, Via, allowed
from api.auth.scopes import within
from api.auth.sessions import BACKGROUND_HEADER, COOKIE, CSRF_HEADER, digest, is_csrf_of, refuse_foreign
from api.refusals import CsrfRefused, NotSignedIn
from catalog.access.values import SignedIn, Token, User

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# The use of sessions and tokens is noted once in so long: a write for each request would make readers wait for the disk.
_NOTED = timedelta(seconds=60)

# ``lft_`` and 256 bits in base64url: what looks otherwise is not looked up.
_TOKEN = re.compile(r"lft_[A-Za-z0-9_-]{43}")

_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")


def identify(request: HTTPConnection, access: Access, *, background: bool = False) -> Caller:
    """By ``Authorization: Bearer``, else by the session's cookie, never by the one where the other does not hold.
    ``background``: no person asks, so that no session goes on for it, as where the request itself says so. Raises
    ``NotSignedIn``; ``CsrfRefused`` for a change, or a websocket, that the session's own page did not ask for."""
    header = request.headers.get("authorization")
    if header is not None:
        return _by_token(request, access, header)
    cookie = request.cookies.get(COOKIE, "")
    if not _COOKIE.fullmatch(cookie):
        raise NotSignedIn
    caller = _by_session(request, access, cookie, used=not (background or BACKGROUND_HEADER in request.headers))
    if request.scope.get("method") not in _SAFE:  # a websocket has none
        refuse_foreign(request)
        if request.scope["type"] == "http" and not is_csrf_of(cookie, request.headers.get(CSRF_HEADER, "")):
            raise CsrfRefused(f"its {CSRF_HEADER} is not the session's")
    return caller


def find_session(access: Access, cookie: str) -> tuple[SignedIn, User] | None:
    """The session of a cookie, if it holds; nothing is noted."""
    return _living(access, cookie, access.now()) if _COOKIE.fullmatch(cookie) else None


def remote_of(request: HTTPConnection) -> str:
    """Address of the other end, as the server says it."""
    return request.client.host if request.client is not None else ""


def caller_of(user: User, via: Via = Via.SESSION, remote: str = "") -> Caller:
    """What a user may and reaches."""
    return Caller(user.name, allowed(roles_of(user.roles)), user.machines, via, remote)


def roles_of(words: Iterable[str]) -> list[Role]:
    """Of words in the store; one of another version means nothing here."""
    return [Role(word) for word in words if word in set(Role)]


def permissions_of(words: Iterable[str]) -> frozenset[Permission]:
    """The same of permissions."""
    return frozenset(Permission(word) for word in words if word in set(Permission))


def _by_session(request: HTTPConnection, access: Access, cookie: str, *, used: bool) -> Caller:
    now = access.now()
    found = _living(access, cookie, now)
    if found is None:
        raise NotSignedIn
    session, user = found
    if used and now - session.seen_at >= _NOTED:
        with access.store.transaction() as unit:
            unit.sessions.seen(session.id, now)
    return caller_of(user, Via.SESSION, remote_of(request))


def _living(access: Access, cookie: str, now: datetime) -> tuple[SignedIn, User] | None:
    with access.store.transaction(write=False) as unit:
        session = unit.sessions.find(digest(cookie))
        user = unit.users.find(session.user) if session is not None else None
    if session is None or user is None or user.disabled:
        return None
    # Noted once in a while only, so that a session holds a little longer than its idle time, never shorter.
    over = now >= session.expires_at or now - session.seen_at > access.rules().idle + _NOTED
    return None if over else (session, user)


def _by_token(request: HTTPConnection, access: Access, header: str) -> Caller:
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(secret.strip()):
        raise NotSignedIn
    now = access.now()
    with access.store.transaction(write=False) as unit:
        token = unit.tokens.of_digest(digest(secret.strip()))
        user = unit.users.find(token.owner) if token is not None else None
    if token is None or user is None or user.disabled or (token.expires_at is not None and token.expires_at <= now):
        raise NotSignedIn
    if token.used_at is None or now - token.used_at >= _NOTED:
        with access.store.transaction() as unit:
            unit.tokens.used(token.id, now)
    return _limited(user, token, remote_of(request))


def _limited(user: User, token: Token, remote: str) -> Caller:
    """What a token may: never more than its owner may now."""
    permissions = allowed(roles_of(user.roles)) & permissions_of(token.permissions)
    return Caller(user.name, permissions, within(token.machines, user.machines), Via.TOKEN, remote, token.name)
