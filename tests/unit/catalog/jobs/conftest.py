"""Jobs, runs and tasks for the job store's tests, in either kind of database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState

if TYPE_CHECKING:
    from tests.integration.catalog.postgres_server import PostgresServer

START = datetime(2026, 11, 1, 22, tzinfo=UTC)


class Site:
    """A store with what most tests begin with."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.now = START

    def job(self, name: str = "nightly", **policy: object) -> Job:
        with self.store.transaction() as unit:
            return unit.jobs.add(name, Policy.model_validate(policy), self.now)

    def run(self, job: Job, minute: int = 0, **facts: object) -> JobRun:
        """A run of minute so and so, begun."""
        at = self.now + timedelta(minutes=minute)
        run = JobRun(f"{job.name}-{minute}", job.id, job.name, job.policy, Cause.SCHEDULE, at, JobRunState.RUNNING, at)
        run = replace(run, **facts)  # type: ignore[arg-type]
        with self.store.transaction() as unit:
            assert unit.runs.begin(run)
        return run

    def task(self, run: JobRun, number: int, *keys: str, **facts: object) -> Task:
        """Not yet added."""
        values: dict[str, object] = {
            "id": f"{run.id}-{number:05d}",
            "job_run": run.id,
            "kind": TaskKind.BACKUP,
            "state": TaskState.WAITING,
            "machine": f"m{number}",
            "machine_name": f"name of m{number}",
            "host": "h1",
            "keys": (f"machine:m{number}", *sorted(keys)),
            "order": START + timedelta(minutes=number),
        }
        return Task(**{**values, **facts})  # type: ignore[arg-type]

    def add(self, *tasks: Task) -> None:
        with self.store.transaction() as unit:
            unit.tasks.add(tasks)

    def proxy(self, name: str = "p1", *paths: str, slots: int = 100) -> ProxyFacts:
        """A proxy that has just been heard of."""
        facts = ProxyFacts(name, f"machine of {name}", START, START, frozenset(paths), "1", slots)
        with self.store.transaction() as unit:
            assert unit.proxies.beat(facts)
        return facts


@pytest.fixture
def jobs_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a catalog, whose job store is up to date already: migrations take longer than most tests."""
    if database_kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_jobs_template")
        (tmp_path / "jobs.db").write_bytes(template.read_bytes())
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.database(request.getfixturevalue("postgres_jobs_template"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture(scope="session")
def sqlite_jobs_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template-of-jobs")
    JobStore(f"sqlite:///{path}/catalog.db").close()
    return path / "jobs.db"


@pytest.fixture(scope="session")
def postgres_jobs_template(postgres: "PostgresServer") -> str:
    name = postgres.database()
    JobStore(postgres.url(name)).close()
    return name


@pytest.fixture
def store(jobs_url: str) -> Iterator[JobStore]:
    with JobStore(jobs_url) as opened:
        yield opened


@pytest.fixture
def site(store: JobStore) -> Site:
    return Site(store)
