"""Durable execution: the only importer of DBOS.

A run is a workflow whose id is the run's id. The result of every step is recorded before the next one starts; when a
process dies, the next process that starts an engine goes on with its runs, from the first step without a record.

Who is dead? Every process with an engine is an *executor* and holds an ``flock`` on a file of its own in ``executors/``.
The kernel drops it with the process. So a run under way whose executor's lock is gone, or can be taken, has nobody who
works on it; only those are taken over. They go through a queue that every living executor serves, hence nobody leaves
before all that it took from there is done. Several proxies with one PostgreSQL will need a heartbeat instead: another
host's locks cannot be seen.
"""

import contextlib
import fcntl
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID

from proxy.model import RunId

T = TypeVar("T")

SHAPE = "2"
"""Version of the order of steps in our workflows. A run begun under another shape is not gone on with: its records would
not fit. Change it with the steps; the sweep then removes what such runs left behind."""

UNFINISHED = ["PENDING", "ENQUEUED"]


class Engine:
    """One executor. Register workflows, then enter it; ``recovered`` then holds the runs that were taken over.

    ``url``: SQLAlchemy URL of the workflow records; ``executors``: directory for the locks of this proxy's processes.
    """

    def __init__(self, url: str, executors: Path) -> None:
        self._executors = executors
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: int | None = None
        self.recovered: Sequence[Taken] = ()
        DBOS(
            config=DBOSConfig(
                name="lanfree",
                system_database_url=url,
                executor_id=self.name,
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
        self._lock = _own(self._file(self.name))
        DBOS.launch()
        self.recovered = tuple(Taken(run) for run in dict.fromkeys(self._take_over()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while ours := self._unfinished():
                for run in ours:
                    Taken(run).wait()
        finally:
            DBOS.destroy()
            if self._lock is not None:
                self._file(self.name).unlink(missing_ok=True)
                os.close(self._lock)

    def run(self, run: RunId, workflow: Callable[..., T], *arguments: object) -> T:
        """Run a workflow under the run's id and wait. Asked again for a finished run it gives the recorded result."""
        with SetWorkflowID(run):
            handle = DBOS.start_workflow(workflow, *arguments)
        return handle.get_result(polling_interval_sec=0.1)

    def live(self) -> frozenset[RunId]:
        """Runs that somebody works on, or that will be taken over: nothing of theirs is a leftover."""
        return frozenset(w.workflow_id for w in DBOS.list_workflows(status=UNFINISHED, app_version=SHAPE))

    def _take_over(self) -> Iterator[RunId]:
        under_way = DBOS.list_workflows(status=["PENDING"], app_version=SHAPE)
        for executor in sorted({w.executor_id for w in under_way if w.executor_id} - {self.name}):
            with _if_dead(self._file(executor)) as dead:
                if dead:
                    # Re-enqueueing is atomic, so two processes that start at once do not both run it.
                    handles = DBOS._recover_pending_workflows([executor])
                    yield from (handle.get_workflow_id() for handle in handles)
        for file in self._executors.glob("*.lock"):
            with _if_dead(file) as dead:
                if dead:
                    file.unlink(missing_ok=True)
        # A process may have died between putting a run back into the queue and its being taken from there.
        waiting = DBOS.list_workflows(status=["ENQUEUED"], app_version=SHAPE)
        yield from (w.workflow_id for w in waiting)

    def _unfinished(self) -> list[RunId]:
        """Runs that this process works on, or that wait and that it may be the only one to take."""
        found = DBOS.list_workflows(status=UNFINISHED, app_version=SHAPE)
        return [w.workflow_id for w in found if w.status == "ENQUEUED" or w.executor_id == self.name]

    def _file(self, executor: str) -> Path:
        return self._executors / f"{executor}.lock"


class Taken:
    """A run of a dead process that goes on, here or in another living one."""

    def __init__(self, run: RunId) -> None:
        self.run = run

    def wait(self) -> str:
        """Until it ended: how it failed, or an empty string."""
        try:
            DBOS.retrieve_workflow(self.run).get_result(polling_interval_sec=0.1)
        except Exception as error:  # noqa: BLE001  # how it ended is its own affair; who waits only tells it
            return str(error)
        return ""


def durable(name: str, function: Callable[..., T], /, *arguments: object) -> T:
    """``proxy.backup.Step`` on this engine."""
    return DBOS.run_step({"name": name}, function, *arguments)


def _own(file: Path) -> int:
    """Make the file and lock it. Somebody who sees it unlocked for a moment takes it for a dead one's and removes it:
    then the lock is on a file without a name, and another one is made."""
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == file.stat().st_ino:
                return fd
        os.close(fd)


@contextlib.contextmanager
def _if_dead(file: Path) -> Iterator[bool]:
    """Whether no living process holds the lock; keeps it meanwhile. A file that is gone was left by nobody living."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)
