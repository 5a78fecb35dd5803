"""The databases behind catalog and audit log: engine, pragmas, schema upgrade. SQLite by default; the URL decides.

``sqlite:////var/lib/lanfree/state/catalog.db``, ``sqlite://`` (in memory, for tests), ``postgresql+psycopg://…``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import StaticPool

# A writer waits this long for another one (indexing a large machine is one transaction), then fails with "locked".
BUSY_MILLISECONDS = 60_000

# Pages kept in memory for one connection. The index of a million files is some 300 MiB; searches touch a part of it.
CACHE_KIB = 64 * 1024


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables that are brought up to date together. ``version_table``: where their revision is kept."""

    migrations: Path
    version_table: str


CATALOG = Schema(Path(__file__).with_name("migrations"), "alembic_version")
AUDIT = Schema(Path(__file__).with_name("audit_migrations"), "audit_alembic_version")


def open_engine(url: str, *, durable: bool = False) -> Engine:
    """An engine with the settings that the catalog counts on. Does not create tables; see ``upgrade``. ``durable``: what is
    committed is on disk, also after a power cut; for what cannot be made again."""
    target = make_url(url)
    if target.get_backend_name() != "sqlite":
        return create_engine(target)
    if target.database in (None, "", ":memory:"):
        engine = create_engine(target, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(target, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
    event.listen(engine, "connect", partial(_prepare_sqlite, durable))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def audit_url(catalog: str) -> str:
    """Where the audit log of a catalog is: a file beside SQLite's, which is deleted to make the catalog again; in
    PostgreSQL the same database, which is backed up as a whole."""
    target = make_url(catalog)
    if target.get_backend_name() != "sqlite" or target.database in (None, "", ":memory:"):
        return catalog
    return target.set(database=str(Path(str(target.database)).with_name("audit.db"))).render_as_string(False)


def upgrade(engine: Engine, revision: str = "head", schema: Schema = CATALOG) -> None:
    """Bring the schema to ``revision``; an empty database gets it from the first one. Safe to call at every start: where
    nothing is to be done, it waits for nobody."""
    if revision == "head" and _is_newest(engine, schema):
        return
    with _changing_tables(engine) as connection:
        command.upgrade(_config(connection, schema), revision)


def downgrade(engine: Engine, revision: str, schema: Schema = CATALOG) -> None:
    """Back to an older schema, ``base`` for none. What the older one cannot hold is dropped: a rebuild brings it back."""
    with _changing_tables(engine) as connection:
        command.downgrade(_config(connection, schema), revision)


def _is_newest(engine: Engine, schema: Schema) -> bool:
    with engine.connect() as connection:
        connection.execution_options(lanfree_writes=False)
        head = ScriptDirectory.from_config(_config(connection, schema)).get_current_head()
        context = MigrationContext.configure(connection, opts={"version_table": schema.version_table})
        return context.get_current_revision() == head


@contextmanager
def _changing_tables(engine: Engine) -> Iterator[Connection]:
    """A transaction for migrations. SQLite changes a table by making another one and dropping the first, and what refers to
    the dropped rows must not go with them; it listens to this only outside of transactions."""
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        sqlite = engine.dialect.name == "sqlite"
        if sqlite:
            raw.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            if sqlite:
                raw.execute("PRAGMA foreign_keys = ON")


def _config(connection: Connection, schema: Schema) -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.migrations))
    config.attributes["connection"] = connection
    return config


def _prepare_sqlite(durable: bool, connection: Any, _record: object) -> None:
    # The driver would begin transactions late and by itself, which loses the lock order; _begin_sqlite does it instead.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "journal_mode = WAL",  # readers go on while a restore point is indexed
        # A power cut may lose the last transactions of what can be made again, never the database.
        f"synchronous = {'FULL' if durable else 'NORMAL'}",
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
