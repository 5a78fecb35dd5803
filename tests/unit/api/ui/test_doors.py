"""Who comes to the console's pages: every one of them asks who it is, and whether they may."""

import re
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.auth import sessions
from api.auth.access import Access
from api.auth.roles import EVERY_MACHINE, Role
from api.headers import CONSOLE_POLICY
from api.settings import WebSettings
from api.ui.pages import NOT_FOUND, PAGES
from api.ui.visit import PREFIX, ZONE_COOKIE
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
