"""How long ``lanfree status`` takes as a whole process, with so many tasks that wait, 20 jobs and a month of history:

    python tests/bench/jobs/bench_status.py [tasks]

Prints the wall clock and the processor time of the quickest and the middle one of nine runs: other work on the machine shows in
the first, hardly in the second.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

from appliance import config, config_editing
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy, Schedule, Window
from catalog.jobs.store import JobStore
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState

RUNS = 9
RUNNING = 40


def fill(url: str, tasks: int) -> None:
    """``tasks`` of ten runs that go on, 40 of them running; twenty jobs, and thirty ended runs of each."""
    now = datetime.now(UTC)
    proxy = ProxyFacts("p1", "proxy-a", now, now, frozenset({"iqn.2026-11.org.example:a"}), "1", RUNNING)
    with JobStore(url) as store:
        with store.transaction() as unit:
            jobs = [unit.jobs.add(f"job-{n:02}", _policy(n), now) for n in range(20)]
            for job in jobs:
                for day in range(1, 31):
                    past = _run(job, now - timedelta(days=day))
                    unit.runs.begin(past)
                    unit.runs.end(past.id, JobRunState.DONE, past.started_at + timedelta(hours=1))
            runs = [_run(job, now) for job in jobs[:10]]
            for run in runs:
                unit.runs.begin(run)
            unit.tasks.add([_task(runs[n % 10], n) for n in range(tasks)])
        with store.transaction() as unit:
            unit.proxies.beat(proxy)
        for _ in range(RUNNING):
            with store.transaction() as unit:
                unit.tasks.claim(proxy, now, Limits({"host": 2, "place": 4}))


def _policy(number: int) -> Policy:
    return Policy(schedule=Schedule(at=(time(number % 24, 5),)), window=(Window(start=time(22), end=time(6)),))


def _run(job: Job, at: datetime) -> JobRun:
    return JobRun(f"{job.name}-{at:%Y%m%d}", job.id, job.name, job.policy, Cause.SCHEDULE, at, JobRunState.RUNNING, at)


def _task(run: JobRun, number: int) -> Task:
    keys = (
        f"machine:m{number}",
        f"host:h{number % 100}",
        f"place:p{number % 200}",
        f"place:q{number % 77}",
        "repository:r",
    )
    facts = {"machine": f"m{number}", "machine_name": f"vm-{number}", "host": f"h{number % 100}", "keys": keys}
    return Task(f"t{number:05}", run.id, TaskKind.BACKUP, TaskState.WAITING, **facts)  # type: ignore[arg-type]


def main(tasks: int) -> None:
    """Fill, ask, print."""
    with tempfile.TemporaryDirectory(prefix="bench-status-") as made:
        home = Path(made)
        (home / "state").mkdir()
        configuration = home / "lanfree.toml"
        configuration.write_text(
            config_editing.new_text(config.Repository(path=home / "r", unencrypted=True), home / "state")
        )
        fill(f"sqlite:///{home}/state/catalog.db", tasks)
        words = [sys.executable, "-m", "appliance.cli", "-c", str(configuration), "status"]
        wall, processor = [], []
        for _ in range(RUNS):
            before, begun = os.times(), perf_counter()
            done = subprocess.run(words, capture_output=True, check=False)
            wall.append(perf_counter() - begun)
            after = os.times()
            processor.append(
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            if done.returncode not in (0, 7):
                raise SystemExit(done.stderr.decode())
    for name, seconds in (("wall clock", wall), ("processor", processor)):
        print(f"{tasks} tasks, {name:<10}: best {1000 * min(seconds):.0f} ms, median {1000 * median(seconds):.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
