"""The door to jobs, their runs and tasks, and the proxies: ``with JobStore(url).transaction() as unit:``.

Beside SQLite's catalog a database of its own (``jobs.db``), in PostgreSQL's tables of its own; nothing makes them again, so
what is committed is on disk. One transaction writes at a time, on both: what it reads stays true until it ends. That is what
makes claims (``catalog.jobs.claims``) and beginnings of runs exact, and they are few and short. Reading ones never wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from catalog import database
from catalog.jobs.jobs import Jobs
from catalog.jobs.past import Past
from catalog.jobs.proxies import Proxies
from catalog.jobs.runs import JobRuns
from catalog.jobs.shared_state import SharedState
from catalog.jobs.tasks import Tasks
from proxy.closing import Closeable
from proxy.errors import JobStoreFailed

_MORE = 25
"""Connections beside the five that are kept. Of the workflows of a process (some dozens) few are in a transaction at the same
time, and those that write wait for each other anyhow; a server has a hundred for all proxies if nobody said more."""


class Unit:
    """One transaction. What its parts return are values, good after the transaction's end."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.jobs = Jobs(session)
        self.runs = JobRuns(session)
        self.tasks = Tasks(session)
        self.proxies = Proxies(session)
        self.past = Past(session)


class JobStore(Closeable):
    """Jobs of the appliance whose catalog is at ``url``. Brings its schema up to date when it is opened. May be shared by
    threads and, where the database is, by processes and machines; each transaction belongs to one thread.

    Raises ``DatabaseAway`` while the database does not answer (see ``catalog.database.patiently``), ``JobStoreFailed`` when it
    refuses.
    """

    def __init__(self, url: str, password: database.Password | None = None) -> None:
        target = database.jobs_url(url)
        self._engine = self._apart = database.open_engine(target, durable=True, password=password, more=_MORE)
        if self._engine.dialect.name != "sqlite":
            self._apart = database.open_engine(target, password=password, connections=1, more=-1)
        with self._refusals():
            database.upgrade(self._engine, schema=database.JOBS)

    @contextmanager
    def transaction(self, *, write: bool = True, apart: bool = False) -> Iterator[Unit]:
        """Commits at the end of the block, undoes everything when the block raises. ``write=False``: promises not to write,
        and does not wait for those who do. ``apart``: never waits for a connection that others of this process have."""
        with self._refusals(), (self._apart if apart else self._engine).connect() as connection:
            connection.execution_options(lanfree_writes=write)
            with Session(connection) as session, session.begin():
                if write:
                    database.write_alone(session)
                yield Unit(session)

    def forget(self, before: datetime) -> int:
        """Remove the history of runs that ended before that, in transactions that are short enough for others to wait.
        Returns how many job runs were removed."""
        removed = 0
        while True:
            with self.transaction() as unit:
                some = unit.runs.forget(before)
            if not some:
                return removed
            removed += some

    @property
    def shared(self) -> SharedState:
        """What the drivers of several proxies note for each other; PostgreSQL alone has it."""
        return SharedState(self._engine, self._apart, self._refusals)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._apart.dispose()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise database.refusal(error, self._engine, JobStoreFailed) from error
