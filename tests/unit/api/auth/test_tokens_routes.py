from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from tests.unit.api.auth.conftest import Clock, People

pytestmark = pytest.mark.slow


def test_a_token_is_shown_once_and_works_until_it_is_deleted(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    answer = browser.post("/api/v1/tokens", json={"name": "ci", "permissions": ["view", "back-up"]})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    secret = made.pop("secret")
    assert answer.headers["location"] == f"/api/v1/tokens/{made['id']}"
    assert browser.get(answer.headers["location"]).json() == made
    listed = browser.get("/api/v1/tokens")
    assert listed.json() == {"items": [made], "next": None}
    assert secret not in listed.text
    program = known.program(secret)
    assert program.get("/api/v1/session").json()["permissions"] == ["back-up", "view"]
    assert browser.delete(answer.headers["location"]).status_code == 204
    assert program.get("/api/v1/session").status_code == 401
    assert browser.get(answer.headers["location"]).status_code == 404


def test_nobody_makes_a_token_that_may_more_than_they(known: People) -> None:
    known.add("alice", Role.OPERATOR, machines=("db-*",))
    browser = known.browser("alice")

    def make(**asked: object) -> int:
        return browser.post("/api/v1/tokens", json={"name": "t", "permissions": ["view"], **asked}).status_code

    assert make(permissions=["view", "restore-files"]) == 403
    assert make(machines=["db-1", "web-*"]) == 422
    made = browser.post("/api/v1/tokens", json={"name": "t", "permissions": ["view"]}).json()
    told = known.program(made["secret"]).get("/api/v1/session").json()
    assert (made["machines"], told["machines"]) == (["*"], ["db-*"]), "all of theirs"
    assert make() == 409, "the name is taken"
    assert make(name="u", permissions=[]) == 422


def test_a_token_is_not_made_for_the_past(known: People, clock: Clock) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")

    def make(**at: object) -> int:
        return browser.post("/api/v1/tokens", json={"name": "t", "permissions": ["view"], **at}).status_code

    assert make(expires_at=(clock.time - timedelta(seconds=1)).isoformat()) == 422
    assert make(expires_at="2030-01-01T00:00:00") == 422, "without a time zone nobody knows when"
    assert make(expires_at=(clock.time + timedelta(days=1)).isoformat()) == 201


def test_a_token_makes_no_tokens(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    made = known.browser("alice").post("/api/v1/tokens", json={"name": "t", "permissions": ["view"]})
    program = known.program(made.json()["secret"])
    more = program.post("/api/v1/tokens", json={"name": "u", "permissions": ["view"]})
    assert (more.status_code, more.json()["code"]) == (403, "not-by-token")


def test_everybody_has_their_own_tokens_and_administrators_see_all(admin: TestClient, known: People) -> None:
    identities = []
    for name in ("alice", "bob"):
        known.add(name, Role.OPERATOR)
        made = known.browser(name).post("/api/v1/tokens", json={"name": "t", "permissions": ["view"]})
        identities.append(made.json()["id"])
    alice = known.browser("alice")
    assert [token["owner"] for token in alice.get("/api/v1/tokens").json()["items"]] == ["alice"]
    assert alice.get(f"/api/v1/tokens/{identities[1]}").status_code == 404
    assert alice.delete(f"/api/v1/tokens/{identities[1]}").status_code == 404
    first = admin.get("/api/v1/tokens", params={"limit": 1}).json()
    second = admin.get("/api/v1/tokens", params={"limit": 1, "cursor": first["next"]}).json()
    assert {page["items"][0]["id"] for page in (first, second)} == set(identities)
    assert second["next"] is None
    assert admin.delete(f"/api/v1/tokens/{identities[0]}").status_code == 204


def test_a_removed_user_takes_their_tokens_along(admin: TestClient, known: People) -> None:
    known.add("alice", Role.OPERATOR)
    made = known.browser("alice").post("/api/v1/tokens", json={"name": "t", "permissions": ["view"]})
    admin.delete("/api/v1/users/alice")
    assert known.program(made.json()["secret"]).get("/api/v1/session").status_code == 401
    assert admin.get("/api/v1/tokens").json()["items"] == []
