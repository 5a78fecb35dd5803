"""Locks that die with their holder."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxy.errors import MachineBusy, SnapshotInUse
from proxy.interlock import Interlock

HOLD_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from proxy.interlock import Interlock
with Interlock(Path(sys.argv[1])).run("m1", "run-of-the-dead"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def interlock(tmp_path: Path) -> Interlock:
    return Interlock(tmp_path / "locks")


def test_two_runs_of_one_machine_are_refused_and_the_holder_is_named(interlock: Interlock) -> None:
    with interlock.run("m1", "run-1"), pytest.raises(MachineBusy, match="run-1"), interlock.run("m1", "run-2"):
        pass
    with interlock.run("m1", "run-2"):
        pass


def test_runs_of_different_machines_go_side_by_side(interlock: Interlock) -> None:
    with interlock.run("m1", "run-1"), interlock.run("m2", "run-2") as held:
        assert held is None


def test_a_killed_holder_leaves_no_lock(interlock: Interlock, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_KILLED, str(tmp_path / "locks")], stdout=subprocess.PIPE, env={**os.environ}
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(MachineBusy, match="run-of-the-dead"), interlock.run("m1", "run-2"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with interlock.run("m1", "run-2"):
        pass


def test_overlays_are_not_merged_under_a_reader(interlock: Interlock) -> None:
    with interlock.reading("m1"), interlock.reading("m1"):
        with pytest.raises(SnapshotInUse), interlock.readers_gone("m1", timeout=0.1):
            pass
        with interlock.readers_gone("m2", timeout=0.1):
            pass
    with interlock.readers_gone("m1", timeout=0.1):
        pass


@pytest.mark.slow
def test_a_merge_waits_for_the_last_reader(interlock: Interlock) -> None:
    reading, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with interlock.reading("m1"):
            reading.set()
            may_end.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    threading.Timer(0.2, may_end.set).start()
    with interlock.readers_gone("m1", timeout=10):
        assert may_end.is_set()
    reader.join()


def test_a_machine_id_cannot_name_a_file_elsewhere(interlock: Interlock, tmp_path: Path) -> None:
    with interlock.run("../../escape", "run-1"):
        pass
    assert [p.parent for p in tmp_path.rglob("*.run")] == [tmp_path / "locks"]
