"""Job runs to tell of, and a clock that is put forward."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from appliance.telling.report import Item, JobRunReport, RunFigures, made
from catalog.jobs.policy import Policy
from catalog.jobs.values import Cause, JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.model import (
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    Reason,
    ReasonCode,
    RestorePoint,
)
from proxy.units import GiB, MiB

NIGHT = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)


class Clock:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.moment = NIGHT

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def a_run(**changes: object) -> JobRun:
    run = JobRun(
        id="j20261122210000-0badcafe",
        job="job-1",
        job_name="nightly",
        policy=Policy(zone="Europe/Berlin", description="All of production"),
        cause=Cause.SCHEDULE,
        scheduled_for=NIGHT,
        state=JobRunState.DONE,
        started_at=NIGHT,
        ended_at=NIGHT + timedelta(hours=2),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def a_task(number: int, state: TaskState = TaskState.DONE, **changes: object) -> Task:
    begin = NIGHT + timedelta(minutes=number // 4)
    task = Task(
        id=f"t{number}",
        job_run="j20261122210000-0badcafe",
        kind=TaskKind.BACKUP,
        state=state,
        machine=f"m{number}",
        machine_name=f"web-{number:03d}",
        host=f"esx-{number % 3}",
        claimed_at=begin,
        ended_at=begin + timedelta(minutes=5 + number % 7),
        measures={"stages": {"bottleneck": "source"}, "over_host": 0},
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def a_point(number: int, *reasons: Reason, consistency: Consistency = Consistency.APPLICATION) -> RestorePoint:
    image = ImageInfo(
        *("vda", 40 * GiB, "i", "d", "san", "naa.6", 2 * GiB, 800 * MiB, 300 * MiB),
        reasons=(Reason(ReasonCode.CHANGES_FROM_BITMAP, "lanfree-1"),),
        level=Level.INCREMENTAL,
    )
    return RestorePoint(
        *(f"p{number}", f"m{number}", f"web-{number:03d}", f"esx-{number % 3}", f"r{number}", NIGHT),
        *(Level.INCREMENTAL, consistency, (image,), MachineConfiguration("", "")),
        reasons=reasons,
    )


def earlier_runs(count: int) -> tuple[RunFigures, ...]:
    states = (JobRunState.DONE, JobRunState.DONE, JobRunState.FAILED)
    return tuple(
        RunFigures(
            *(f"j{n}", states[n % 3], NIGHT - timedelta(days=count - n), 6000.0 + 200 * n, 40, 2 if n % 3 == 2 else 0),
            *((60 + 3 * n) * GiB, (30 - n) * GiB, 12 * GiB),
        )
        for n in range(count)
    )


def a_failing_night() -> JobRunReport:
    """40 machines: two failed for the same reason, one was stopped, three without an agent; one verification."""
    items = [Item(a_task(n, point=f"p{n}"), a_point(n)) for n in range(34)]
    lacking = Reason(ReasonCode.QUIESCE_NO_AGENT, "nobody answered within 5 s")
    items += [Item(a_task(n), a_point(n, lacking, consistency=Consistency.CRASH)) for n in range(34, 37)]
    failed = {"error": "host-unreachable", "message": "host esx-2 cannot be reached: timed out"}
    items += [Item(a_task(n, TaskState.FAILED, attempt=3, **failed)) for n in (37, 38)]
    items += [Item(a_task(39, TaskState.STOPPED, claimed_at=None))]
    items += [Item(a_task(90, kind=TaskKind.VERIFY, machine="", machine_name="", host=""))]
    return made(a_run(state=JobRunState.FAILED, selected=40), items, earlier_runs(9))
