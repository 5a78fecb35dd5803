"""The door to the catalog: ``with Catalog(url).transaction() as unit:``. All or nothing; nothing outside of a unit."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from catalog import database
from catalog.audit import Audit
from catalog.carry import Carry
from catalog.files import Files
from catalog.growth import Growth
from catalog.inventory import Inventory
from catalog.machine_list import Machines
from catalog.point_list import Points
from catalog.restore_points import RestorePoints
from catalog.runs import Runs
from catalog.stage import Stage
from catalog.values import IndexedFile, IndexedNetworkVolume, IndexedVolume
from proxy.closing import Closeable
from proxy.errors import AuditFailed, CatalogFailed
from proxy.model import Reason, RestorePointId


class Unit:
    """One transaction. What its parts return are values, good after the transaction's end."""

    def __init__(self, session: Session) -> None:
        self.files = Files(session)
        self.restore_points = RestorePoints(session, self.files)
        self.runs = Runs(session)
        self.inventory = Inventory(session)
        self.machines = Machines(session)
        self.points = Points(session)
        self.growth = Growth(session)


class Catalog(Closeable):
    """An index over the repository, in a database named by ``url``. Brings the schema up to date when it is opened.

    May be shared by threads; each transaction belongs to one. With SQLite one transaction writes at a time, the others
    wait; reading ones never wait.
    """

    def __init__(self, url: str, password: database.Password | None = None) -> None:
        """``password``: of the database's server, if it asks."""
        self._url, self._password = url, password
        self._engine = database.open_engine(url, password=password)
        with self._refusals():
            database.upgrade(self._engine)

    @cached_property
    def audit(self) -> Audit:
        """The audit log beside this catalog: each entry is a transaction of its own, in a database of its own (see
        ``database.audit_url``). Raises ``AuditFailed`` when it cannot be opened."""
        engine = database.open_engine(database.audit_url(self._url), durable=True, password=self._password)
        with self._refusals(engine):
            database.upgrade(engine, schema=database.AUDIT)
        return Audit(engine)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Unit]:
        """Commits at the end of the block, undoes everything when the block raises. ``write=False``: promises not to
        write, and does not wait for those who do. Raises ``CatalogFailed`` when the database refuses, ``DatabaseAway`` when it
        does not answer."""
        with self._refusals(), self._engine.connect() as connection, self._unit(connection, write=write) as unit:
            yield unit

    def index(
        self,
        point: RestorePointId,
        batches: Iterable[Sequence[IndexedFile]],
        volumes: Sequence[IndexedVolume] = (),
        *,
        carry: Carry | None = None,
        network: Sequence[IndexedNetworkVolume] = (),
        reasons: Sequence[Reason] = (),
    ) -> int:
        """``Files.index`` in a transaction of its own that begins after the last batch, so that nobody waits for a walk.

        ``carry``: the batches hold only what changed in its volumes, the rest is as in its base; refused with
        ``CarryRefused`` before the first batch is asked for, or at the end, when what it builds on was changed meanwhile or
        a volume turns out to be mounted elsewhere; then nothing was written. ``network``: storage of the guest that no
        image holds. ``reasons``: who read the files, and how much of it. All of these, and ``volumes``, are looked at after
        the last batch. Returns how many files the batches held.

        The restore point must be in the catalog by then, with ``carry`` at once. Raises ``RestorePointNotFound``,
        ``CarryRefused``, ``CatalogFailed``, and what the batches raise.
        """
        if carry is not None:
            with self.transaction(write=False) as unit:
                unit.files.check_carry(point, carry)
        with self._refusals(), self._engine.connect() as connection:
            connection.execution_options(lanfree_writes=False)
            with connection.begin():  # temporary tables only: no lock on what others see
                stage = Stage(connection)
                count = sum(stage.add(batch) for batch in batches)
            with self._unit(connection, write=True) as unit:
                unit.files.index_staged(point, stage, volumes, carry=carry, network=network, reasons=reasons)
            return count

    @contextmanager
    def _unit(self, connection: Connection, *, write: bool) -> Iterator[Unit]:
        connection.execution_options(lanfree_writes=write)
        with Session(connection) as session, session.begin():
            yield Unit(session)

    @contextmanager
    def _refusals(self, engine: Engine | None = None) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            otherwise = CatalogFailed if engine is None else AuditFailed
            raise database.refusal(error, engine or self._engine, otherwise) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        opened: Audit | None = self.__dict__.pop("audit", None)
        if opened is not None:
            opened.close()
