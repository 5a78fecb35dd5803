"""Health, version, metrics, and that something changed."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.auth.roles import Role
from api.latencies import BOUNDS, Latencies
from appliance.web import vitals
from proxy.errors import DatabaseAway
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are never those of a moment ago."""
    monkeypatch.setattr(vitals, "_RECENT", 0.0)


def test_strangers_may_ask_whether_it_is_ready(stranger: TestClient) -> None:
    answer = stranger.get("/api/v1/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "away": []})


def test_what_does_not_answer_is_named_and_nothing_more(
    stranger: TestClient, site: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> None:
        raise DatabaseAway("postgresql://secret-host/x", "connection refused")

    monkeypatch.setattr(site.services.jobs, "transaction", away)
    (site.file.parent / "repository").rename(site.file.parent / "elsewhere")
    answer = stranger.get("/api/v1/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not-ready", "away": ["jobs", "repository"]})
    assert "secret-host" not in answer.text
    assert stranger.get("/api/v1/health/live").status_code == 200


def test_the_version_is_told_to_who_is_signed_in(stranger: TestClient, api: TestClient) -> None:
    assert stranger.get("/api/v1/version").status_code == 401
    assert api.get("/api/v1/version").json()["version"]


def test_metrics_tell_of_the_site_and_of_requests_by_route(api: TestClient, site: ApiSite) -> None:
    site.job("nightly")
    api.get("/api/v1/version")
    api.get("/api/v1/jobs/nothing-of-this-name")
    answer = api.get("/api/v1/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {sample.labels["job"] for sample in families["lanfree_job_enabled"].samples} == {"nightly"}
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["lanfree_api_request_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert counts["/api/v1/version", "2xx"] >= 1
    assert not any("nothing-of-this-name" in route for route, _ in counts)


def test_metrics_name_all_machines_and_are_for_who_reaches_them(api_as: Callable[..., TestClient]) -> None:
    refused = api_as(Role.OPERATOR, machines=("db-*",)).get("/api/v1/metrics")
    assert (refused.status_code, refused.json()["code"]) == (403, "beyond-reach")


def test_times_are_counted_in_the_bucket_that_they_fit() -> None:
    latencies = Latencies()
    key = ("GET", "/x", "2xx")
    for seconds in (0.001, 0.005, 0.006, 99.0):
        latencies.note(key, seconds)
    counts = latencies.seen()[key]
    assert counts[:2] == (2, 1)
    assert counts[len(BOUNDS)] == 1
    assert counts[-1] == pytest.approx(99.012)


@pytest.mark.usefixtures("at_once")
def test_marks_differ_when_something_changed_and_only_those(site: ApiSite) -> None:
    told = vitals.WebVitals(site.services)
    before = told.changes()
    assert told.changes() == before
    site.job("nightly")
    after = told.changes()
    assert (after.jobs != before.jobs, after.tasks == before.tasks) == (True, True)
    site.point(site.machine("db-1"))
    assert told.changes().restore_points != after.restore_points
