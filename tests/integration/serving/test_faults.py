"""What goes wrong at three in the morning, on one proxy with SQLite."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.serving import scheduler
from catalog.jobs.tables import JobRunRow
from catalog.jobs.values import JobRunState, TaskState
from proxy.model import ReasonCode
from tests.integration.serving.fleet import Fleet, until

pytestmark = pytest.mark.tools


def codes(task_or_run: object) -> set[ReasonCode]:
    return {reason.code for reason in task_or_run.reasons}  # type: ignore[attr-defined]


def gone(pid: int) -> bool:
    """Whether it ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except FileNotFoundError:
        return True


@pytest.mark.timeout(240)
def test_what_the_end_of_the_window_cut_off_is_gone_on_with_by_the_next_run(fleet: Fleet) -> None:
    size = 8 * 1024 * 1024
    fleet.noise("large", size)
    job = fleet.job(due=False)
    scheduler.begin_now(fleet.services, job)
    slow = fleet.start("--delay", "0.5")
    until(lambda: fleet.tasks() and fleet.tasks()[0].done_bytes > size // 4, "it is in the middle")
    fleet.close_window()
    until(fleet.ended, "the window closed")
    assert fleet.runs()[0].state is JobRunState.STOPPED
    (task,) = fleet.tasks()
    assert task.state is TaskState.STOPPED
    assert ReasonCode.WINDOW_CLOSED in codes(task)
    assert fleet.points() == []
    assert fleet.site.leftovers == (), "the machine is not left on its overlay until the next window"
    assert fleet.end(slow) == 0
    begun = task.done_bytes
    assert 0 < begun < size, "it was cut off in the middle"
    scheduler.begin_now(fleet.services, job)
    fleet.start()
    until(fleet.ended, "the next run has ended")
    assert fleet.points() == ["large"]
    (point,) = fleet.services.repository.points()
    assert point.images[0].bytes_new <= size - begun // 2, "what was stored before the end was not stored again"


@pytest.mark.timeout(120)
def test_a_schedule_whose_previous_run_goes_on_is_skipped_with_that_reason(fleet: Fleet) -> None:
    fleet.machines(1)
    job = fleet.job(schedule={"cron": "* * * * *", "missed": "skip"}, due=False)
    scheduler.begin_now(fleet.services, job)
    moment = datetime.now(UTC) + timedelta(minutes=1)
    (begun,) = scheduler.begin_due(fleet.services, moment)
    assert begun.run.state is JobRunState.SKIPPED
    assert codes(begun.run) >= {ReasonCode.PREVIOUS_RUN_UNDER_WAY}
    assert scheduler.begin_due(fleet.services, moment) == [], "once"
    assert len(fleet.runs()) == 2


@pytest.mark.timeout(120)
def test_a_job_that_catches_up_begins_when_its_previous_run_has_ended(fleet: Fleet) -> None:
    fleet.machines(1)
    job = fleet.job(schedule={"cron": "* * * * *", "missed": "run"}, due=False)
    first = scheduler.begin_now(fleet.services, job)
    moment = datetime.now(UTC) + timedelta(minutes=1)
    assert scheduler.begin_due(fleet.services, moment) == []
    with fleet.services.jobs.transaction() as unit:
        unit.runs.end(first.id, JobRunState.DONE, moment)
    (begun,) = scheduler.begin_due(fleet.services, moment)
    assert begun.run.state is JobRunState.RUNNING
    assert scheduler.begin_due(fleet.services, moment) == []


@pytest.mark.timeout(120)
def test_a_clock_that_goes_back_begins_nothing_twice_and_one_that_leaps_begins_one_run(fleet: Fleet) -> None:
    job = fleet.job(schedule={"cron": "0 * * * *", "missed": "run"}, due=False)
    assert job.enabled
    now = datetime.now(UTC).replace(minute=0, second=10, microsecond=0) + timedelta(hours=1)
    (first,) = scheduler.begin_due(fleet.services, now)
    with fleet.services.jobs.transaction() as unit:
        unit.runs.end(first.run.id, JobRunState.DONE, now)
    assert scheduler.begin_due(fleet.services, now - timedelta(hours=3)) == [], "the clock went back"
    assert scheduler.begin_due(fleet.services, now + timedelta(seconds=20)) == [], "and came again"
    (leapt,) = scheduler.begin_due(fleet.services, now + timedelta(hours=30))
    assert leapt.run.state is JobRunState.RUNNING
    assert ReasonCode.SCHEDULE_MISSED in codes(leapt.run), "the 29 before it are told of"
    assert scheduler.begin_due(fleet.services, now + timedelta(hours=30)) == []


@pytest.mark.timeout(120)
def test_a_hook_that_hangs_is_ended_with_all_that_it_started_and_the_run_fails(fleet: Fleet) -> None:
    fleet.machines(1)
    child = fleet.base / "child"
    script = f"echo mounting; sleep 1000 & echo $! > {child}; wait"
    fleet.job(before=[{"command": ["sh", "-c", script], "timeout": 5}])
    fleet.start()
    until(fleet.ended, "the run is given up")
    (run,) = fleet.runs()
    assert run.state is JobRunState.FAILED
    assert ReasonCode.HOOK_FAILED in codes(run)
    assert any("did not end within 5 s" in note and "mounting" in note for note in run.notes), run.notes
    assert fleet.tasks() == []
    assert gone(int(child.read_text())), "what the hook started is gone too"


@pytest.mark.timeout(120)
def test_a_hook_that_is_not_required_is_noted_and_the_run_goes_on(fleet: Fleet) -> None:
    fleet.machines(1)
    told = fleet.base / "told"
    fleet.job(
        before=[{"command": ["false"], "required": False}],
        after=[{"command": ["sh", "-c", f"echo $LANFREE_JOB $LANFREE_STATE > {told}"]}],
    )
    fleet.start()
    until(fleet.ended, "the run has ended")
    assert fleet.runs()[0].state is JobRunState.DONE
    assert any("hook false ended with 1" in note for note in fleet.runs()[0].notes), fleet.runs()[0].notes
    assert told.read_text().split() == ["nightly", "done"]


@pytest.mark.timeout(120)
def test_a_host_that_is_silent_is_told_and_the_machines_of_others_are_backed_up(fleet: Fleet) -> None:
    fleet.machines(4)
    fleet.site.silence({"h2"})
    fleet.job()
    fleet.start()
    until(fleet.ended, "the run has ended")
    (run,) = fleet.runs()
    assert fleet.points() == ["m000", "m002"]
    assert run.state is JobRunState.ATTENTION
    assert ReasonCode.HOSTS_SILENT in codes(run)


@pytest.mark.timeout(120)
def test_what_a_person_stops_ends_cleanly(fleet: Fleet) -> None:
    for number in range(6):  # of many segments: each takes so long that whoever works on it looks in between
        fleet.noise(f"m{number}", 4 * 1024 * 1024)
    fleet.job()
    fleet.start("--delay", "1.0")
    until(lambda: fleet.site.leftovers, "a machine is frozen")
    with fleet.services.jobs.transaction() as unit:
        unit.runs.stop(fleet.runs()[0].id, datetime.now(UTC))
    until(fleet.ended, "the run has ended")
    assert fleet.runs()[0].state is JobRunState.STOPPED
    assert {task.state for task in fleet.tasks()} <= {TaskState.STOPPED, TaskState.DONE}
    assert any(ReasonCode.STOPPED_BY_PERSON in codes(task) for task in fleet.tasks())
    assert fleet.site.leftovers == ()


@pytest.mark.timeout(120)
def test_a_service_that_is_told_to_end_gives_back_what_it_holds_and_the_next_goes_on(fleet: Fleet) -> None:
    fleet.machines(6)
    fleet.job()
    process = fleet.start("--delay", "1.0")
    until(lambda: fleet.site.leftovers, "a machine is frozen")
    assert fleet.end(process) == 0
    assert fleet.site.leftovers == ()
    assert not fleet.running()
    assert all(task.attempt == 1 for task in fleet.tasks()), "an end is no failed attempt"
    fleet.start()
    until(fleet.ended, "the run has ended")
    assert fleet.runs()[0].state is JobRunState.DONE
    assert fleet.points() == sorted(f"m{n:03d}" for n in range(6))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, for a repository."""
    place = tmp_path / "repository"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.timeout(240)
@pytest.mark.requires("root")
def test_a_repository_that_is_full_holds_the_others_back_until_there_is_room(small_disk: Path, fleet: Fleet) -> None:
    for number in range(4):
        fleet.noise(f"m{number}", 1024 * 1024)
    (small_disk / "ballast").write_bytes(bytes(3 * 1024 * 1024))
    fleet.job(retries={"attempts": 2, "wait": 0.5})
    fleet.start()
    until(lambda: any(task.error == "repository-full" for task in fleet.tasks()), "somebody found it full")
    assert sum(task.error is not None for task in fleet.tasks()) <= 3, "those that were under way, and no more"
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    until(fleet.ended, "room was made", within=120)
    assert fleet.runs()[0].state is JobRunState.DONE, fleet.tasks()
    assert fleet.points() == ["m0", "m1", "m2", "m3"]
    assert fleet.site.leftovers == ()


@pytest.mark.timeout(240)
def test_a_row_that_makes_no_sense_does_not_end_the_service(fleet: Fleet) -> None:
    fleet.machines(1)
    run = scheduler.begin_now(fleet.services, fleet.job(due=False))
    put(fleet, run.id, "nonsense")
    proxy = fleet.start()
    log = fleet.base / "log"
    until(lambda: "'nonsense' is not a valid Cause" in log.read_text(), "it is told")
    put(fleet, run.id, run.cause.value)
    until(fleet.ended, "the run is gone on with as soon as it can be read")
    assert fleet.runs()[0].state is JobRunState.DONE
    assert proxy.poll() is None
    assert log.read_text().count("a fault in Lanfree") == 1, "not with every look"


def put(fleet: Fleet, run: str, cause: str) -> None:
    with fleet.services.jobs.transaction() as unit:
        unit.session.execute(update(JobRunRow).where(JobRunRow.id == run).values(cause=cause))
