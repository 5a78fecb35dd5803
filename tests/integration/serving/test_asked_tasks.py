"""Tasks that a person asks for, done by proxies that may be killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import operations, restoring
from appliance.serving import wishes
from appliance.serving.by_hand import holding_for_restore
from appliance.web import asking
from catalog.jobs.values import ENDED, Task, TaskKind, TaskState
from proxy.errors import MachineBusy
from proxy.model import ReasonCode, RestorePoint, VirtualMachine
from proxy.ports import DiskPlace
from proxy.restore import RestoreRequest
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]


def machine(fleet: Fleet, name: str = "m000") -> VirtualMachine:
    return operations.machine_named(fleet.services, name)


def task(fleet: Fleet, asked: Task) -> Task:
    """As it is now."""
    with fleet.services.jobs.transaction(write=False) as unit:
        found = unit.tasks.get(asked.id)
    assert found is not None
    return found


def ended(fleet: Fleet, asked: Task) -> Task:
    # To index boots an appliance under software emulation.
    until(lambda: task(fleet, asked).state in ENDED, f"{asked.kind.value} has ended", within=400)
    return task(fleet, asked)


def backed_up(fleet: Fleet) -> RestorePoint:
    """The newest restore point of m000, asked for and made by a proxy that serves."""
    asked = asking.ask_backup(fleet.services, "alice", machine(fleet), wishes.BackupWish())
    done = ended(fleet, asked)
    assert done.state is TaskState.DONE, done.message
    return fleet.services.repository.point(done.point or "")


def shared(fleet: Fleet) -> Path:
    directory = fleet.base / "disks"
    directory.mkdir(exist_ok=True)
    (directory / "mounted").touch()
    return directory


def request(fleet: Fleet, point: RestorePoint, name: str = "again") -> RestoreRequest:
    places = {"vda": DiskPlace(path=str(shared(fleet) / f"{name}.img"))}
    new = restoring.machine_to_make(fleet.services, point, name, places)
    return RestoreRequest(operations.new_run("r"), point.id, new)


def ask_restore(fleet: Fleet, point: RestorePoint) -> Task:
    wanted = request(fleet, point)
    seen = restoring.outlook(fleet.services, wanted)
    assert seen.refusals == ()
    wish = wishes.RestoreWish(request=wanted, confirmed=seen.digest)
    return asking.ask_restore(fleet.services, "alice", point, point.machine_name, wish)


@pytest.fixture
def restoring_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """With a directory that restores may write to."""
    fleet = Fleet(tmp_path, more=f'[raw]\nshared_directories = ["{tmp_path}/disks"]\n')
    shared(fleet)
    yield fleet
    fleet.close()


def test_a_backup_that_was_asked_for_is_made_and_says_who_wanted_it(fleet: Fleet) -> None:
    fleet.machines(1)
    fleet.start()
    point = backed_up(fleet)
    assert any(r.code is ReasonCode.ASKED_FOR and r.detail == "by alice" for r in point.reasons)
    assert not any(r.code is ReasonCode.MADE_BY_JOB for r in point.reasons)
    assert fleet.site.leftovers == ()


def test_a_backup_whose_proxy_is_killed_goes_on_elsewhere(fleet: Fleet) -> None:
    fleet.noise("m000", 600 * 1024)
    asked = asking.ask_backup(fleet.services, "alice", machine(fleet), wishes.BackupWish())
    killed = fleet.start("--kill", "before seal")
    assert killed.wait(90) == -signal.SIGKILL
    assert task(fleet, asked).state is TaskState.RUNNING
    fleet.start()
    done = ended(fleet, asked)
    assert (done.state, fleet.points()) == (TaskState.DONE, ["m000"])
    assert any(reason.code is ReasonCode.TAKEN_OVER for reason in done.reasons)


def test_a_running_backup_is_stopped_and_stays_so(fleet: Fleet) -> None:
    fleet.noise("m000", 4 * 1024 * 1024)
    fleet.start("--delay", "1")
    asked = asking.ask_backup(fleet.services, "alice", machine(fleet), wishes.BackupWish())
    until(lambda: fleet.site.leftovers, "it is in the middle")
    with fleet.services.jobs.transaction() as unit:
        assert unit.tasks.stop_one(asked.id, fleet.services.clock.now())
    done = ended(fleet, asked)
    assert (done.state, fleet.points(), fleet.site.leftovers) == (TaskState.STOPPED, [], ())
    assert any(reason.code is ReasonCode.STOPPED_BY_PERSON for reason in done.reasons)


def test_a_machine_is_restored_as_it_was_shown(restoring_fleet: Fleet) -> None:
    fleet = restoring_fleet
    data = os.urandom(300 * 1024)
    fleet.site.add("m000", {"vda": data})
    server = fleet.start()
    try:
        point = backed_up(fleet)
        done = ended(fleet, ask_restore(fleet, point))
        assert done.state is TaskState.DONE, done.message
        assert (shared(fleet) / "again.img").read_bytes() == data
        made = machine(fleet, "again")
        assert done.result["machine"] == {"id": made.id, "name": "again", "host": made.host}
        assert done.point == point.id
        assert done.measures["bytes_written"] == len(data)
    finally:
        fleet.end(server)


def test_a_restore_whose_places_changed_writes_nothing(restoring_fleet: Fleet) -> None:
    fleet = restoring_fleet
    fleet.noise("m000", 64 * 1024)
    server = fleet.start()
    try:
        point = backed_up(fleet)
        fleet.end(server)
        asked = ask_restore(fleet, point)
        other = shared(fleet) / "again.img"
        other.write_bytes(b"\x53\xef" * 64 * 1024)
        server = fleet.start()
        done = ended(fleet, asked)
        assert (done.state, done.error) == (TaskState.FAILED, "restore-refused")
        assert other.read_bytes() == b"\x53\xef" * 64 * 1024
    finally:
        fleet.end(server)


@pytest.mark.parametrize("moment", ["before disks", "in disks", "after disks"])
def test_a_restore_whose_proxy_was_killed_is_not_gone_on_with(restoring_fleet: Fleet, moment: str) -> None:
    fleet = restoring_fleet
    fleet.noise("m000", 64 * 1024)
    server = fleet.start()
    try:
        point = backed_up(fleet)
        fleet.end(server)
        asked = ask_restore(fleet, point)
        assert fleet.start("--kill", moment).wait(90) == -signal.SIGKILL
        written = (shared(fleet) / "again.img").exists()
        server = fleet.start()
        done = ended(fleet, asked)
        assert (done.state, done.error, done.attempt) == (TaskState.FAILED, "restore-interrupted", 1)
        assert "again.img" in done.message
        assert (shared(fleet) / "again.img").exists() == written == (moment != "before disks")
        assert not any(one.name == "again" for one in fleet.services.hypervisor.machines())
    finally:
        fleet.end(server)


def test_a_wish_that_nobody_begins_in_time_is_not_begun(restoring_fleet: Fleet) -> None:
    fleet = restoring_fleet
    fleet.noise("m000", 64 * 1024)
    server = fleet.start()
    try:
        point = backed_up(fleet)
        fleet.end(server)
        asking_within, asking.BEGIN_WITHIN = asking.BEGIN_WITHIN, asking.BEGIN_WITHIN * 0
        try:
            asked = ask_restore(fleet, point)
        finally:
            asking.BEGIN_WITHIN = asking_within
        server = fleet.start()
        done = ended(fleet, asked)
        assert done.state is TaskState.STOPPED
        assert any(reason.code is ReasonCode.NOT_BEGUN_IN_TIME for reason in done.reasons)
        assert not (shared(fleet) / "again.img").exists()
    finally:
        fleet.end(server)


def test_a_restore_by_hand_holds_its_machine_against_backups(restoring_fleet: Fleet) -> None:
    fleet = restoring_fleet
    fleet.noise("m000", 64 * 1024)
    server = fleet.start()
    point = backed_up(fleet)
    fleet.end(server)  # who serves would end, sooner or later, what no living process is said to do
    with holding_for_restore(fleet.services, "by hand", request(fleet, point)):
        (held,) = fleet.running()
        assert (held.kind, held.machine) == (TaskKind.RESTORE, point.machine)
        with (
            pytest.raises(MachineBusy),
            holding_for_restore(fleet.services, "by hand", request(fleet, point, "other")),
        ):
            pass
    assert fleet.running() == []


def test_what_keeps_the_repository_in_shape_is_done_and_tells_what_it_brought(fleet: Fleet) -> None:
    fleet.machines(2)
    fleet.start()
    point = backed_up(fleet)
    wanted = [
        (TaskKind.VERIFY, wishes.VerifyWish(points=(point.id,))),
        (TaskKind.VERIFY, wishes.VerifyWish()),
        (TaskKind.PRUNE, None),
        (TaskKind.COLLECT, wishes.CollectWish(dry_run=True)),
        (TaskKind.MEASURE, None),
        (TaskKind.SWEEP, None),
        (TaskKind.REBUILD, wishes.RebuildWish(files=False)),
        (TaskKind.INDEX, wishes.IndexWish()),
        (TaskKind.INVENTORY, None),
        (TaskKind.PRUNE, wishes.PruneWish(dry_run=True)),
        (TaskKind.AUDIT, wishes.AuditWish()),
        (TaskKind.PROTECT, None),
    ]
    done = [ended(fleet, asking.ask(fleet.services, "alice", kind, wish)) for kind, wish in wanted]
    assert [(one.kind, one.state, one.error) for one in done] == [(k, TaskState.DONE, None) for k, _ in wanted]
    results = [one.result for one in done]
    assert (results[0]["points"], results[1]["points"], results[1]["damaged"]) == (1, 1, 0)
    assert results[2]["kept"] == 1
    assert results[3]["dry_run"] is True
    assert results[4]["logical"] == 64 * 1024
    assert (results[6]["points"], results[6]["recorded"], results[6]["not_indexed"]) == (1, 0, 1)
    assert results[7]["recorded"] == 1
    assert [line["verdict"] for line in results[9]["lines"]] == ["keep"]  # type: ignore[attr-defined]  # a list
    assert results[10]["tampered"] is False
    assert "enabled" in results[11]


def test_what_another_version_asked_for_fails_and_says_so(fleet: Fleet) -> None:
    fleet.machines(1)
    fleet.start()
    asked = asking.ask(fleet.services, "alice", TaskKind.COLLECT, {"version": 99})
    done = ended(fleet, asked)
    assert (done.state, done.error) == (TaskState.FAILED, "configuration")
    assert "another version" in done.message
