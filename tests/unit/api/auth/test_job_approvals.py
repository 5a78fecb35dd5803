"""Shorter retention that a second person approves is what the job has then; people sign in for real."""

import pytest

from api.auth.roles import Role
from tests.unit.api.api_site import ApiSite
from tests.unit.api.auth.conftest import Clock, People

JOBS = "/api/v1/jobs"

pytestmark = pytest.mark.slow


def test_what_a_second_person_approves_is_done_as_it_was_asked_for(site: ApiSite, known: People, clock: Clock) -> None:
    known.rules(four_eyes=True)
    known.add("alice", Role.ADMINISTRATOR)
    known.add("bob", Role.ADMINISTRATOR)
    clock.goes_on(hours=1)
    site.job("nightly", retention={"daily": 7})
    alice, bob = known.browser("alice"), known.browser("bob")
    short = {"policy": {"retention": {"daily": 3}}}
    asked = alice.put(f"{JOBS}/nightly", json=short, headers={"If-Match": '"1"'})
    assert asked.status_code == 202, asked.text
    clock.goes_on(minutes=5)
    assert alice.post(f"{asked.headers['Location']}/approve").json()["code"] == "approval-refused"
    approved = bob.post(f"{asked.headers['Location']}/approve").json()
    assert approved["state"] == "performed", approved
    job = alice.get(f"{JOBS}/nightly").json()
    assert (job["policy"]["retention"]["daily"], job["revision"]) == (3, 2)


def test_a_token_of_some_machines_asks_nobody_for_what_concerns_all(site: ApiSite, known: People, clock: Clock) -> None:
    known.rules(four_eyes=True)
    known.add("alice", Role.ADMINISTRATOR)
    site.job("nightly", retention={"daily": 7})
    alice = known.browser("alice")
    asked = {"name": "t", "permissions": ["view", "edit-jobs"], "machines": ["db-*"]}
    limited = known.program(alice.post("/api/v1/tokens", json=asked).json()["secret"])
    shorter = alice.get(f"{JOBS}/export").text.replace("daily: 7", "daily: 3")
    assert "daily: 3" in shorter
    for answer in (
        limited.put(f"{JOBS}/nightly", json={"policy": {"retention": {"daily": 3}}}, headers={"If-Match": '"1"'}),
        limited.post(f"{JOBS}/import", json={"text": shorter}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "beyond-reach")
    assert alice.get("/api/v1/approvals").json()["items"] == []


def test_what_was_changed_meanwhile_is_not_undone_by_an_approval(site: ApiSite, known: People, clock: Clock) -> None:
    known.rules(four_eyes=True)
    known.add("alice", Role.ADMINISTRATOR)
    known.add("bob", Role.ADMINISTRATOR)
    clock.goes_on(hours=1)
    site.job("nightly", retention={"daily": 7})
    alice, bob = known.browser("alice"), known.browser("bob")
    asked = alice.put(f"{JOBS}/nightly", json={"policy": {"retention": {"daily": 3}}}, headers={"If-Match": '"1"'})
    longer = {"policy": {"retention": {"daily": 30}}}
    assert alice.put(f"{JOBS}/nightly", json=longer, headers={"If-Match": '"1"'}).status_code == 200
    approved = bob.post(f"{asked.headers['Location']}/approve").json()
    assert (approved["state"], "changed meanwhile" in approved["outcome"]) == ("failed", True)
    assert alice.get(f"{JOBS}/nightly").json()["policy"]["retention"]["daily"] == 30
