"""Programs that a job runs on the proxy before and after its run: as words, without a shell, never longer than they may.

A hook inherits the environment and what is known of the run (``LANFREE_JOB``, ``LANFREE_RUN``, ``LANFREE_STATE``). When its
time is over, or the service ends, it and all that it started are ended: it leads a process group of its own.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from catalog.jobs.policy import Hook
from proxy import command
from proxy.errors import ToolFailed

KEPT = 4000
"""Characters of a hook's output that are kept with the run, its end: enough for a stack trace, little beside a history."""

GRACE = 5.0
"""Seconds between asking a process group to end and ending it."""

POLL_SECONDS = 0.1

ENDED_WITH_SERVICE = "was ended with the service"
"""Why a hook failed that nothing is wrong with."""


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """``why``: how it failed, or nothing. ``output``: the end of what it printed. ``seconds``: how long it took."""

    hook: Hook
    why: str
    output: str
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether the run may not begin for it."""
        return bool(self.why) and self.hook.required

    def __str__(self) -> str:
        said = f": {self.output}" if self.output else ""
        return f"hook {self.hook.command[0]} {self.why or 'succeeded'} after {self.seconds:.1f} s{said}"


def run_hooks(
    hooks: Sequence[Hook], known: Mapping[str, str], ended: Callable[[], bool] = lambda: False
) -> tuple[HookOutcome, ...]:
    """One after the other; after one that failed and is required none is begun. ``ended``: whether to give up now."""
    outcomes: list[HookOutcome] = []
    for hook in hooks:
        outcomes.append(_run(hook, known, ended))
        if outcomes[-1].failed:
            break
    return tuple(outcomes)


def _run(hook: Hook, known: Mapping[str, str], ended: Callable[[], bool]) -> HookOutcome:
    begin = time.monotonic()
    # A file, not a pipe: whatever a hook leaves running keeps a pipe open, and nobody could tell when to stop reading.
    with tempfile.TemporaryFile() as log:
        try:
            process = command.spawn(hook.command, log=log, env=known)
        except (ToolFailed, OSError) as error:
            why = error.outcome if isinstance(error, ToolFailed) else f"cannot be started: {error.strerror}"
            return HookOutcome(hook, why, "", time.monotonic() - begin)
        why = _wait(process, begin + hook.timeout, ended)
        if why:
            _end_group(process)
        elif process.returncode:
            why = _outcome(process.returncode)
        return HookOutcome(hook, why.format(timeout=hook.timeout), _tail(log), time.monotonic() - begin)


def _wait(process: "subprocess.Popen[bytes]", deadline: float, ended: Callable[[], bool]) -> str:
    """Until it ended by itself; else why it may not go on."""
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return "did not end within {timeout:g} s and was ended"
        if ended():
            return ENDED_WITH_SERVICE
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    return ""


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """The whole group, which has the number of its leader, whose zombie keeps anybody else from getting it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + GRACE
        while _group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    process.wait()


def _group_lives(group: int) -> bool:
    """Whether anybody of it does, zombies aside: they have nothing left to end."""
    for directory in os.scandir("/proc"):
        if directory.name.isdigit():
            with contextlib.suppress(OSError), open(f"{directory.path}/stat", "rb") as file:  # noqa: PTH123  # very many
                fields = file.read().rpartition(b")")[2].split()  # proc(5): state, ppid, pgrp
                if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
                    return True
    return False


def _outcome(code: int) -> str:
    return f"ended with {code}" if code > 0 else f"was killed by signal {-code}"


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - KEPT))
    return log.read(KEPT).decode(errors="replace").strip()
