"""Sessions of browsers: a cookie of 256 random bits, of which the store keeps a digest, and a token against forged requests.

The cookie is ``HttpOnly`` (no script reads it), ``Secure``, of this host alone (``__Host-``), and ``SameSite=Lax``: it goes
along when somebody follows a link in a report, or comes back from a sign-in elsewhere, and never with a form or a script of
another site. What changes anything needs more anyhow: the session's own token in a header or a form, and no foreign
``Origin``. The token is derived from the cookie, so that nothing that is stored anywhere could make one.

A session is always a new one: no cookie that a browser brings becomes one by signing in, and the one that it had before ends.
"""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256

from starlette.requests import HTTPConnection
from starlette.responses import Response

from api.auth.access import Access
from api.refusals import CsrfRefused
from catalog.access.values import SignedIn

COOKIE = "__Host-lanfree"
CSRF_HEADER = "X-CSRF-Token"
BACKGROUND_HEADER = "X-Lanfree-Background"
"""Of requests that no person made: they do not keep a session from ending."""

# Characters that are kept of what a browser calls itself.
_AGENT = 200


@dataclass(frozen=True, slots=True)
class Begun:
    """``cookie``: for the browser alone; ``csrf``: what goes with its changes."""

    cookie: str
    csrf: str


def begin(access: Access, user: str, *, remote: str = "", agent: str = "", before: str = "") -> Begun:
    """A new session of a user who has proved who they are. ``before``: cookie of the one that it takes the place of."""
    cookie = secrets.token_urlsafe(32)
    now = access.now()
    signed_in = SignedIn(digest(cookie), user, now, now, now + access.rules().longest, remote, agent[:_AGENT])
    with access.store.transaction() as unit:
        if before:
            unit.sessions.end(digest(before))
        unit.sessions.begin(signed_in)
        unit.users.signed_in(user, now)
    return Begun(cookie, csrf_of(cookie))


def end(access: Access, cookie: str) -> bool:
    """Whether there was one."""
    with access.store.transaction() as unit:
        return unit.sessions.end(digest(cookie))


def digest(secret: str) -> str:
    """What the store keeps of a cookie or a token. Enough for 256 random bits; passwords need more."""
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()


def csrf_of(cookie: str) -> str:
    """The token that belongs to a session."""
    return hmac.new(cookie.encode(errors="surrogatepass"), b"lanfree csrf", sha256).hexdigest()


def is_csrf_of(cookie: str, given: str) -> bool:
    """Whether it is."""
    return is_same(csrf_of(cookie), given)


def is_same(known: str, given: str) -> bool:
    """Whether two secrets are one, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(known.encode(errors="surrogatepass"), given.encode(errors="surrogatepass"))


def is_foreign(request: HTTPConnection) -> bool:
    """Whether a browser says that another site's page made the request. Only the host counts: behind a reverse proxy that ends
    TLS, the scheme differs."""
    origin = request.headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2].lower() != request.headers.get("host", "").lower()
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def refuse_foreign(request: HTTPConnection) -> None:
    """What another site's page made is not done: nobody is signed in there as somebody else than they think, either. Raises
    ``CsrfRefused``."""
    if is_foreign(request):
        raise CsrfRefused("it came from a page of another site")


def set_cookie(response: Response, cookie: str) -> None:
    """For as long as the browser runs; when it ends is known here. What shows it is kept in no cache."""
    response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="lax")
    response.headers["Cache-Control"] = "no-store"


def remove_cookie(response: Response) -> None:
    """The browser shall forget it."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    response.headers["Cache-Control"] = "no-store"
