from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance.inventory import refresh
from tests.unit.api.api_site import ApiSite

API = "/api/v1"

pytestmark = pytest.mark.slow


@pytest.fixture
def seen(site: ApiSite) -> ApiSite:
    """Three machines, of which one has restore points, and one more that is gone."""
    web, gone = site.machine("web-1"), site.machine("gone-1", host="h2")
    site.machine("db-1", host="h2")
    site.point(web, ago=timedelta(hours=30))
    site.point(web, ago=timedelta(hours=2))
    site.point(gone)
    refresh(site.services)
    site.memory.remove(gone)
    refresh(site.services)
    return site


def got(client: TestClient, path: str, **params: Any) -> Any:
    answer = client.get(API + path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_list_has_every_machine_with_its_protection(seen: ApiSite, api: TestClient) -> None:
    found = {one["name"]: one for one in got(api, "/machines")["items"]}
    assert {name: (one["protection"], one["points"], one["state"]) for name, one in found.items()} == {
        "db-1": ("never", 0, "running"),
        "gone-1": ("former", 1, None),
        "web-1": ("protected", 2, "running"),
    }
    assert found["web-1"]["hypervisor"] == "h1"
    assert got(api, "/machines/protection") == {
        **{"total": 3, "protected": 1, "overdue": 0, "failed": 0, "never": 1},
        **{"excluded": 0, "former": 1},
    }


def test_pages_go_on_where_the_last_one_ended(seen: ApiSite, api: TestClient) -> None:
    first = got(api, "/machines", limit=2, sort="-name")
    second = got(api, "/machines", limit=2, sort="-name", cursor=first["next"])
    assert [one["name"] for one in first["items"] + second["items"]] == ["web-1", "gone-1", "db-1"]
    assert second["next"] is None


def test_filters_are_those_of_the_list(seen: ApiSite, api: TestClient) -> None:
    assert [one["name"] for one in got(api, "/machines", q="WEB")["items"]] == ["web-1"]
    found = got(api, "/machines", protection=["never", "former"], sort="severity")
    assert [one["name"] for one in found["items"]] == ["db-1", "gone-1"]
    assert got(api, "/machines/protection", host="h1")["total"] == 1


@pytest.mark.parametrize("said", ["cursor=abc", "cursor=WyJhIl0", "sort=colour", "limit=0", "colour=red", "q=%00"])
def test_what_makes_no_sense_is_refused(api: TestClient, said: str) -> None:
    answer = api.get(f"{API}/machines?{said}")
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_one_machine_has_disks_and_a_time_axis(seen: ApiSite, api: TestClient) -> None:
    (web,) = got(api, "/machines", q="web-1")["items"]
    detail = got(api, f"/machines/{web['id']}")
    assert [(disk["key"], disk["size"]) for disk in detail["disks"]] == [("vda", 64 * 1024)]
    axis = got(api, f"/machines/{web['id']}/timeline")
    assert [point["created_at"] for point in axis] == sorted(point["created_at"] for point in axis)
    assert len(axis) == 2
    points = got(api, f"/machines/{web['id']}/restore-points")["items"]
    assert [point["id"] for point in points] == [point["id"] for point in axis][::-1]
    later = got(api, f"/machines/{web['id']}/timeline", since=axis[1]["created_at"])
    assert [point["id"] for point in later] == [axis[1]["id"]]


def test_who_reaches_some_machines_sees_no_others(seen: ApiSite, api_as: Callable[..., TestClient]) -> None:
    client = api_as(Role.RESTORE_OPERATOR, machines=("db-*",))
    assert [one["name"] for one in got(client, "/machines")["items"]] == ["db-1"]
    assert got(client, "/machines/protection")["total"] == 1
    (web,) = [identity for identity, name in seen.names.items() if name == "web-1"]
    for path in (f"/machines/{web}", f"/machines/{web}/timeline", f"/machines/{web}/restore-points"):
        answer = client.get(API + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-machine")
    assert got(client, "/restore-points")["items"] == []


def test_a_machine_that_nobody_knows_is_not_there(api: TestClient) -> None:
    for name in ("nobody", "%00", "%20"):
        answer = api.get(f"{API}/machines/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-machine")
