"""What becomes of tasks that a person asked for, when something comes between."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.serving import performing, wishes
from appliance.serving.controls import StopCause
from appliance.serving.performing import Assigned
from appliance.serving.worker import Worker
from appliance.web import asking
from appliance.wiring import Services
from catalog.jobs.values import TaskKind, TaskState
from proxy.errors import Cancelled, ConfigurationError, HostUnreachable, WriteFailed
from proxy.model import MachineId, RestorePointId, RunId
from proxy.ports import DiskPlace, NewMachine
from proxy.restore import RestoreRequest
from tests.unit.appliance.keeping.sealed_points import appliance
from tests.unit.appliance.serving.job_with_tasks import claimed, task_of

pytestmark = pytest.mark.slow


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with appliance(tmp_path / "here") as made:
        yield made


def asked(services: Services, kind: TaskKind) -> Assigned:
    """By alice, claimed by p1."""
    parameters = wishes.RestoreWish(request=RESTORE, confirmed="x") if kind is TaskKind.RESTORE else {}
    machine = (MachineId("m1"), "db-1")
    asking.ask(services, "alice", kind, parameters, machine=machine, target="/restored")
    return Assigned(claimed(services, "p1"), None)


RESTORE = RestoreRequest(
    RunId("none"), RestorePointId("p"), NewMachine("db-1", "h1", {"vda": DiskPlace(target="iqn.a", lun=3)})
)


def test_the_place_of_each_disk_is_read_as_it_was_written(services: Services) -> None:
    one = asked(services, TaskKind.RESTORE)
    assert wishes.read(wishes.RestoreWish, one.task).request == RESTORE


@pytest.mark.parametrize(
    ("kind", "state", "attempt"),
    [
        (TaskKind.BACKUP, TaskState.WAITING, 2),
        (TaskKind.RESTORE, TaskState.FAILED, 1),
        (TaskKind.FILES, TaskState.FAILED, 1),
    ],
)
def test_only_what_writes_to_nobodys_disks_is_tried_again(
    services: Services, kind: TaskKind, state: TaskState, attempt: int
) -> None:
    one = asked(services, kind)
    assert performing.end_failed(services, one, HostUnreachable("h1", "silent")) is state
    found = task_of(services, one.task.id)
    assert (found.state, found.attempt, found.error) == (state, attempt, "host-unreachable")


@pytest.mark.parametrize("kind", [TaskKind.RESTORE, TaskKind.FILES])
def test_what_writes_to_others_disks_does_not_begin_again_after_the_services_end(
    services: Services, kind: TaskKind
) -> None:
    one = asked(services, kind)
    services.cancelled.set()
    error = Cancelled("restore of disk vda")
    error.add_note("disk vda is not restored: iqn.a/3 may hold a part of it")
    assert performing.end_failed(services, one, error) is TaskState.FAILED
    found = task_of(services, one.task.id)
    assert found.error == "restore-interrupted"
    assert "may hold a part of it" in found.message


def test_a_backup_begins_again_after_the_services_end(services: Services) -> None:
    one = asked(services, TaskKind.BACKUP)
    services.cancelled.set()
    assert performing.end_failed(services, one, Cancelled("it")) is TaskState.WAITING
    assert task_of(services, one.task.id).attempt == 1


def test_a_restore_that_a_person_stopped_says_what_is_left_of_it(services: Services) -> None:
    one = asked(services, TaskKind.RESTORE)
    services.controls.of(one.task.run).stop(StopCause.PERSON)
    error = Cancelled("restore")
    error.add_note("disk vda is not restored: iqn.a/3 may hold a part of it")
    assert performing.end_failed(services, one, error) is TaskState.STOPPED
    assert "may hold a part of it" in task_of(services, one.task.id).message


def test_one_that_was_stopped_is_not_put_back_for_another_attempt(services: Services) -> None:
    one = asked(services, TaskKind.BACKUP)
    with services.jobs.transaction() as unit:
        assert unit.tasks.stop_one(one.task.id, services.clock.now())
    assert performing.end_failed(services, one, HostUnreachable("h1", "silent")) is TaskState.STOPPED


def test_the_worker_sees_that_a_task_is_to_end_and_tells_how_far_it_is(services: Services) -> None:
    one = asked(services, TaskKind.BACKUP)
    with services.jobs.transaction() as unit:
        unit.tasks.stop_one(one.task.id, services.clock.now())
    control = services.controls.of(one.task.run)
    control.say("writing disks")
    Worker(services, _Named("p1")).look_after()  # type: ignore[arg-type]  # it asks for no more
    assert control.cause is StopCause.PERSON
    assert task_of(services, one.task.id).phase == "writing disks"


class _Named:
    """A name is all that looking after needs of an engine."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_a_deadline_of_what_was_asked_for_ends_nothing_that_began_in_time(services: Services) -> None:
    one = asked(services, TaskKind.RESTORE)
    assert one.task.deadline is not None
    services.clock = _At(services, hours=3)  # type: ignore[assignment]  # a clock all the same
    Worker(services, _Named("p1")).look_after()  # type: ignore[arg-type]  # see above
    assert services.controls.of(one.task.run).cause is None


class _At:
    """So much later."""

    def __init__(self, services: Services, hours: int) -> None:
        self._now = services.clock.now() + hours * asking.BEGIN_WITHIN

    def now(self) -> object:
        return self._now


def test_how_a_task_failed_is_told_with_the_hint(services: Services) -> None:
    one = asked(services, TaskKind.RESTORE)
    performing.end_failed(services, one, WriteFailed("naa.1", 0, 4096, "the array refused"))
    found = task_of(services, one.task.id)
    assert (found.state, found.error) == (TaskState.FAILED, "write-failed")


def test_parameters_of_another_version_end_the_task_and_not_the_service(services: Services) -> None:
    asking.ask(services, "alice", TaskKind.BACKUP, {"version": 99}, machine=(MachineId("m1"), "db-1"))
    one = Assigned(claimed(services, "p1"), None)
    with pytest.raises(ConfigurationError) as raised:
        performing.request(services, one)
    assert performing.end_failed(services, one, raised.value) is TaskState.FAILED
    assert "another version" in task_of(services, one.task.id).message


def test_a_restore_whose_parameters_nobody_can_read_ends_all_the_same_when_it_is_cut_off(services: Services) -> None:
    asking.ask(services, "alice", TaskKind.RESTORE, {"version": 99}, machine=(MachineId("m1"), "db-1"))
    one = Assigned(claimed(services, "p1"), None)
    assert performing.end_failed(services, one, wishes.cut_off(one.task)) is TaskState.FAILED
    found = task_of(services, one.task.id)
    assert found.error == "restore-interrupted"
    assert "disks of db-1" in found.message


def test_a_wish_is_no_task_that_its_process_takes_along(services: Services) -> None:
    one = asked(services, TaskKind.BACKUP)
    by_hand = replace(one.task, asked_by="")
    assert by_hand.by_hand
    assert not one.task.by_hand
