"""Durable runs: what was recorded is not done again, what was cut off is done again, by whoever starts next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tools  # seconds, not milliseconds: real processes, a real database, real kills

# One process is one engine, so every test drives small programs; each prints what it does.
PROGRAM = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from appliance.serving.engine import Engine
from appliance.serving.liveness import FileLocks
from proxy.errors import RepositoryFull

state, run, steps = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split()

def do(name):
    print("did", name, flush=True)
    if name == "hang":
        signal.pause()
    if name == "die":
        (state / "died").exists() or ((state / "died").touch(), os.kill(os.getpid(), signal.SIGKILL))
    if name == "lost":
        (state / "lost").exists() or ((state / "lost").touch(), exec("raise SystemExit"))
    if name == "full":
        raise RepositoryFull("/backup")
    return name

engine = Engine(f"sqlite:///{state}/workflows.db", FileLocks(state / "executors"))
work = engine.workflow("work", lambda names: [engine.step(name, do, name) for name in names])
with engine:
    if steps == ["vanish"]:
        os.kill(os.getpid(), signal.SIGKILL)
    for taken in engine.recovered if steps != ["unasked"] else ():
        print("took over", taken.run, "->", taken.wait() or "done", flush=True)
    if steps == ["forget"]:
        print("forgot", engine.forget(datetime.now(UTC) + timedelta(hours=1)), flush=True)
        steps = ["snapshot"]
    try:
        try:
            print("result", engine.run(run, work, steps), flush=True)
        except SystemExit:
            print("no thread, and", engine.stages([run])[run].value, flush=True)
            print("at the first look", [taken.run for taken in engine.take_over()], flush=True)
            print("at the second look", [(taken.run, taken.wait()) for taken in engine.take_over()], flush=True)
    except RepositoryFull as error:
        print("error", error.code, error.hint, getattr(error, "__notes__", []), flush=True)
    print("live", sorted(engine.live()), flush=True)
"""


def start(state: Path, run: str, steps: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(state), run, steps]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ})


def lines(state: Path, run: str, steps: str) -> list[str]:
    process = start(state, run, steps)
    return process.communicate(timeout=60)[0].splitlines()


def test_a_killed_run_goes_on_at_the_next_start_from_the_step_that_was_cut_off(tmp_path: Path) -> None:
    assert lines(tmp_path, "r1", "snapshot die release") == ["did snapshot", "did die"]
    assert lines(tmp_path, "r2", "snapshot") == [
        "did die",
        "did release",
        "took over r1 -> done",
        "did snapshot",
        "result ['snapshot']",
        "live []",
    ]


def test_a_start_that_dies_after_taking_over_leaves_the_run_to_the_next_one(tmp_path: Path) -> None:
    lines(tmp_path, "r1", "snapshot die release")
    assert lines(tmp_path, "r2", "vanish") == []
    said = lines(tmp_path, "r3", "snapshot")
    assert "took over r1 -> done" in said
    assert said[-1] == "live []"
    assert not list((tmp_path / "executors").iterdir()), "no lock file is left"


def test_a_lost_lock_directory_does_not_make_a_run_immortal(tmp_path: Path) -> None:
    lines(tmp_path, "r1", "snapshot die release")
    for file in (tmp_path / "executors").iterdir():
        file.unlink()
    assert "took over r1 -> done" in lines(tmp_path, "r2", "snapshot")


def test_nobody_leaves_before_a_run_that_it_took_is_done(tmp_path: Path) -> None:
    lines(tmp_path, "r1", "snapshot die release")
    # Neither waits for it by itself: the engine's end does.
    assert "did release" in lines(tmp_path, "r2", "unasked")


def test_a_run_of_a_living_process_is_not_taken_over(tmp_path: Path) -> None:
    living = start(tmp_path, "r1", "hang")
    assert living.stdout is not None
    try:
        assert living.stdout.readline() == "did hang\n"
        assert lines(tmp_path, "r2", "snapshot") == ["did snapshot", "result ['snapshot']", "live ['r1']"]
    finally:
        living.send_signal(signal.SIGKILL)
        living.communicate()


def test_an_error_comes_back_whole_from_the_records(tmp_path: Path) -> None:
    first = lines(tmp_path, "r1", "full")
    again = lines(tmp_path, "r1", "full")
    assert first[0] == "did full"
    assert first[1].startswith("error repository-full free space")
    assert again == [first[1], "live []"], "the recorded end of the run, and no step done twice"


@pytest.mark.parametrize("steps", ["snapshot copy release"])
def test_a_finished_run_asked_again_gives_its_recorded_result(tmp_path: Path, steps: str) -> None:
    lines(tmp_path, "r1", steps)
    assert lines(tmp_path, "r1", steps) == ["result ['snapshot', 'copy', 'release']", "live []"]
    assert not list((tmp_path / "executors").iterdir()), "no lock file is left"


def test_a_run_whose_end_could_not_be_written_down_is_woken_in_the_process_that_lives(tmp_path: Path) -> None:
    assert lines(tmp_path, "r1", "snapshot lost release") == [
        "did snapshot",
        "did lost",
        "no thread, and under-way",
        "at the first look []",
        "did lost",
        "did release",
        "at the second look [('r1', '')]",
        "live []",
    ]


def test_records_of_what_ended_are_forgotten_and_of_what_goes_on_are_not(tmp_path: Path) -> None:
    lines(tmp_path, "r1", "snapshot")
    lines(tmp_path, "r2", "die")
    assert lines(tmp_path, "r1", "forget") == [
        "did die",
        "took over r2 -> done",
        "forgot 2",
        "did snapshot",
        "result ['snapshot']",
        "live []",
    ]
