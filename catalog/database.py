"""The database behind the catalog: engine, pragmas, schema upgrade. SQLite by default; the URL decides.

``sqlite:////var/lib/lanfree/state/catalog.db``, ``sqlite://`` (in memory, for tests), ``postgresql+psycopg://…``.
"""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import StaticPool

# A writer waits this long for another one (indexing a large machine is one transaction), then fails with "locked".
BUSY_MILLISECONDS = 60_000

# Pages kept in memory for one connection. The index of a million files is some 300 MiB; searches touch a part of it.
CACHE_KIB = 64 * 1024

MIGRATIONS = Path(__file__).with_name("migrations")


def open_engine(url: str) -> Engine:
    """An engine with the settings that the catalog counts on. Does not create tables; see ``upgrade``."""
    target = make_url(url)
    if target.get_backend_name() != "sqlite":
        return create_engine(target)
    if target.database in (None, "", ":memory:"):
        engine = create_engine(target, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(target, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to ``revision``; an empty database gets it from the first one. Safe to call at every start."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Back to an older schema, ``base`` for none. What the older one cannot hold is dropped: a rebuild brings it back."""
    with engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and by itself, which loses the lock order; _begin_sqlite does it instead.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "journal_mode = WAL",  # readers go on while a restore point is indexed
        "synchronous = NORMAL",  # a power cut may lose the last transactions, never the database: it can be rebuilt
        "foreign_keys = ON",
        f"cache_size = -{CACHE_KIB}",
        "temp_store = FILE",  # a walk is staged in a temporary table; millions of files do not fit into memory
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once when another writer came between; a writer
    # therefore takes the lock at its beginning and waits for it there.
    writes = connection.get_execution_options().get("lanfree_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
