"""How long the API takes to preview a policy while somebody types it, and to show the dashboard, with thirty nights of
history:

python tests/bench/api/bench_jobs.py [machines of the site] [machines of the history]

Machines are in memory, databases are SQLite's; the first answer of each kind is cold, what is given is the median and the
worst of ten more."""

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

from starlette.testclient import TestClient

from api.app import create_app
from api.auth.roles import Role
from api.settings import WebSettings
from appliance.web.desk import desk_of
from catalog.jobs import rows
from catalog.jobs.tables import TaskRow
from catalog.jobs.values import Cause, JobRun, JobRunState, Task, TaskKind, TaskState
from tests.unit.api.api_site import ApiSite, Callers, site_in

NIGHTS = 30

POLICY = {
    "select": {"include": ["name=vm-*"], "exclude": ["name=*7"]},
    "schedule": {"cron": "0 22 * * *"},
    "window": ["22:00-06:00"],
    "retention": {"daily": 14, "monthly": 12, "yearly": 3},
    "active_full": {"days": 30},
}


def main() -> None:
    """Prints a table."""
    here, past = (int(word) for word in (*sys.argv[1:], "1000", "10000")[:2])
    with tempfile.TemporaryDirectory() as directory:
        site = site_in(Path(directory))
        with site.services as services:
            services.make_repository()
            for number in range(here):
                site.memory.add(f"vm-{number:05d}", {"vda": bytes(4096)})
            history(site, past)
            client = Callers(create_app(desk_of(services), WebSettings(console=False)), services)
            api = client.client(Role.ADMINISTRATOR, name="admin")
            print(f"{here} machines; {NIGHTS} nights of {past} backups")
            show("POST /jobs/preview", api, lambda: api.post("/api/v1/jobs/preview", json={"policy": POLICY}))
            for path in ("overview", "plan", "job-runs", "job-runs/r29", "job-runs/r29/tasks", "job-runs/r29/log"):
                show(f"GET /{path}", api, lambda path=path: api.get(f"/api/v1/{path}"))  # type: ignore[misc]


def show(what: str, api: TestClient, ask: Callable[[], object]) -> None:
    """One line."""
    took: list[float] = []
    for _ in range(11):
        begin = perf_counter()
        answer = ask()
        took.append(1000 * (perf_counter() - begin))
        assert getattr(answer, "status_code", 0) == 200, answer
    first, *others = took
    print(f"{what:<28} first {first:7.0f} ms, then {median(others):7.0f} ms, worst {max(others):7.0f} ms")


def history(site: ApiSite, machines: int) -> None:
    """A run a night, each machine in it."""
    job = site.job("nightly", select={"include": [""]}, schedule={"at": ["22:00"]})
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    measures = {"bytes_read": 10**9, "bytes_new": 10**8, "bytes_stored": 5 * 10**7, "stages": {"bottleneck": "source"}}
    for night in range(NIGHTS):
        begin = today - timedelta(days=NIGHTS - 1 - night, hours=9)
        run = JobRun(f"r{night}", job.id, job.name, job.policy, Cause.SCHEDULE, begin, JobRunState.RUNNING, begin)
        tasks = [
            Task(
                f"r{night}-{n:05d}", run.id, TaskKind.BACKUP, TaskState.FAILED if n % 500 == 0 else TaskState.DONE,
                f"id-{n}", f"vm-{n:05d}", f"h{n % 40}", ("place:lun1",), order=begin, expected_seconds=60.0,
                claimed_at=begin + timedelta(seconds=n), ended_at=begin + timedelta(seconds=n + 60), measures=measures,
            )
            for n in range(machines)
        ]  # fmt: skip
        with site.services.jobs.transaction() as unit:
            unit.runs.begin(run)
            rows.insert_all(unit.session, TaskRow, [rows.of_task(task) for task in tasks])
            unit.runs.end(run.id, JobRunState.DONE, begin + timedelta(hours=3))


if __name__ == "__main__":
    main()
