"""Signing in with a real OpenID provider, its browser's part played by hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.auth import oidc_client, sessions
from api.auth.access import Access, Rules
from api.auth.oidc import OidcSettings
from api.auth.people import add
from api.auth.roles import Caller, Permission, Role
from api.settings import WebSettings
from appliance.web.desk import desk_of
from tests.integration.web.oidc_provider import CLIENT, PASSWORD, SECRET, OidcProvider, program, running
from tests.unit.api.api_site import site_in

pytestmark = [pytest.mark.tools, pytest.mark.requires(program())]

CALLBACK = "https://testserver/oidc/callback"
ROOT = Caller("root", frozenset(Permission))


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with running(tmp_path_factory.mktemp("oidc"), CALLBACK) as started:
        yield started


class Site:
    """An appliance that knows the provider."""

    def __init__(self, app: FastAPI, access: Access, settings: OidcSettings) -> None:
        self.app = app
        self.access = access
        self.settings = settings

    def says(self, **changed: Any) -> None:
        """Other settings from now on."""
        self.settings = replace(self.settings, **changed)
        desk = self.app.state.desk
        rules = Rules(oidc=self.settings)
        self.app.state.desk = replace(desk, access=replace(self.access, rules=lambda: rules))

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url="https://testserver", follow_redirects=False)


@pytest.fixture
def site(provider: OidcProvider, tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path).services as services:
        services.make_repository()
        access = Access(lambda: services.access)
        add(access, ROOT, "admin", "a donkey sings at noon", [Role.ADMINISTRATOR])
        app = create_app(desk_of(services), WebSettings(console=False))
        roles = {"backup-admins": Role.ADMINISTRATOR, "helpdesk": Role.RESTORE_OPERATOR}
        settings = OidcSettings(provider.issuer, CLIENT, lambda: SECRET, roles=roles)
        made = Site(app, access, settings)
        made.says()
        yield made


def leave(browser: TestClient, place: str = "/console/machines") -> str:
    """To the provider."""
    answer = browser.get("/oidc/login", params={"next": place})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def back(browser: TestClient, address: str) -> Any:
    """From the provider."""
    assert address.startswith(CALLBACK)
    return browser.get(address.removeprefix("https://testserver"))


def signed_in(site: Site, provider: OidcProvider, name: str) -> tuple[TestClient, Any]:
    browser = site.browser()
    return browser, back(browser, provider.sign_in(leave(browser), name))


def test_who_signs_in_there_is_signed_in_here_with_the_roles_of_their_groups(
    site: Site, provider: OidcProvider
) -> None:
    provider.person("u1", "Carol", ["helpdesk", "lunch"])
    site.says(machines={"helpdesk": ("web-*", "db-7")})
    browser, answer = signed_in(site, provider, "Carol")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/machines"), answer.text
    told = browser.get("/api/v1/session").json()
    assert (told["name"], told["display_name"]) == ("carol", "Carol Test")
    assert (told["roles"], told["machines"]) == (["restore-operator"], ["web-*", "db-7"])
    assert told["provider"] == provider.issuer
    assert oidc_client.COOKIE not in browser.cookies


def test_the_address_asks_for_pkce_state_and_nonce(site: Site, provider: OidcProvider) -> None:
    browser = site.browser()
    asked = parse_qs(urlsplit(leave(browser)).query)
    assert asked["response_type"] == ["code"] and asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [CALLBACK]
    assert len(asked["state"][0]) == len(asked["nonce"][0]) == len(asked["code_challenge"][0]) == 43
    cookie = browser.cookies[oidc_client.COOKIE]
    pending = oidc_client.Pending.unpacked(cookie)
    assert pending is not None and pending.verifier not in str(asked)


def test_groups_count_anew_each_time_and_none_means_out(site: Site, provider: OidcProvider) -> None:
    provider.person("u2", "dave", ["helpdesk", "backup-admins"])
    browser, _ = signed_in(site, provider, "dave")
    assert browser.get("/api/v1/session").json()["roles"] == ["administrator", "restore-operator"]
    provider.person("u2", "dave", ["helpdesk"])
    signed_in(site, provider, "dave")
    assert browser.get("/api/v1/session").json()["roles"] == ["restore-operator"], "the older session, too"
    provider.person("u2", "dave", ["lunch"])
    _, answer = signed_in(site, provider, "dave")
    assert answer.status_code == 401 and "None of your groups has a role here" in answer.text
    assert browser.get("/api/v1/session").status_code == 401
    with site.access.store.transaction(write=False) as unit:
        assert unit.users.get("dave").roles == ()


def test_somebody_without_a_group_makes_no_user(site: Site, provider: OidcProvider) -> None:
    provider.person("u3", "erin", [])
    _, answer = signed_in(site, provider, "erin")
    assert answer.status_code == 401
    with site.access.store.transaction(write=False) as unit:
        assert unit.users.find("erin") is None


def test_a_name_from_there_takes_nobody_over_here(site: Site, provider: OidcProvider) -> None:
    provider.person("u4", "admin", ["backup-admins"])
    browser, answer = signed_in(site, provider, "admin")
    assert answer.status_code == 401 and "belongs to somebody else here" in answer.text
    assert browser.get("/api/v1/session").status_code == 401


def test_a_person_stays_the_same_under_a_new_name(site: Site, provider: OidcProvider) -> None:
    provider.person("u5", "frank", ["helpdesk"])
    signed_in(site, provider, "frank")
    provider.person("u5", "frank.miller", ["helpdesk"])
    browser, _ = signed_in(site, provider, "frank.miller")
    assert browser.get("/api/v1/session").json()["name"] == "frank"


def test_only_confirmed_addresses_of_the_domains_are_let_in(site: Site, provider: OidcProvider) -> None:
    site.says(domains=("Example.ORG",))
    provider.person("u6", "grace", ["helpdesk"])
    provider.person("u7", "heidi", ["helpdesk"], EmailVerified=False)
    provider.person("u8", "ivan", ["helpdesk"], Email="ivan@example.org.evil.example")
    statuses = {name: signed_in(site, provider, name)[1].status_code for name in ("grace", "heidi", "ivan")}
    assert statuses == {"grace": 303, "heidi": 401, "ivan": 401}


def test_a_code_is_no_good_in_another_browser(site: Site, provider: OidcProvider) -> None:
    """Neither for who steals it, nor to sign somebody in as somebody else."""
    provider.person("u9", "judy", ["helpdesk"])
    address = provider.sign_in(leave(site.browser()), "judy")
    stranger = site.browser()
    assert back(stranger, address).status_code == 401
    other = site.browser()
    leave(other)
    answer = back(other, address)
    assert answer.status_code == 401 and "not begun here" in answer.text
    assert sessions.COOKIE not in other.cookies


def test_a_code_is_good_once(site: Site, provider: OidcProvider) -> None:
    provider.person("u10", "mike", ["helpdesk"])
    browser = site.browser()
    address = provider.sign_in(leave(browser), "mike")
    kept = browser.cookies[oidc_client.COOKIE]
    assert back(browser, address).status_code == 303
    again = site.browser()
    again.cookies.set(oidc_client.COOKIE, kept, domain="testserver.local")
    answer = back(again, address)
    assert answer.status_code == 502 and sessions.COOKIE not in again.cookies


def test_a_token_of_another_sign_in_is_refused(
    site: Site, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nonce: a code that was put into this browser's way, with the state that it expects."""
    provider.person("u11", "niaj", ["helpdesk"])
    browser = site.browser()
    address = provider.sign_in(leave(browser), "niaj")
    pending = oidc_client.Pending.unpacked(browser.cookies[oidc_client.COOKIE])
    assert pending is not None
    browser.cookies.delete(oidc_client.COOKIE)
    other = replace(pending, nonce="n" * 43)
    browser.cookies.set(oidc_client.COOKIE, other.packed(), domain="testserver.local")
    answer = back(browser, address)
    assert answer.status_code == 401 and "not good for this sign-in" in answer.text


def test_a_wrong_secret_is_told_without_it(site: Site, provider: OidcProvider) -> None:
    provider.person("u12", "olivia", ["helpdesk"])
    site.says(secret=lambda: "not the one, and nobody shall read it")
    _, answer = signed_in(site, provider, "olivia")
    assert answer.status_code == 502
    assert "nobody shall read it" not in answer.text and "cannot be asked" in answer.text


def test_a_provider_that_is_away_leaves_the_password(site: Site) -> None:
    site.says(issuer="http://127.0.0.1:9/")
    answer = site.browser().get("/oidc/login")
    assert answer.status_code == 502
    assert "administrators with a password can still sign in" in answer.text.lower()
    assert 'name="password"' in answer.text


def test_a_wrong_password_there_brings_nobody_back(site: Site, provider: OidcProvider) -> None:
    provider.person("u13", "peggy", ["helpdesk"])
    assert provider.sign_in(leave(site.browser()), "peggy", PASSWORD + "!") == ""


def test_what_the_provider_refuses_is_said(site: Site) -> None:
    browser = site.browser()
    pending = oidc_client.Pending.new("/console/")
    browser.cookies.set(oidc_client.COOKIE, pending.packed(), domain="testserver.local")
    answer = browser.get("/oidc/callback", params={"state": pending.state, "error": "access_denied"})
    assert answer.status_code == 401 and "access_denied" in answer.text
    answer = browser.get("/oidc/callback", params={"state": pending.state, "error": "<script>"})
    assert "<script>" not in answer.text
