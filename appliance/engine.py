"""Durable execution: the only importer of DBOS.

A run is a workflow whose id is the run's id. The result of every step is recorded before the next one starts; when a
process dies, the next process that starts an engine goes on with its runs, from the first step without a record.

Who is dead? Every process with an engine is an *executor* and holds an ``flock`` on a file of its own in ``executors/``.
The kernel drops it with the process, so a lock that can be taken belongs to a dead executor, and only those are taken
over. Several proxies with one PostgreSQL will need a heartbeat instead: another host's locks cannot be seen.
"""

import contextlib
import fcntl
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID

from proxy.errors import LanfreeError
from proxy.model import RunId

T = TypeVar("T")

SHAPE = "1"
"""Version of the order of steps in our workflows. A run begun under another shape is not gone on with: its records would
not fit. Change it with the steps; the sweep then removes what such runs left behind."""

UNFINISHED = ["PENDING", "ENQUEUED"]


class Engine:
    """One executor. Register workflows, then enter it; ``recovered`` then holds the runs that were taken over.

    ``url``: SQLAlchemy URL of the workflow records; ``executors``: directory for the locks of this proxy's processes.
    """

    def __init__(self, url: str, executors: Path) -> None:
        self._executors = executors
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: int | None = None
        self.recovered: Sequence[Taken] = ()
        DBOS(
            config=DBOSConfig(
                name="lanfree",
                system_database_url=url,
                executor_id=self._name,
                application_version=SHAPE,
                # Failures of workflows are shown by whoever waits for them, once and in our words.
                log_level="CRITICAL",
                notification_listener_polling_interval_sec=0.2,
            )
        )

    def workflow(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """Register under a stable name. Arguments and results are recorded, so they are plain values."""
        return DBOS.workflow(name=name)(function)

    def __enter__(self) -> Self:
        self._executors.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._file(self._name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        DBOS.launch()
        self.recovered = tuple(self._take_over())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        DBOS.destroy()
        if self._lock is not None:
            self._file(self._name).unlink(missing_ok=True)
            os.close(self._lock)

    def run(self, run: RunId, workflow: Callable[..., T], *arguments: object) -> T:
        """Run a workflow under the run's id and wait. Asked again for a finished run it gives the recorded result."""
        with SetWorkflowID(run):
            handle = DBOS.start_workflow(workflow, *arguments)
        return handle.get_result(polling_interval_sec=0.1)

    def live(self) -> frozenset[RunId]:
        """Runs that somebody works on, or that will be taken over: nothing of theirs is a leftover."""
        return frozenset(w.workflow_id for w in DBOS.list_workflows(status=UNFINISHED, app_version=SHAPE))

    def _take_over(self) -> Iterator["Taken"]:
        for file in sorted(self._executors.glob("*.lock")):
            if file == self._file(self._name):
                continue
            with _if_dead(file) as dead:
                if dead:
                    # Re-enqueueing is atomic, so two processes that start at once do not both run it.
                    handles = DBOS._recover_pending_workflows([file.stem])
                    yield from (Taken(handle) for handle in handles)
                    file.unlink(missing_ok=True)

    def _file(self, executor: str) -> Path:
        return self._executors / f"{executor}.lock"


class Taken:
    """A run of a dead process that goes on here."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.run: RunId = handle.get_workflow_id()

    def wait(self) -> LanfreeError | None:
        """Until it ended: how it failed, or ``None``."""
        try:
            self._handle.get_result(polling_interval_sec=0.1)
        except LanfreeError as error:
            return error
        return None


def durable(name: str, function: Callable[..., T], /, *arguments: object) -> T:
    """``proxy.backup.Step`` on this engine."""
    return DBOS.run_step({"name": name}, function, *arguments)


@contextlib.contextmanager
def _if_dead(file: Path) -> Iterator[bool]:
    """Whether no living process holds the lock; keeps it meanwhile."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)
