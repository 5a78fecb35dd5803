"""``/repositories``."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance.config import CopyRepository
from appliance.keeping import measuring
from catalog.jobs.values import TaskKind, TaskState
from proxy.repository import keys
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

V1 = "/api/v1"


def test_our_own_repository_tells_what_is_known_of_it(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("db-1")
    points = [site.point(machine, ago=timedelta(days=days)) for days in (1, 2)]
    (seen,) = api.get(f"{V1}/repositories").json()["items"]
    assert (seen["name"], seen["role"], seen["kind"], seen["error"]) == ("main", "main", "directory", "")
    assert seen["id"] == site.services.repository.settings.id.hex()
    assert seen["chunk_size"] == site.services.repository.settings.chunk_size
    assert (seen["encrypted"], seen["key_slots"], seen["immutable_days"]) == (False, [], None)
    assert (seen["points"], seen["machines"]) == (2, 1)
    assert seen["stored"] == sum(image.bytes_stored for point in points for image in point.images)
    assert 0 < seen["space"]["free"] <= seen["space"]["total"]
    assert (seen["measured"], seen["last"]) == (None, {})
    assert (seen["verified"]["points"], seen["verified"]["never"]) == (0, 2)


def test_what_was_measured_is_told_with_its_time(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    for name in ("db-1", "web-1"):
        site.point(site.machine(name))
    measured = measuring.measure(site.services, "")
    seen = api.get(f"{V1}/repositories/main").json()["measured"]
    assert (seen["points"], seen["unique"], seen["dead"]) == (2, measured.total.unique, 0)
    assert sorted(one["machine"]["name"] for one in seen["machines"]) == ["db-1", "web-1"]
    assert seen["logical"] == sum(one["logical"] for one in seen["machines"])
    limited = api_as(Role.OPERATOR, machines=("db-*",)).get(f"{V1}/repositories/main").json()["measured"]
    assert [one["machine"]["name"] for one in limited["machines"]] == ["db-1"]


def test_the_last_work_of_each_kind_is_told(api: TestClient, site: ApiSite) -> None:
    task = api.post(f"{V1}/verifications", json={}).json()["id"]
    services = site.services
    with services.jobs.transaction() as unit:
        held = unit.tasks.hold("v1", "", "", services.clock.now(), proxy="p1", kind=TaskKind.PRUNE)
        unit.tasks.end(held.id, TaskState.DONE, services.clock.now(), problems=("one is in use",))
    last = api.get(f"{V1}/repositories/main").json()["last"]
    assert list(last) == ["prune"], f"{task} waits still"
    assert (last["prune"]["state"], last["prune"]["problems"]) == ("done", ["one is in use"])
    asked = api.post(f"{V1}/prunes", json={"dry_run": True}).json()["id"]
    with services.jobs.transaction() as unit:
        unit.tasks.end(asked, TaskState.DONE, services.clock.now())
    assert api.get(f"{V1}/repositories/main").json()["last"] == last, "who only looked did nothing"


def test_a_second_repository_that_is_away_says_why(api: TestClient, site: ApiSite, tmp_path: Path) -> None:
    services = site.services
    away = CopyRepository(name="vault", path=tmp_path / "away", unencrypted=True, immutable_days=None)
    services.settings = services.settings.model_copy(update={"copy_to": (away,)})
    main, copy = api.get(f"{V1}/repositories").json()["items"]
    assert (main["name"], copy["name"], copy["role"]) == ("main", "vault", "copy-to")
    assert copy["error"]
    assert (copy["space"], copy["points"]) == (None, None)
    assert api.get(f"{V1}/repositories/vault/growth").json()["days"] == []
    assert api.get(f"{V1}/repositories/elsewhere").status_code == 404


@pytest.mark.slow
def test_growth_is_told_by_day_with_a_forecast(api: TestClient, site: ApiSite) -> None:
    machine = site.machine("db-1")
    for days in range(1, 12):
        site.point(machine, ago=timedelta(days=days))
    seen = api.get(f"{V1}/repositories/main/growth").json()
    assert [day["restore_points"] for day in seen["days"]] == [1] * 11
    assert all(day["stored"] > 0 for day in seen["days"])
    forecast = seen["forecast"]
    assert (forecast["days"], seen["why_not"]) == (10, "")
    assert 0 < forecast["low"] <= forecast["bytes_per_day"] <= forecast["high"]
    week = api.get(f"{V1}/repositories/main/growth", params={"days": 7}).json()
    assert (len(week["days"]), week["forecast"]["days"]) == (7, 7)


def test_few_days_make_no_forecast(api: TestClient, site: ApiSite) -> None:
    site.point(site.machine("db-1"), ago=timedelta(days=2))
    seen = api.get(f"{V1}/repositories/main/growth").json()
    assert seen["forecast"] is None
    assert "7 whole days" in seen["why_not"]


def test_key_slots_are_for_who_may_configure(api: TestClient, api_as: Callable[..., TestClient]) -> None:
    assert api.get(f"{V1}/repositories/main/key-slots").json() == {"items": [], "next": None}
    assert api_as(Role.OPERATOR).get(f"{V1}/repositories/main/key-slots").status_code == 403


def test_what_work_on_the_repository_says_of_machines_is_for_who_sees_all(
    api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    services = site.services
    with services.jobs.transaction() as unit:
        held = unit.tasks.hold("v1", "", "", services.clock.now(), proxy="p1", kind=TaskKind.PRUNE)
        unit.tasks.end(held.id, TaskState.DONE, services.clock.now(), problems=("hr-payroll: in use",))
    whole = api_as(Role.OPERATOR).get(f"{V1}/repositories/main").json()["last"]["prune"]
    assert whole["problems"] == ["hr-payroll: in use"]
    limited = api_as(Role.OPERATOR, machines=("db-*",)).get(f"{V1}/repositories/main").json()["last"]["prune"]
    assert (limited["state"], limited["message"], limited["problems"]) == ("done", "", [])


def test_no_list_of_repositories_shows_key_slots_to_who_may_not_configure(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    opened, now = site.services.repository, site.services.clock.now()
    secret = keys.KeyFile(keys.new_key_file())
    keys.add_slot(opened.store, opened.settings, keys.new_keyring(sealed=True), secret, label="in the safe", now=now)
    for path in ("/repositories", "/repositories/main"):
        assert "in the safe" in api.get(f"{V1}{path}").text
        assert "in the safe" not in api_as(Role.AUDITOR).get(f"{V1}{path}").text
