import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.auth import pages, sessions
from api.auth.oidc import OidcSettings
from api.auth.pages import local_path
from api.auth.roles import Role
from appliance.web import access as web_access
from tests.unit.api.api_site import ApiSite
from tests.unit.api.auth.conftest import PASSWORD, Clock, People

pytestmark = pytest.mark.slow


@pytest.fixture
def stranger(known: People) -> TestClient:
    known.add("alice", Role.OPERATOR)
    browser = known.browser()
    browser.follow_redirects = False
    return browser


@pytest.mark.parametrize("place", ["/", "/console/", "/console/machines?q=a%20b&x=//y", "/a:b", "/console/#part"])
def test_a_path_of_the_console_is_followed(place: str) -> None:
    assert local_path(place) == place


@pytest.mark.parametrize(
    "place",
    [
        "",
        "console/",
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        " //evil.example",
        "/\t/evil.example",
        "/\r\nSet-Cookie: x=y",
        "/é",
        "//[",
        "http:///x",
    ],
)
def test_no_other_place_is(place: str) -> None:
    assert local_path(place) == "/console/"


def test_signing_in_by_form_leads_to_where_one_was_going(stranger: TestClient) -> None:
    page = stranger.get("/login", params={"next": "/console/machines?q=db"})
    assert page.status_code == 200 and 'value="/console/machines?q=db"' in page.text
    form = {"name": "Alice", "password": PASSWORD, "next": "/console/machines?q=db"}
    answer = stranger.post("/login", data=form, headers={"Origin": "https://testserver"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/machines?q=db")
    assert "HttpOnly" in answer.headers["set-cookie"] and "Secure" in answer.headers["set-cookie"]
    assert stranger.get("/api/v1/session").json()["name"] == "alice"
    again = stranger.get("/login", params={"next": "//evil.example"})
    assert (again.status_code, again.headers["location"]) == (303, "/console/")


def test_a_form_never_leads_to_another_site(stranger: TestClient) -> None:
    form = {"name": "alice", "password": PASSWORD, "next": "https://evil.example/"}
    assert stranger.post("/login", data=form).headers["location"] == "/console/"


def test_what_was_wrong_is_said_with_what_to_do(stranger: TestClient) -> None:
    answer = stranger.post("/login", data={"name": '"><b>alice', "password": "not this one", "next": "/console/x"})
    assert answer.status_code == 401
    assert "Name and password do not belong together." in answer.text
    assert "an administrator can set a new password" in answer.text.lower()
    assert "&#34;&gt;&lt;b&gt;alice" in answer.text, "what was typed stays, as text"
    assert "not this one" not in answer.text
    assert 'value="/console/x"' in answer.text
    assert 'role="alert"' in answer.text


def test_a_form_of_another_site_signs_nobody_in(stranger: TestClient) -> None:
    form = {"name": "alice", "password": PASSWORD}
    answer = stranger.post("/login", data=form, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_who_tries_too_often_is_told_how_long_to_wait(stranger: TestClient) -> None:
    for _ in range(5):
        stranger.post("/login", data={"name": "alice", "password": "wrong"})
    answer = stranger.post("/login", data={"name": "alice", "password": PASSWORD})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert "Wait 1 s, then try again." in answer.text


@pytest.mark.parametrize("path", ["/login", "/setup", "/logout", "/access/style.css", "/access/mark.svg"])
def test_pages_run_nothing_load_nothing_from_elsewhere_and_are_in_no_frame(known: People, path: str) -> None:
    known.rules(oidc=OidcSettings("https://id.example", "c", lambda: "s", label="Example & Co"))
    if path != "/setup":
        known.add("alice", Role.OPERATOR)
    answer = known.browser("alice" if path == "/logout" else "").get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert not re.search(r"<script|<style|style=|\son\w+=|https?://(?!www\.w3\.org)", answer.text)
    if path == "/login":
        assert "Example &amp; Co" in answer.text
    if not path.startswith("/access"):
        assert answer.headers["cache-control"] == "no-store"


def test_nothing_else_is_served_beside_the_style(stranger: TestClient) -> None:
    for path in ("/access/x", "/access/..%2Fpages.py", "/access/%2e%2e/pages.py", "/access/style.css%00"):
        assert stranger.get(path).status_code == 404


def test_a_link_signs_nobody_out(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    browser.follow_redirects = False
    assert "alice is signed in here" in browser.get("/logout").text
    for form in ({}, {"csrf": "x"}):
        assert browser.post("/logout", data=form).status_code == 200
    csrf = browser.headers[sessions.CSRF_HEADER]
    foreign = browser.post("/logout", data={"csrf": csrf}, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 200
    assert browser.get("/api/v1/session").status_code == 200


def test_signing_out_by_form_ends_the_session_and_forgets_the_cookie(
    known: People, recorded: Callable[[], Sequence[tuple[str, str]]]
) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    browser.follow_redirects = False
    cookie = browser.cookies[sessions.COOKIE]
    page = browser.get("/logout")
    csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert csrf is not None
    answer = browser.post("/logout", data={"csrf": csrf[1]}, headers={"Origin": "https://testserver"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?ended=true")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert "You are signed out." in browser.get("/login?ended=true").text
    old = known.browser()
    old.cookies.set(sessions.COOKIE, cookie, domain="testserver.local")
    assert old.get("/api/v1/session").status_code == 401
    assert recorded() == [("alice@192.0.2.7", "sign-out")]
    assert browser.post("/logout").status_code == 303, "who is signed out already is at the door, too"


def test_the_first_start_leads_to_the_set_up_and_from_there_to_the_console(
    known: People, site: ApiSite, clock: Clock
) -> None:
    clock.time = site.services.clock.now()
    browser = known.browser()
    browser.follow_redirects = False
    assert browser.get("/login").headers["location"] == "/setup"
    assert "one-time code" in browser.get("/setup").text.lower()
    code = web_access.setup_code(site.services) or ""
    form = {"code": code, "name": "admin", "password": PASSWORD, "again": PASSWORD + "!"}
    differs = browser.post("/setup", data=form)
    assert differs.status_code == 422 and "the two are not the same" in differs.text.lower()
    assert code not in differs.text and PASSWORD not in differs.text and 'value="admin"' in differs.text
    wrong = browser.post("/setup", data={**form, "code": "WRONG", "again": PASSWORD})
    assert wrong.status_code == 403 and "lanfree web code" in wrong.text
    answer = browser.post("/setup", data={**form, "again": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert browser.get("/api/v1/session").json()["roles"] == ["administrator"]
    assert browser.get("/setup").headers["location"] == "/login"


def test_a_database_that_is_broken_is_said_in_the_page(known: People, site: ApiSite) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    place = Path(str(site.services.access._engine.url.database))
    site.services.access.close()
    for end in ("-wal", "-shm"):
        place.with_name(place.name + end).unlink(missing_ok=True)
    place.write_bytes(b"no database at all " * 500)
    for path in ("/login", "/logout", "/setup"):
        answer = browser.get(path)
        assert answer.status_code == 500 and "free space and check the database" in answer.text.lower()


def test_without_a_provider_there_is_no_way_to_one(stranger: TestClient) -> None:
    assert "/oidc/login" not in stranger.get("/login").text
    answer = stranger.get("/oidc/login")
    assert answer.status_code == 422 and "no OpenID provider is configured" in answer.text
    assert stranger.get("/oidc/callback", params={"code": "x", "state": "y"}).status_code == 401


def test_the_style_is_the_consoles(known: People) -> None:
    """The colours of both shades are those of the console, so that to sign in changes nothing."""
    console = (Path(pages.__file__).parents[1] / "ui/static/console.css").read_text()
    ours = (Path(pages.__file__).parent / "static/style.css").read_text()
    for name in ("--bg", "--surface", "--ink", "--dim", "--accent", "--accent-ink", "--bad"):
        values = set(re.findall(rf"{name}: (#\w+);", ours))
        assert len(values) == 2
        assert values == set(re.findall(rf"{name}: (#\w+);", console)), name
