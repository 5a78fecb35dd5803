"""How long the job store takes with very many machines: ``python -m tests.bench.jobs.bench_store [--machines N] [--nights N]``.

SQLite in a temporary directory, and PostgreSQL where a server is installed. A history of so many nights lies below; then one
more night waits. Each line: the median and the longest of the repetitions, in milliseconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from catalog.jobs import rows
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore, Unit
from catalog.jobs.tables import DurationRow
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from tests.integration.catalog.postgres_server import postgres_server, program

START = datetime(2026, 11, 1, 22, tzinfo=UTC)
HOSTS, PLACES, JOBS = 100, 40, 10
LIMITS = Limits({"host": 2, "place": 4, "repository": 32})
PROXY = ProxyFacts("p1", "bench", START, START, frozenset({"iqn.a"}), slots=1000)


@contextmanager
def stores() -> Iterator[dict[str, JobStore]]:
    """A new store in each kind of database."""
    with tempfile.TemporaryDirectory() as directory, JobStore(f"sqlite:///{directory}/catalog.db") as sqlite:
        if program() is None:
            yield {"SQLite": sqlite}
            return
        with postgres_server() as server, JobStore(server.url(server.database())) as postgresql:
            yield {"SQLite": sqlite, "PostgreSQL": postgresql}


def night(store: JobStore, jobs: list[Job], number: int, machines: int, *, ended: bool) -> None:
    """A run of each job, with its share of the machines."""
    at = START + timedelta(days=number)
    with store.transaction() as unit:
        for which, job in enumerate(jobs):
            run = JobRun(
                f"{job.name}-{number}", job.id, job.name, job.policy, Cause.SCHEDULE, at, JobRunState.RUNNING, at
            )
            unit.runs.begin(run)
            tasks = [task(run, machine, at) for machine in range(which, machines, len(jobs))]
            if ended:
                tasks = [replace(t, state=TaskState.DONE, ended_at=at, proxy="p0", run=f"run-{t.id}") for t in tasks]
            unit.tasks.add(tasks)
            if ended:
                unit.runs.end(run.id, JobRunState.DONE, at)


def task(run: JobRun, number: int, at: datetime) -> Task:
    host = f"host:h{number % HOSTS}"
    places = (f"place:d{number % PLACES}", f"place:d{number * 7 % PLACES}")
    facts = (f"m{number}", f"machine {number}", host, (f"machine:m{number}", host, *sorted({*places}), "repository:r"))
    state = (TaskKind.BACKUP, TaskState.WAITING)
    return Task(
        f"{run.id}-{number:05d}", run.id, *state, *facts, order=at + timedelta(seconds=number), full=number % 7 == 0
    )


def measure(what: str, times: int, function: Callable[[], object]) -> None:
    """Print how long it takes."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        taken.append((time.perf_counter() - begun) * 1000)
    print(f"  {what:<58}{statistics.median(taken):>10.1f}{max(taken):>10.1f}")


def look(store: JobStore, machines: int, nights: int) -> None:
    """All that is measured in one store."""
    with store.transaction() as unit:
        jobs = [unit.jobs.add(f"job{number}", Policy(), START) for number in range(JOBS)]
    for number in range(nights):
        night(store, jobs, number, machines, ended=True)
    with store.transaction() as unit:
        known = {"kind": "backup", "full": False, "seconds": [60.0] * 7, "ended_at": START}
        of_machines = [{"machine": f"m{n}", "machine_name": f"machine {n}", **known} for n in range(machines)]
        rows.insert_all(unit.session, DurationRow, of_machines)
    begun = time.perf_counter()
    night(store, jobs, nights, machines, ended=False)
    print(f"  {'adding a night':<58}{(time.perf_counter() - begun) * 1000:>10.1f}")
    now = START + timedelta(days=nights, hours=1)
    runs = [f"{job.name}-{nights}" for job in jobs]

    def claim(closed: tuple[str, ...] = ()) -> Task | None:
        with store.transaction() as unit:
            return unit.tasks.claim(PROXY, now, LIMITS, closed=closed)

    measure("a claim, the limits still free", 32, claim)
    assert claim() is None
    measure("a claim, nothing can begin (the repository is full)", 20, claim)
    with store.transaction() as unit:
        for running in unit.tasks.running():
            unit.tasks.end(running.id, TaskState.DONE, now)
    only_last = tuple(f"host:h{number}" for number in range(HOSTS - 1))
    measure("a claim, 99 of 100 hosts closed", 2, lambda: claim(only_last))
    measure("beat", 20, lambda: _write(store, lambda unit: unit.proxies.beat(PROXY)))
    measure("what holds waiting tasks up", 5, lambda: _read(store, lambda u: u.tasks.waiting_for(now, LIMITS)))
    measure("counts of the runs under way", 5, lambda: _read(store, lambda u: u.tasks.counts(runs)))
    measure("running tasks", 5, lambda: _read(store, lambda u: u.tasks.running()))
    measure("newest 10 job runs", 5, lambda: _read(store, lambda u: u.runs.list(limit=10)))
    measure("durations of all machines", 5, lambda: _read(store, lambda u: u.tasks.durations()))
    measure("all tasks of a run, as values", 3, lambda: _read(store, lambda u: u.tasks.of_run(runs[0])))
    if nights:
        measure("forgetting a night", 1, lambda: store.forget(START + timedelta(hours=1)))


def _read(store: JobStore, function: Callable[[Unit], object]) -> None:
    with store.transaction(write=False) as unit:
        function(unit)


def _write(store: JobStore, function: Callable[[Unit], object]) -> None:
    with store.transaction() as unit:
        function(unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--nights", type=int, default=10)
    asked = parser.parse_args()
    with stores() as opened:
        for name, store in opened.items():
            print(
                f"{name}: {asked.machines} machines in {JOBS} jobs, {asked.nights} nights of history    (ms: median, longest)"
            )
            look(store, asked.machines, asked.nights)


if __name__ == "__main__":
    main()
