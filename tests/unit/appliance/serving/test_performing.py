"""How a task ends whose run a person stopped while the task failed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.serving import performing
from appliance.wiring import Services
from catalog.jobs.values import TaskState
from proxy.errors import Cancelled, HostUnreachable, RepositoryFull
from proxy.model import ReasonCode
from tests.unit.appliance.keeping.sealed_points import appliance
from tests.unit.appliance.serving.job_with_tasks import assigned, stop, task_of

pytestmark = pytest.mark.slow


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with appliance(tmp_path / "appliance") as made:
        yield made


def test_a_task_that_failed_waits_for_another_attempt(services: Services) -> None:
    one = assigned(services)
    assert performing.end_failed(services, one, HostUnreachable("h1", "silent")) is TaskState.WAITING
    assert task_of(services, one.task.id).attempt == 2


@pytest.mark.parametrize("error", [HostUnreachable("h1", "silent"), RepositoryFull("/backup")])
def test_a_task_that_failed_after_its_run_was_stopped_is_not_tried_again(services: Services, error: Exception) -> None:
    one = assigned(services)
    stop(services, one.job_run)
    assert performing.end_failed(services, one, error) is TaskState.STOPPED
    ended = task_of(services, one.task.id)
    assert ended.state is TaskState.STOPPED
    assert ended.error, "what went wrong is told"
    assert ReasonCode.STOPPED_BY_PERSON in {reason.code for reason in ended.reasons}


@pytest.mark.parametrize(("stopped", "state"), [(True, TaskState.STOPPED), (False, TaskState.WAITING)])
def test_the_end_of_the_service_does_not_hide_that_a_person_stopped_the_run(
    services: Services, stopped: bool, state: TaskState
) -> None:
    one = assigned(services)
    if stopped:
        stop(services, one.job_run)
    services.cancelled.set()
    assert performing.end_failed(services, one, Cancelled("the backup")) is state
    assert task_of(services, one.task.id).state is state
