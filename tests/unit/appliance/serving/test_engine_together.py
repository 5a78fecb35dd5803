"""The engine beside other processes: what is theirs is no leftover, and nobody waits for it."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.serving.engine import Engine, SetAside, Stage
from appliance.serving.liveness import FileLocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    yield Engine(f"sqlite:///{tmp_path}/workflows.db", FileLocks(tmp_path / "executors"))


def write(directory: Path, **values: str) -> None:
    """Into the record of the only run there is, as another process would."""
    with sqlite3.connect(directory / "workflows.db", timeout=20) as database:
        names = ", ".join(f"{name} = ?" for name in values)
        changed = database.execute(f"UPDATE workflow_status SET {names}", tuple(values.values()))
        assert changed.rowcount == 1
    database.close()


def test_runs_of_a_living_proxy_of_another_version_are_no_leftovers(engine: Engine, tmp_path: Path) -> None:
    work = engine.workflow("work", lambda: None)
    other = FileLocks(tmp_path / "executors")
    with engine:
        engine.run("r1", work)
        other.join("other")
        write(tmp_path, status="PENDING", application_version="the-one-before", executor_id="other")
        assert engine.live() == {"r1"}
        other.leave()
        assert engine.live() == frozenset(), "nobody will go on with it"


def test_who_stands_still_while_it_reads_keeps_nobody_from_going_on(engine: Engine, tmp_path: Path) -> None:
    work = engine.workflow("work", lambda: "done")
    with engine, closing(sqlite3.connect(tmp_path / "workflows.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM workflow_status").fetchone()
        assert engine.run("r1", work) == "done"
        assert reader.execute("SELECT count(*) FROM workflow_status").fetchone() == before
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM workflow_status").fetchone() != before


def test_an_end_does_not_wait_for_a_run_that_another_process_took(engine: Engine, tmp_path: Path) -> None:
    work = engine.workflow("work", lambda: None)
    other = FileLocks(tmp_path / "executors")
    other.join("other")
    with engine:
        engine.run("r1", work)
        write(tmp_path, status="ENQUEUED", queue_name="nobody's")
        taken = threading.Timer(1.0, write, (tmp_path,), {"status": "PENDING", "executor_id": "other"})
        begin = time.monotonic()
        taken.start()
    assert time.monotonic() - begin >= 0.5, "while nobody had it, it was waited for"
    taken.join()
    other.leave()


def test_a_run_that_a_step_set_aside_is_under_way_after_the_end_and_goes_on_later(tmp_path: Path) -> None:
    ended, done = threading.Event(), []

    def hook() -> None:
        if not ended.wait(0.2):
            raise SetAside("a hook")
        done.append("hook")

    for process in range(2):
        one = Engine(f"sqlite:///{tmp_path}/workflows.db", FileLocks(tmp_path / "executors"))
        work = one.workflow("work", lambda step=one.step: step("before", hook))
        with one:
            if process == 0:
                one.start("r1", work)
            else:
                assert [taken.wait() for taken in one.recovered] == [""]
                assert one.stages(["r1"]) == {"r1": Stage.ENDED}
        ended.set()
    assert done == ["hook"]
