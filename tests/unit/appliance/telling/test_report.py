"""A run's report out of a real job store and catalog, and 'lanfree job report' over it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance import config
from appliance.cli import app, commands
from appliance.telling.lookout import Lookout
from appliance.telling.report import JobRunReport, report_of
from appliance.wiring import Services
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy, Schedule
from catalog.jobs.store import JobStore
from catalog.jobs.values import JobRun, JobRunState, ProxyFacts, TaskKind, TaskState
from proxy.errors import JobNotFound
from proxy.units import GiB, MiB
from tests.unit.appliance.telling.nights import NIGHT, Clock, a_point, a_run, a_task
from tests.unit.appliance.telling.receivers import Hook

pytestmark = pytest.mark.slow

MEASURES = {"bytes_read": 5, "bytes_new": 3, "bytes_stored": 2, "over_host": 1, "stages": {"bottleneck": "proxy"}}


@pytest.fixture
def services(tmp_path: Path, clock: Clock, empty_store: Path, hook: Hook) -> Iterator[Services]:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.db").write_bytes(empty_store.read_bytes())
    (tmp_path / "lanfree.toml").write_text(
        f'[repository]\npath = "{tmp_path}/repository"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/state"\n'
        f'[proxy]\nname = "alpha"\n[[notify]]\nname = "tickets"\nkind = "webhook"\nurl = "{hook.url}"\n'
    )
    with Services(config.load(tmp_path / "lanfree.toml")) as made:
        made.clock = clock  # type: ignore[assignment]
        yield made


def a_night(store: JobStore, number: int = 0) -> JobRun:
    """Machines 0 and 1 done (0 with a point), 2 failed; one verification."""
    with store.transaction() as unit:
        known = {job.name: job for job in unit.jobs.list()}
        policy = Policy(schedule=Schedule(cron="0 22 * * *"))
        job = known.get("nightly") or unit.jobs.add("nightly", policy, NIGHT)
        at = NIGHT + timedelta(days=number)
        run = replace(a_run(id=f"j{number}", job=job.id, state=JobRunState.RUNNING), started_at=at, scheduled_for=at)
        unit.runs.begin(replace(run, ended_at=None))
        fresh = {"claimed_at": None, "ended_at": None, "measures": {}, "job_run": run.id}
        tasks = [a_task(n, TaskState.WAITING, **{**fresh, "id": f"{run.id}-{n}"}) for n in range(3)]
        work = {"id": f"{run.id}-v", "kind": TaskKind.VERIFY, "machine": "", "machine_name": "", "host": ""}
        unit.tasks.add([*tasks, a_task(9, TaskState.WAITING, **{**fresh, **work})])
        proxy = ProxyFacts("p1", "alpha", at, at, slots=100)
        while task := unit.tasks.claim(proxy, at, Limits()):
            state = TaskState.FAILED if task.machine == "m2" else TaskState.DONE
            error = {"error": "host-unreachable", "message": "timed out"} if state is TaskState.FAILED else {}
            point = "p0" if task.machine == "m0" else None
            end = at + timedelta(minutes=7)
            unit.tasks.end(task.id, state, end, point=point, measures=MEASURES, **error)  # type: ignore[arg-type]
        unit.runs.end(run.id, JobRunState.FAILED, at + timedelta(hours=1))
    return run


def reported(services: Services) -> JobRunReport:
    for number in range(3):
        a_night(services.jobs, number)
    with services.catalog.transaction() as unit:
        unit.restore_points.add(a_point(0))
    return report_of(services.jobs, services.catalog, "j2")


def test_what_the_catalog_knows_of_a_point_goes_before_what_was_measured(services: Services) -> None:
    report = reported(services)
    failed, first, second = report.machines
    assert (failed.name, failed.consistency, failed.transports) == ("web-002", "", ())
    assert (first.bytes_read, first.consistency, first.transports, first.level) == (
        2 * GiB,
        "application",
        ("san",),
        "incremental",
    )
    assert (second.bytes_read, second.bottleneck, second.over_host, second.seconds) == (5, "proxy", 1, 420.0)
    assert [item.name for item in report.work] == ["verify"]
    assert report.figures.bytes_stored == 300 * MiB + 2 + 2
    assert [entry.line() for entry in report.attention] == [
        "1 machine failed, host-unreachable (web-002): timed out",
    ]


def test_the_runs_before_are_there_oldest_first_and_later_ones_are_not(services: Services) -> None:
    reported(services)
    report = report_of(services.jobs, services.catalog, "j1")
    assert [(figures.id, figures.machines, figures.failed, figures.bytes_read) for figures in report.earlier] == [
        ("j0", 3, 1, 15)
    ]
    assert [figures.id for figures in report_of(services.jobs, None, "j2").earlier] == ["j0", "j1"]


def test_without_a_catalog_the_report_is_poorer_and_there(services: Services) -> None:
    reported(services)
    assert report_of(services.jobs, None, "j2").machines[1].bytes_read == 5


def test_a_run_that_nobody_knows_is_said(services: Services) -> None:
    with pytest.raises(JobNotFound, match="nonsense"):
        report_of(services.jobs, None, "nonsense")


def lanfree(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    commands.register(words)
    monkeypatch.setattr(sys, "argv", ["lanfree", *words])
    capfd.readouterr()
    return app.run(), capfd.readouterr().out


def test_a_report_is_shown_by_run_and_by_job_and_written_as_html(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reported(services)
    settings = ("--config", str(tmp_path / "lanfree.toml"))
    code, said = lanfree(monkeypatch, capfd, *settings, "job", "report", "j1", "--html", str(tmp_path / "r.html"))
    assert code == 0
    assert "1 of 3 machines without a new restore point" in said
    assert "1 machine failed, host-unreachable (web-002): timed out" in said
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    code, said = lanfree(monkeypatch, capfd, *settings, "--json", "job", "report", "nightly")
    document = json.loads(said)
    assert (code, document["run"], document["kind"]) == (0, "j2", "failed")
    assert {item["name"]: item["state"] for item in document["items"]}["web-002"] == "failed"
    assert lanfree(monkeypatch, capfd, *settings, "job", "report", "other")[0] == 1


def test_ways_are_tried_from_the_command_line(
    services: Services, hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ("--config", str(tmp_path / "lanfree.toml"), "--json")
    assert lanfree(monkeypatch, capfd, *settings, "notify", "test")[0] == 0
    assert json.loads(hook.posts[0][2])["kind"] == "test"
    hook.answer = 403
    code, said = lanfree(monkeypatch, capfd, *settings, "notify", "test", "tickets")
    assert (code, json.loads(said)[0]["told"]) == (3, False)
    assert lanfree(monkeypatch, capfd, *settings, "notify", "test", "nobody")[0] == 1
    code, said = lanfree(monkeypatch, capfd, *settings, "notify", "list")
    assert (code, json.loads(said)[0]["name"], json.loads(said)[0]["waiting"]) == (0, "tickets", 0)


# --- the lookout


def kinds(hook: Hook) -> list[tuple[str, str]]:
    return [(document["kind"], document["about"]) for document in (json.loads(body) for _, _, body in hook.posts)]


@pytest.mark.parametrize(
    ("names", "looks"), [(["alpha"], True), (["alpha", "beta"], True), (["Aardvark", "alpha"], False)]
)
def test_only_the_first_living_proxy_looks_out(
    services: Services, hook: Hook, clock: Clock, names: list[str], looks: bool
) -> None:
    a_night(services.jobs)
    with services.jobs.transaction() as unit:
        for proxy in unit.proxies.list():
            unit.proxies.gone(proxy.name)
        for name in names:
            unit.proxies.beat(ProxyFacts(f"process on {name}", name, NIGHT, NIGHT))
    clock.moment = NIGHT + timedelta(days=3)
    Lookout(services).look()
    services.telling.deliver_due("tickets")
    assert kinds(hook) == ([("coverage", "job nightly")] if looks else [])


def test_machines_that_get_overdue_are_told(services: Services, hook: Hook, clock: Clock) -> None:
    a_night(services.jobs)
    clock.moment = NIGHT + timedelta(hours=2)
    watch = Lookout(services)
    for hours in (0, 24, 25):
        clock.moment = NIGHT + timedelta(hours=2 + hours)
        watch.coverage()
        services.telling.deliver_due("tickets")
    documents = [json.loads(body) for _, _, body in hook.posts]
    assert [document["facts"]["machines"] for document in documents] == [["web-002"], ["web-000", "web-001"]]
