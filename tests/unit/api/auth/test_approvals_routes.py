from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth import approvals, people
from api.auth.identify import caller_of
from api.auth.roles import Caller, Permission, Role
from api.desk import Desk
from catalog.access.values import Approval
from proxy.errors import DeleteRefused
from tests.unit.api.auth.conftest import PASSWORD, ROOT, Clock, People

pytestmark = pytest.mark.slow

ACTION = "delete-test-point"
done: list[tuple[str, Mapping[str, Any]]] = []


def delete(_desk: Desk, caller: Caller, params: Mapping[str, Any]) -> None:
    if params["point"] == "held":
        raise DeleteRefused("held", "it is held")
    done.append((caller.name, params))


@pytest.fixture
def ask(known: People, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Approval | None]:
    """Alice, an administrator, asks for it; bob and carol are there, too."""
    monkeypatch.setitem(approvals._ACTIONS, ACTION, (Permission.DELETE_POINTS, delete))
    done.clear()
    for name in ("alice", "bob"):
        known.add(name, Role.ADMINISTRATOR)
    known.add("carol", Role.AUDITOR)
    known.rules(four_eyes=True)

    def asked(point: str = "p1", name: str = "alice", machine: str = "m1") -> Approval | None:
        with known.access.store.transaction(write=False) as unit:
            caller = caller_of(unit.users.get(name))
        now = known.app.state.desk
        facts = {"summary": f"delete {point} of db-1", "machine": machine, "machine_name": "db-1" if machine else ""}
        return approvals.four_eyes(now, caller, ACTION, {"point": point}, **facts)

    asked.__dict__["clock"] = desk.access.now
    return asked


@pytest.fixture
def waiting(ask: Callable[..., Approval], clock: Clock) -> str:
    """Asked for a minute after everybody was there."""
    clock.goes_on(minutes=1)
    return ask().id


def decide(client: TestClient, identity: str, word: str = "approve", **body: str) -> Any:
    return client.post(f"/api/v1/approvals/{identity}/{word}", json=body if word == "refuse" else None)


def test_without_the_option_nobody_is_asked(known: People, ask: Callable[..., Approval | None]) -> None:
    known.rules(four_eyes=False)
    assert ask() is None


def test_a_second_person_confirms_and_it_is_done_in_the_name_of_the_first(
    known: People, waiting: str, recorded: Callable[[], Sequence[tuple[str, str]]]
) -> None:
    bob = known.browser("bob")
    listed = bob.get("/api/v1/approvals", params={"state": "waiting"}).json()["items"]
    assert [(each["id"], each["summary"], each["asked_by"]) for each in listed] == [
        (waiting, "delete p1 of db-1", "alice")
    ]
    assert done == []
    answer = decide(bob, waiting)
    assert (answer.status_code, answer.json()["state"], answer.json()["decided_by"]) == (200, "performed", "bob")
    assert done == [("alice", {"point": "p1"})]
    assert recorded()[-2:] == [("alice", "approval-ask"), ("bob@192.0.2.7", "approval-approve")]


def test_it_is_done_once(known: People, waiting: str) -> None:
    bob = known.browser("bob")
    assert decide(bob, waiting).status_code == 200
    assert decide(bob, waiting).json()["code"] == "approval-refused"
    assert decide(bob, waiting, "refuse").status_code == 403
    assert len(done) == 1


def test_nobody_confirms_what_they_asked_for(known: People, waiting: str) -> None:
    answer = decide(known.browser("alice"), waiting)
    assert answer.status_code == 403 and "cannot confirm" in answer.json()["detail"]
    assert done == []


def test_a_token_is_no_second_person(known: People, waiting: str) -> None:
    made = known.browser("bob").post("/api/v1/tokens", json={"name": "t", "permissions": ["approve", "view"]})
    assert decide(known.program(made.json()["secret"]), waiting).status_code == 403
    assert done == []


def test_who_may_not_approve_may_not_refuse_either(known: People, waiting: str) -> None:
    carol = known.browser("carol")
    assert decide(carol, waiting).status_code == 403
    assert decide(carol, waiting, "refuse", why="no").status_code == 403


def test_a_user_that_the_first_made_meanwhile_is_no_second_person(known: People, waiting: str, clock: Clock) -> None:
    clock.goes_on(minutes=1)
    people.add(known.access, ROOT, "puppet", PASSWORD, [Role.ADMINISTRATOR])
    assert decide(known.browser("puppet"), waiting).status_code == 403
    people.set_password(known.access, ROOT, "bob", "a camel reads at night")
    assert decide(known.browser("bob"), waiting).status_code == 403, "nor one whose password they changed"
    assert done == []


def test_a_refusal_says_why(known: People, waiting: str) -> None:
    assert decide(known.browser("bob"), waiting, "refuse", why="needed for the audit").json()["state"] == "refused"
    seen = known.browser("alice").get(f"/api/v1/approvals/{waiting}").json()
    assert (seen["state"], seen["outcome"], seen["decided_by"]) == ("refused", "needed for the audit", "bob")


def test_who_asked_can_take_it_back(known: People, waiting: str) -> None:
    assert decide(known.browser("alice"), waiting, "refuse").status_code == 200
    assert decide(known.browser("bob"), waiting).status_code == 403


def test_after_a_day_it_is_too_late(known: People, waiting: str, clock: Clock) -> None:
    clock.goes_on(hours=24)
    bob = known.browser("bob")
    assert bob.get(f"/api/v1/approvals/{waiting}").json()["state"] == "expired"
    assert bob.get("/api/v1/approvals", params={"state": "waiting"}).json()["items"] == []
    assert len(bob.get("/api/v1/approvals", params={"state": "expired"}).json()["items"]) == 1
    assert decide(bob, waiting).status_code == 403
    assert done == []


def test_what_the_first_may_not_any_more_is_not_done(known: People, waiting: str) -> None:
    people.change(known.access, ROOT, "alice", revision=1, roles=[Role.OPERATOR])
    assert decide(known.browser("bob"), waiting).status_code == 403
    people.change(known.access, ROOT, "alice", revision=2, roles=[Role.ADMINISTRATOR], disabled=True)
    assert decide(known.browser("bob"), waiting).status_code == 403
    assert done == []


def test_what_cannot_be_done_is_told(known: People, ask: Callable[..., Approval], clock: Clock) -> None:
    clock.goes_on(minutes=1)
    seen = decide(known.browser("bob"), ask("held").id).json()
    assert seen["state"] == "failed" and "it is held" in seen["outcome"]


def test_what_is_out_of_reach_is_not_seen(known: People, ask: Callable[..., Approval], clock: Clock) -> None:
    known.add("web", Role.ADMINISTRATOR, machines=("web-*",))
    known.add("db", Role.ADMINISTRATOR, machines=("db-*",))
    clock.goes_on(minutes=1)
    of_a_machine, of_none = ask().id, ask("p2", machine="").id
    web, db = known.browser("web"), known.browser("db")
    assert web.get("/api/v1/approvals").json()["items"] == []
    assert decide(web, of_a_machine).status_code == 404
    assert [each["id"] for each in db.get("/api/v1/approvals").json()["items"]] == [of_a_machine]
    assert decide(db, of_none).status_code == 404
    assert decide(db, of_a_machine).status_code == 200


def test_approvals_come_in_pages_newest_first(known: People, ask: Callable[..., Approval], clock: Clock) -> None:
    made = []
    for number in range(5):
        clock.goes_on(seconds=number % 2)  # some in the same moment
        made.append(ask(f"p{number}").id)
    bob, seen, cursor = known.browser("bob"), [], None
    while cursor is not None or not seen:
        page = bob.get("/api/v1/approvals", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next"]
    assert len(seen) == 5 and set(seen) == set(made)
    assert bob.get("/api/v1/approvals", params={"cursor": "WyJ4IiwieSJd"}).status_code == 422


def test_an_action_that_nothing_performs_is_not_asked_for(known: People, desk: Desk) -> None:
    known.rules(four_eyes=True)
    now = replace(known.app.state.desk)
    with pytest.raises(LookupError):
        approvals.four_eyes(now, ROOT, "unknown", {}, summary="?")


def test_what_is_asked_twice_waits_once(ask: Callable[..., Approval], clock: Clock) -> None:
    first = ask()
    clock.goes_on(minutes=1)
    assert ask().id == first.id
    assert ask("p2").id != first.id, "another point is another wish"
    assert ask(name="bob").id != first.id, "and so is another person's"
