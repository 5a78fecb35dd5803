"""Durable execution: the only importer of DBOS.

A run is a workflow whose id is the run's id. The result of every step is recorded before the next one starts; when a
process dies, another process with an engine goes on with its runs, from the first step without a record.

Every process with an engine is an *executor*; ``liveness`` knows which of them live. A run under way whose executor does not
has nobody who works on it; only those are taken over, when an engine starts and whenever ``take_over`` is called.
They go through a queue that every living executor serves, hence nobody leaves before all that waits there is taken and all
that it took is done. Who was only believed dead finds its records refused: they belong to another execution by then.
"""

import os
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from socket import gethostname
from threading import Lock
from time import sleep
from types import TracebackType
from typing import Self, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowHandle
from dbos._error import DBOSWorkflowConflictIDError
from sqlalchemy import Engine as Connections
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from appliance.serving.liveness import Liveness
from proxy.errors import DatabaseAway
from proxy.model import RunId

T = TypeVar("T")

SHAPE = "6"
"""Version of the order of steps in our workflows. A run begun under another shape is not gone on with: its records would
not fit. Change it with the steps; the sweep then removes what such runs left behind."""

UNFINISHED = ["PENDING", "ENQUEUED"]

OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]

FORGOTTEN_AT_ONCE = 200
"""Runs whose records are removed in one transaction: others wait for no longer than that takes."""

THREADS = 80
"""Runs of one process at once, those that it took over among them; DBOS's own measure is six on two cores. A waiting thread
costs little; what really runs is bounded by the slots of the worker."""

LOOK_SECONDS = 0.2
"""Between two looks whether a process may go on that was not sure of itself."""


class Stage(StrEnum):
    """How far the engine is with a run. ``ENDED``: with a result or an error."""

    UNKNOWN = "unknown"
    UNDER_WAY = "under-way"
    ENDED = "ended"


class SetAside(BaseException):
    """Raised by a step that this process ends with before its result is there, past every ``except Exception``: nothing is
    recorded, the run stays under way, and whoever goes on with it once this process has left begins with this step."""


class Engine:
    """One executor. Register workflows, then enter it; ``recovered`` then holds the runs that were taken over.

    ``url``: SQLAlchemy URL of the workflow records; ``connections``: for it, where it needs a password.
    """

    def __init__(self, url: str, liveness: Liveness, connections: Connections | None = None) -> None:
        self.liveness = liveness
        self.name = f"{gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.recovered: Sequence[Taken] = ()
        self._place = make_url(url).render_as_string(hide_password=True)
        _let_readers_be(url)
        self._taking_over = Lock()
        self._here: set[RunId] = set()
        self._idle: set[RunId] = set()
        self._aside: set[RunId] = set()
        DBOS(
            config=DBOSConfig(
                name="lanfree",
                system_database_url=url,
                system_database_engine=connections,
                executor_id=self.name,
                application_version=SHAPE,
                max_executor_threads=THREADS,
                # Failures of workflows are shown by whoever waits for them, once and in our words.
                log_level="CRITICAL",
                notification_listener_polling_interval_sec=0.2,
            )
        )

    def workflow(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """Register under a stable name. Arguments and results are recorded, so they are plain values."""

        def registered(*arguments: object) -> T:  # a plain function: DBOS would look for the object of a method
            run = DBOS.workflow_id or ""
            self._here.add(run)
            try:
                return function(*arguments)
            except SetAside:
                self._aside.add(run)
                raise
            finally:
                self._here.discard(run)

        return DBOS.workflow(name=name)(registered)

    def __enter__(self) -> Self:
        """Raises ``DatabaseAway`` when the records cannot be reached."""
        self.liveness.join(self.name)
        try:
            DBOS.launch()
            self.recovered = self.take_over()
        except BaseException as error:
            DBOS.destroy()
            self.liveness.leave()
            if isinstance(error, OperationalError):
                said = str(error.orig).splitlines() or [type(error.orig).__name__]
                raise DatabaseAway(self._place, said[0]) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Looked at anew each time: what waited may go on in another process meanwhile, and that may take hours.
            while not self.liveness.lost() and self._unfinished():
                sleep(LOOK_SECONDS)
        finally:
            DBOS.destroy()
            self.liveness.leave()

    def run(self, run: RunId, workflow: Callable[..., T], *arguments: object) -> T:
        """Run a workflow under the run's id and wait. Asked again for a finished run it gives the recorded result."""
        with SetWorkflowID(run):
            handle = DBOS.start_workflow(workflow, *arguments)
        return handle.get_result(polling_interval_sec=0.1)

    def start(self, run: RunId, workflow: Callable[..., object], *arguments: object) -> None:
        """As ``run``, and do not wait. A run that somebody works on already, or that ended, is left alone."""
        with SetWorkflowID(run):
            DBOS.start_workflow(workflow, *arguments)

    def step(self, name: str, function: Callable[..., T], /, *arguments: object) -> T:
        """``proxy.backup.Step``, of a run of this engine. Waits while this process is not sure to be counted on; what makes
        a restore point is not begun before others have confirmed that it is."""
        self.hold()
        if name in FINAL_STEPS and not self.liveness.confirm():
            raise _superseded()
        return DBOS.run_step({"name": name}, function, *arguments)

    def hold(self) -> None:
        """Return at once, or as soon as this process is sure again. Raises, past every ``except Exception``, when its runs
        are others' by now: nothing may be tidied up then, for they go on with it."""
        while not self.liveness.sure():
            if self.liveness.lost():
                raise _superseded()
            sleep(LOOK_SECONDS)

    @property
    def busy(self) -> bool:
        """Whether a thread of this process works on a run."""
        return bool(self._here)

    def stages(self, runs: Iterable[RunId]) -> Mapping[RunId, Stage]:
        """How far each of these is, in one query. Runs of another shape are unknown: nobody will go on with them."""
        wanted = list(runs)
        if not wanted:
            return {}
        found = DBOS.list_workflows(workflow_ids=wanted, app_version=SHAPE, load_input=False, load_output=False)
        known = {w.workflow_id: Stage.UNDER_WAY if w.status in UNFINISHED else Stage.ENDED for w in found}
        return {run: known.get(run, Stage.UNKNOWN) for run in wanted}

    def began(self, run: RunId) -> bool:
        """Whether it ever did, also under another shape."""
        return bool(DBOS.list_workflows(workflow_ids=[run], load_input=False, load_output=False))

    def live(self) -> frozenset[RunId]:
        """Runs that somebody works on, or that will be taken over: nothing of theirs is a leftover. While some proxies are
        upgraded and others are not yet, those of living ones of another shape are among them."""
        found = DBOS.list_workflows(status=UNFINISHED, load_input=False, load_output=False)
        living = self.liveness.living()
        return frozenset(w.workflow_id for w in found if w.app_version == SHAPE or w.executor_id in living)

    def take_over(self) -> Sequence["Taken"]:
        """Go on with the runs of executors that are gone, here or in another living one. What was taken over, or waits for
        that since somebody died between putting it back into the queue and its being taken from there."""
        with self._taking_over:
            under_way = DBOS.list_workflows(status=UNFINISHED, app_version=SHAPE, load_input=False, load_output=False)
            found = [w.workflow_id for w in under_way if w.status == "ENQUEUED"]
            ours = {w.workflow_id for w in under_way if w.status == "PENDING" and w.executor_id == self.name}
            found += self._wake(ours - self._here - self._aside)
            for executor in sorted({w.executor_id for w in under_way if w.executor_id and w.status == "PENDING"}):
                if executor == self.name:
                    continue
                with self.liveness.declared_gone(executor) as gone:
                    if gone:
                        # Re-enqueueing is atomic, so two processes that do it at once do not both run it.
                        handles = DBOS._recover_pending_workflows([executor])
                        found += [handle.get_workflow_id() for handle in handles]
            self.liveness.living()  # tidies up what the dead left of themselves
        return tuple(Taken(run, self._aside) for run in dict.fromkeys(found))

    def forget(self, before: datetime) -> int:
        """Remove the records of what ended before that. How many runs they were of."""
        forgotten = 0
        moment = before.isoformat()
        while True:
            old = DBOS.list_workflows(
                status=OVER, completed_before=moment, limit=FORGOTTEN_AT_ONCE, load_input=False, load_output=False
            )
            if not old:
                return forgotten
            DBOS.delete_workflows([w.workflow_id for w in old])
            forgotten += len(old)

    def _wake(self, idle: set[RunId]) -> list[RunId]:
        """Of runs that are this process's and in none of its threads, go on with those that were so at the last look too: their
        end could not be written down. The others may be on their way into a thread, or out of it."""
        stuck = sorted(idle & self._idle)
        self._idle = idle
        for run in stuck:
            DBOS.resume_workflow(run)
        return stuck

    def _unfinished(self) -> list[RunId]:
        """Runs that this process works on, or that wait and that it may be the only one to take."""
        found = DBOS.list_workflows(status=UNFINISHED, app_version=SHAPE, load_input=False, load_output=False)
        ours = [w.workflow_id for w in found if w.status == "ENQUEUED" or w.executor_id == self.name]
        return [run for run in ours if run not in self._aside]


FINAL_STEPS = frozenset({"snapshot", "seal", "release"})
"""Before these it is worth a question to the others: they change a guest's disks, or make a restore point, and there is no way
back from what two owners do to one machine."""


class Taken:
    """A run of a dead process that goes on, here or in another living one. ``aside``: those that this process set aside."""

    def __init__(self, run: RunId, aside: Collection[RunId] = ()) -> None:
        self.run = run
        self._aside = aside

    def wait(self) -> str:
        """Until it ended: how it failed, or an empty string."""
        handle: WorkflowHandle[object] = DBOS.retrieve_workflow(self.run)
        while handle.get_status().status in UNFINISHED:
            if self.run in self._aside:
                return "it was cut off with this process, and goes on with the next one that starts"
            sleep(LOOK_SECONDS)
        try:
            handle.get_result(polling_interval_sec=0.1)
        except Exception as error:  # noqa: BLE001  # how it ended is its own affair; who waits only tells it
            return str(error)
        return ""


def _superseded() -> BaseException:
    """What DBOS itself raises when a record is refused to an execution that does not own its run any more."""
    return DBOSWorkflowConflictIDError(DBOS.workflow_id or "of this process")


def _let_readers_be(url: str) -> None:
    """SQLite's write-ahead log, which stays on once it is: by itself a process that stands still while it reads keeps all
    others from writing. Where others are at it now, whoever comes next does this."""
    place = make_url(url)
    if place.get_backend_name() == "sqlite" and place.database:
        with suppress(OperationalError), create_engine(url).connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 1000")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.engine.dispose()
