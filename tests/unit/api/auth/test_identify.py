from datetime import timedelta
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from api.auth import people, sessions, tokens
from api.auth.identify import identify
from api.auth.roles import Caller, Permission, Role, allowed
from api.refusals import CsrfRefused
from tests.unit.api.auth.conftest import PASSWORD, ROOT, Clock, People

pytestmark = pytest.mark.slow


def whoami(client: TestClient) -> int:
    return client.get("/api/v1/session").status_code


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer lft_", "Bearer lft_" + "A" * 43, "Basic YTpi", "Bearer " + "é" * 5]
)
def test_an_authorization_that_is_none_is_refused_though_a_cookie_is_there(known: People, header: str) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    answer = browser.get("/api/v1/session", headers={"Authorization": header.encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "A" * 44, "../" * 15, '"' * 43])
def test_a_cookie_that_is_none_is_refused(known: People, cookie: str) -> None:
    browser = known.browser()
    browser.headers["Cookie"] = f"{sessions.COOKIE}={cookie}"
    assert whoami(browser) == 401


def test_a_session_ends_when_nobody_uses_it(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    for _ in range(3):
        clock.goes_on(minutes=59)
        assert whoami(browser) == 200
    clock.goes_on(minutes=62)
    assert whoami(browser) == 401


def test_what_a_page_does_by_itself_is_no_use(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    for _ in range(4):
        clock.goes_on(minutes=15)
        assert browser.get("/api/v1/session", headers={"X-Lanfree-Background": "1"}).status_code == 200
    clock.goes_on(minutes=2)
    assert browser.get("/api/v1/session", headers={"X-Lanfree-Background": "1"}).status_code == 401


def test_a_session_ends_in_any_case_after_half_a_day(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    for _ in range(23):
        clock.goes_on(minutes=30)
        assert whoami(browser) == 200
    clock.goes_on(minutes=30)
    assert whoami(browser) == 401


def test_a_shorter_time_counts_at_once(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    clock.goes_on(minutes=10)
    known.rules(idle=timedelta(minutes=5))
    assert whoami(browser) == 401


def test_a_change_needs_the_sessions_own_token(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    known.add("mallory", Role.OPERATOR)
    browser = known.browser("alice")
    others = known.browser("mallory").headers[sessions.CSRF_HEADER]
    for given in ({"X-CSRF-Token": ""}, {"X-CSRF-Token": others}, {"X-CSRF-Token": "é".encode()}):
        answer = browser.post("/api/v1/tokens", json={"name": "t", "permissions": ["view"]}, headers=given)
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf-refused")
    del browser.headers[sessions.CSRF_HEADER]
    assert browser.delete("/api/v1/session").status_code == 403
    assert whoami(browser) == 200, "to read needs none"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://testserver.evil.example"},
        {"Origin": "https://testserver:8443"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_change_from_another_site_is_refused_though_it_has_the_token(known: People, headers: dict[str, str]) -> None:
    known.add("alice", Role.OPERATOR)
    assert known.browser("alice").delete("/api/v1/session", headers=headers).status_code == 403


def test_a_change_from_the_console_itself_is_taken(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    headers = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
    assert known.browser("alice").delete("/api/v1/session", headers=headers).status_code == 204


def test_a_websocket_of_another_site_is_refused(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    cookie = known.browser("alice").cookies[sessions.COOKIE]

    def asked(origin: str) -> Caller:
        said = {"host": "testserver", "origin": origin, "cookie": f"{sessions.COOKIE}={cookie}"}
        headers = [(name.encode(), value.encode()) for name, value in said.items()]
        return identify(HTTPConnection({"type": "websocket", "headers": headers}), known.access)

    assert asked("https://testserver").name == "alice"
    with pytest.raises(CsrfRefused):
        asked("https://evil.example")


def test_who_is_disabled_or_removed_is_out_at_once(known: People) -> None:
    for name in ("alice", "bob"):
        known.add(name, Role.OPERATOR)
    alice, bob = known.browser("alice"), known.browser("bob")
    people.change(known.access, ROOT, "alice", revision=1, disabled=True)
    people.remove(known.access, ROOT, "bob")
    assert (whoami(alice), whoami(bob)) == (401, 401)
    people.change(known.access, ROOT, "alice", revision=2, disabled=False)
    assert whoami(alice) == 401, "the session has ended for good"


def secret_of(known: People, name: str, *permissions: Permission, **more: object) -> str:
    with known.access.store.transaction(write=False) as unit:
        user = unit.users.get(name)
    caller = Caller(name, allowed(Role(role) for role in user.roles), user.machines)
    return tokens.make(known.access, caller, "ci", permissions, **more)[1]  # type: ignore[arg-type]


def test_a_token_is_its_owner_with_less(known: People) -> None:
    known.add("alice", Role.OPERATOR, machines=("db-*",))
    program = known.program(secret_of(known, "alice", Permission.VIEW, machines=("db-1", "db-prod-*")))
    told = program.get("/api/v1/session").json()
    assert (told["name"], told["via"], told["csrf"]) == ("alice", "token", None)
    assert (told["permissions"], told["machines"]) == (["view"], ["db-1", "db-prod-*"])


def test_a_token_loses_what_its_owner_loses(known: People) -> None:
    known.add("admin", Role.ADMINISTRATOR)
    known.add("alice", Role.ADMINISTRATOR)
    program = known.program(secret_of(known, "alice", Permission.VIEW, Permission.CONFIGURE))
    people.change(known.access, ROOT, "alice", revision=1, roles=[Role.AUDITOR], machines=("web-*",))
    told = program.get("/api/v1/session").json()
    assert (told["permissions"], told["machines"]) == (["view"], ["web-*"])
    people.change(known.access, ROOT, "alice", revision=2, disabled=True)
    assert whoami(program) == 401


def test_a_token_expires_and_its_use_is_noted(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    secret = secret_of(known, "alice", Permission.VIEW, expires_at=clock.time + timedelta(days=1))
    program = known.program(secret)
    assert whoami(program) == 200
    with known.access.store.transaction(write=False) as unit:
        (token,) = unit.tokens.list("alice")
    assert token.used_at == clock.time
    assert secret not in repr(token) and token.digest not in repr(token)
    clock.goes_on(days=1)
    assert whoami(program) == 401


def test_nothing_that_is_stored_lets_anybody_in(known: People) -> None:
    """Who reads the database has digests and hashes, no cookie, no token, no password."""
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    secret = secret_of(known, "alice", Permission.VIEW)
    url = str(known.access.store._engine.url).removeprefix("sqlite:///")
    stored = b"".join(Path(url + end).read_bytes() for end in ("", "-wal"))
    assert b"alice" in stored
    for word in (browser.cookies[sessions.COOKIE], browser.headers[sessions.CSRF_HEADER], secret, PASSWORD):
        assert word.encode() not in stored
