import re
from collections.abc import Callable, Sequence

import pytest
from starlette.testclient import TestClient

from api.auth import passwords, people, sessions, sign_in
from api.auth.passwords import Cost
from api.auth.roles import Role
from api.desk import Desk
from appliance.web import access as web_access
from tests.unit.api.api_site import ApiSite
from tests.unit.api.auth.conftest import PASSWORD, ROOT, Clock, People

pytestmark = pytest.mark.slow

WRONG = "a donkey sings at dusk"


def attempt(client: TestClient, name: str = "alice", password: str = PASSWORD, **more: object) -> int:
    answer = client.post("/api/v1/session", json={"name": name, "password": password}, **more)  # type: ignore[arg-type]
    return answer.status_code


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    answer = known.browser().post("/api/v1/session", json={"name": " Alice ", "password": PASSWORD})
    assert answer.status_code == 201
    said = answer.headers["set-cookie"]
    cookie, *flags = said.split("; ")
    assert re.fullmatch(r"__Host-lanfree=[\w-]{43}", cookie)
    assert {flag.lower() for flag in flags} == {"httponly", "path=/", "samesite=lax", "secure"}
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["name"], told["roles"], told["four_eyes"]) == ("alice", ["operator"], False)
    assert "back-up" in told["permissions"] and "configure" not in told["permissions"]


def test_a_session_is_who_it_says_until_it_is_ended(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser()
    told = browser.post("/api/v1/session", json={"name": "alice", "password": PASSWORD}).json()
    assert browser.get("/api/v1/session").json() == told
    assert browser.delete("/api/v1/session", headers={"X-CSRF-Token": told["csrf"]}).status_code == 204
    assert browser.get("/api/v1/session").status_code == 401


@pytest.mark.parametrize("name", ["alice", "nobody", "disabled", "elsewhere", "", "a\0b", "x" * 256, PASSWORD, "é"])
def test_every_no_is_the_same_answer(known: People, name: str) -> None:
    known.add("alice", Role.OPERATOR)
    known.add("elsewhere", Role.OPERATOR, password=None)
    people.change(known.access, ROOT, known.add("disabled", Role.OPERATOR).name, revision=1, disabled=True)
    answer = known.browser().post("/api/v1/session", json={"name": name or "?", "password": WRONG})
    assert answer.status_code == 401
    told = answer.json()
    assert (told["code"], told["detail"]) == ("sign-in-refused", "name and password do not belong together")
    assert WRONG not in answer.text and "set-cookie" not in answer.headers


def test_every_no_costs_one_hash(known: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason, the same work is done: the time tells nobody which names there are."""
    known.add("alice", Role.OPERATOR)
    known.add("elsewhere", Role.OPERATOR, password=None)
    real, made = passwords.Argon2id, []

    class Counted:
        def __init__(self, **cost: object) -> None:
            self._real = real(**cost)  # type: ignore[arg-type]

        def derive(self, material: bytes) -> bytes:
            made.append("derive")
            return self._real.derive(material)

        @staticmethod
        def verify_phc_encoded(material: bytes, phc: str) -> None:
            made.append("verify")
            real.verify_phc_encoded(material, phc)

    monkeypatch.setattr(passwords, "Argon2id", Counted)
    for name in ("alice", "nobody", "elsewhere"):
        assert attempt(known.browser(), name, WRONG) == 401
    assert made == ["verify", "derive", "derive"]


def test_names_that_are_typed_wrong_are_not_written_down(
    known: People, recorded: Callable[[], Sequence[tuple[str, str]]], desk: Desk
) -> None:
    known.add("alice", Role.OPERATOR)
    attempt(known.browser(), PASSWORD, "alice")
    attempt(known.browser(), "alice", WRONG)
    attempt(known.browser())
    assert recorded() == [
        ("nobody@192.0.2.7", "sign-in-refused"),
        ("nobody@192.0.2.7", "sign-in-refused"),
        ("alice@192.0.2.7", "sign-in"),
    ]
    with desk.access.store.transaction(write=False) as unit:
        assert unit.users.get("alice").signed_in_at == desk.access.now()


def test_after_five_wrong_passwords_the_next_attempt_has_to_wait(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    for number in range(5):
        assert attempt(known.browser(remote=f"192.0.2.{number}"), password=WRONG) == 401
    answer = known.browser(remote="192.0.2.99").post("/api/v1/session", json={"name": "alice", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    clock.goes_on(seconds=1.1)
    assert attempt(known.browser(), password=WRONG) == 401
    clock.goes_on(seconds=1.1)
    assert attempt(known.browser()) == 429, "two seconds by now"
    clock.goes_on(seconds=1)
    assert attempt(known.browser()) == 201
    assert attempt(known.browser(), password=WRONG) == 401, "the count was taken back"


def test_nobody_is_kept_out_for_longer_than_a_minute_by_those_who_know_their_name(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    for number in range(40):
        attempt(known.browser(remote=f"192.0.2.{number}"), password=WRONG)
        clock.goes_on(seconds=61)
    assert attempt(known.browser()) == 201


def test_who_guesses_at_many_names_waits_by_their_address(known: People) -> None:
    guesses = [attempt(known.browser(remote="198.51.100.1"), f"user{number}") for number in range(22)]
    assert guesses == [401] * 20 + [429] * 2
    assert attempt(known.browser(remote="198.51.100.2"), "user1") == 401, "another address does not"


def test_addresses_of_one_ipv6_network_are_one(known: People) -> None:
    for number in range(20):
        attempt(known.browser(remote=f"2001:db8:1:2::{number:x}"), f"user{number}")
    assert attempt(known.browser(remote="2001:db8:1:2:ffff::1")) == 429
    assert attempt(known.browser(remote="2001:db8:1:3::1")) == 401


def test_a_cookie_that_was_planted_becomes_no_session(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    planted = known.browser("alice")
    before = planted.cookies[sessions.COOKIE]
    assert attempt(planted) == 201
    assert planted.cookies[sessions.COOKIE] != before
    old = known.browser()
    old.cookies.set(sessions.COOKIE, before)
    assert old.get("/api/v1/session").status_code == 401, "the one before has ended"


def test_another_site_signs_nobody_in(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    assert attempt(known.browser(), headers={"Origin": "https://evil.example"}) == 403
    assert attempt(known.browser(), headers={"Origin": "null"}) == 403
    assert attempt(known.browser(), headers={"Sec-Fetch-Site": "cross-site"}) == 403
    assert attempt(known.browser(), headers={"Origin": "https://testserver"}) == 201


def test_hashes_of_another_cost_are_made_anew(known: People, desk: Desk) -> None:
    known.add("alice", Role.OPERATOR)
    dearer = Cost(memory=16, passes=1, lanes=1)
    with desk.access.store.transaction() as unit:
        unit.users.set_password("alice", passwords.hashed(PASSWORD, dearer))
    assert attempt(known.browser()) == 201
    with desk.access.store.transaction(write=False) as unit:
        assert str(unit.users.get("alice").password).startswith(desk.access.cost.prefix)
    assert attempt(known.browser()) == 201


def set_up(client: TestClient, code: str | None, name: str = "admin", password: str = PASSWORD) -> int:
    return client.post("/api/v1/setup", json={"code": code, "name": name, "password": password}).status_code


def test_the_code_of_the_first_start_makes_one_administrator(known: People, site: ApiSite, clock: Clock) -> None:
    clock.time = site.services.clock.now()
    browser = known.browser()
    assert browser.get("/api/v1/setup").json() == {"needed": True}
    code = web_access.setup_code(site.services)
    assert code is not None
    assert set_up(browser, "0" * 20) == 403
    assert set_up(browser, code, password="short") == 422
    assert set_up(browser, code.lower().replace("-", " ")) == 201
    assert browser.get("/api/v1/session").json()["roles"] == ["administrator"]
    assert browser.get("/api/v1/setup").json() == {"needed": False}
    assert web_access.setup_code(site.services) is None
    assert set_up(known.browser(), code, "mallory") == 403


def test_a_newer_code_and_a_day_end_a_code(known: People, site: ApiSite, clock: Clock) -> None:
    clock.time = site.services.clock.now()
    first, second = web_access.setup_code(site.services), web_access.setup_code(site.services)
    assert set_up(known.browser(), first) == 403
    clock.goes_on(hours=25)
    assert set_up(known.browser(), second) == 403


def test_codes_are_not_to_be_guessed(known: People, site: ApiSite, clock: Clock) -> None:
    clock.time = site.services.clock.now()
    code = web_access.setup_code(site.services)
    for number in range(20):
        assert set_up(known.browser(), f"{number}") == 403
    assert set_up(known.browser(), code) == 429


def test_a_code_keeps_nobody_from_being_asked_for_a_good_password(known: People) -> None:
    answer = known.browser().post("/api/v1/setup", json={"code": "x", "name": "admin", "password": "admin-admin12"})
    assert (answer.status_code, answer.json()["code"]) == (422, "password-refused")
    assert "admin-admin12" not in answer.text


def test_root_can_let_somebody_in_again(known: People, site: ApiSite) -> None:
    known.add("alice", Role.AUDITOR, machines=("db-*",))
    people.change(known.access, ROOT, "alice", revision=1, disabled=True)
    browser = known.browser("alice")
    user = web_access.set_password(site.services, "Alice", WRONG)
    assert (user.roles, user.machines, user.disabled) == (("auditor", "administrator"), ("*",), False)
    assert browser.get("/api/v1/session").status_code == 401, "sessions have ended"
    assert attempt(known.browser(), password=WRONG) == 201
    assert sign_in.needs_setup(known.access) is False
