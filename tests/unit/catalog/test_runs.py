from datetime import UTC, datetime, timedelta

from catalog.runs import Run, RunState
from catalog.unit_of_work import Catalog
from proxy.errors import MachineBusy
from proxy.model import Reason, ReasonCode

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(minutes=1)


def test_a_run_is_done_without_an_error_and_names_its_restore_point(catalog: Catalog) -> None:
    reason = Reason(ReasonCode.MIGRATED, "h1 to h2")
    with catalog.transaction() as unit:
        unit.runs.start("r1", "m1", "db", "backup", START)
        unit.runs.finish("r1", END, point="p1", reasons=[reason])
        assert list(unit.runs.list()) == [
            Run("r1", "m1", "db", "backup", RunState.DONE, START, END, "p1", None, None, (reason,))
        ]


def test_a_failed_run_keeps_the_error_and_its_words(catalog: Catalog) -> None:
    with catalog.transaction() as unit:
        unit.runs.start("r1", "m1", "db", "backup", START)
        unit.runs.finish("r1", END, error=MachineBusy("db", "r0"))
        (run,) = unit.runs.list("m1")
    assert (run.state, run.error, run.message) == (RunState.FAILED, "machine-busy", "machine db is held by r0")


def test_a_run_that_goes_on_after_a_crash_keeps_its_beginning(catalog: Catalog) -> None:
    with catalog.transaction() as unit:
        unit.runs.start("r1", "m1", "db", "backup", START)
        unit.runs.finish("r1", END, error=MachineBusy("db", "r0"))
        unit.runs.start("r1", "m1", "db", "backup", END)
        (run,) = unit.runs.list()
    assert (run.state, run.started_at, run.finished_at, run.error) == (RunState.RUNNING, START, None, None)


def test_runs_are_listed_newest_first(catalog: Catalog) -> None:
    with catalog.transaction() as unit:
        for n in range(3):
            unit.runs.start(f"r{n}", "m1", "db", "backup", START + timedelta(minutes=n))
        assert [r.id for r in unit.runs.list(limit=2)] == ["r2", "r1"]


def test_the_last_run_of_each_machine_is_told_by_kind_and_not_from_too_long_ago(catalog: Catalog) -> None:
    day = timedelta(days=1)
    with catalog.transaction() as unit:
        for number, (machine, kind) in enumerate(
            [("m0", "backup"), ("m1", "backup"), ("m2", "backup"), ("m1", "backup"), ("m2", "restore"), ("m1", "index")]
        ):
            unit.runs.start(f"r{number}", machine, machine, kind, START + number * day)
        found = unit.runs.last_of_each("backup", START + day)
        assert {machine: run.id for machine, run in found.items()} == {"m1": "r3", "m2": "r2"}
