import pytest
from starlette.testclient import TestClient

from api.auth import sessions
from api.auth.roles import Role
from tests.unit.api.auth.conftest import PASSWORD, People
from tests.unit.api.auth.test_sign_in import attempt

pytestmark = pytest.mark.slow

NEW = "a camel reads at night"


def add(client: TestClient, name: str = "bob", **more: object) -> int:
    asked = {"name": name, "password": PASSWORD, "roles": ["operator"], **more}
    return client.post("/api/v1/users", json=asked).status_code


def change(client: TestClient, name: str, **what: object) -> int:
    etag = client.get(f"/api/v1/users/{name}").headers.get("etag", '"0"')
    return client.patch(f"/api/v1/users/{name}", json=what, headers={"If-Match": etag}).status_code


def test_users_are_added_seen_changed_and_removed(admin: TestClient) -> None:
    answer = admin.post(
        "/api/v1/users",
        json={"name": "Bob", "password": PASSWORD, "roles": ["auditor", "operator", "operator"], "machines": ["db-*"]},
    )
    assert (answer.status_code, answer.headers["location"]) == (201, "/api/v1/users/bob")
    made = answer.json()
    assert (made["roles"], made["machines"], made["has_password"]) == (["operator", "auditor"], ["db-*"], True)
    assert admin.get("/api/v1/users/BOB").json() == made
    assert [user["name"] for user in admin.get("/api/v1/users").json()["items"]] == ["admin", "bob"]
    assert change(admin, "bob", display_name="Bob the Second", roles=[]) == 200
    seen = admin.get("/api/v1/users/bob").json()
    assert (seen["display_name"], seen["roles"], seen["machines"], seen["revision"]) == (
        "Bob the Second",
        [],
        ["db-*"],
        2,
    )
    assert admin.delete("/api/v1/users/bob").status_code == 204
    assert admin.get("/api/v1/users/bob").status_code == 404


def test_no_answer_holds_a_hash(admin: TestClient, known: People) -> None:
    add(admin)
    for path in ("/users", "/users/bob", "/session"):
        assert "argon2" not in admin.get(f"/api/v1{path}").text


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ({"name": "admin"}, 409),
        ({"name": "ADMIN"}, 409),
        ({"name": "-x"}, 422),
        ({"name": "a b"}, 422),
        ({"name": "a/b"}, 422),
        ({"name": "x" * 65}, 422),
        ({"name": "bob\n"}, 422),
        ({"password": "short"}, 422),
        ({"roles": []}, 422),
        ({"roles": ["king"]}, 422),
        ({"machines": []}, 422),
        ({"machines": ["a\0b"]}, 422),
        ({"display_name": "a\nb"}, 422),
        ({"unknown": 1}, 422),
    ],
)
def test_what_cannot_be_a_user_is_refused(admin: TestClient, what: dict[str, object], status: int) -> None:
    assert add(admin, **what) == status  # type: ignore[arg-type]


def test_users_come_in_pages(admin: TestClient, known: People) -> None:
    for number in range(5):
        known.add(f"user{number}", Role.AUDITOR)
    names, cursor = [], None
    while True:
        page = admin.get("/api/v1/users", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        names += [user["name"] for user in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == ["admin", *(f"user{number}" for number in range(5))]


def test_nobody_undoes_a_change_unseen(admin: TestClient, known: People) -> None:
    known.add("bob", Role.OPERATOR)
    etag = admin.get("/api/v1/users/bob").headers["etag"]
    assert admin.patch("/api/v1/users/bob", json={"disabled": True}).status_code == 428
    assert admin.patch("/api/v1/users/bob", json={"disabled": True}, headers={"If-Match": etag}).status_code == 200
    assert admin.patch("/api/v1/users/bob", json={"disabled": False}, headers={"If-Match": etag}).status_code == 412


def test_the_last_administrator_stays(admin: TestClient, known: People) -> None:
    known.add("elsewhere", Role.ADMINISTRATOR, password=None)
    for what in ({"disabled": True}, {"roles": ["auditor"]}):
        assert change(admin, "admin", **what) == 409
    assert admin.delete("/api/v1/users/admin").json()["code"] == "last-administrator"
    known.add("second", Role.ADMINISTRATOR)
    assert change(admin, "admin", roles=["auditor"]) == 200
    assert known.browser("second").delete("/api/v1/users/second").status_code == 409


def test_nobody_gives_or_takes_more_than_they_have(known: People) -> None:
    known.add("admin", Role.ADMINISTRATOR)
    known.add("local", Role.ADMINISTRATOR, machines=("db-*",))
    local = known.browser("local")
    assert add(local, "one", roles=["administrator"]) == 403, "it would reach all machines"
    assert add(local, "two", roles=["administrator"], machines=["db-*"]) == 201
    assert add(local, "three", machines=["db-7", "web-1"]) == 403
    assert change(local, "two", machines=["*"]) == 403
    assert change(local, "local", machines=["*"]) == 403, "not to themselves either"
    assert local.put("/api/v1/users/admin/password", json={"password": NEW}).status_code == 403
    assert change(local, "admin", disabled=True) == 403
    assert local.delete("/api/v1/users/admin").status_code == 403


def test_a_token_that_manages_access_makes_no_administrator(known: People) -> None:
    known.add("admin", Role.ADMINISTRATOR)
    made = known.browser("admin").post("/api/v1/tokens", json={"name": "t", "permissions": ["manage-access", "view"]})
    program = known.program(made.json()["secret"])
    assert add(program, "one", roles=["administrator"]) == 403
    assert program.put("/api/v1/users/admin/password", json={"password": NEW}).status_code == 401, "without the current"


def test_ones_own_password_needs_the_current_one_and_ends_the_other_sessions(known: People) -> None:
    known.add("bob", Role.OPERATOR)
    here, there = known.browser("bob"), known.browser("bob")
    path = "/api/v1/users/bob/password"
    assert here.put(path, json={"password": NEW}).status_code == 401
    assert here.put(path, json={"password": NEW, "current": "something else"}).status_code == 401
    assert here.put(path, json={"password": "short", "current": PASSWORD}).status_code == 422
    assert here.put(path, json={"password": NEW, "current": PASSWORD}).status_code == 204
    assert here.get("/api/v1/session").status_code == 200
    assert there.get("/api/v1/session").status_code == 401
    assert attempt(known.browser(), "bob", NEW) == 201


def test_who_has_a_browser_left_open_does_not_tell_the_password_by_guessing(known: People) -> None:
    known.add("bob", Role.OPERATOR)
    browser = known.browser("bob")
    path = "/api/v1/users/bob/password"
    guesses = [browser.put(path, json={"password": NEW, "current": f"guess {n}"}).status_code for n in range(6)]
    assert guesses == [401] * 5 + [429]


def test_an_administrator_sets_a_password_and_the_user_is_signed_out(admin: TestClient, known: People) -> None:
    known.add("bob", Role.OPERATOR)
    bob = known.browser("bob")
    assert admin.put("/api/v1/users/bob/password", json={"password": NEW}).status_code == 204
    assert bob.get("/api/v1/session").status_code == 401
    assert attempt(known.browser(), "bob", NEW) == 201


def test_who_manages_nobody_sees_and_changes_nobody(known: People) -> None:
    known.add("admin", Role.ADMINISTRATOR)
    for role in (Role.OPERATOR, Role.RESTORE_OPERATOR, Role.AUDITOR):
        known.add(role.value, role)
        browser = known.browser(role.value)
        assert browser.get("/api/v1/users").status_code == 403
        assert browser.put("/api/v1/users/admin/password", json={"password": NEW}).status_code == 403
        assert browser.delete("/api/v1/users/admin/sessions").status_code == 403


def test_everybody_can_sign_out_everywhere(known: People) -> None:
    known.add("bob", Role.OPERATOR)
    here, there = known.browser("bob"), known.browser("bob")
    assert here.delete("/api/v1/users/bob/sessions").status_code == 204
    assert [client.get("/api/v1/session").status_code for client in (here, there)] == [401, 401]


@pytest.mark.parametrize("name", ["nobody", "a%00b", "%F0%9F%90%AB", "..%2Fadmin", "x" * 64])
def test_a_user_that_is_not_there_is_not_found(admin: TestClient, name: str) -> None:
    assert admin.get(f"/api/v1/users/{name}").status_code == 404


def test_what_was_changed_is_in_the_access_log_without_secrets(admin: TestClient, known: People) -> None:
    add(admin)
    change(admin, "bob", machines=["db-*"])
    admin.put("/api/v1/users/bob/password", json={"password": NEW})
    admin.delete("/api/v1/users/bob")
    log = admin.get("/api/v1/audit").json()["items"]
    assert [entry["action"] for entry in log][:4] == ["user-remove", "user-password", "user-change", "user-add"]
    assert {entry["who"] for entry in log} == {"admin@192.0.2.7"}
    assert log[2]["detail"] == {"user": "bob", "changed": {"machines": ["db-*"]}}
    text = str(log)
    assert PASSWORD not in text and NEW not in text and sessions.COOKIE not in text
