"""Lists of what was: pages that neither skip nor repeat, figures by day. SQLite, and PostgreSQL where it is."""

from datetime import UTC, datetime, timedelta

import pytest

from catalog.jobs.limits import Limits
from catalog.jobs.past import Wanted
from catalog.jobs.policy import Policy
from catalog.jobs.store import JobStore
from catalog.jobs.values import Cause, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.model import Reason, ReasonCode

pytestmark = pytest.mark.slow

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def run(number: int, job: str = "j1", state: JobRunState = JobRunState.DONE, at: datetime | None = None) -> JobRun:
    """It took half an hour."""
    begun = NOON + number * HOUR if at is None else at
    ended = None if state is JobRunState.RUNNING else begun + HOUR / 2
    scheduled = NOON + number * HOUR
    return JobRun(f"r{number:03d}", job, f"name of {job}", Policy(), Cause.SCHEDULE, scheduled, state, begun, ended)


def ended(store: JobStore, name: str, at: datetime, state: TaskState = TaskState.DONE, **measures: object) -> None:
    """A backup that took ten minutes."""
    with store.transaction() as unit:
        task = unit.tasks.hold(f"b-{name}-{at:%d%H%M}", name, f"name of {name}", at - timedelta(minutes=10), proxy="p")
        assert unit.tasks.end(task.id, state, at, measures=measures)


def test_pages_of_runs_meet_without_gap_also_where_moments_are_equal(store: JobStore) -> None:
    with store.transaction() as unit:
        for number in range(7):
            assert unit.runs.begin(run(number, at=NOON + (number // 3) * HOUR))
    for newest_first in (True, False):
        seen: list[str] = []
        after: tuple[datetime, str] | None = None
        with store.transaction(write=False) as unit:
            while page := unit.past.runs(Wanted(), 2, after, newest_first=newest_first):
                seen += [each.id for each in page]
                after = (page[-1].started_at, page[-1].id)
        assert seen == sorted(seen, reverse=newest_first)
        assert len(seen) == 7


def test_runs_are_chosen_by_job_state_and_time(store: JobStore) -> None:
    with store.transaction() as unit:
        unit.runs.begin(run(1))
        unit.runs.begin(run(2, "j2", JobRunState.FAILED))
        unit.runs.begin(run(3, "j2"))
    with store.transaction(write=False) as unit:
        found = {
            "job": unit.past.runs(Wanted(job="j2"), 9),
            "state": unit.past.runs(Wanted(states=frozenset({JobRunState.FAILED})), 9),
            "time": unit.past.runs(Wanted(since=NOON + 2 * HOUR, until=NOON + 3 * HOUR), 9),
        }
        last = unit.past.last_of_each()
    assert {key: [each.id for each in runs] for key, runs in found.items()} == {
        "job": ["r003", "r002"],
        "state": ["r002"],
        "time": ["r002"],
    }
    assert {job: each.id for job, each in last.items()} == {"j1": "r001", "j2": "r003"}


def test_a_run_that_touches_a_time_took_place_in_it(store: JobStore) -> None:
    with store.transaction() as unit:
        unit.runs.begin(run(0))
        unit.runs.begin(run(1))
        unit.runs.begin(run(2, "j2", JobRunState.RUNNING))
        unit.runs.begin(run(5))
    with store.transaction(write=False) as unit:
        found = unit.past.took_place(NOON + HOUR * 1.2, NOON + HOUR * 4, 10)
    assert [each.id for each in found] == ["r001", "r002"]


def test_days_sum_what_ended_in_them_by_state(store: JobStore) -> None:
    ended(store, "m1", NOON, bytes_read=100, bytes_new=40, bytes_stored=10)
    ended(store, "m2", NOON + HOUR, bytes_read=2**40, bytes_new=0, bytes_stored=0)
    ended(store, "m3", NOON + HOUR, TaskState.FAILED)
    ended(store, "m1", NOON + 24 * HOUR, bytes_read=7)
    with store.transaction(write=False) as unit:
        days = unit.past.days(NOON - HOUR, NOON + 48 * HOUR)
        one = unit.past.days(NOON - HOUR, NOON + 48 * HOUR, ["m1"])
        machines = unit.past.machines(NOON - HOUR)
    assert [(str(day.day), day.state.value, day.number, day.bytes_read) for day in days] == [
        ("2026-11-20", "done", 2, 2**40 + 100),
        ("2026-11-20", "failed", 1, 0),
        ("2026-11-21", "done", 1, 7),
    ]
    assert days[0].seconds == pytest.approx(1200.0, abs=0.1)
    assert [day.bytes_read for day in one] == [100, 7]
    assert machines == {name: f"name of {name}" for name in ("m1", "m2", "m3")}


def test_a_time_line_has_what_ended_in_it_and_what_goes_on(store: JobStore) -> None:
    ended(store, "before", NOON - 5 * HOUR)
    ended(store, "m1", NOON, bytes_read=5)
    with store.transaction() as unit:
        unit.tasks.hold("b-going", "m2", "name of m2", NOON - 30 * HOUR, proxy="p")
        unit.tasks.hold("v-verify", "", "", NOON, proxy="p", kind=TaskKind.VERIFY)
    with store.transaction(write=False) as unit:
        bars = unit.past.ended(NOON - HOUR, NOON + HOUR)
    assert [(bar.machine, bar.state, bar.bytes_read, bar.end) for bar in bars] == [
        ("m2", TaskState.RUNNING, None, None),
        ("m1", TaskState.DONE, 5, NOON),
    ]


def test_tasks_of_a_run_come_in_planned_order_page_by_page(store: JobStore) -> None:
    with store.transaction() as unit:
        unit.runs.begin(run(1, state=JobRunState.RUNNING))
        unit.tasks.add(
            [
                Task(f"t{n}", "r001", TaskKind.BACKUP, TaskState.WAITING, f"m{n}", f"m{n}", order=NOON - n * HOUR)
                for n in range(5)
            ]
        )
    with store.transaction(write=False) as unit:
        first = unit.past.tasks("r001", 3)
        rest = unit.past.tasks("r001", 3, after=(first[-1][0], first[-1][1].id))
        none = unit.past.tasks("r001", 3, states=[TaskState.DONE])
        work = unit.past.work("r001")
    assert [task.id for _, task in (*first, *rest)] == ["t4", "t3", "t2", "t1", "t0"]
    assert (list(none), sorted(one.machine for one in work)) == ([], [f"m{n}" for n in range(5)])


def test_the_newest_bottleneck_of_each_machine_counts(store: JobStore) -> None:
    ended(store, "m1", NOON - HOUR, stages={"bottleneck": "source"})
    ended(store, "m1", NOON, stages={"bottleneck": "repository"})
    ended(store, "m2", NOON, stages={"bottleneck": ""})
    with store.transaction(write=False) as unit:
        assert unit.past.bottlenecks(["m1", "m2", "m3"], NOON - 9 * HOUR) == {"m1": "repository"}


def test_what_is_notable_of_a_run_is_found_among_what_is_not(store: JobStore) -> None:
    with store.transaction() as unit:
        unit.runs.begin(run(1, state=JobRunState.RUNNING))
        unit.tasks.add(
            [
                Task(f"t{n}", "r001", TaskKind.BACKUP, TaskState.WAITING, f"m{n}", f"m{n}", order=NOON + n * HOUR)
                for n in range(6)
            ]
        )
    by_job, odd = Reason(ReasonCode.MADE_BY_JOB, "nightly"), Reason(ReasonCode.TRACKING_LOST, 'with "quotes" and 100 %')
    ends: list[tuple[TaskState, dict[str, object]]] = [
        (TaskState.DONE, {"reasons": [by_job], "measures": {"bytes_read": 5, "over_host": 2**40}}),
        (TaskState.FAILED, {"error": "e", "message": "m"}),
        (TaskState.DONE, {"reasons": [by_job, odd]}),
        (TaskState.DONE, {"problems": ["it lags behind"]}),
    ]
    for number, (state, facts) in enumerate(ends):
        with store.transaction() as unit:
            proxy = ProxyFacts("p", "p", NOON, NOON, slots=99)
            task = unit.tasks.claim(proxy, NOON + number * HOUR, Limits({}, {}))
            assert task is not None
            unit.tasks.end(task.id, state, NOON + (number + 1) * HOUR, **facts)  # type: ignore[arg-type]
    with store.transaction(write=False) as unit:
        notable = unit.past.notable("r001", {ReasonCode.TRACKING_LOST, ReasonCode.DISK_SHARED}, 10)
        lately = unit.past.lately("r001", 2)
        moved = {machine: counts for machine, _, _, counts in unit.past.moved("r001")}
    assert [task.id for task in notable] == ["t1", "t2", "t3"]
    assert [task.id for task in lately] == ["t3", "t2"]
    assert (moved["m0"], moved["m1"]) == ([5, 0, 0, 2**40], [0, 0, 0, 0])
