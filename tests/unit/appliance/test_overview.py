"""What needs a person, and when jobs come: from a glance at the job store. Pure, but for the last tests."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Repository, load
from appliance.config_editing import new_text
from appliance.jobs.limiting import limited
from appliance.overview import ago, of
from catalog.jobs.glance import Doing, Glance, JobSeen, ProxySeen, RunSeen, Waiting
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
QUIET = Waiting(0, {}, {}, 0, None, 0)
TAKEOVER = 60.0
ALIVE = ProxySeen("p1", "proxy-a", NOW - timedelta(days=1), 2.0, ("iqn.a",), "1", 4)
NIGHTLY = {"schedule": {"at": ["22:00"]}}


def seen(*jobs: JobSeen, proxies: tuple[ProxySeen, ...] = (ALIVE,), doing: tuple[Doing, ...] = ()) -> Glance:
    return Glance(NOW, jobs, doing, QUIET, proxies)


def job(name: str = "nightly", policy: dict[str, Any] | None = None, **facts: Any) -> JobSeen:
    text = Policy.model_validate(NIGHTLY if policy is None else policy).model_dump(mode="json")
    return replace(JobSeen(name, name, True, text, NOW), **facts)


def run(state: JobRunState, *reasons: str, tasks: dict[TaskState, int] | None = None) -> RunSeen:
    began = NOW - timedelta(hours=14)
    return RunSeen("r1", "nightly", "nightly", state, "schedule", began, began, None, None, tasks or {}, reasons)


def attention(glance: Glance) -> tuple[str, ...]:
    return of(glance, TAKEOVER).attention


def test_when_all_is_well_nothing_is_said() -> None:
    assert attention(seen(job(last=run(JobRunState.DONE)))) == ()
    assert attention(seen(proxies=())) == (), "nothing is to be done, so nobody is missed"


def test_a_scheduled_job_that_nobody_would_begin_is_told() -> None:
    (said,) = attention(seen(job(), proxies=()))
    assert "lanfree serve" in said
    assert attention(seen(job(enabled=False), proxies=())) == ()
    assert attention(seen(job(policy={}), proxies=())) == ()


def test_a_silent_proxy_and_what_it_worked_on_are_told() -> None:
    silent = replace(ALIVE, name="p2", machine="proxy-b", silent_for=600.0)
    doing = Doing("t", "", "backup", "web-1", "kvm1", "p2", NOW, 1, False, 0, 0)
    said = attention(seen(proxies=(ALIVE, silent), doing=(doing,)))
    assert said == (
        "proxy proxy-b was last heard of 10 min ago",
        "web-1: the proxy that works on it is not heard of; another one takes over",
    )


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (run(JobRunState.FAILED, tasks={TaskState.FAILED: 2, TaskState.DONE: 3}), "2 of 5 tasks failed"),
        (run(JobRunState.FAILED, "hook-failed: before"), "hook-failed: before"),
        (run(JobRunState.ATTENTION), "needs attention"),
        (run(JobRunState.STOPPED, "window-closed"), "stopped (window-closed)"),
        (run(JobRunState.SKIPPED, "previous-run-under-way"), "skipped (previous-run-under-way)"),
    ],
    ids=["tasks", "hook", "attention", "stopped", "skipped"],
)
def test_a_run_that_did_not_end_well_is_told_until_the_next_does(last: RunSeen, says: str) -> None:
    (said,) = attention(seen(job(last=last)))
    assert said.startswith("job nightly: ")
    assert says in said


def test_what_a_person_stopped_needs_nobody() -> None:
    assert attention(seen(job(last=replace(run(JobRunState.STOPPED), stop_at=NOW)))) == ()


def test_a_time_that_nobody_acted_on_is_told_and_one_that_waits_for_its_window_is_not() -> None:
    late = job(seen=NOW - timedelta(days=1))
    (said,) = attention(seen(late))
    assert "2026-11-22 22:00 UTC" in said
    waits = {**NIGHTLY, "window": ["23:00-06:00"]}
    assert attention(seen(job(policy=waits, seen=NOW - timedelta(days=1)))) == ()
    assert attention(seen(replace(late, now=run(JobRunState.RUNNING)))) == ()


def test_what_comes_is_in_order_and_says_when_the_window_opens() -> None:
    early = {"schedule": {"at": ["13:00"]}, "window": ["20:00-06:00"]}
    made = of(seen(job("late"), job("early", early), job("off", enabled=False), job("hand", {})), TAKEOVER)
    assert [(each.job, each.at, each.opens) for each in made.coming] == [
        ("early", NOW.replace(hour=13), NOW.replace(hour=20)),
        ("late", NOW.replace(hour=22), None),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (300, "5 min"), (3 * 3600 + 600, "3 h 10 min"), (4 * 86400 + 7200, "4 d 2 h")],
)
def test_times_are_as_precise_as_people_need(seconds: int, text: str) -> None:
    assert ago(seconds) == text


Lanfree = Callable[..., tuple[int, Any, str]]


HEAVY = (
    "sqlalchemy",
    "alembic",
    "dbos",
    "numpy",
    "libvirt",
    "pyVmomi",
    "nbd",
    "psycopg",
    "proxy.repository",
    "proxy.transport",
)


@pytest.mark.slow
def test_status_loads_nothing_that_takes_long(tmp_path: Path) -> None:
    """It is asked every few seconds; what it may cost is mostly what it imports (tests/bench/jobs/bench_status.py)."""
    configuration = tmp_path / "lanfree.toml"
    configuration.write_text(new_text(Repository(path=tmp_path / "r", unencrypted=True), tmp_path / "state"))
    (tmp_path / "state").mkdir()
    JobStore(f"sqlite:///{tmp_path}/state/catalog.db").close()
    words = ["lanfree", "-c", str(configuration), "status"]
    program = (
        f"import sys; sys.argv = {words!r}\nfrom appliance.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "nothing runs" in said
    loaded = set(said.splitlines()[-1].split())
    assert "catalog.jobs.glance" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_status_makes_its_tables_tells_what_runs_and_has_an_exit_code_for_monitoring(
    lanfree: Lanfree, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert lanfree("init", "--repository", str(tmp_path / "repo"), "--state", str(state))[0] == 0
    assert lanfree("status")[0] == 0
    assert (state / "jobs.db").exists()
    now = datetime.now(UTC)
    with JobStore(f"sqlite:///{state}/catalog.db") as store:
        with store.transaction() as unit:
            made = unit.jobs.add("nightly", Policy.model_validate(NIGHTLY), now)
            begun = JobRun("r1", made.id, "nightly", made.policy, Cause.MANUAL, now, JobRunState.RUNNING, now)
            assert unit.runs.begin(begun)
            names = ["hostile [red]name[/]\x1b[2J", "web-2"]
            unit.tasks.add(
                [
                    Task(f"t{n}", "r1", TaskKind.BACKUP, TaskState.WAITING, machine=f"m{n}", machine_name=name, host="h1",
                         keys=(f"machine:m{n}", "host:h1"))
                    for n, name in enumerate(names)
                ]
            )  # fmt: skip
        facts = ProxyFacts("p1", "proxy-a", now, now, frozenset(), "1", 4)
        with store.transaction() as unit:
            unit.proxies.beat(facts)
        with store.transaction() as unit:
            assert unit.tasks.claim(facts, now, limited(load(tmp_path / "lanfree.toml").limits)) is not None
            unit.tasks.progress({"t0": (50, 100)})
    code, document, said = lanfree("status")
    assert code == 0, said
    assert [(one["machine"], one["job"], one["share"]) for one in document["running"]] == [(names[0], "nightly", 0.5)]
    assert document["waiting"]["total"] == 1
    assert document["jobs"][0]["now"]["id"] == "r1"
    assert [each["job"] for each in document["coming"]] == ["nightly"]
    with closing(sqlite3.connect(state / "jobs.db")) as connection, connection:
        connection.execute("UPDATE proxies SET seen_at = '2026-01-01 00:00:00.000000'")
    code, document, _ = lanfree("status")
    assert code == 7
    assert "no proxy serves" in document["attention"][0]
    assert lanfree("proxies")[0] == 7
