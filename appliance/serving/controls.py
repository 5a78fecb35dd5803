"""What can be done to a run while it goes on: end it cleanly, slow it down, watch it. One control a run, of this process only:
nothing of it is recorded, and a run that another process takes over gets a new one there."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.serving.liveness import Liveness
from catalog.jobs.values import Task
from proxy.model import Disk, RunId, VirtualMachine
from proxy.ports import Progress, ProgressSink
from proxy.transfer import Pace

if TYPE_CHECKING:
    from appliance.serving.watching import Watch

LOOK_SECONDS = 0.2
"""Between two looks whether a run may go on that was held."""


class StopCause(StrEnum):
    """Why a run is ended before its end. After ``SHUTDOWN`` it begins again, here or elsewhere."""

    WINDOW = "window"
    PERSON = "person"
    SHUTDOWN = "shutdown"


class RunControl:
    """Calls may come from any thread. ``progress``: who else wants to see it; ``phase``: what the run does now, for people."""

    def __init__(self, controls: "Controls") -> None:
        self._controls = controls
        self._lock = threading.Lock()
        self._disks: dict[str, tuple[int, int]] = {}
        self._cause: StopCause | None = None
        self.progress: ProgressSink | None = None
        self.phase = ""

    def stop(self, cause: StopCause) -> None:
        """End it at its next segment. The first cause stays."""
        self._cause = self._cause or cause

    @property
    def cause(self) -> StopCause | None:
        """Why it was told to end; the end of the whole process is one."""
        return self._cause or (StopCause.SHUTDOWN if self._controls.ended() else None)

    def cancelled(self) -> bool:
        """Whether it is to end. Asked before each segment, and does not return while this process is not sure to be counted
        on: what was read goes on then as if nothing had been."""
        while not self._controls.sure():
            if self._controls.lost() or self.cause is not None:
                return True
            time.sleep(LOOK_SECONDS)
        return self.cause is not None

    def say(self, phase: str) -> None:
        """What it does from now on."""
        self.phase = phase

    def note(self, progress: Progress) -> None:
        """A ``ProgressSink``."""
        with self._lock:
            self._disks[progress.disk] = (progress.done, progress.total)
        if self.progress is not None:
            self.progress(progress)

    def done(self) -> tuple[int, int]:
        """Bytes that are through, of how many; of the disks that were begun."""
        with self._lock:
            return sum(done for done, _ in self._disks.values()), sum(total for _, total in self._disks.values())


class Controls:
    """Those of one process. ``ended``: whether the whole process is to end. ``liveness``: of its engine, once there is one;
    ``watch``: of the hosts, while it serves. ``changed`` is set when a run ended: there may be room for another one."""

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.ended = ended
        self.liveness: Liveness | None = None
        self.watch: Watch | None = None
        self.changed = threading.Event()
        self._lock = threading.Lock()
        self._known: dict[RunId, RunControl] = {}

    def of(self, run: RunId) -> RunControl:
        """Made when it is first asked for."""
        with self._lock:
            return self._known.setdefault(run, RunControl(self))

    def forget(self, run: RunId) -> None:
        """The run ended."""
        with self._lock:
            self._known.pop(run, None)
        self.changed.set()

    def pace(self, machine: VirtualMachine, disk: Disk) -> Pace | None:
        """See ``Watch.pace``."""
        return None if self.watch is None else self.watch.pace(machine, disk)

    def tracking(self, task: Task) -> AbstractContextManager[None]:
        """See ``Watch.tracking``."""
        return nullcontext() if self.watch is None else self.watch.tracking(task)

    def sure(self) -> bool:
        """See ``Liveness.sure``."""
        return self.liveness is None or self.liveness.sure()

    def lost(self) -> bool:
        """See ``Liveness.lost``."""
        return self.liveness is not None and self.liveness.lost()
