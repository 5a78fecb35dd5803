"""Jobs over the API: made, changed, previewed, run. Real parts: job store, catalog, a hypervisor in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.auth.access import Rules
from api.auth.roles import Role
from api.desk import Desk
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

NIGHTLY = {
    "select": {"include": ["name=web-*"]},
    "schedule": {"at": ["22:00"], "days": ["mon", "tue"]},
    "window": [{"start": "22:00", "end": "06:00"}],
    "retention": {"daily": 7},
    "zone": "Europe/Berlin",
}

JOBS = "/api/v1/jobs"


def made(api: TestClient, name: str = "nightly", **policy: object) -> dict[str, object]:
    """A job, as the API answers."""
    answer = api.post(JOBS, json={"name": name, "policy": {**NIGHTLY, **policy}})
    assert answer.status_code == 201, answer.text
    document: dict[str, object] = answer.json()
    return document


def test_a_job_is_made_read_changed_and_removed(api: TestClient) -> None:
    answer = api.post(JOBS, json={"name": "nightly", "policy": NIGHTLY})
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    document = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{document['id']}"
    assert (document["timing"], document["machines"]) == ("22:00 mon,tue", "name=web-*")
    assert len(document["next"]) == 3
    policy = {**document["policy"], "retention": {"daily": 9}}
    changed = api.put(f"{JOBS}/nightly", json={"policy": policy}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert api.get(f"{JOBS}/nightly").json()["policy"]["retention"]["daily"] == 9
    assert api.delete(f"{JOBS}/nightly").status_code == 204
    assert api.get(f"{JOBS}/nightly").json()["code"] == "job-not-found"


@pytest.mark.slow
def test_a_change_that_saw_an_older_job_undoes_nothing(api: TestClient) -> None:
    made(api)
    assert api.put(f"{JOBS}/nightly", json={"policy": NIGHTLY}).status_code == 428
    first = api.put(f"{JOBS}/nightly", json={"policy": {**NIGHTLY, "priority": 1}}, headers={"If-Match": '"1"'})
    assert first.status_code == 200
    late = api.put(f"{JOBS}/nightly", json={"policy": {**NIGHTLY, "priority": 2}}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "outdated")
    assert api.get(f"{JOBS}/nightly").json()["policy"]["priority"] == 1


@pytest.mark.slow
def test_a_job_is_renamed_and_keeps_its_identity(api: TestClient) -> None:
    document = made(api)
    renamed = api.put(f"{JOBS}/nightly", json={"policy": NIGHTLY, "name": "web"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["name"], renamed.json()["id"]) == ("web", document["id"])
    assert api.get(f"{JOBS}/{document['id']}").json()["name"] == "web"


def test_a_slip_in_a_policy_is_named_by_its_field(api: TestClient) -> None:
    answer = api.post(JOBS, json={"name": "x", "policy": {**NIGHTLY, "schedule": {"at": ["25:00"]}}})
    assert answer.status_code == 422
    assert [slip["pointer"] for slip in answer.json()["errors"]] == ["#/policy/schedule/at/0"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"select": {"include": ["name=a", "nonsense=3"]}}, "#/policy/select/include/1"),
        ({"schedule": {"cron": "0 0 31 2 *"}}, "#/policy/schedule/cron"),
    ],
    ids=["a rule that is none", "a schedule that never fires"],
)
def test_what_could_never_run_is_not_stored(api: TestClient, policy: dict[str, object], said: str) -> None:
    answer = api.post(JOBS, json={"name": "x", "policy": {**NIGHTLY, **policy}})
    assert answer.status_code == 422
    assert [slip["pointer"] for slip in answer.json()["errors"]] == [said]
    assert api.get(JOBS).json()["items"] == []


@pytest.mark.slow
def test_two_jobs_of_one_name_conflict(api: TestClient) -> None:
    made(api)
    answer = api.post(JOBS, json={"name": "nightly", "policy": NIGHTLY})
    assert (answer.status_code, answer.json()["code"]) == (409, "job-conflict")


@pytest.mark.slow
def test_lists_go_on_where_a_page_ended(api: TestClient) -> None:
    for name in ("c", "a", "d", "b"):
        made(api, name)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = api.get(JOBS, params={"limit": 3, "sort": "-name", **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["name"] for job in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["d", "c", "b", "a"]
    assert api.get(JOBS, params={"cursor": "nonsense"}).status_code == 422
    assert [job["name"] for job in api.get(JOBS, params={"q": "C"}).json()["items"]] == ["c"]


@pytest.mark.slow
def test_a_disabled_job_has_no_next_run(api: TestClient) -> None:
    made(api)
    disabled = api.post(f"{JOBS}/nightly/disable").json()
    assert (disabled["enabled"], disabled["next"], disabled["revision"]) == (False, [], 2)
    assert len(api.post(f"{JOBS}/nightly/enable").json()["next"]) == 3


def test_a_preview_tells_what_a_policy_would_mean_and_stores_nothing(api: TestClient, site: ApiSite) -> None:
    for name in ("web-1", "web-2", "web-9", "db-1"):
        site.machine(name)
    policy = {**NIGHTLY, "select": {"include": ["name=web-*", "name=mail-*"], "exclude": ["name=web-9"]}}
    answer = api.post(f"{JOBS}/preview", json={"policy": policy, "hours": 24 * 8})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert ([each["name"] for each in found["machines"]], found["chosen"]) == (["web-1", "web-2"], 2)
    assert [(each["name"], each["rule"]) for each in found["excluded"]] == [("web-9", "name=web-9")]
    assert found["idle"] == ["no machine fits 'name=mail-*'"]
    assert found["bytes"] == 2 * 64 * 1024
    assert [fire["local"][:3] for fire in found["fires"][:2]] in (["Mon", "Tue"], ["Tue", "Mon"])
    assert found["fires"][0]["begins"] == found["fires"][0]["at"]
    assert found["plan"]["planned"] == 2 * len(found["plan"]["runs"])
    assert (found["retention"]["of"], found["retention"]["kept_count"]) == ("job", 7)
    assert api.get(JOBS).json()["items"] == []


@pytest.mark.slow
def test_a_preview_says_when_the_sites_were_looked_at(api: TestClient, site: ApiSite) -> None:
    site.machine("web-1")
    first = api.post(f"{JOBS}/preview", json={"policy": NIGHTLY, "plan": False}).json()
    site.machine("web-2")
    second = api.post(f"{JOBS}/preview", json={"policy": NIGHTLY, "plan": False}).json()
    assert (first["live"], second["live"], second["chosen"]) == (True, False, 1)
    assert second["seen_at"] == first["seen_at"]
    again = api.post(f"{JOBS}/preview", json={"policy": NIGHTLY, "plan": False, "look_again": True}).json()
    assert (again["live"], again["chosen"]) == (True, 2)


@pytest.mark.slow
def test_a_preview_of_a_stored_job_takes_its_place_in_the_plan(api: TestClient, site: ApiSite) -> None:
    site.machine("web-1")
    made(api)
    found = api.get(f"{JOBS}/nightly/preview", params={"hours": 24 * 8}).json()
    assert found["plan"]["planned"] == len(found["plan"]["runs"]) > 0
    assert found["plan"]["before"]["end"] is None


@pytest.mark.slow
def test_what_nobody_kept_rules_for_is_all_kept(api: TestClient, site: ApiSite) -> None:
    site.machine("web-1")
    found = api.post(f"{JOBS}/preview", json={"policy": {**NIGHTLY, "retention": None}, "plan": False}).json()
    assert (found["retention"]["of"], found["retention"]["kept_count"]) == ("none", found["retention"]["runs"])
    assert any("nothing says how long" in each["text"] for each in found["remarks"])


@pytest.mark.slow
def test_what_is_exported_can_be_imported(api: TestClient) -> None:
    made(api)
    text = api.get(f"{JOBS}/export").text
    changed = text.replace("daily: 7", "daily: 8")
    tried = api.post(f"{JOBS}/import", json={"text": changed, "dry_run": True}).json()
    assert [(each["name"], each["what"]) for each in tried["jobs"]] == [("nightly", "change")]
    assert api.get(f"{JOBS}/nightly").json()["revision"] == 1
    api.post(f"{JOBS}/import", json={"text": changed})
    assert api.get(f"{JOBS}/nightly").json()["policy"]["retention"]["daily"] == 8
    wrong = api.post(f"{JOBS}/import", json={"text": "jobs: {a: {nonsense: 1}}"})
    assert (wrong.status_code, "nonsense" in wrong.json()["detail"]) == (422, True)


def test_a_run_begins_and_is_where_its_location_says(api: TestClient, site: ApiSite) -> None:
    site.machine("web-1")
    made(api)
    begun = api.post(f"{JOBS}/nightly/runs")
    assert begun.status_code == 202
    assert begun.json()["served"] is False
    run = api.get(begun.headers["Location"]).json()
    assert (run["job"], run["state"], run["cause"]) == ("nightly", "running", "manual")
    busy = api.post(f"{JOBS}/nightly/runs")
    assert (busy.status_code, busy.json()["code"]) == (409, "job-busy")
    assert api.delete(f"{JOBS}/nightly").json()["code"] == "job-busy"


@pytest.mark.slow
def test_a_run_of_named_machines_selects_only_these(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("web-1")
    site.machine("web-2")
    made(api)
    begun = api.post(f"{JOBS}/nightly/runs", json={"machines": ["web-1"], "full": True})
    run = api.get(begun.headers["Location"]).json()
    assert run["policy"]["select"]["include"] == [f"machine={machine}"]
    assert [reason["code"] for reason in run["reasons"]] == ["full-requested"]
    assert api.post(f"{JOBS}/nightly/runs", json={"machines": ["none"]}).json()["code"] == "no-such-machine"


@pytest.mark.slow
def test_who_reaches_some_machines_changes_no_job_and_sees_only_theirs(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    site.machine("web-1")
    site.machine("web-2")
    made(api)
    limited = api_as(Role.OPERATOR, machines=("web-1",))
    put = limited.put(f"{JOBS}/nightly", json={"policy": NIGHTLY}, headers={"If-Match": '"1"'})
    assert (put.status_code, put.json()["code"]) == (403, "beyond-reach")
    assert limited.post(JOBS, json={"name": "x", "policy": NIGHTLY}).status_code == 403
    assert limited.delete(f"{JOBS}/nightly").status_code == 403
    found = limited.post(f"{JOBS}/preview", json={"policy": NIGHTLY}).json()
    assert [each["name"] for each in found["machines"]] == ["web-1"]
    assert limited.post(f"{JOBS}/nightly/runs").json()["code"] == "beyond-reach"
    assert limited.post(f"{JOBS}/nightly/runs", json={"machines": ["web-2"]}).json()["code"] == "no-such-machine"
    assert limited.post(f"{JOBS}/nightly/runs", json={"machines": ["web-1"]}).status_code == 202


@pytest.mark.slow
def test_who_only_looks_changes_nothing(api_as: Callable[..., TestClient], api: TestClient) -> None:
    made(api)
    auditor = api_as(Role.AUDITOR)
    assert auditor.get(f"{JOBS}/nightly").status_code == 200
    assert auditor.post(f"{JOBS}/nightly/disable").status_code == 403
    assert auditor.post(f"{JOBS}/nightly/runs").status_code == 403


@pytest.mark.slow
def test_each_change_is_in_the_audit_log_with_what_it_changed(api: TestClient, site: ApiSite) -> None:
    made(api)
    api.put(f"{JOBS}/nightly", json={"policy": {**NIGHTLY, "priority": 4}}, headers={"If-Match": '"1"'})
    entries = [entry for entry in site.services.catalog.audit.list() if entry.action in {"add-job", "change-job"}]
    assert [entry.action for entry in entries] == ["change-job", "add-job"]
    assert "priority: 4" in str(entries[0].detail)
    assert all(entry.who.startswith("admin") for entry in entries)


@pytest.mark.slow
def test_programs_of_a_job_are_added_only_by_who_may_configure_the_proxy(
    api: TestClient, api_as: Callable[..., TestClient]
) -> None:
    hook = {"before": [{"command": ["/bin/true"]}]}
    operator = api_as(Role.OPERATOR)
    added = operator.post(JOBS, json={"name": "x", "policy": {**NIGHTLY, **hook}})
    assert (added.status_code, added.json()["code"]) == (403, "not-allowed")
    made(api, **hook)
    kept = operator.put(
        f"{JOBS}/nightly", json={"policy": {**NIGHTLY, **hook, "priority": 1}}, headers={"If-Match": '"1"'}
    )
    assert kept.status_code == 200
    other = {"after": [{"command": ["/bin/false"]}]}
    put = operator.put(f"{JOBS}/nightly", json={"policy": {**NIGHTLY, **other}}, headers={"If-Match": '"2"'})
    assert put.status_code == 403
    text = api.get(f"{JOBS}/export").text.replace("/bin/true", "/bin/false")
    assert operator.post(f"{JOBS}/import", json={"text": text}).status_code == 403


@pytest.mark.slow
def test_shorter_retention_waits_for_a_second_person_where_the_site_says_so(api: TestClient, app: FastAPI) -> None:
    desk: Desk = app.state.desk
    app.state.desk = replace(desk, access=replace(desk.access, rules=lambda: Rules(four_eyes=True)))
    made(api)
    short = {"policy": {**NIGHTLY, "retention": {"daily": 3}}}
    asked = api.put(f"{JOBS}/nightly", json=short, headers={"If-Match": '"1"'})
    assert (asked.status_code, asked.json()["summary"]) == (202, "job nightly keeps less: daily 7 to 3")
    assert asked.headers["Location"].startswith("/api/v1/approvals/")
    assert api.get(f"{JOBS}/nightly").json()["policy"]["retention"]["daily"] == 7
    text = api.get(f"{JOBS}/export").text.replace("daily: 7", "weekly: 9")
    assert api.post(f"{JOBS}/import", json={"text": text}).status_code == 202
    longer = {"policy": {**NIGHTLY, "retention": {"daily": 30}}}
    assert api.put(f"{JOBS}/nightly", json=longer, headers={"If-Match": '"1"'}).status_code == 200


def test_a_preview_does_not_tell_whether_machines_out_of_reach_exist(
    api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    for name in ("web-1", "hr-payroll"):
        site.machine(name)
    limited = api_as(Role.OPERATOR, machines=("web-*",))

    def told(name: str) -> dict[str, Any]:
        schedule = {"cron": "0 1 * * *"}
        asked = {"policy": {"select": {"include": ["name=web-1", f"name={name}"]}, "schedule": schedule}, "plan": True}
        answer = limited.post(f"{JOBS}/preview", json=asked)
        assert answer.status_code == 200, answer.text
        known: dict[str, Any] = answer.json()
        return {key: value for key, value in known.items() if key not in {"policy", "took", "seen_at", "live"}}

    assert told("hr-payroll") == told("no-such-machine")
    assert [one["name"] for one in told("hr-payroll")["machines"]] == ["web-1"]
