"""What a token that leaked, and a manager of some machines only, cannot do to others' ways in."""

import time

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from tests.unit.api.api_site import ApiSite
from tests.unit.api.auth.conftest import People

pytestmark = pytest.mark.slow


def token_of(client: TestClient, name: str, *permissions: str) -> tuple[str, str]:
    made = client.post("/api/v1/tokens", json={"name": name, "permissions": permissions}).json()
    return made["id"], made["secret"]


def test_a_token_ends_itself_and_no_other_way_in_of_its_owner(known: People) -> None:
    known.add("alice", Role.OPERATOR)
    browser = known.browser("alice")
    other, _ = token_of(browser, "other", "view")
    own, secret = token_of(browser, "leaked", "view")
    leaked = known.program(secret)
    for path in (f"/tokens/{other}", "/users/alice/sessions"):
        refused = leaked.delete(f"/api/v1{path}")
        assert (refused.status_code, refused.json()["code"]) == (403, "not-by-token"), path
    assert browser.get("/api/v1/session").status_code == 200
    assert leaked.delete(f"/api/v1/tokens/{own}").status_code == 204
    assert leaked.get("/api/v1/session").status_code == 401


def test_whoever_manages_access_for_some_machines_ends_nothing_of_who_reaches_more(known: People) -> None:
    known.add("root-like", Role.ADMINISTRATOR)
    known.add("mary", Role.ADMINISTRATOR, machines=("db-*",))
    known.add("olaf", Role.OPERATOR, machines=("db-1",))
    wide, narrow = (token_of(known.browser(name), "t", "view")[0] for name in ("root-like", "olaf"))
    mary = known.browser("mary")
    assert mary.delete(f"/api/v1/tokens/{wide}").status_code == 403
    assert mary.delete("/api/v1/users/root-like/sessions").status_code == 403
    assert mary.delete(f"/api/v1/tokens/{narrow}").status_code == 204
    assert mary.delete("/api/v1/users/olaf/sessions").status_code == 204


def test_an_auditor_of_some_machines_reads_what_was_done_to_these_alone(known: People, site: ApiSite) -> None:
    known.add("eve", Role.AUDITOR, machines=("db-*",))
    audit = known.app.state.desk.audit
    mine, others = site.point(site.machine("db-1")).machine, site.point(site.machine("hr-payroll")).machine
    for machine in (mine, others):
        audit.record("bob@192.0.2.1", "restore-files", about=machine, paths=["/secret"])
    audit.record("bob@192.0.2.1", "user-add", user="carol")
    eve = known.browser("eve")
    whole = eve.get("/api/v1/audit")
    assert (whole.status_code, whole.json()["code"]) == (403, "beyond-reach")
    assert eve.get("/api/v1/audit", params={"machine": others}).status_code == 404
    seen = eve.get("/api/v1/audit", params={"machine": mine}).json()["items"]
    assert [(entry["machine"], entry["action"]) for entry in seen] == [(mine, "restore-files")]


def test_no_pattern_of_a_token_keeps_the_appliance_busy(known: People, site: ApiSite) -> None:
    """Tried one by one, there would be 10^12 ways to share this name out among these stars."""
    known.add("mallory", Role.AUDITOR)
    site.point(site.machine("web-server-0123456789-abcdefghij-0123456789"))
    pattern = "*?" * 20 + "[z]"
    made = known.browser("mallory").post(
        "/api/v1/tokens", json={"name": "t", "permissions": ["view"], "machines": [pattern]}
    )
    program = known.program(made.json()["secret"])
    began = time.process_time()
    for path in ("/machines", "/machines/protection", "/restore-points", "/inventory/tree", "/overview", "/tasks"):
        assert program.get(f"/api/v1{path}").status_code == 200, path
    assert time.process_time() - began < 10
