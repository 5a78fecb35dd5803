"""Dashboard, plan, coverage, impact and proxies over the API."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance import inventory
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, TaskState
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

API = "/api/v1"
ALL = {"include": [""]}


def backup(
    site: ApiSite, name: str, state: TaskState = TaskState.DONE, days_ago: float = 0.01, **measures: object
) -> None:
    """A backup that took a minute."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with site.services.jobs.transaction() as unit:
        task = unit.tasks.hold(
            f"b-{name}-{days_ago}", f"id-{name}", name, at - timedelta(minutes=1), proxy="p", host="h1"
        )
        assert unit.tasks.end(task.id, state, at, measures=measures)


def lives(site: ApiSite) -> None:
    """A proxy, just now."""
    now = datetime.now(UTC)
    with site.services.jobs.transaction() as unit:
        unit.proxies.beat(ProxyFacts("px", "proxy-1", now, now, frozenset({"iqn.x"}), "1.2", 4))


def test_an_empty_site_has_an_overview(api: TestClient) -> None:
    found = api.get(f"{API}/overview").json()
    assert (found["attention"], found["protection"], found["running"], found["jobs"]) == ([], None, [], 0)
    assert len(found["days"]) == 30
    assert [rate["share"] for rate in found["success"]] == [None, None, None]


def test_the_overview_has_days_bars_and_rates(api: TestClient, site: ApiSite) -> None:
    backup(site, "web-1", bytes_read=1000, bytes_new=400, bytes_stored=100)
    backup(site, "web-2", TaskState.FAILED)
    backup(site, "web-1", days_ago=3, bytes_read=50, bytes_new=0, bytes_stored=0)
    found = api.get(f"{API}/overview", params={"days": 7}).json()
    days = {day["day"]: day for day in found["days"]}
    assert len(days) == 7
    assert sum(day["bytes_read"] for day in days.values()) == 1050
    busy = next(day for day in days.values() if day["bytes_read"] == 1000)
    assert (busy["dedup"], busy["packed"], busy["failed"] + busy["done"]) == (2.5, 4.0, 2)
    assert [(bar["name"], bar["state"]) for bar in found["night"]["machines"]] == [
        ("web-1", "done"),
        ("web-2", "failed"),
    ]
    assert [(rate["days"], rate["done"], rate["ended"]) for rate in found["success"]][1:] == [(7, 2, 3), (30, 2, 3)]


def test_machines_without_a_backup_need_a_person(
    api: TestClient, site: ApiSite, api_as: Callable[..., TestClient]
) -> None:
    site.machine("web-1")
    site.machine("db-1")
    inventory.refresh(site.services)
    line = {"text": "2 machines: never backed up", "link": "machines?protection=never"}
    assert api.get(f"{API}/overview").json()["attention"] == [line]
    lines = api_as(Role.AUDITOR, machines=("db-*",)).get(f"{API}/overview").json()["attention"]
    assert [each["text"] for each in lines] == ["1 machine: never backed up"]


def test_what_needs_a_person_is_linked_to_where_it_is(api: TestClient, site: ApiSite) -> None:
    job = site.job("nightly", select=ALL)
    now = datetime.now(UTC)
    run = JobRun("r1", job.id, job.name, job.policy, Cause.MANUAL, now, JobRunState.RUNNING, now)
    with site.services.jobs.transaction() as unit:
        unit.runs.begin(run)
    lines = api.get(f"{API}/overview").json()["attention"]
    assert lines == [{"text": "no proxy serves: nothing begins until 'lanfree serve' runs", "link": "proxies"}]
    lives(site)
    with site.services.jobs.transaction() as unit:
        unit.runs.end("r1", JobRunState.FAILED, now)
    lines = api.get(f"{API}/overview").json()["attention"]
    assert [line["link"] for line in lines] == ["jobs/nightly"]
    assert "'lanfree " not in lines[0]["text"]  # the link leads there, no command has to be typed


@pytest.mark.slow
def test_who_reaches_some_machines_gets_an_overview_of_these(
    api_as: Callable[..., TestClient], api: TestClient, site: ApiSite
) -> None:
    backup(site, "web-1", bytes_read=1000)
    backup(site, "db-1", bytes_read=7)
    found = api_as(Role.RESTORE_OPERATOR, machines=("db-*",)).get(f"{API}/overview").json()
    assert [bar["name"] for bar in found["night"]["machines"]] == ["db-1"]
    assert sum(day["bytes_read"] for day in found["days"]) == 7
    assert sum(day["bytes_read"] for day in api.get(f"{API}/overview").json()["days"]) == 1007


def test_the_plan_shows_each_machine_and_the_load_of_hosts(api: TestClient, site: ApiSite) -> None:
    for name in ("web-1", "web-2"):
        site.machine(name)
    site.machine("lonely")
    at = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    site.job("nightly", select={"include": ["name=web-*"]}, schedule={"at": [at]})
    found = api.get(f"{API}/plan", params={"hours": 6, "columns": 12, "limit": 1}).json()
    assert (len(found["entries"]), found["entries_left_out"], found["unfit"]) == (1, 1, [])
    assert [machine["name"] for machine in found["in_no_job"]] == ["lonely"]
    assert [(host["host"], len(host["busy"])) for host in found["hosts"]] == [("h1", 12)]
    assert api.get(f"{API}/plan", params={"job": "none"}).status_code == 404


@pytest.mark.slow
def test_a_plan_names_only_machines_within_reach(api_as: Callable[..., TestClient], site: ApiSite) -> None:
    for name in ("web-1", "db-1", "db-2"):
        site.machine(name)
    at = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    site.job("nightly", select={"include": ["name=*-1"]}, schedule={"at": [at]})
    limited = api_as(Role.OPERATOR, machines=("db-*",))
    found = limited.get(f"{API}/plan", params={"hours": 6, "advice": True}).json()
    assert [entry["name"] for entry in found["entries"]] == ["db-1"]
    assert [machine["name"] for machine in found["in_no_job"]] == ["db-2"]
    assert found["advice"] == []


def test_coverage_names_gaps_also_for_spreadsheets(api: TestClient, site: ApiSite) -> None:
    covered, _ = site.machine("web-1"), site.machine("=web-2")
    site.point(covered, data=bytes(64 * 1024))
    site.job("nightly", select=ALL)
    found = api.get(f"{API}/coverage").json()
    assert (found["covered"], found["total"], found["gaps"]) == (False, 2, 1)
    only = api.get(f"{API}/coverage", params={"gaps": True}).json()
    assert [(m["name"], [f["kind"] for f in m["findings"]]) for m in only["machines"]] == [
        ("=web-2", ["no-restore-point"])
    ]
    answer = api.get(f"{API}/reports/coverage.csv")
    lines = list(csv.reader(StringIO(answer.text)))
    assert [line[0] for line in lines] == ["machine", "'=web-2", "web-1"]
    assert answer.headers["Content-Type"].startswith("text/csv")


@pytest.mark.slow
def test_coverage_is_looked_at_again_when_it_is_asked_for(
    api: TestClient, api_as: Callable[..., TestClient], site: ApiSite
) -> None:
    site.machine("web-1")
    first = api.get(f"{API}/coverage").json()
    site.machine("db-1")
    assert api.get(f"{API}/coverage").json()["at"] == first["at"]
    assert api.get(f"{API}/coverage", params={"fresh": True}).json()["total"] == 2
    assert api_as(Role.AUDITOR, machines=("db-*",)).get(f"{API}/coverage").json()["total"] == 1


def test_impact_tells_what_a_backup_cost(api: TestClient, api_as: Callable[..., TestClient], site: ApiSite) -> None:
    seen = {
        "cpu": {"before": 0.1, "during": 0.4, "after": None},
        "places": {"lun1": {"read_latency": {"during": 0.002}}},
    }
    backup(site, "web-1", bytes_read=5, impact=seen, stages={"seconds": 3.0, "source": 2.0, "bottleneck": "source"})
    (item,) = api.get(f"{API}/impact", params={"machine": "web-1"}).json()["items"]
    assert (item["cpu"]["during"], item["copying"], item["bottleneck"]) == (0.4, 3.0, "source")
    assert item["places"][0]["read_latency"]["during"] == 0.002
    limited = api_as(Role.AUDITOR, machines=("db-*",))
    assert limited.get(f"{API}/impact").json()["items"] == []
    assert limited.get(f"{API}/impact", params={"machine": "web-1"}).json()["code"] == "no-such-machine"


@pytest.mark.slow
def test_hosts_are_asked_how_they_do_now(api: TestClient, site: ApiSite) -> None:
    site.machine("web-1")
    answer = api.get(f"{API}/impact/now")
    assert answer.status_code == 200
    assert answer.json()["silent"] == []


def test_proxies_are_alive_while_they_are_heard_of(api: TestClient, site: ApiSite) -> None:
    assert api.get(f"{API}/proxies").json()["serves"] is False
    lives(site)
    found = api.get(f"{API}/proxies").json()
    assert (found["serves"], found["items"][0]["machine"], found["items"][0]["slots"]) == (True, "proxy-1", 4)
