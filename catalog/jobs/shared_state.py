"""``proxy.ports.StateStore`` in PostgreSQL: what several proxies of one site must all know of each other's runs. One proxy with
SQLite keeps the same in a directory (``proxy.state_directory``)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from hashlib import blake2b

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from catalog import database
from catalog.jobs.tables import SharedStateRow
from proxy.state_directory import checked_name


class SharedState:
    """``refusals``: turns what the database refuses into our errors. A lock is the database's own (session-level advisory): it
    ends with its connection, hence with the process, and no lock outlives a proxy that is gone for long. ``locks``: its
    connections come from there, one for each lock that is held or waited for: who has one needs a second for the records."""

    def __init__(
        self, engine: Engine, locks: Engine, refusals: Callable[[], AbstractContextManager[None]], folder: str = ""
    ) -> None:
        self._engine = engine
        self._locks = locks
        self._refusals = refusals
        self._folder = folder

    def put(self, name: str, data: bytes) -> None:
        """See the port."""
        row = {"name": self._whole(name), "data": data, "updated_at": datetime.now(UTC)}
        fresh = insert(SharedStateRow).values(row)
        with self._refusals(), self._engine.begin() as connection:
            connection.execute(fresh.on_conflict_do_update(index_elements=["name"], set_=row))

    def get(self, name: str) -> bytes | None:
        """See the port."""
        with self._refusals(), self._engine.begin() as connection:
            return connection.scalar(select(SharedStateRow.data).where(SharedStateRow.name == self._whole(name)))

    def remove(self, name: str) -> None:
        """See the port."""
        with self._refusals(), self._engine.begin() as connection:
            connection.execute(delete(SharedStateRow).where(SharedStateRow.name == self._whole(name)))

    def names(self, folder: str) -> list[str]:
        """See the port."""
        prefix = f"{self._whole(folder)}/"
        below = select(SharedStateRow.name).where(SharedStateRow.name.startswith(prefix, autoescape=True))
        with self._refusals(), self._engine.begin() as connection:
            found = [name.removeprefix(prefix) for name in connection.scalars(below)]
        return sorted(name for name in found if "/" not in name)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """See the port. Raises ``DatabaseAway`` when others do not give it back for a minute: it may be that a machine which
        had it is without power, and the server has yet to notice."""
        number = int.from_bytes(blake2b(self._whole(name).encode(), digest_size=8).digest(), "big", signed=True)
        with self._refusals(), self._locks.connect() as connection:
            database.limit_waiting(connection)
            connection.execute(select(func.pg_advisory_lock(number)))
            connection.commit()
            try:
                yield
            finally:
                connection.execute(select(func.pg_advisory_unlock(number)))
                connection.commit()

    def folder(self, name: str) -> "SharedState":
        """See the port."""
        return SharedState(self._engine, self._locks, self._refusals, self._whole(name))

    def _whole(self, name: str) -> str:
        return f"{self._folder}/{checked_name(name)}" if self._folder else checked_name(name)
