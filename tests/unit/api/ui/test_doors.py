"""Who comes to the console's pages: every one of them asks who it is, and whether they may."""

import re
from datetime import UTC, datetime
from inspect import isawaitable

import pytest
from fastapi import FastAPI
from nicegui import Client
from nicegui.elements.html import Html
from nicegui.elements.timer import Timer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from api.app import create_app
from api.auth import sessions
from api.auth.access import Access
from api.auth.roles import EVERY_MACHINE, Role
from api.headers import CONSOLE_POLICY
from api.settings import WebSettings
from api.ui.pages import NOT_FOUND, PAGES
from api.ui.pages.dashboard import REST_SECONDS
from api.ui.visit import PREFIX, ZONE_COOKIE, Outside
from appliance import inventory
from appliance.web.desk import desk_of
from catalog.access.values import User
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow


def addresses() -> list[str]:
    """Of all pages, with something in place of their parameters."""
    return [PREFIX + re.sub(r"\{[^}]*\}", "x-1", page.path) for page in (*PAGES, NOT_FOUND)]


def sign_in(browser: TestClient, access: Access, name: str, *roles: Role) -> None:
    """A user with these roles."""
    with access.store.transaction() as unit:
        unit.users.add(User(name, name, None, tuple(role.value for role in roles), EVERY_MACHINE, datetime.now(UTC)))
    browser.cookies.set(sessions.COOKIE, sessions.begin(access, name).cookie, domain="testserver.local")


def test_every_page_is_closed_to_strangers_and_to_who_lacks_its_permission(site: ApiSite) -> None:
    """One test: NiceGUI is one application a process, which begins and ends with it."""
    desk = desk_of(site.services)
    app = create_app(desk, WebSettings())
    with TestClient(app, base_url="https://testserver", follow_redirects=False) as browser:
        browser.cookies.set(ZONE_COOKIE, "UTC", domain="testserver.local")
        for address in addresses():
            answer = browser.get(address)
            assert answer.status_code == 303, address
            assert answer.headers["location"].startswith("/login?next="), address

        sign_in(browser, desk.access, "nobody")
        for page, address in zip((*PAGES, NOT_FOUND), addresses(), strict=True):
            answer = browser.get(address)
            assert answer.status_code == 403, address
            assert page.permission.value in answer.text

        sign_in(browser, desk.access, "root", Role.ADMINISTRATOR)
        answer = browser.get(f"{PREFIX}/")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == CONSOLE_POLICY
        assert "unsafe-inline" not in browser.get("/login").headers["content-security-policy"]
        asset = browser.get(f"{PREFIX}/assets/console.js")
        assert (asset.status_code, asset.headers["x-content-type-options"]) == (200, "nosniff")
        assert "no-store" not in asset.headers.get("cache-control", "")

        what_is_looked_at_again_takes_nothing_away(browser)
        what_is_not_there_is_said_and_nothing_half_drawn(browser)
        a_dashboard_that_is_left_open_shows_what_is_new(browser, site)
        who_cannot_be_told_who_they_are_is_not_sent_to_and_fro(browser)


def opened(browser: TestClient, address: str, status: int = 200) -> Client:
    """A page that somebody has open now."""
    before = set(Client.instances)
    answer = browser.get(f"{PREFIX}{address}")
    assert answer.status_code == status, answer.text
    (number,) = set(Client.instances) - before
    return Client.instances[number]


def parts_of(page: Client) -> list[Html]:
    """What it is drawn with."""
    return [one for one in page.elements.values() if isinstance(one, Html)]


def what_is_looked_at_again_takes_nothing_away(browser: TestClient) -> None:
    """Counters above are drawn anew each moment, without what somebody types or has opened beside them; what changes with
    each look is not read out each time."""
    (counters,) = [one.content for one in parts_of(opened(browser, "/")) if "lf-count" in one.content]
    assert "<input" not in counters
    assert "<details" not in counters
    for address in ("/proxies", "/running"):
        read_out = [one.content for one in parts_of(opened(browser, address)) if one.props.get("aria-live")]
        assert not any(read_out), address


def what_is_not_there_is_said_and_nothing_half_drawn(browser: TestClient) -> None:
    """A page whose first question is refused shows that alone."""
    shown = [
        one.content
        for one in parts_of(opened(browser, "/runs/none", 404))
        if "<h1>" in one.content or "<h2>" in one.content
    ]
    assert [content for content in shown if "lf-brand" not in content] == shown[-1:]
    assert "<h1>Job run</h1>" in shown[-1]


def a_dashboard_that_is_left_open_shows_what_is_new(browser: TestClient, site: ApiSite) -> None:
    """Gaps, space and charts as well: each once, however often they are drawn."""
    page = opened(browser, "/")
    drawn = len(page.elements)
    gaps = next(one for one in parts_of(page) if "Coverage gaps" in one.content)
    assert "db-1" not in gaps.content
    site.machine("db-1")
    inventory.refresh(site.services)
    (timer,) = [one for one in page.elements.values() if isinstance(one, Timer) and one.interval == REST_SECONDS]

    async def passes() -> None:
        with page.content:
            result = timer.callback()
            assert isawaitable(result)
            await result

    assert browser.portal is not None
    for _ in range(2):
        browser.portal.call(passes)
        assert "db-1" in gaps.content
        assert len(page.elements) == drawn


def who_cannot_be_told_who_they_are_is_not_sent_to_and_fro(browser: TestClient) -> None:
    """The sign-in page would send whose session lives back here."""

    def busy(request: Request) -> Response:
        said = {"code": "too-many", "detail": "too many <requests> at once", "hint": "wait a moment"}
        return JSONResponse(said, 429, media_type="application/problem+json")

    whole, Outside.app = Outside.app, FastAPI(routes=[Route("/api/v1/session", busy)])
    try:
        answer = browser.get(f"{PREFIX}/machines")
    finally:
        Outside.app = whole
    assert answer.status_code == 429
    assert "Too many &lt;requests&gt; at once" in answer.text
    assert "Wait a moment" in answer.text
    assert browser.get(f"{PREFIX}/machines").status_code == 200
