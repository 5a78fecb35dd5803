"""What people read of ``lanfree status``, within the 80 columns of a plain terminal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

from rich.console import Console

from appliance.cli.status import _human
from appliance.overview import of
from catalog.jobs.glance import Doing, Glance, JobSeen, ProxySeen, RunSeen, Waiting
from catalog.jobs.policy import Policy
from catalog.jobs.values import JobRunState, TaskState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RUN = RunSeen(
    "j1", "nightly", "nightly", JobRunState.RUNNING, "schedule", NOW, None, None, None,
    {TaskState.DONE: 3, TaskState.FAILED: 1, TaskState.RUNNING: 1, TaskState.WAITING: 9},
)  # fmt: skip
JOB = JobSeen("nightly", "nightly", True, Policy().model_dump(mode="json"), NOW, None, RUN)
PROXY = ProxySeen("vm-1-ab", "proxy-a", NOW - timedelta(hours=3), 2.0, (), "1", 4, frozenset({"place:array/3"}))
DOING = Doing("t1", "j1", "backup", "web-1", "kvm1", "vm-1-ab", NOW - timedelta(minutes=3), 2, True, 25, 100)
WAITING = Waiting(9, {"host:kvm1": 2, "place:array/3": 5}, {"j1": 1}, 1, NOW + timedelta(hours=1), 3)


def text(glance: Glance) -> str:
    out = StringIO()
    console = Console(file=out, width=80)
    for part in _human(of(glance, 60.0), 60.0):
        console.print(part, markup=False)
    return out.getvalue()


def test_it_says_what_runs_how_far_and_what_waits_for_which_limit() -> None:
    said = text(Glance(NOW, (JOB,), (DOING,), WAITING, (PROXY,)))
    assert "web-1    nightly  kvm1  proxy-a  25 %  3 min  reads everything, attempt 2" in said
    flat = " ".join(said.split())
    assert "9 tasks wait: 5 for place:array/3 (closed for now); 2 for host:kvm1; 1 for job nightly" in flat
    assert "1 for another attempt, from Mon" in flat
    assert "3 for a free slot" in flat
    assert "4 of 14, 1 failed" in flat
    assert "proxy-a 3 h 0 min 2 s ago 1 of 4" in flat


def test_a_quiet_site_takes_few_lines() -> None:
    idle = replace(JOB, now=None)
    quiet = Glance(NOW, (idle,), (), Waiting(0, {}, {}, 0, None, 0), (PROXY,))
    assert text(quiet).splitlines()[0] == "nothing runs"
    assert len(text(quiet).splitlines()) == 5
    assert text(replace(quiet, jobs=(), proxies=())).split("\n") == ["nothing runs", "no proxy serves", ""]


def test_many_jobs_do_not_scroll_what_runs_off_the_screen() -> None:
    jobs = tuple(replace(JOB, id=f"j{n}", name=f"job-{n:03}", now=None) for n in range(300))
    said = text(Glance(NOW, jobs, (), Waiting(0, {}, {}, 0, None, 0), ()))
    assert "and 280 more jobs: 'lanfree job list'" in said
    assert len(said.splitlines()) < 30
