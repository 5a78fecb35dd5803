from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance import config
from appliance.inventory import note_standings, refresh
from proxy.model import RestorePoint
from proxy.repository.records import Health
from tests.unit.api.api_site import ApiSite

API = "/api/v1/restore-points"

pytestmark = pytest.mark.slow


@pytest.fixture
def three(site: ApiSite) -> list[RestorePoint]:
    """Of one machine, oldest first."""
    machine = site.machine("db-1")
    points = [site.point(machine, ago=timedelta(hours=hours)) for hours in (3, 2, 1)]
    refresh(site.services)
    return points


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


def test_the_list_is_newest_first_and_goes_on(three: list[RestorePoint], api: TestClient) -> None:
    newest = [point.id for point in reversed(three)]
    first = api.get(API, params={"limit": 2})
    assert ids(first) == newest[:2]
    assert ids(api.get(API, params={"limit": 2, "cursor": first.json()["next"]})) == newest[2:]
    assert ids(api.get(API, params={"sort": "created_at"})) == newest[::-1]
    middle = three[1].created_at.isoformat()
    assert ids(api.get(API, params={"since": middle})) == newest[:2]
    assert ids(api.get(API, params={"until": middle, "machine": three[0].machine})) == newest[2:]
    assert ids(api.get(API, params={"machine": "nobody"})) == []
    wanted = {"level": ["full", "incremental"], "consistency": three[0].consistency.value}
    assert ids(api.get(API, params=wanted)) == newest


def test_what_makes_no_sense_is_refused(api: TestClient) -> None:
    for said in ("since=yesterday", "since=2026-01-01T00:00:00", "level=half", "cursor=eyJ9", "machine=%00"):
        assert api.get(f"{API}?{said}").status_code == 422, said


def test_one_point_is_told_with_its_disks_reasons_and_state(
    site: ApiSite, three: list[RestorePoint], api: TestClient
) -> None:
    site.services.repository.ledger.note_health(three[0], Health.DAMAGED, coverage=0.5, damaged=7)
    answer = api.get(f"{API}/{three[0].id}")
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert [image["key"] for image in said["images"]] == [image.key for image in three[0].images]
    assert (said["health"], said["verification"]["coverage"], said["verification"]["damaged"]) == ("damaged", 0.5, 7)
    assert (said["configuration"], said["copies"]) == (three[0].configuration.kind, None)
    assert api.get(f"{API}/{three[0].id}", params={"copies": True}).json()["copies"] == []


def test_lists_know_what_verification_found_after_the_next_look(
    site: ApiSite, three: list[RestorePoint], api: TestClient
) -> None:
    site.services.repository.ledger.note_health(three[0], Health.DAMAGED)
    site.services.repository.ledger.hold(three[1].id, "for the auditor")
    note_standings(site.services)
    stand = {one["id"]: (one["health"], one["held"]) for one in api.get(API).json()["items"]}
    assert [stand[point.id] for point in three] == [("damaged", False), ("unknown", True), ("unknown", False)]
    assert ids(api.get(API, params={"held": True})) == [three[1].id]


def test_a_held_point_is_not_deleted_until_it_is_released(
    site: ApiSite, three: list[RestorePoint], api: TestClient
) -> None:
    one = f"{API}/{three[0].id}"
    assert api.post(f"{one}/hold", json={"why": "the auditor comes"}).status_code == 204
    assert api.get(one).json()["hold"]["why"] == "the auditor comes"
    refused = api.delete(one, params={"why": "old"})
    assert (refused.status_code, refused.json()["code"]) == (409, "delete-refused")
    assert api.post(f"{one}/release").status_code == 204
    assert api.delete(one, params={"why": "old"}).status_code == 204
    assert api.get(one).status_code == 404
    assert [point.id for point in site.services.repository.points()] == [point.id for point in three[1:]]
    actions = [(entry.action, entry.point) for entry in site.services.catalog.audit.list()]
    assert actions == [
        (action, three[0].id) for action in ("delete-point", "release-point", "delete-point", "hold-point")
    ]


def test_a_machines_last_good_point_stays(three: list[RestorePoint], api: TestClient) -> None:
    for point in three[:2]:
        assert api.delete(f"{API}/{point.id}", params={"why": "old"}).status_code == 204
    refused = api.delete(f"{API}/{three[2].id}", params={"why": "old"})
    assert (refused.status_code, refused.json()["code"]) == (409, "delete-refused")


def test_deleting_wants_a_reason_and_the_right_role(
    three: list[RestorePoint], api: TestClient, api_as: Callable[..., TestClient]
) -> None:
    one = f"{API}/{three[0].id}"
    assert api.delete(one).status_code == 422
    operator = api_as(Role.OPERATOR)
    assert operator.delete(one, params={"why": "old"}).status_code == 403
    assert operator.post(f"{one}/hold", json={"why": "x"}).status_code == 204
    reader = api_as(Role.AUDITOR)
    assert reader.post(f"{one}/hold", json={"why": "x"}).status_code == 403
    elsewhere = api_as(Role.ADMINISTRATOR, machines=("web-*",))
    for answer in (elsewhere.get(one), elsewhere.delete(one, params={"why": "x"}), elsewhere.post(f"{one}/release")):
        assert (answer.status_code, answer.json()["code"]) == (404, "restore-point-not-found")


def test_with_four_eyes_a_second_person_deletes(site: ApiSite, three: list[RestorePoint], api: TestClient) -> None:
    with site.file.open("a") as file:
        file.write("[web]\nfour_eyes = true\n")
    site.services.reconfigure(config.load(site.file))
    asked = api.delete(f"{API}/{three[0].id}", params={"why": "old"})
    assert asked.status_code == 202, asked.text
    assert asked.headers["Location"] == f"/api/v1/approvals/{asked.json()['id']}"
    assert asked.json()["state"] == "waiting"
    assert api.get(f"{API}/{three[0].id}").status_code == 200


def test_nobody_is_asked_for_what_would_be_refused(site: ApiSite, api: TestClient) -> None:
    only = site.point(site.machine("db-9"))
    with site.file.open("a") as file:
        file.write("[web]\nfour_eyes = true\n")
    site.services.reconfigure(config.load(site.file))
    refused = api.delete(f"{API}/{only.id}", params={"why": "old"})
    assert (refused.status_code, refused.json()["code"]) == (409, "delete-refused")
    assert api.get("/api/v1/approvals").json()["items"] == []


def test_a_size_is_explained_to_whoever_may_read_names_of_files(
    site: ApiSite, api_as: Callable[..., TestClient], api: TestClient
) -> None:
    machine = site.machine("db-1")
    first = site.point(machine, ago=timedelta(hours=2), data=bytes(range(256)) * 1024)
    second = site.point(machine, data=bytes(range(256)) * 512 + bytes(reversed(range(256))) * 512, parent=first)
    said = api.get(f"{API}/{second.id}/why-big")
    assert said.status_code == 200, said.text
    told = said.json()
    assert (told["point"], told["base"], told["exact"]) == (second.id, first.id, True)
    assert told["changed"] == sum(told["parts"].values()) > 0
    assert api.get(f"{API}/{second.id}/why-big", params={"quick": True}).json()["exact"] is False
    assert api.get(f"{API}/unknown/why-big").status_code == 404
    assert api_as(Role.RESTORE_OPERATOR, machines=("web-*",)).get(f"{API}/{second.id}/why-big").status_code == 404
    assert api_as(Role.OPERATOR).get(f"{API}/{second.id}/why-big").status_code == 403
    entry = api.get("/api/v1/audit", params={"action": "browse"}).json()["items"][0]
    assert (entry["machine"], entry["who"].partition("@")[0]) == (machine, "admin (token test)")
