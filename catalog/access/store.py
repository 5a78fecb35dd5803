"""The door to users, tokens, sessions and approvals: ``with AccessStore(url).transaction() as unit:``.

Beside SQLite's catalog a database of its own (``access.db``), in PostgreSQL's tables of its own; nothing makes them again, so
what is committed is on disk. One transaction writes at a time, on both: a decision that rests on what it reads (is this the
last administrator? was this tried too often?) stays right until it ends. They are few and short. Reading ones never wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from catalog import database
from catalog.access.approvals import Approvals
from catalog.access.idempotency import Idempotency
from catalog.access.sessions import Sessions
from catalog.access.sign_ins import SetupCode, SignIns
from catalog.access.tables import FailedSignInRow, IdempotencyRow, SessionRow, SetupCodeRow
from catalog.access.tokens import Tokens
from catalog.access.users import Users
from proxy.closing import Closeable
from proxy.errors import AccessStoreFailed

# Connections beside the five that are kept: requests that are answered at once are some dozens, and each holds one for the
# milliseconds of its own transaction.
_MORE = 25


class Unit:
    """One transaction. What its parts return are values, good after the transaction's end."""

    def __init__(self, session: Session) -> None:
        self.users = Users(session)
        self.tokens = Tokens(session)
        self.sessions = Sessions(session)
        self.sign_ins = SignIns(session)
        self.setup_code = SetupCode(session)
        self.idempotency = Idempotency(session)
        self.approvals = Approvals(session)


class AccessStore(Closeable):
    """Who may sign in at the appliance whose catalog is at ``url``. Brings its schema up to date when it is opened. May be
    shared by threads and, where the database is, by processes and machines; each transaction belongs to one thread.

    Raises ``DatabaseAway`` while the database does not answer, ``AccessStoreFailed`` when it refuses.
    """

    def __init__(self, url: str, password: database.Password | None = None) -> None:
        target = database.access_url(url)
        self._engine = database.open_engine(target, durable=True, password=password, more=_MORE)
        with self._refusals():
            database.upgrade(self._engine, schema=database.ACCESS)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Unit]:
        """Commits at the end of the block, undoes everything when the block raises. ``write=False``: promises not to write,
        and does not wait for those who do."""
        with self._refusals(), self._engine.connect() as connection:
            connection.execution_options(lanfree_writes=write)
            with Session(connection) as session, session.begin():
                if write:
                    database.write_alone(session, database.ACCESS)
                yield Unit(session)

    def forget_passing(self) -> None:
        """Nobody is signed in any more, no code holds, and no answer is kept: for a copy of another time or place."""
        with self._refusals(), self._engine.begin() as connection:
            for table in (SessionRow, SetupCodeRow, FailedSignInRow, IdempotencyRow):
                connection.execute(delete(table))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise database.refusal(error, self._engine, AccessStoreFailed) from error
