"""The door to the catalog: ``with Catalog(url).transaction() as unit:``. All or nothing; nothing outside of a unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from catalog import database
from catalog.files import Files
from catalog.restore_points import RestorePoints
from catalog.runs import Runs


class Unit:
    """One transaction. What its parts return are values, good after the transaction's end."""

    def __init__(self, session: Session) -> None:
        self.files = Files(session)
        self.restore_points = RestorePoints(session, self.files)
        self.runs = Runs(session)


class Catalog:
    """An index over the repository, in a database named by ``url``. Brings the schema up to date when it is opened.

    May be shared by threads; each transaction belongs to one. With SQLite one transaction writes at a time, the others
    wait; reading ones never wait.
    """

    def __init__(self, url: str) -> None:
        self._engine = database.open_engine(url)
        database.upgrade(self._engine)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Unit]:
        """Commits at the end of the block, undoes everything when the block raises. ``write=False``: promises not to
        write, and does not wait for those who do."""
        with (
            self._engine.connect().execution_options(lanfree_writes=write) as connection,
            Session(connection) as session,
            session.begin(),
        ):
            yield Unit(session)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
