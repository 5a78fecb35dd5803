"""The databases behind catalog, audit log and jobs: engine, pragmas, schema upgrade. SQLite by default; the URL decides.

``sqlite:////var/lib/lanfree/state/catalog.db``, ``sqlite://`` (in memory, for tests), ``postgresql+psycopg://…``.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from proxy.errors import DatabaseAway, LanfreeError

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Password = Callable[[], str]
"""Asked for each new connection, so that the password is in no URL, and a new one needs no restart."""

# A writer waits this long for another one (indexing a large machine is one transaction), then fails with "locked".
BUSY_MILLISECONDS = 60_000

# Pages kept in memory for one connection. The index of a million files is some 300 MiB; searches touch a part of it.
CACHE_KIB = 64 * 1024

# Seconds. A server that is there takes a connection in milliseconds; three lost SYNs take seven.
CONNECTING = 10

# Of an established connection whose server is gone without a word (a machine that lost power): noticed within half a minute.
_ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}

# The same for the server, which else keeps the locks of a machine that lost power for the two hours of its system's keepalives.
# Sockets of the same machine have none, and take no harm.
_ALIVE_THERE = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"

# Who holds the right to write alone, or to change tables, and falls silent (a proxy that was suspended) loses his connection
# after this time, and the others wait for no longer than that: longer than any transaction of the jobs takes.
_ALONE_MILLISECONDS = 60_000

# PostgreSQL's advisory locks are numbers that whoever uses the database agrees on. Ours begin with "LAN" in ASCII.
_CHANGES_TABLES, _WRITES_ALONE, _WRITES_ACCESS_ALONE, _LOOKS_ALONE = 0x4C414E_01, 0x4C414E_02, 0x4C414E_03, 0x4C414E_04

# Alembic keeps what a migration works on in global variables: two threads that open two stores (a first start) would mix them.
_ALEMBIC = threading.Lock()

# PostgreSQL's SQLSTATEs after which the same may succeed later: no connection, shutdown and start, too many connections,
# a wait or an idle transaction that was ended, a deadlock.
_AWAY = ("08", "57P", "53300", "55P03", "25P03", "25P04", "40001", "40P01")

# Refused connections carry no SQLSTATE. These need a person; all else may pass.
_REFUSED = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "permission denied")


class NewerSchema(SQLAlchemyError):
    """A database that a newer version of Lanfree wrote: what is stored there is not known here, and is left alone."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"a newer version of Lanfree wrote it (its revision {revision} is unknown to this one): "
            "run that version, or bring back what was saved before the upgrade"
        )


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables that are brought up to date together. ``version_table``: where their revision is kept."""

    migrations: Path
    version_table: str


CATALOG = Schema(Path(__file__).with_name("migrations"), "alembic_version")
AUDIT = Schema(Path(__file__).with_name("audit_migrations"), "audit_alembic_version")
JOBS = Schema(Path(__file__).with_name("jobs") / "migrations", "jobs_alembic_version")
ACCESS = Schema(Path(__file__).with_name("access") / "migrations", "access_alembic_version")


def open_engine(
    url: str, *, durable: bool = False, password: Password | None = None, connections: int = 5, more: int = 10
) -> Engine:
    """An engine with the settings that the catalog counts on. Does not create tables; see ``upgrade``. ``durable``: what is
    committed is on disk, also after a power cut; for what cannot be made again. ``password``: of a server, if it asks.
    ``connections``: that are kept for the next one who needs them; ``more``: that are opened beside them while all are in
    use, -1 for as many as are asked for. Who finds none free for half a minute is told that the database is away."""
    target = make_url(url)
    if target.get_backend_name() != "sqlite":
        return _server_engine(target, password, connections, more)
    if target.database in (None, "", ":memory:"):
        engine = create_engine(target, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        waits = {"timeout": BUSY_MILLISECONDS / 1000}
        engine = create_engine(target, pool_size=connections, max_overflow=more, connect_args=waits)
    event.listen(engine, "connect", partial(_prepare_sqlite, durable))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _server_engine(url: URL, password: Password | None, connections: int, more: int) -> Engine:
    settings = {"connect_timeout": CONNECTING, "application_name": "lanfree", **_ALIVE}
    own = {name: value for name, value in settings.items() if name not in url.query}
    said = url.query.get("options", "")
    own["options"] = " ".join(
        [_ALIVE_THERE, *([said] if isinstance(said, str) else said)]
    ).strip()  # the last one counts
    # Connections of a server that was restarted meanwhile are replaced when they are taken from the pool.
    engine = create_engine(url, pool_pre_ping=True, pool_size=connections, max_overflow=more, connect_args=own)
    event.listen(engine, "do_connect", partial(_connect, password))
    return engine


def _connect(
    password: Password | None, dialect: Dialect, _record: object, arguments: list[Any], parameters: dict[str, Any]
) -> Any:
    if password is not None:
        parameters["password"] = password()
    try:
        return dialect.connect(*arguments, **parameters)
    except dialect.loaded_dbapi.OperationalError as error:
        # psycopg has two words for the same. The workflow engine, which uses this too, waits only for who says the one.
        said = str(error)
        if error.sqlstate is None and said.startswith("connection is bad: "):
            raise type(error)(said.replace("connection is bad: ", "connection failed: ", 1)) from error
        raise


def audit_url(catalog: str) -> str:
    """Where the audit log of a catalog is: a file beside SQLite's, which is deleted to make the catalog again; in
    PostgreSQL the same database, which is backed up as a whole."""
    return _beside(catalog, "audit.db")


def jobs_url(catalog: str) -> str:
    """Where the jobs are, for the same reason."""
    return _beside(catalog, "jobs.db")


def access_url(catalog: str) -> str:
    """Where users, tokens and sessions are, for the same reason."""
    return _beside(catalog, "access.db")


def _beside(catalog: str, name: str) -> str:
    target = make_url(catalog)
    if target.get_backend_name() != "sqlite" or target.database in (None, "", ":memory:"):
        return catalog
    return target.set(database=str(Path(str(target.database)).with_name(name))).render_as_string(False)


def upgrade(engine: Engine, revision: str = "head", schema: Schema = CATALOG) -> None:
    """Bring the schema to ``revision``; an empty database gets it from the first one. Safe to call at every start: where
    nothing is to be done, it waits for nobody. Raises ``NewerSchema``."""
    if _is_newest(engine, schema) and revision == "head":
        return
    with _ALEMBIC, _changing_tables(engine) as connection:
        command.upgrade(_config(connection, schema), revision)


def downgrade(engine: Engine, revision: str, schema: Schema = CATALOG) -> None:
    """Back to an older schema, ``base`` for none. What the older one cannot hold is dropped: a rebuild brings it back."""
    with _ALEMBIC, _changing_tables(engine) as connection:
        command.downgrade(_config(connection, schema), revision)


def _is_newest(engine: Engine, schema: Schema) -> bool:
    with engine.connect() as connection:
        connection.execution_options(lanfree_writes=False)
        known = ScriptDirectory.from_config(_config(connection, schema))
        context = MigrationContext.configure(connection, opts={"version_table": schema.version_table})
        current = context.get_current_revision()
        if current is not None and current not in {each.revision for each in known.walk_revisions()}:
            raise NewerSchema(current)
        return current == known.get_current_head()


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
                if not sqlite:  # proxies that start at once: the second finds nothing to do
                    _wait_alone(connection, _CHANGES_TABLES)
                yield connection
        finally:
            if sqlite:
                raw.execute("PRAGMA foreign_keys = ON")


def write_alone(session: Session, schema: Schema = JOBS) -> None:
    """Until the end of this transaction no other one writes that says the same; with SQLite that is so anyhow. For few and
    short transactions, whose decisions rest on what they read. To be called before anything is read. ``schema``: jobs,
    access, or the catalog (there: of the inventory), whose writers do not wait for each other."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        _wait_alone(connection, {ACCESS: _WRITES_ACCESS_ALONE, CATALOG: _LOOKS_ALONE}.get(schema, _WRITES_ALONE))


def limit_waiting(connection: Connection) -> None:
    """Until the end of this transaction of a server's, a lock that is not had for so long raises ``DatabaseAway``."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_ALONE_MILLISECONDS}")


def _wait_alone(connection: Connection, lock: int) -> None:
    limits = f"SET LOCAL lock_timeout = {_ALONE_MILLISECONDS}; "
    limits += f"SET LOCAL idle_in_transaction_session_timeout = {_ALONE_MILLISECONDS}; "
    connection.exec_driver_sql(f"{limits} SELECT pg_advisory_xact_lock({lock})")


def refusal(error: SQLAlchemyError, engine: Engine, otherwise: Callable[[str, str], LanfreeError]) -> LanfreeError:
    """What a database's error means to callers: ``DatabaseAway`` where the same may succeed later. Holds no secrets."""
    why = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
    place = engine.url.render_as_string(hide_password=True)
    return DatabaseAway(place, why) if _may_pass(error) else otherwise(place, why)


def _may_pass(error: SQLAlchemyError) -> bool:
    if isinstance(error, PoolExhausted):  # all connections are in use, by others of this process
        return True
    if not isinstance(error, DBAPIError):
        return False
    said = str(error.orig)
    state = getattr(error.orig, "sqlstate", "")
    if state == "":  # SQLite
        return "database is locked" in said
    if state is None:
        return not any(word in said for word in _REFUSED)
    return error.connection_invalidated or str(state).startswith(_AWAY)


def patient(
    stopped: threading.Event, wait: float = 1.0, longest: float = 30.0
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates what is a transaction, or may be done twice: while the database is away it is tried again after ``wait``
    seconds, then twice that, at most ``longest``. Raises ``DatabaseAway`` when ``stopped`` is set meanwhile."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def again(*arguments: P.args, **named: P.kwargs) -> T:
            seconds, said = wait, False
            while True:
                try:
                    result = function(*arguments, **named)
                except DatabaseAway as away:
                    if not said:
                        _LOG.warning("%s; waiting for it", away.message)
                    said = True
                    if stopped.wait(seconds):
                        raise
                    seconds = min(seconds * 2, longest)
                else:
                    if said:
                        _LOG.warning("the database is back")
                    return result

        return again

    return decorate


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
