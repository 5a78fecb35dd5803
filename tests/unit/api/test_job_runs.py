"""Job runs over the API: lists, progress, what became of machines, stop. Rows are made as proxies make them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Role
from appliance.web import speeds
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.model import Reason, ReasonCode
from tests.unit.api.api_site import ApiSite

pytestmark = pytest.mark.slow

RUNS = "/api/v1/job-runs"


@dataclass
class Night:
    """A run of ``job`` with one task a machine, and a proxy that works on them."""

    site: ApiSite
    job: Job
    begun: datetime

    def run(self, run: str = "r1", *machines: str, **facts: object) -> JobRun:
        made = JobRun(
            run, self.job.id, self.job.name, self.job.policy, Cause.SCHEDULE, self.begun, JobRunState.RUNNING, self.begun,
            **facts,  # type: ignore[arg-type]
        )  # fmt: skip
        with self.site.services.jobs.transaction() as unit:
            assert unit.runs.begin(made)
            unit.tasks.add(
                [
                    Task(
                        f"{run}-{name}", run, TaskKind.BACKUP, TaskState.WAITING, f"id-{name}", name, "h1",
                        keys=("host:h1",), order=self.begun + timedelta(seconds=n), expected_seconds=100.0,
                    )
                    for n, name in enumerate(machines)
                ]
            )  # fmt: skip
        return made

    def claim(self, seconds_ago: float = 10.0) -> Task:
        """By a proxy that people call proxy-1."""
        now = datetime.now(UTC)
        facts = ProxyFacts("px", "proxy-1", now, now, slots=9)
        with self.site.services.jobs.transaction() as unit:
            unit.proxies.beat(facts)
            task = unit.tasks.claim(facts, now - timedelta(seconds=seconds_ago), self.site.services.limits)
        assert task is not None
        return task

    def progress(self, task: Task, done: int, total: int) -> None:
        with self.site.services.jobs.transaction() as unit:
            unit.tasks.progress({task.id: (done, total)})

    def end(self, task: Task, state: TaskState = TaskState.DONE, **facts: object) -> None:
        with self.site.services.jobs.transaction() as unit:
            assert unit.tasks.end(task.id, state, datetime.now(UTC), **facts)  # type: ignore[arg-type]


@pytest.fixture
def night(site: ApiSite) -> Night:
    return Night(site, site.job("nightly", select={"include": [""]}), datetime.now(UTC) - timedelta(minutes=5))


def test_a_run_tells_how_far_it_is_and_what_each_machine_does(
    api: TestClient, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speeds, "APART", 3600.0)  # the mean since its claim counts, however long this test takes
    night.run("r1", "web-1", "web-2", "web-3", "db-1")
    night.end(
        night.claim(),
        measures={"bytes_read": 1000, "bytes_stored": 10, "stages": {"bottleneck": "source", "source": 3.0}},
    )
    running = night.claim(seconds_ago=200.0)
    night.progress(running, 5000, 20_000)
    run = api.get(f"{RUNS}/r1").json()
    assert run["tasks"] == {"total": 4, "waiting": 2, "running": 1, "done": 1, "failed": 0, "stopped": 0}
    assert run["progress"]["share"] == pytest.approx(1.25 / 4, abs=0.01)
    assert (run["progress"]["done_bytes"], run["progress"]["total_bytes"]) == (5000, 20_000)
    assert datetime.fromisoformat(run["progress"]["expected_end"]) > datetime.now(UTC)
    assert (run["figures"]["bytes_read"], run["figures"]["bytes_stored"]) == (1000, 10)
    tasks = api.get(f"{RUNS}/r1/tasks").json()["items"]
    assert [(each["name"], each["state"], each["share"]) for each in tasks] == [
        ("web-1", "done", 1.0),
        ("web-2", "running", 0.25),
        ("web-3", "waiting", None),
        ("db-1", "waiting", None),
    ]
    assert (tasks[0]["bottleneck"], tasks[0]["bytes_read"], tasks[0]["stages"]) == ("source", 1000, {"source": 3.0})
    assert tasks[1]["proxy"] == "proxy-1"
    assert tasks[1]["bytes_per_second"] == pytest.approx(25, rel=0.3)
    assert datetime.fromisoformat(tasks[1]["expected_end"]) - datetime.now(UTC) < timedelta(seconds=1200)


def test_what_waits_says_for_which_limit(api: TestClient, night: Night) -> None:
    night.run("r1", "web-1", "web-2", "web-3")
    night.claim()
    night.claim()
    waiting = api.get(f"{RUNS}/r1/tasks", params={"state": "waiting"}).json()["items"]
    assert [(each["name"], each["waits_for"]) for each in waiting] == [("web-3", ["host:h1"])]


@pytest.mark.slow
def test_a_running_backup_shows_what_slowed_the_one_before(api: TestClient, night: Night) -> None:
    night.run("r0", "web-1")
    night.end(night.claim(), measures={"stages": {"bottleneck": "repository"}})
    night.site.services.jobs.forget(datetime(2000, 1, 1, tzinfo=UTC))
    with night.site.services.jobs.transaction() as unit:
        unit.runs.end("r0", JobRunState.DONE, datetime.now(UTC))
    night.begun += timedelta(minutes=1)
    night.run("r1", "web-1")
    night.claim()
    (task,) = api.get(f"{RUNS}/r1/tasks").json()["items"]
    assert (task["bottleneck"], task["bottleneck_before"]) == (None, "repository")
    assert api.get(f"{RUNS}/r1").json()["progress"]["bottleneck"] == "repository"


def test_what_failed_is_told_with_its_cause(api: TestClient, night: Night) -> None:
    night.run("r1", "web-1", "web-2")
    night.end(night.claim(), TaskState.FAILED, error="host-unreachable", message="h1 did not answer")
    night.end(night.claim(), problems=["it lags behind"], reasons=[Reason(ReasonCode.TRANSPORT_FALLBACK, "no portal")])
    run = api.get(f"{RUNS}/r1").json()
    assert [(each["gravity"], each["machines"]) for each in run["attention"]] == [
        ("error", ["web-1"]),
        ("warning", ["web-2"]),
        ("info", ["web-2"]),
    ]
    log = api.get(f"{RUNS}/r1/log").json()
    assert log[0]["what"] == "run-began"
    said = {(each["what"], each["gravity"], each["text"]) for each in log}
    assert ("task-ended", "error", "failed: host-unreachable: h1 did not answer") in said
    assert ("problem", "warning", "it lags behind") in said
    assert ("decision", "info", "transport-fallback: no portal") in said
    assert [each["at"] for each in log] == sorted(each["at"] for each in log)


@pytest.mark.slow
def test_tasks_come_in_pages_that_meet(api: TestClient, night: Night) -> None:
    names = [f"m{n:02d}" for n in range(10)]
    night.run("r1", *names)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = api.get(f"{RUNS}/r1/tasks", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [each["name"] for each in page["items"]]
        cursor = page["next"]
    assert (seen, cursor) == (names, None)


@pytest.mark.slow
def test_runs_are_listed_newest_first_and_filtered(api: TestClient, night: Night) -> None:
    for number in range(3):
        night.begun += timedelta(minutes=1)
        night.run(f"r{number}", "web-1")
    with night.site.services.jobs.transaction() as unit:
        unit.runs.end("r1", JobRunState.FAILED, datetime.now(UTC))
    first = api.get(RUNS, params={"limit": 2}).json()
    rest = api.get(RUNS, params={"limit": 2, "cursor": first["next"]}).json()
    assert [each["id"] for each in (*first["items"], *rest["items"])] == ["r2", "r1", "r0"]
    assert [each["id"] for each in api.get(RUNS, params={"state": "failed"}).json()["items"]] == ["r1"]
    assert [each["id"] for each in api.get(RUNS, params={"job": "nightly", "sort": "started_at"}).json()["items"]] == [
        "r0",
        "r1",
        "r2",
    ]
    assert api.get(RUNS, params={"job": "none"}).status_code == 404
    assert api.get(RUNS, params={"cursor": first["next"][:-3]}).status_code == 422


def test_a_run_is_stopped_where_nobody_serves(api: TestClient, night: Night) -> None:
    night.run("r1", "web-1")
    stopped = api.post(f"{RUNS}/r1/stop")
    assert (stopped.status_code, stopped.json()) == (
        202,
        {"id": "r1", "state": "stopped", "stopped": True, "served": False},
    )
    assert api.post(f"{RUNS}/r1/stop").json()["stopped"] is False
    entry = night.site.services.catalog.audit.list(action="stop-job-run")[0]
    assert "r1" in str(entry.detail)
    assert api.get(f"{RUNS}/none").json()["code"] == "job-run-not-found"


@pytest.mark.slow
def test_the_report_is_a_page_that_may_run_nothing(api: TestClient, night: Night) -> None:
    night.run("r1", "<script>alert(1)</script>")
    night.end(night.claim())
    page = api.get(f"{RUNS}/r1/report")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


@pytest.mark.slow
def test_who_reaches_some_machines_sees_only_these_in_lists_and_sums(
    api_as: Callable[..., TestClient], night: Night
) -> None:
    night.run("r1", "web-1", "db-1", "db-2", notes=("web-1 was silent",))
    night.end(night.claim(), TaskState.FAILED, error="host-unreachable", message="web-1 did not answer")
    limited = api_as(Role.OPERATOR, machines=("db-*",))
    run = limited.get(f"{RUNS}/r1").json()
    assert (run["tasks"]["total"], run["selected"], run["attention"], run["notes"]) == (2, 2, [], [])
    assert [each["name"] for each in limited.get(f"{RUNS}/r1/tasks").json()["items"]] == ["db-1", "db-2"]
    assert [each["name"] for each in limited.get(f"{RUNS}/r1/tasks", params={"limit": 1}).json()["items"]] == ["db-1"]
    assert limited.get(RUNS).json()["items"][0]["tasks"]["total"] == 2
    assert "web-1" not in limited.get(f"{RUNS}/r1/log").text
    assert limited.get(f"{RUNS}/r1/report").status_code == 403
    assert limited.post(f"{RUNS}/r1/stop").json()["code"] == "beyond-reach"


@pytest.mark.slow
def test_events_tell_a_run_until_its_end(api: TestClient, night: Night) -> None:
    night.run("r1", "web-1")
    night.claim()
    with night.site.services.jobs.transaction() as unit:
        unit.runs.end("r1", JobRunState.DONE, datetime.now(UTC))
    with api.stream("GET", f"{RUNS}/r1/events") as stream:
        lines = list(stream.iter_lines())
    assert [line for line in lines if line.startswith("event:")] == ["event: run", "event: end"]
    assert any('"state":"done"' in line for line in lines)
    assert api.get(f"{RUNS}/none/events").status_code == 404


def test_work_on_the_repository_names_machines_and_is_for_who_sees_all(
    api: TestClient, api_as: Callable[..., TestClient], night: Night
) -> None:
    night.run("r1", "db-1")
    verify = Task("r1-verify", "r1", TaskKind.VERIFY, TaskState.WAITING, "", "", keys=(), order=night.begun)
    with night.site.services.jobs.transaction() as unit:
        unit.tasks.add([verify])
    while (task := night.claim()).kind is not TaskKind.VERIFY:
        pass
    night.end(task, TaskState.FAILED, problems=("hr-payroll: damaged",), message="x")
    limited = api_as(Role.OPERATOR, machines=("db-*",))
    for path in ("r1", "r1/tasks", "r1/log"):
        assert "hr-payroll" not in limited.get(f"{RUNS}/{path}").text, path
        assert "hr-payroll" in api.get(f"{RUNS}/{path}").text or path == "r1"
    assert [task["name"] for task in limited.get(f"{RUNS}/r1/tasks").json()["items"]] == ["db-1"]
    assert limited.get(f"{RUNS}/r1/report").status_code == 403
    assert limited.post(f"{RUNS}/r1/stop").status_code == 403, "it would end work on the repository"
