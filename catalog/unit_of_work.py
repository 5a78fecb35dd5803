"""The door to the catalog: ``with Catalog(url).transaction() as unit:``. All or nothing; nothing outside of a unit."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from catalog import database
from catalog.files import Files, IndexedVolume
from catalog.restore_points import RestorePoints
from catalog.runs import Runs
from catalog.stage import IndexedFile, Stage
from proxy.closing import Closeable
from proxy.errors import CatalogFailed
from proxy.model import RestorePointId


class Unit:
    """One transaction. What its parts return are values, good after the transaction's end."""

    def __init__(self, session: Session) -> None:
        self.files = Files(session)
        self.restore_points = RestorePoints(session, self.files)
        self.runs = Runs(session)


class Catalog(Closeable):
    """An index over the repository, in a database named by ``url``. Brings the schema up to date when it is opened.

    May be shared by threads; each transaction belongs to one. With SQLite one transaction writes at a time, the others
    wait; reading ones never wait.
    """

    def __init__(self, url: str) -> None:
        self._engine = database.open_engine(url)
        self._place = self._engine.url.render_as_string(hide_password=True)
        with self._refusals():
            database.upgrade(self._engine)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Unit]:
        """Commits at the end of the block, undoes everything when the block raises. ``write=False``: promises not to
        write, and does not wait for those who do. Raises ``CatalogFailed`` when the database refuses."""
        with self._refusals(), self._engine.connect() as connection, self._unit(connection, write=write) as unit:
            yield unit

    def index(
        self, point: RestorePointId, batches: Iterable[Sequence[IndexedFile]], volumes: Sequence[IndexedVolume] = ()
    ) -> int:
        """``Files.index`` in a transaction of its own that begins after the last batch, so that nobody waits for a walk.

        The restore point must be in the catalog by then. Raises ``RestorePointNotFound``, ``CatalogFailed``, and what the
        batches raise.
        """
        with self._refusals(), self._engine.connect() as connection:
            connection.execution_options(lanfree_writes=False)
            with connection.begin():  # temporary tables only: no lock on what others see
                stage = Stage(connection)
                count = sum(stage.add(batch) for batch in batches)
            with self._unit(connection, write=True) as unit:
                unit.files.index_staged(point, stage, volumes)
            return count

    @contextmanager
    def _unit(self, connection: Connection, *, write: bool) -> Iterator[Unit]:
        connection.execution_options(lanfree_writes=write)
        with Session(connection) as session, session.begin():
            yield Unit(session)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            why = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise CatalogFailed(self._place, why) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
