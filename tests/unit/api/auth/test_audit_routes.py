from datetime import timedelta

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.auth.roles import Role
from proxy.model import MachineId
from tests.unit.api.api_site import ApiSite
from tests.unit.api.auth.conftest import People

pytestmark = pytest.mark.slow


@pytest.fixture
def auditor(known: People, site: ApiSite) -> TestClient:
    """With entries of three people about two machines."""
    known.add("eve", Role.AUDITOR)
    audit = known.app.state.desk.audit
    for number in range(6):
        who = ("alice", "alice.b", "bob")[number % 3]
        audit.record(
            f"{who}@192.0.2.1", ("browse", "restore-files")[number % 2], about=MachineId(f"m{number % 2}"), n=number
        )
    return known.browser("eve")


def numbers(client: TestClient, **wanted: object) -> list[int]:
    answer = client.get("/api/v1/audit", params=wanted)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [entry["number"] for entry in answer.json()["items"]]


def test_entries_come_newest_first_and_by_filter(auditor: TestClient) -> None:
    assert numbers(auditor) == [6, 5, 4, 3, 2, 1]
    assert numbers(auditor, who="alice") == [5, 4, 2, 1]
    assert numbers(auditor, who="alice@") == [4, 1]
    assert numbers(auditor, who="a%") == []
    assert numbers(auditor, action="browse", machine="m0") == [5, 3, 1]
    assert numbers(auditor, machine="m1", who="bob") == [6]
    assert numbers(auditor, restore_point="p1") == []


def test_entries_come_by_time(auditor: TestClient, site: ApiSite) -> None:
    now = site.services.clock.now()
    assert numbers(auditor, since=(now - timedelta(hours=1)).isoformat()) == [6, 5, 4, 3, 2, 1]
    assert numbers(auditor, until=(now - timedelta(hours=1)).isoformat()) == []
    assert auditor.get("/api/v1/audit", params={"since": "yesterday"}).status_code == 422


def test_entries_come_in_pages(auditor: TestClient) -> None:
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = auditor.get("/api/v1/audit", params={"limit": 4, "who": "alice", **cursor}).json()
        seen += [entry["number"] for entry in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert seen == [5, 4, 2, 1]
    for bad in ("x", "WyJhIl0", "WzEuNV0", "Wy0xXQ"):
        assert auditor.get("/api/v1/audit", params={"cursor": bad}).status_code == 422


def test_a_removed_line_shows(auditor: TestClient, site: ApiSite) -> None:
    checked = auditor.post("/api/v1/audit/check").json()
    assert (checked["good"], checked["faults"], checked["entries"]) == (True, [], 7)
    assert len(checked["head"]) == 64
    engine = site.services.catalog.audit._engine
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_entries WHERE number = 3"))
        connection.execute(text("UPDATE audit_entries SET who = 'nobody' WHERE number = 5"))
    found = auditor.post("/api/v1/audit/check").json()
    assert found["good"] is False
    assert [fault["number"] for fault in found["faults"]] == [3, 5]


def test_only_auditors_and_administrators_read_it(known: People) -> None:
    for role in (Role.OPERATOR, Role.RESTORE_OPERATOR):
        known.add(role.value, role)
        browser = known.browser(role.value)
        assert browser.get("/api/v1/audit").status_code == 403
        assert browser.post("/api/v1/audit/check").status_code == 403
