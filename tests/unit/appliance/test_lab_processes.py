import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from appliance.lab.processes import ENVIRONMENT, Process, end, look, of_lab, wait_for
from proxy import command

LAB = f"test-{os.getpid()}"
STUBBORN = (
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A process that carries a lab's id."""
    started = command.spawn(["sleep", "60"], env={ENVIRONMENT: LAB})
    found = look(started.pid)
    assert found is not None
    yield found
    started.kill()
    started.wait()


def test_a_process_is_found_by_its_labs_id(sleeper: Process) -> None:
    assert wait_for(lambda: [process.pid for process in of_lab(LAB)] == [sleeper.pid], timeout=5)
    assert of_lab(LAB + "0") == []
    assert of_lab(LAB[:-1]) == []


def test_a_stopped_process_is_ended_too(sleeper: Process) -> None:
    sleeper.signal(signal.SIGSTOP)
    assert end([sleeper], grace=5) == []
    assert not sleeper.alive


def test_a_pid_that_somebody_else_has_by_now_is_left_alone(sleeper: Process) -> None:
    former = replace(sleeper, started=sleeper.started - 1)
    assert not former.alive
    assert end([former], grace=0.1) == []
    assert sleeper.alive


@pytest.mark.slow
def test_a_process_that_ignores_the_request_is_killed() -> None:
    reading, writing = os.pipe()
    started = command.spawn([sys.executable, "-c", STUBBORN], log=writing)
    try:
        assert os.read(reading, 5) == b"ready"
        found = look(started.pid)
        assert found is not None
        assert end([found], grace=0.2) == []
        assert started.wait(5) == -signal.SIGKILL
    finally:
        started.kill()
        started.wait()
        os.close(reading)
        os.close(writing)


def test_a_zombie_counts_as_gone() -> None:
    started = command.spawn(["true"])
    assert wait_for(lambda: look(started.pid) is None, timeout=5)
    assert started.wait() == 0


def test_a_name_with_blanks_and_parentheses_is_understood(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("bin") / "a) R (b"
    place.symlink_to("/bin/sleep")
    started = command.spawn([place, "60"])
    try:
        assert wait_for(lambda: (found := look(started.pid)) is not None and found.name == "a) R (b", timeout=5)
    finally:
        started.kill()
        started.wait()


def test_waiting_ends_at_its_deadline() -> None:
    assert not wait_for(lambda: False, timeout=0.1, every=0.01)
