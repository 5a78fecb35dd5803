"""Pages without any script: sign in, sign out, the first administrator, and the way to an OpenID provider and back.

They do what the routes of the API do, by the same functions, and say what went wrong in the page. ``next`` is followed only
where it is a path of this very console.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from api import errors
from api.auth import oidc, oidc_client, passwords, sessions, sign_in
from api.auth.identify import find_session, remote_of
from api.auth.oidc import OidcSettings
from api.auth.oidc_client import Pending, Provider
from api.deps import TheDesk
from api.desk import Desk
from api.refusals import SignInRefused, TooMany
from api.templates import templates_in
from proxy.errors import ConfigurationError, LanfreeError, PasswordRefused

_TEMPLATES = Path(__file__).with_name("templates")

router = APIRouter(include_in_schema=False)

HOME = "/console/"

Field = Annotated[str, Form(max_length=1024)]
Next = Annotated[str, Query(max_length=2048)]

_STATIC = Path(__file__).with_name("static")

# Seconds. Style and mark change with the version only, and then by little.
_STYLE_HOLDS = 3600


def local_path(asked: str) -> str:
    """The same, where it is a path of this console; else its first page. Browsers read ``//x`` and ``/\\x`` as other hosts."""
    try:
        parts = urlsplit(asked)
    except ValueError:
        return HOME
    plain = asked.isprintable() and asked.isascii() and "\\" not in asked
    own = asked.startswith("/") and not asked.startswith("//") and not parts.scheme and not parts.netloc
    return asked if plain and own else HOME


@router.get("/login")
def login(request: Request, desk: TheDesk, next: Next = HOME, ended: bool = False) -> Response:  # noqa: A002
    """The form; who is signed in goes on."""
    try:
        if find_session(desk.access, request.cookies.get(sessions.COOKIE, "")) is not None:
            return _go(local_path(next))
        if sign_in.needs_setup(desk.access):
            return _go("/setup")
    except LanfreeError as error:
        return _failed(request, desk, error)
    return _login_form(request, desk, next=local_path(next), notice="You are signed out." if ended else "")


@router.post("/login")
def log_in(
    request: Request,
    desk: TheDesk,
    name: Field = "",
    password: Field = "",
    next: Annotated[str, Form(max_length=2048)] = HOME,  # noqa: A002
) -> Response:
    """To ``next``, or the form again with what was wrong."""
    try:
        sessions.refuse_foreign(request)
        begun = sign_in.sign_in(
            desk,
            name,
            password,
            remote=remote_of(request),
            agent=request.headers.get("user-agent", ""),
            before=request.cookies.get(sessions.COOKIE, ""),
        )
    except LanfreeError as error:
        return _login_form(request, desk, error=error, next=local_path(next), name=name[:64])
    response = _go(local_path(next))
    sessions.set_cookie(response, begun.cookie)
    return response


@router.get("/logout")
def logout(request: Request, desk: TheDesk) -> Response:
    """Asks first: a link must not sign anybody out."""
    cookie = request.cookies.get(sessions.COOKIE, "")
    try:
        found = find_session(desk.access, cookie)
    except LanfreeError as error:
        return _failed(request, desk, error)
    if found is None:
        return _go("/login")
    return _page(request, "logout", "Sign out", name=found[1].name, csrf=sessions.csrf_of(cookie), next=HOME)


@router.post("/logout")
def log_out(request: Request, desk: TheDesk, csrf: Field = "") -> Response:
    """Ends the session; without its token nothing but the question again."""
    cookie = request.cookies.get(sessions.COOKIE, "")
    try:
        found = find_session(desk.access, cookie)
        if found is not None:
            if sessions.is_foreign(request) or not sessions.is_csrf_of(cookie, csrf):
                return logout(request, desk)
            sign_in.sign_out(desk, cookie, f"{found[1].name}@{remote_of(request)}")
    except LanfreeError as error:
        return _failed(request, desk, error)
    response = _go("/login?ended=true")
    sessions.remove_cookie(response)
    return response


@router.get("/setup")
def setup(request: Request, desk: TheDesk) -> Response:
    """The form of the first start; later on there is nothing to be done here."""
    try:
        if not sign_in.needs_setup(desk.access):
            return _go("/login")
    except LanfreeError as error:
        return _failed(request, desk, error)
    return _setup_form(request)


@router.post("/setup")
def set_up(
    *,
    request: Request,
    desk: TheDesk,
    code: Field = "",
    name: Field = "",
    password: Field = "",
    again: Field = "",
) -> Response:
    """To the console, or the form again with what was wrong."""
    try:
        sessions.refuse_foreign(request)
        if password != again:
            raise PasswordRefused("the two are not the same")
        agent = request.headers.get("user-agent", "")
        begun = sign_in.set_up(desk, code, name, password, remote=remote_of(request), agent=agent)
    except LanfreeError as error:
        return _setup_form(request, error=error, name=name[:64])
    response = _go(HOME)
    sessions.set_cookie(response, begun.cookie)
    return response


@router.get("/oidc/login")
def to_provider(request: Request, desk: TheDesk, next: Next = HOME) -> Response:  # noqa: A002
    """Off to the provider, with what has to come back in a cookie of this browser."""
    try:
        settings = _provider_of(desk)
        pending = Pending.new(local_path(next))
        address = Provider(settings, desk.access.documents).address_for(pending, _callback(request, settings))
    except LanfreeError as error:
        return _login_form(request, desk, error=error, next=local_path(next))
    response = _go(address)
    response.set_cookie(
        oidc_client.COOKIE,
        pending.packed(),
        max_age=oidc_client.COOKIE_HOLDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",  # it has to come along when the provider sends the browser back
    )
    return response


@router.get(oidc_client.CALLBACK)
def from_provider(
    *,
    request: Request,
    desk: TheDesk,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=256)] = "",
    iss: Annotated[str | None, Query(max_length=1024)] = None,
    error: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Back from there: signed in, or the form with what was wrong."""
    pending = Pending.unpacked(request.cookies.get(oidc_client.COOKIE, ""))
    try:
        if pending is None or not sessions.is_same(pending.state, state):
            raise SignInRefused("this sign-in was not begun here, or took too long", hint="begin it again")
        if error or not code:
            known = error if error.isascii() and error.replace("_", "").isalnum() else "no code"
            raise SignInRefused(f"the provider let nobody in: {known}", hint="begin it again")
        settings = _provider_of(desk)
        provider = Provider(settings, desk.access.documents)
        provider.check_issuer(iss)
        claims = provider.claims_of(code, pending, _callback(request, settings))
        begun = sign_in.welcome(
            desk,
            oidc.admit(desk.access, settings, claims),
            remote=remote_of(request),
            agent=request.headers.get("user-agent", ""),
            before=request.cookies.get(sessions.COOKIE, ""),
        )
    except LanfreeError as refused:
        response = _login_form(request, desk, error=refused)
    else:
        response = _go(local_path(pending.next))
        sessions.set_cookie(response, begun.cookie)
    response.delete_cookie(oidc_client.COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return response


@router.get("/access/{name}")
def static(name: str) -> Response:
    """Style and mark of these pages; they tell nothing, and anybody may have them."""
    if name not in ("style.css", "mark.svg"):
        return Response(status_code=HTTPStatus.NOT_FOUND)
    return FileResponse(_STATIC / name, headers={"Cache-Control": f"public, max-age={_STYLE_HOLDS}"})


def _provider_of(desk: Desk) -> OidcSettings:
    found = desk.access.rules().oidc
    if found is None:
        raise ConfigurationError("[web.oidc]", "no OpenID provider is configured", hint="sign in with a password")
    return found


def _callback(request: Request, settings: OidcSettings) -> str:
    """The same address both times; the provider has to know it. The name was checked: unknown hosts are refused."""
    base = settings.url or f"https://{request.headers.get('host', '')}"
    return f"{base}{oidc_client.CALLBACK}"


def _login_form(request: Request, desk: Desk, *, error: LanfreeError | None = None, **facts: str) -> Response:
    provider = desk.access.rules().oidc
    shown: dict[str, Any] = {"next": HOME, "name": "", "provider": provider.label if provider is not None else ""}
    return _page(request, "login", "Sign in", error=error, **{**shown, **facts})


def _setup_form(request: Request, *, error: LanfreeError | None = None, name: str = "") -> Response:
    return _page(request, "setup", "Set up", error=error, name=name, shortest=passwords.SHORTEST)


def _failed(request: Request, desk: Desk, error: LanfreeError) -> Response:
    del desk
    return _page(request, "notice", "This did not work", error=error)


def _page(request: Request, template: str, title: str, *, error: LanfreeError | None = None, **facts: Any) -> Response:
    chosen = request.cookies.get("lanfree_theme", "auto")  # as in the console
    shown = {
        "title": title,
        "shade": chosen if chosen in ("dark", "light") else "auto",
        "host": request.url.hostname or "",
        "notice": "",
        "problem": _sentence(error.message) if error is not None else "",
        "hint": _sentence(error.hint) if error is not None else "",
        **facts,
    }
    status = errors.status_of(error) if error is not None else HTTPStatus.OK
    response = HTMLResponse(templates_in(_TEMPLATES).rendered(f"{template}.html.j2", **shown), status)
    response.headers["Cache-Control"] = "no-store"
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(max(1, round(error.after)))
    return response


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if not text or text.endswith('.') else '.'}"


def _go(place: str) -> RedirectResponse:
    response = RedirectResponse(place, HTTPStatus.SEE_OTHER)
    response.headers["Cache-Control"] = "no-store"
    return response
