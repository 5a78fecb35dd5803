"""A job's own programs: run as words, ended in time with all that they started."""

import os
import signal
import threading
from pathlib import Path

import pytest

from appliance.serving import hooks
from appliance.serving.hooks import KEPT, HookOutcome, run_hooks
from catalog.jobs.policy import Hook

pytestmark = pytest.mark.slow


def hook(*command: str, **more: object) -> Hook:
    return Hook.model_validate({"command": command, **more})


def one(*command: str, **more: object) -> HookOutcome:
    (outcome,) = run_hooks([hook(*command, **more)], {"LANFREE_JOB": "nightly"})
    return outcome


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_a_hook_is_told_what_is_known_and_no_shell_looks_at_its_words() -> None:
    outcome = one("printenv", "LANFREE_JOB")
    assert (outcome.why, outcome.output, outcome.failed) == ("", "nightly", False)
    assert one("echo", "$(id)", "; ls *").output == "$(id) ; ls *"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("false",), "ended with 1"),
        (("no-such-program-anywhere",), "is not installed"),
        (("/etc/passwd",), "cannot be started: Permission denied"),
        (("sh", "-c", "kill -9 $$"), "was killed by signal 9"),
    ],
)
def test_how_a_hook_failed_is_told(command: tuple[str, ...], why: str) -> None:
    outcome = one(*command)
    assert outcome.why == why
    assert outcome.failed
    assert not one(*command, required=False).failed


@pytest.mark.slow
def test_a_hook_that_hangs_is_ended_in_time_with_what_it_started_even_if_that_ignores_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "GRACE", 0.3)
    child = tmp_path / "child"
    script = f"(trap '' TERM; echo $(sh -c 'echo $PPID') > {child}; sleep 60) & echo begun; wait"
    outcome = one("sh", "-c", script, timeout=3)
    assert outcome.why == "did not end within 3 s and was ended"
    assert outcome.output == "begun"
    assert outcome.seconds < 30
    assert not alive(int(child.read_text()))


def test_a_hook_may_leave_a_server_running_without_holding_up_the_run(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    outcome = one("sh", "-c", f"sleep 30 & echo $! > {pid}; echo started", timeout=20)
    try:
        assert (outcome.why, outcome.output) == ("", "started")
        assert outcome.seconds < 10
        assert alive(int(pid.read_text()))
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_only_the_end_of_much_output_is_kept() -> None:
    outcome = one("sh", "-c", "yes | head -c 1000000; echo the end")
    assert outcome.output.endswith("the end")
    assert len(outcome.output) <= KEPT


def test_after_a_required_hook_that_failed_none_is_begun(tmp_path: Path) -> None:
    four = [hook("false", required=False), hook("true"), hook("false"), hook("touch", str(tmp_path / "never"))]
    outcomes = run_hooks(four, {})
    assert [outcome.failed for outcome in outcomes] == [False, False, True]
    assert not (tmp_path / "never").exists()


def test_the_end_of_the_service_ends_a_hook() -> None:
    ended = threading.Event()
    threading.Timer(0.2, ended.set).start()
    (outcome,) = run_hooks([hook("sleep", "60")], {}, ended.is_set)
    assert outcome.why == "was ended with the service"
    assert outcome.seconds < 30
