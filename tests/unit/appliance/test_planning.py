"""From jobs to tasks and to a night's plan; what ``lanfree plan`` says of it. The site lives in memory."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import app
from appliance.cli.app import Context
from appliance.config import parse
from appliance.jobs.estimating import Basis
from appliance.night import Preview, preview
from appliance.planning import tasks_of
from appliance.selecting import facts_of, look
from appliance.wiring import Services
from catalog.jobs.policy import Cadence, Policy, Schedule, Selection, Window
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import Consistency, Level, MachineConfiguration, MachineId, Reason, ReasonCode, RestorePoint
from tests.unit.appliance.keeping.sealed_points import StandingClock, seal

pytestmark = pytest.mark.slow

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TEN = NOON + timedelta(hours=10)
DAY = timedelta(days=1)
ALL = Selection(include=("",))
NIGHTLY = Policy(
    select=ALL, schedule=Schedule(at=(time(22),)), window=(Window(start=time(22), end=time(6)),), priority=3
)


@dataclass
class Site:
    services: Services
    memory: MemoryHypervisor

    def add(self, *names: str, host: str = "h1") -> list[MachineId]:
        made = [self.memory.add(name, {"vda": bytes(4096)}) for name in names]
        for machine in made:
            if host != "h1":
                self.memory.migrate(machine, host)
        return made

    def point(self, machine: MachineId, at: datetime, level: Level = Level.FULL) -> None:
        """As the catalog records one."""
        made = RestorePoint(
            f"{machine}-{at:%Y%m%d%H%M%S}",
            machine,
            "x",
            "h1",
            "r",
            at,
            level,
            Consistency.CRASH,
            (),
            MachineConfiguration("", ""),
        )
        with self.services.catalog.transaction() as unit:
            unit.restore_points.add(made)

    def measured(self, machine: MachineId, seconds: float, now: datetime = NOON) -> None:
        """A task of that length has ended."""
        with self.services.jobs.transaction() as unit:
            task = unit.tasks.hold(
                f"run-{machine}-{seconds}", machine, "x", now - timedelta(seconds=seconds), proxy="p"
            )
            assert unit.tasks.end(task.id, TaskState.DONE, now)

    def tasks(self, policy: Policy = NIGHTLY, now: datetime = TEN, *, full: bool = False) -> list[Task]:
        run = JobRun(
            "jr1",
            "j1",
            "nightly",
            policy,
            Cause.SCHEDULE,
            now,
            JobRunState.RUNNING,
            now,
            deadline=now + timedelta(hours=8),
        )
        chosen = look(self.services).choose(policy.select).machines
        return tasks_of(self.services, run, chosen, facts_of(self.services), now, full=full)

    def job(self, name: str, policy: Policy, now: datetime = NOON) -> None:
        with self.services.jobs.transaction() as unit:
            unit.jobs.add(name, policy, now)

    def night(self, hours: float = 24, now: datetime = NOON) -> Preview:
        return preview(self.services, hours, now)


def configured(tmp_path: Path, more: str = "") -> Path:
    file = tmp_path / "lanfree.toml"
    where = f'[repository]\npath = "{tmp_path}/r"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/s"\n'
    file.write_text(where + more)
    return file


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    file = configured(tmp_path, "[limits]\nper_host = 1\nfull_per_host = 1\n")
    memory = MemoryHypervisor()
    with Services(parse(file.read_text(), file)) as services:
        services.make_repository()
        services.__dict__["hypervisor"] = Sites([memory], lambda _configuration, _new: None)
        services.clock = StandingClock(NOON)  # type: ignore[assignment]  # a clock all the same
        yield Site(services, memory)


# --- tasks of a run ------------------------------------------------------------------------------------------------------


def test_tasks_name_what_they_occupy_and_are_in_planned_order(site: Site) -> None:
    short, long = site.add("short", "long")
    for machine, seconds in ((short, 60.0), (long, 3600.0)):
        site.point(machine, NOON - DAY)
        site.measured(machine, seconds)
    first, second = site.tasks()
    assert [first.machine_name, second.machine_name] == ["long", "short"]
    assert [first.id, second.id] == ["jr1-00000", "jr1-00001"]
    repository = site.services.repository.settings.id.hex()
    assert {f"machine:{long}", "host:h1", f"repository:{repository}"} <= set(first.keys)
    assert not any(key.startswith("full:") for key in first.keys)
    assert (first.order, second.order) == (TEN, TEN + timedelta(hours=1))
    assert (first.expected_seconds, first.full) == (3600.0, False)
    assert [(reason.code, reason.detail) for reason in first.reasons] == [
        (ReasonCode.MADE_BY_JOB, "nightly"),
        (ReasonCode.MADE_BY_JOB_ID, "j1"),
    ]
    assert first.deadline == TEN + timedelta(hours=8)


def test_a_first_backup_is_a_heavy_one_and_so_is_one_that_was_asked_for(site: Site) -> None:
    old, _ = site.add("old", "new")
    site.point(old, NOON - DAY)
    full = {task.machine_name: (task.full, "full:host:h1" in task.keys) for task in site.tasks()}
    assert full == {"old": (False, False), "new": (True, True)}
    assert all(task.full and "full:host:h1" in task.keys for task in site.tasks(full=True))


def test_a_catalog_that_was_lost_makes_nobody_read_everything_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository knows them; where asking for each would take too long they count as heavy, and nothing is demanded."""
    known, _ = site.add("a", "b")
    seal(site.services.repository, NOON - DAY, machine=known)
    assert {task.machine_name: task.full for task in site.tasks()} == {"a": False, "b": True}
    monkeypatch.setattr("appliance.planning.FEW", 1)
    assert {task.machine_name: (task.full, "full:host:h1" in task.keys) for task in site.tasks()} == {
        "a": (False, True),
        "b": (False, True),
    }


@pytest.mark.slow
def test_active_fulls_are_due_for_some_tonight_and_say_why(site: Site) -> None:
    machines = site.add(*(f"m{n}" for n in range(10)))
    for machine in machines:
        site.point(machine, TEN - DAY)
    policy = NIGHTLY.model_copy(update={"active_full": Cadence(days=5)})
    due = [task for task in site.tasks(policy) if task.full]
    assert len(due) == 2
    for task in due:
        assert task.reasons[2] == Reason(ReasonCode.ACTIVE_FULL_DUE, "once in 5 days")
    late = [task for task in site.tasks(policy, TEN + 6 * DAY) if task.full]
    assert len(late) == 10


def test_an_incremental_does_not_put_off_the_next_full(site: Site) -> None:
    (machine,) = site.add("m")
    site.point(machine, TEN - 7 * DAY)
    site.point(machine, TEN - DAY, Level.INCREMENTAL)
    policy = NIGHTLY.model_copy(update={"active_full": Cadence(days=7)})
    assert [task.full for task in site.tasks(policy)] == [True]
    site.point(machine, TEN - 2 * DAY)
    assert [task.full for task in site.tasks(NIGHTLY.model_copy(update={"active_full": Cadence(days=40)}))] == [False]


@pytest.mark.slow
def test_what_is_too_long_for_any_window_begins_first_and_goes_on_in_the_next(site: Site) -> None:
    huge, small = site.add("huge", "small")
    for machine, seconds in ((huge, 20 * 3600.0), (small, 600.0)):
        site.point(machine, NOON - DAY)
        site.measured(machine, seconds)
    assert [task.machine_name for task in site.tasks()] == ["huge", "small"]


# --- the night -----------------------------------------------------------------------------------------------------------


def test_the_night_holds_all_jobs_and_names_what_is_in_none(site: Site) -> None:
    site.add("web1", "web2", "db1", "lost", "manual")
    site.job("web", NIGHTLY.model_copy(update={"select": Selection(include=("name=web*",))}))
    site.job("db", Policy(select=Selection(include=("name=db*",)), schedule=Schedule(cron="0 23 * * *")))
    site.job("by-hand", Policy(select=Selection(include=("name=manual",))))
    seen = site.night()
    assert [(run.job, run.begin, run.machines) for run in seen.runs] == [
        ("web", TEN, 2),
        ("db", TEN + timedelta(hours=1), 1),
    ]
    assert sorted(entry.item.name for entry in seen.plan.entries) == ["db1", "web1", "web2"]
    assert [machine.name for machine in seen.in_no_job] == ["lost"]
    assert [machine.name for machine in seen.unscheduled] == ["manual"]
    assert any("by-hand" in note for note in seen.notes)
    begins = [entry.begin for entry in seen.plan.entries]
    assert begins == sorted(begins)
    assert begins[0] == TEN


def test_a_job_that_does_not_begin_in_these_hours_says_when_it_does(site: Site) -> None:
    site.add("m")
    site.job("nightly", NIGHTLY)
    seen = site.night(hours=2)
    assert seen.plan.entries == ()
    assert seen.notes == ("job nightly does not begin in this time (next 2026-11-23 22:00 UTC)",)


def test_what_became_due_and_was_not_begun_is_planned_for_now(site: Site) -> None:
    site.add("m")
    site.job("nightly", NIGHTLY.model_copy(update={"window": ()}), TEN - 2 * DAY)
    seen = site.night(hours=2, now=NOON)
    assert [(entry.item.name, entry.begin) for entry in seen.plan.entries] == [("m", NOON)]


@pytest.mark.parametrize(("missed", "begins"), [("run", [TEN]), ("skip", [])])
def test_a_begin_outside_of_the_window_waits_for_it_or_is_skipped(
    site: Site, missed: str, begins: list[datetime]
) -> None:
    site.add("m")
    early = Schedule(at=(time(21),), missed=missed)  # type: ignore[arg-type]
    site.job("nightly", NIGHTLY.model_copy(update={"schedule": early}))
    seen = site.night()
    assert [entry.begin for entry in seen.plan.entries] == begins
    assert any("skips 2026-11-23 21:00" in note for note in seen.notes) == (missed == "skip")


def test_the_second_run_of_a_night_expects_what_the_first_will_have_made(site: Site) -> None:
    site.add("new")
    site.job("twice", Policy(select=ALL, schedule=Schedule(at=(time(20), time(23)))))
    assert [entry.item.full for entry in site.night().plan.entries] == [True, False]


@pytest.mark.slow
def test_a_run_that_is_under_way_keeps_its_place(site: Site) -> None:
    running, waiting = site.add("a", "b")
    for machine in (running, waiting):
        site.point(machine, NOON - DAY)
    now = datetime.now(UTC)
    with site.services.jobs.transaction() as unit:
        job = unit.jobs.add("nightly", NIGHTLY, now)
        run = JobRun("jr1", job.id, "nightly", NIGHTLY, Cause.MANUAL, now, JobRunState.RUNNING, now)
        assert unit.runs.begin(run)
        keys = [f"machine:{m}" for m in (running, waiting)]
        unit.tasks.add(
            [
                Task(
                    "jr1-0",
                    "jr1",
                    TaskKind.BACKUP,
                    TaskState.WAITING,
                    running,
                    "a",
                    "h1",
                    (keys[0], "host:h1"),
                    expected_seconds=600.0,
                ),
                Task(
                    "jr1-1",
                    "jr1",
                    TaskKind.BACKUP,
                    TaskState.WAITING,
                    waiting,
                    "b",
                    "h1",
                    (keys[1], "host:h1"),
                    expected_seconds=60.0,
                ),
            ]
        )
        proxy = ProxyFacts("p1", "here", now, now)
        assert unit.proxies.beat(proxy)
        assert unit.tasks.claim(proxy, now, site.services.limits) is not None
    seen = site.night(hours=1, now=now)
    assert (seen.runs[0].job, seen.runs[0].under_way) == ("nightly", "jr1")
    (entry,) = [entry for entry in seen.plan.entries if entry.item.run == "jr1"]
    assert (entry.item.name, entry.waited_for) == ("b", "host:h1")
    assert abs((entry.begin - now).total_seconds() - 600) < 1
    assert seen.night.slots == 2


def test_a_job_s_own_limit_counts_what_it_runs_already(site: Site) -> None:
    machines = site.add(*(f"m{n}" for n in range(3)))
    for number, machine in enumerate(machines):
        site.memory.migrate(machine, f"h{number % 2 + 1}")
    now = datetime.now(UTC)
    alone = NIGHTLY.model_copy(update={"parallel": 1})
    with site.services.jobs.transaction() as unit:
        job = unit.jobs.add("nightly", alone, now)
        assert unit.runs.begin(JobRun("jr1", job.id, "nightly", alone, Cause.MANUAL, now, JobRunState.RUNNING, now))
        proxy = ProxyFacts("p1", "here", now, now)
        assert unit.proxies.beat(proxy)
        waiting = TaskState.WAITING
        unit.tasks.add(
            [
                Task(f"t{n}", "jr1", TaskKind.BACKUP, waiting, m, f"m{n}", f"h{n}", expected_seconds=600.0)
                for n, m in enumerate(machines)
            ]
        )
        assert unit.tasks.claim(proxy, now, site.services.limits) is not None
    entries = [entry for entry in site.night(hours=1, now=now).plan.entries if entry.item.run == "jr1"]
    assert [round((entry.begin - now).total_seconds(), -1) for entry in entries] == [600, 1200]
    assert {entry.waited_for for entry in entries} == {"job:jr1"}


@pytest.mark.slow
def test_measured_durations_are_what_the_plan_counts_with(site: Site) -> None:
    known, other = site.add("known", "other")
    for machine in (known, other):
        site.point(machine, NOON - DAY)
    site.measured(known, 1234.0)
    site.job("nightly", NIGHTLY)
    basis = {e.item.name: (e.item.estimate.basis, e.item.estimate.seconds) for e in site.night().plan.entries}
    assert basis["known"] == (Basis.MEASURED, 1234.0)
    assert basis["other"] == (Basis.HOST, 1234.0)


# --- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(
    site: Site, tmp_path: Path, lanfree: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """``lanfree`` with this site for its hypervisors."""
    monkeypatch.setattr(Context, "services", lambda _context: site.services)
    return lanfree


def test_the_command_shows_the_night(site: Site, command: Callable[..., Any]) -> None:
    site.add("a", "b", "spare")
    site.job("nightly", NIGHTLY.model_copy(update={"select": Selection(include=("name=[ab]",))}))
    code, document, _ = command("plan")
    assert code == 0
    assert sorted(entry["name"] for entry in document["entries"]) == ["a", "b"]
    assert document["entries"][0]["begin"] == TEN.isoformat()
    assert document["entries"][1]["waited_for"] == "host:h1"
    assert document["hosts"] == [{"host": "h1", "at_once": 1}]
    assert [machine["name"] for machine in document["in_no_job"]] == ["spare"]
    assert "advice" not in document


@pytest.mark.slow
def test_what_has_no_place_needs_attention_and_advice_says_what_would_help(
    site: Site, command: Callable[..., Any]
) -> None:
    for machine in site.add(*(f"m{n}" for n in range(4))):
        site.point(machine, NOON - DAY)
        site.measured(machine, 3 * 3600.0)
    site.job("nightly", NIGHTLY)
    code, document, said = command("plan", "--advise")
    assert code == 7
    assert len(document["unfit"]) == 2
    assert document["unfit"][0]["waited_for"] == "host:h1"
    assert "2 machines would not be backed up in time" in said
    raised = [one for one in document["advice"] if one["change"] == "limit"]
    assert [(one["key"], one["value"], one["after"]["unfit"]) for one in raised] == [("host:h1", "2", 0)]


@pytest.mark.slow
def test_one_job_is_shown_and_the_others_still_take_their_room(site: Site, command: Callable[..., Any]) -> None:
    for machine in site.add("a", "b"):
        site.point(machine, NOON - DAY)
        site.measured(machine, 3600.0)
    site.job("first", NIGHTLY.model_copy(update={"select": Selection(include=("name=a",)), "priority": 9}))
    site.job("second", NIGHTLY.model_copy(update={"select": Selection(include=("name=b",))}))
    code, document, _ = command("plan", "--job", "second")
    assert code == 0
    assert [(entry["name"], entry["begin"]) for entry in document["entries"]] == [
        ("b", (TEN + timedelta(hours=1)).isoformat())
    ]
    code, _, said = command("plan", "--job", "third")
    assert code != 0
    assert "third" in said


@pytest.mark.slow
def test_people_see_a_table_and_a_line_for_each_host(
    site: Site,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    site.add("alpha")
    site.add("beta", host="h2")
    site.job("nightly", NIGHTLY)
    command("plan")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["lanfree", "--config", str(tmp_path / "lanfree.toml"), "plan", "--advise"])
    capfd.readouterr()
    assert app.run() == 0
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("nightly") and "2" in line for line in lines)
    (line,) = [line for line in lines if "alpha" in line]
    assert "all: first" in line
    assert line.rstrip().endswith(" s?"), "less than two minutes are told in seconds"
    assert any(line.startswith("? nothing is measured there yet") for line in lines)
    assert not any("WHY" in line for line in lines)
    for host in ("h1", "h2"):
        (line,) = [line for line in lines if line.startswith(host)]
        assert "█" in line or "1" in line
    assert any("0 without a place" in line for line in lines)
