"""How long a scrape of the metrics, and a job run's report, take with very many machines:
``python -m tests.bench.jobs.bench_telling [--machines N] [--jobs N]``.

SQLite in a temporary directory. Two weeks of nights lie below. Seconds of each repetition, and bytes of what was made.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from appliance.telling.facts import Gatherer
from appliance.telling.html import rendered
from appliance.telling.metrics import Metrics
from appliance.telling.report import EARLIER, report_of
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.jobs.tables import DurationRow
from catalog.jobs.values import Job
from catalog.unit_of_work import Catalog
from proxy.units import GiB
from tests.unit.appliance.telling.nights import NIGHT, a_point, a_run, a_task

T = TypeVar("T")
REPETITIONS = 3
STAGES = {"seconds": 60.0, "source": 30.0, "proxy": 20.0, "repository": 10.0, "bottleneck": "source"}
MEASURES = {"bytes_read": 3 * GiB, "bytes_new": GiB, "bytes_stored": GiB // 2, "over_host": 0, "stages": STAGES}


def night(store: JobStore, jobs: list[Job], number: int, machines: int) -> None:
    """An ended run of each job, with its share of the machines."""
    at = NIGHT + timedelta(days=number)
    with store.transaction() as unit:
        for which, job in enumerate(jobs):
            run = a_run(id=f"{job.name}-{number}", job=job.id, job_name=job.name)
            ended = at + timedelta(hours=2)
            unit.runs.begin(replace(run, started_at=at, scheduled_for=at, ended_at=ended))
            facts = {"job_run": run.id, "measures": MEASURES}
            unit.tasks.add(
                [a_task(n, id=f"{run.id}-{n}", point=f"p{n}", **facts) for n in range(which, machines, len(jobs))]
            )


def timed(what: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    made = work()
    print(f"{what:<60} {time.perf_counter() - began:7.3f} s")
    return made


def scrapes(store: JobStore, directory: Path) -> None:
    now = NIGHT + timedelta(days=EARLIER)
    gatherer = Gatherer(lambda: store, {"repository": directory}, lambda: now, tuple)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(gatherer.facts, machines=200_000, min_age=0))
    for number in range(REPETITIONS):
        text = timed(f"scrape {number + 1}", lambda: generate_latest(registry))
        print(f"    {len(text)} bytes")


def reports(store: JobStore, catalog: Catalog, job: str, machines: int) -> None:
    run = f"{job}-{EARLIER - 1}"
    report = timed(f"read the report of {machines} machines", lambda: report_of(store, catalog, run))
    page = timed("make its page", lambda: rendered(report, NIGHT))
    print(f"    {len(page)} bytes, {len(report.earlier)} runs before it")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--machines", type=int, default=10_000)
    options.add_argument("--jobs", type=int, default=20)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/catalog.db"
        with JobStore(url) as store, Catalog(url) as catalog:
            with store.transaction() as unit:
                jobs = [unit.jobs.add(f"job{n}", Policy(), NIGHT) for n in range(chosen.jobs)]
                for n in range(chosen.machines):
                    facts = {"kind": "backup", "full": False, "seconds": [60.0], "ended_at": NIGHT}
                    unit.session.add(DurationRow(machine=f"m{n}", machine_name=f"web-{n}", **facts))
            for number in range(EARLIER):
                night(store, jobs, number, chosen.machines)
            with catalog.transaction() as of_catalog:
                for n in range(0, chosen.machines, chosen.jobs):
                    of_catalog.restore_points.add(a_point(n))
            scrapes(store, Path(directory))
            reports(store, catalog, "job0", len(range(0, chosen.machines, chosen.jobs)))


if __name__ == "__main__":
    main()
