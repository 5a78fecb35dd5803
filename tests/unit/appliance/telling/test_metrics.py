"""Metrics over HTTP from a real job store, read with the client's own parser."""

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from appliance import config
from appliance.telling.facts import Facts, Gatherer
from appliance.telling.metrics import Metrics, families, serving
from appliance.wiring import Services
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.jobs.values import Job, JobRunState, ProxyFacts, TaskState
from proxy.errors import DatabaseAway
from tests.unit.appliance.telling.nights import NIGHT, Clock, a_run, a_task

pytestmark = pytest.mark.slow

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def services(tmp_path: Path, clock: Clock, empty_store: Path) -> Iterator[Services]:
    (tmp_path / "repository").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.db").write_bytes(empty_store.read_bytes())
    text = (
        f'[repository]\npath = "{tmp_path}/repository"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/state"\n'
    )
    text += '[metrics]\naddress = "127.0.0.1:0"\nmin_age = 0\n'
    with Services(config.parse(text, tmp_path / "lanfree.toml")) as made:
        made.clock = clock  # type: ignore[assignment]
        yield made


def a_job(store: JobStore, name: str = "nightly") -> Job:
    with store.transaction() as unit:
        return unit.jobs.add(name, Policy(objective=26), NIGHT)


def a_night(store: JobStore, job: Job, machines: int, failed: int = 0, *, number: int = 1) -> str:
    """A run that ended two hours after it began; each machine read 3 bytes and stored 1."""
    run = a_run(id=f"j{number}", job=job.id, job_name=job.name, state=JobRunState.RUNNING, ended_at=None)
    run = replace(run, started_at=NIGHT + timedelta(days=number - 1), scheduled_for=NIGHT + timedelta(days=number - 1))
    proxy = ProxyFacts("p1", "proxy1", NIGHT, NIGHT, slots=10_000)
    with store.transaction() as unit:
        unit.proxies.beat(proxy)
        assert unit.runs.begin(run)
        waiting = {"claimed_at": None, "ended_at": None, "measures": {}, "job_run": run.id}
        unit.tasks.add([a_task(n, TaskState.WAITING, **{**waiting, "id": f"{run.id}-{n}"}) for n in range(machines)])
        for n in range(machines):
            task = unit.tasks.claim(proxy, run.started_at, Limits())
            assert task is not None
            state = TaskState.FAILED if n < failed else TaskState.DONE
            measures = {"bytes_read": 3, "bytes_new": 2, "bytes_stored": 1, "over_host": 0}
            unit.tasks.end(task.id, state, run.started_at + timedelta(hours=1), measures=measures)
        unit.runs.end(run.id, JobRunState.FAILED if failed else JobRunState.DONE, run.started_at + timedelta(hours=2))
    return run.id


def scraped(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return parsed(answer.read().decode())


def read(services: Services) -> Samples:
    """The same without a server, which takes its time to end."""
    registry = CollectorRegistry(auto_describe=False)
    gatherer = Gatherer(lambda: services.jobs, {}, services.clock.now, tuple)
    registry.register(Metrics(gatherer.facts, machines=100, min_age=0))
    return parsed(generate_latest(registry).decode())


def parsed(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == "gauge"
        for sample in family.samples:
            key = (sample.name.removeprefix("lanfree_"), *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def told(facts: Facts, machines: int = 100) -> Samples:
    found: Samples = {}
    for family in families(facts, machines, 0.0):
        for sample in family.samples:
            found[(sample.name.removeprefix("lanfree_"), *sample.labels.values())] = sample.value
    return found


def test_a_scraper_gets_the_night(services: Services, clock: Clock) -> None:
    job = a_job(services.jobs)
    a_night(services.jobs, job, machines=5, failed=2)
    clock.moment = NIGHT + timedelta(hours=3)
    with serving(services, lambda: ["place:ds1"]) as port:
        assert port
        found = scraped(port)
    assert found["job_enabled", "nightly"] == 1
    assert found["job_running", "nightly"] == 0
    assert found["job_last_run_end_timestamp_seconds", "nightly"] == (NIGHT + timedelta(hours=2)).timestamp()
    assert found["job_last_run_duration_seconds", "nightly"] == 7200
    assert found["job_last_run_state", "nightly", "failed"] == 1
    assert found["job_last_run_state", "nightly", "done"] == 0
    assert found["job_last_run_machines", "nightly", "done"] == 3
    assert found["job_last_run_machines", "nightly", "failed"] == 2
    assert found["job_last_run_bytes", "nightly", "read"] == 15
    assert found["job_last_run_bytes", "nightly", "over_host"] == 0
    assert found["job_machines_overdue", "nightly"] == 2
    assert found["machines",] == 3
    assert found["machine_last_success_timestamp_seconds", "m4", "web-004"] == (NIGHT + timedelta(hours=1)).timestamp()
    assert found["proxies_alive",] == 1
    assert found["key_closed", "place:ds1"] == 1
    assert found["scrape_missing", "jobs"] == 0
    assert 0 < found["repository_free_bytes", "repository"] <= found["repository_size_bytes", "repository"]


def test_machines_get_overdue_while_time_passes(services: Services, clock: Clock) -> None:
    a_night(services.jobs, a_job(services.jobs), machines=4)
    overdue = []
    for hours in (2, 26, 28):
        clock.moment = NIGHT + timedelta(hours=hours)
        overdue.append(read(services)["job_machines_overdue", "nightly"])
    assert overdue == [0, 0, 4]


def test_what_runs_and_waits_is_counted(services: Services) -> None:
    job = a_job(services.jobs)
    with services.jobs.transaction() as unit:
        unit.runs.begin(a_run(job=job.id, state=JobRunState.RUNNING, ended_at=None))
        unit.tasks.add([a_task(n, TaskState.WAITING, claimed_at=None, ended_at=None) for n in range(7)])
        unit.tasks.claim(ProxyFacts("p1", "proxy1", NIGHT, NIGHT), NIGHT, Limits())
    found = read(services)
    assert (found["tasks", "waiting"], found["tasks", "running"]) == (6, 1)
    assert found["job_running", "nightly"] == 1
    assert ("job_last_run_state", "nightly", "done") not in found


def test_beyond_the_configured_number_there_are_sums_only() -> None:
    many = Facts(successes={f"m{n}": (f"web-{n}", NIGHT + timedelta(hours=n)) for n in range(11)})
    found = told(many, machines=10)
    assert found["machines",] == 11
    assert found["machines_oldest_success_timestamp_seconds",] == NIGHT.timestamp()
    assert [key for key in found if key[0] == "machine_last_success_timestamp_seconds"] == []
    assert len([key for key in told(many, machines=11) if key[0] == "machine_last_success_timestamp_seconds"]) == 11


def test_what_another_proxy_closed_is_told_too(services: Services) -> None:
    with services.jobs.transaction() as unit:
        unit.proxies.beat(ProxyFacts("p1", "proxy1", NIGHT, NIGHT, closed=frozenset({"place:ds1"})))
        unit.proxies.beat(ProxyFacts("p2", "proxy2", NIGHT, NIGHT, closed=frozenset({"place:ds1", "host:h"})))
    found = read(services)
    assert [key[1] for key in found if key[0] == "key_closed"] == ["host:h", "place:ds1"]


def test_hostile_names_leave_the_format_whole(services: Services) -> None:
    a_night(services.jobs, a_job(services.jobs, 'x"} 1\nlanfree_job_enabled{job="forged'), machines=1)
    with services.jobs.transaction() as unit:
        unit.proxies.beat(ProxyFacts("p2", 'm"\\\n\udcff'.encode("utf-8", "replace").decode(), NIGHT, NIGHT))
    found = read(services)
    assert ("job_enabled", 'x"} 1\nlanfree_job_enabled{job="forged') in found
    assert ("job_enabled", "forged") not in found


def test_a_database_that_is_away_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    def away() -> JobStore:
        raise DatabaseAway("postgresql://db", "connection refused")

    facts = Gatherer(away, {"repository": tmp_path, "gone": tmp_path / "gone"}, lambda: NIGHT, tuple).facts()
    found = told(facts)
    assert (found["scrape_missing", "jobs"], found["scrape_missing", "repository"]) == (1, 1)
    assert found["repository_size_bytes", "repository"] > 0
    assert [key for key in found if key[0].startswith("job_")] == []


def test_impatient_scrapers_cost_one_reading() -> None:
    reads: list[int] = []

    def gather() -> Facts:
        reads.append(1)
        return Facts()

    patient = Metrics(gather, machines=1, min_age=3600)
    for _ in range(5):
        assert list(patient.collect())
    assert len(reads) == 1
    hasty = Metrics(gather, machines=1, min_age=0)
    list(hasty.collect())
    list(hasty.collect())
    assert len(reads) == 3


@pytest.mark.slow
def test_without_an_address_nothing_listens_and_a_taken_one_stops_nobody(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    def of(address: str | None) -> Any:
        section = services.settings.metrics.model_copy(update={"address": address})
        services.settings = services.settings.model_copy(update={"metrics": section})
        return serving(services)

    with ExitStack() as opened:
        assert opened.enter_context(of(None)) is None
        port = opened.enter_context(of("127.0.0.1:0"))
        assert port is not None
        assert opened.enter_context(of(f"127.0.0.1:{port}")) is None
        assert "cannot listen" in caplog.text
        assert scraped(port)["machines",] == 0
