"""Phases of a job run that several proxies look at: none is skipped, whoever is faster."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from appliance.serving import scheduler
from appliance.serving.engine import Engine, Stage
from appliance.wiring import Services
from appliance.workflows import Workflows
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, JobRun, JobRunState, TaskKind
from tests.unit.appliance.keeping.sealed_points import NOW, appliance
from tests.unit.appliance.serving.job_with_tasks import add_task

pytestmark = pytest.mark.slow  # a workflow engine


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with appliance(tmp_path / "appliance") as made:
        yield made


class Watched(Workflows):
    """That another proxy comes between: its phase adds a task, and ends, just before this one looks at phases."""

    run: JobRun | None = None

    def last_phase(self, job_runs: Iterable[str]) -> Mapping[str, tuple[int, Stage]]:
        if self.run is not None:
            add_task(self._services, self.run, "", TaskKind.COPY)
        return super().last_phase(job_runs)


def test_a_phase_that_another_proxy_just_went_through_is_not_taken_for_one_without_tasks(services: Services) -> None:
    engine = Engine(services.workflow_url, services.liveness)
    workflows = Watched(engine, services)
    with services.jobs.transaction() as unit:
        job = unit.jobs.add("nightly", Policy(), NOW)
    run = JobRun("j1", job.id, job.name, job.policy, Cause.MANUAL, NOW, JobRunState.RUNNING, NOW)
    with engine:
        workflows.phase(run.id, 1)  # before there is such a run: it does nothing, and has ended
        deadline = time.monotonic() + 20
        while workflows.last_phase([run.id])[run.id] != (1, Stage.ENDED):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with services.jobs.transaction() as unit:
            assert unit.runs.begin(run)
        workflows.run = run
        scheduler.advance(services, workflows, NOW)
        workflows.run = None
        assert workflows.last_phase([run.id])[run.id] == (1, Stage.ENDED), "its copies come first"
