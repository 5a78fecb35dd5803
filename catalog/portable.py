"""All rows of the databases (catalog, audit log, jobs, access) as SQLite files, and from one kind of database to another.

::

    SQLite      -- its own copy of pages, of one moment -->  catalog.db  audit.db  jobs.db  access.db
    PostgreSQL  -- rows by primary key, one snapshot ----->  the same files
    any         -- rows, counts compared, one commit ----->  any that is empty

From SQLite a page stays where it was, so that the chunks of two copies are mostly the same. From PostgreSQL every row is
written anew: what comes first in a table stays the same.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, Table, delete, func, insert, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from catalog import audit, database, tables
from catalog.access import tables as access_tables
from catalog.database import Password, Schema
from catalog.jobs import tables as job_tables
from proxy.errors import CatalogFailed, ConfigurationError, FormatError

# Rows on their way through Python at once, some hundred bytes each; more would save no time.
_ROWS_AT_ONCE = 1_000

# Rows that migrations put there: a database that holds no others is empty.
_FROM_THE_BEGINNING = frozenset({"audit_head"})

# Records of runs that go on, and who was signed in: nothing that a copy of another time or place should believe in.
PASSING = frozenset({"shared_state", "proxies", "sessions", "setup_code", "failed_sign_ins", "idempotency"})


@dataclass(frozen=True, slots=True)
class Part:
    """Tables that belong together. ``name``: of the SQLite file, without its suffix; ``url``: from the catalog's URL to where
    these are. ``searches``: what fills SQLite's full-text indexes, which triggers keep."""

    name: str
    schema: Schema
    tables: MetaData
    url: Callable[[str], str]
    searches: tuple[str, ...] = ()


CATALOG = Part(
    "catalog",
    database.CATALOG,
    tables.Base.metadata,
    lambda url: url,
    tuple(
        f"INSERT INTO {table}_search (rowid, text) SELECT id, folded || char(1) FROM {table} ORDER BY id"  # noqa: S608  constant
        for table in ("names", "paths")
    ),
)
AUDIT = Part("audit", database.AUDIT, audit.Base.metadata, database.audit_url)
JOBS = Part("jobs", database.JOBS, job_tables.Base.metadata, database.jobs_url)
ACCESS = Part("access", database.ACCESS, access_tables.Base.metadata, database.access_url)
PARTS = (CATALOG, AUDIT, JOBS, ACCESS)


@dataclass(frozen=True, slots=True)
class Place:
    """The databases of one appliance. ``url``: as ``Catalog`` takes it."""

    url: str
    password: Password | None = field(default=None, repr=False)

    @property
    def in_files(self) -> bool:
        """Whether it is SQLite."""
        return make_url(self.url).get_backend_name() == "sqlite"

    def file(self, part: Part) -> Path:
        """SQLite's."""
        return Path(make_url(part.url(self.url)).database or "")

    def engine(self, part: Part) -> Engine:
        """Connections; dispose of it."""
        return database.open_engine(part.url(self.url), password=self.password)

    def __str__(self) -> str:
        """For people."""
        return make_url(self.url).render_as_string(hide_password=True)


Save = Callable[[Part, Path], bool]
"""Writes one part to a new SQLite file; ``False`` when that part was never made."""


@contextmanager
def saving(place: Place) -> Iterator[Save]:
    """For copies of the databases while they are in use. PostgreSQL's are of one moment, SQLite's each of its own. Raises
    ``CatalogFailed``; then the file is not good."""
    if place.in_files:
        yield lambda part, file: _copy_pages(place.file(part), file)
        return
    for part in PARTS:
        _prepare(place, part)
    with _snapshot(place, CATALOG) as source:
        yield lambda part, file: _save_rows(source, part, file)


def size_of(place: Place, part: Part) -> int:
    """Bytes that a part takes now, about: what a copy of it will take. 0 for one that was never made."""
    if place.in_files:
        file = place.file(part)
        return sum(each.stat().st_size for each in (file, file.with_name(f"{file.name}-wal")) if each.is_file())
    with _connected(place, part) as connection:
        names = [table.name for table in part.tables.sorted_tables]
        sizes = [connection.scalar(select(func.pg_total_relation_size(func.to_regclass(name)))) for name in names]
    return sum(int(size or 0) for size in sizes)


def transfer(source: Place, target: Place) -> Mapping[str, int]:
    """Copy every row of all parts to databases that must be empty; rows by table. The counts are compared before it counts:
    all of it is there or, in PostgreSQL, nothing. Nobody may write to the source meanwhile: what comes late is not copied.
    Raises ``CatalogFailed``, ``ConfigurationError``."""
    copied: dict[str, int] = {}
    for part in PARTS:  # rows of an older schema fit no newer table
        _prepare(source, part)
        _prepare(target, part)
    with ExitStack() as held:
        opened: dict[str, Connection] = {}
        for part in PARTS:
            came = held.enter_context(_snapshot(source, part))
            url = part.url(target.url)
            if url not in opened:
                opened[url] = held.enter_context(_writing(target, part))
            with _refusals(target):
                copied |= _fill(came, opened[url], part, target)
    return copied


def is_empty(place: Place) -> bool:
    """Whether no part holds a row that somebody put there. Makes the tables. Raises ``CatalogFailed``."""
    for part in PARTS:
        _prepare(place, part)
        with _snapshot(place, part) as connection:
            if _occupied(connection, part):
                return False
    return True


def bring_up_to_date(place: Place) -> None:
    """The schema of every part that is there, to this version's. Raises ``FormatError`` for databases of a newer one."""
    for part in PARTS:
        if not place.in_files or place.file(part).is_file():
            _prepare(place, part)


@contextmanager
def alone(place: Place, name: str) -> Iterator[bool]:
    """Whether this process is the only one, of all that use these databases, between here and the end of the block. Ends with
    the connection. In SQLite, which one machine has for itself, always: there locks of files do it."""
    if place.in_files:
        yield True
        return
    with _connected(place, CATALOG) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        lock = func.pg_try_advisory_lock(func.hashtextextended(f"lanfree {name}", 0))
        yield bool(connection.scalar(select(lock)))


def _copy_pages(place: Path, file: Path) -> bool:
    """SQLite's own way: a consistent copy while others write. In write-ahead mode it waits for nobody, and nobody for it."""
    if not place.is_file():
        return False
    try:
        with closing(sqlite3.connect(place)) as source, closing(sqlite3.connect(file)) as target:
            # A copy that is not whole is not used, whatever happens.
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target)
    except sqlite3.Error as error:
        raise CatalogFailed(str(place), str(error)) from error
    return True


def _save_rows(source: Connection, part: Part, file: Path) -> bool:
    # The file takes the part's name whatever it is called, since a SQLite place has one file a part.
    place = Place(f"sqlite:///{file.with_name('catalog.db')}")
    _prepare(place, part)
    with _writing(place, part) as target:
        _copy_rows(source, target, part, without=PASSING)
    place.file(part).replace(file)
    return True


def _prepare(place: Place, part: Part) -> None:
    engine = place.engine(part)
    try:
        with _refusals(place):
            try:
                database.upgrade(engine, schema=part.schema)
            except database.NewerSchema as error:
                raise FormatError(f"the {part.name} in {place}", str(error)) from None
    finally:
        engine.dispose()


@contextmanager
def _snapshot(place: Place, part: Part) -> Iterator[Connection]:
    """What is read is of one moment."""
    with _connected(place, part) as connection:
        if place.in_files:
            connection.execution_options(lanfree_writes=False)
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def _writing(place: Place, part: Part) -> Iterator[Connection]:
    with _connected(place, part) as connection, connection.begin():
        yield connection


@contextmanager
def _connected(place: Place, part: Part) -> Iterator[Connection]:
    engine = place.engine(part)
    try:
        with _refusals(place), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _fill(source: Connection, target: Connection, part: Part, place: Place) -> Mapping[str, int]:
    if _occupied(target, part):
        raise ConfigurationError(str(place), f"has rows of the {part.name} already", hint="name an empty database")
    copied = _copy_rows(source, target, part)
    for table in part.tables.sorted_tables:
        there = _count(target, table)
        if there != copied[table.name]:
            raise CatalogFailed(str(place), f"{table.name}: {copied[table.name]} rows became {there}")
    return copied


def _copy_rows(source: Connection, target: Connection, part: Part, *, without: Collection[str] = ()) -> dict[str, int]:
    """In the order of what refers to what; rows by table."""
    copied: dict[str, int] = {}
    for table in reversed(part.tables.sorted_tables):
        target.execute(delete(table))
    with _searches_later(target, part):
        for table in part.tables.sorted_tables:
            copied[table.name] = 0 if table.name in without else _copy_table(source, target, table)
    return copied


def _copy_table(source: Connection, target: Connection, table: Table) -> int:
    """Past SQLAlchemy's preparation of each row, which takes longer than the databases do."""
    query = select(table).order_by(*table.primary_key)
    rows = source.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
    dialect = target.dialect
    into = str(insert(table).compile(dialect=dialect))
    names = [column.name for column in table.columns]
    prepare = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    count = 0
    for batch in rows.partitions():
        made = [tuple(p(v) if p is not None else v for p, v in zip(prepare, row, strict=True)) for row in batch]
        positional = dialect.positional
        target.exec_driver_sql(into, made if positional else [dict(zip(names, row, strict=True)) for row in made])
        count += len(made)
    if dialect.name == "postgresql":
        _count_on(target, table)
    return count


@contextmanager
def _searches_later(target: Connection, part: Part) -> Iterator[None]:
    """SQLite's full-text indexes are filled many times faster by one statement than by a trigger for each row."""
    if target.dialect.name != "sqlite" or not part.searches:
        yield
        return
    known = target.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name").all()
    for name, _ in known:
        target.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    for fill in part.searches:
        target.exec_driver_sql(fill)
    for _, made in known:
        target.exec_driver_sql(made)


def _count_on(connection: Connection, table: Table) -> None:
    """PostgreSQL's own numbers go on behind those that were brought along."""
    column = table.autoincrement_column
    if column is None:
        return
    own = connection.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
    largest = connection.scalar(select(func.max(column)))
    if own is not None and largest is not None:
        connection.execute(text("SELECT setval(:own, :largest)"), {"own": own, "largest": largest})


def _occupied(connection: Connection, part: Part) -> bool:
    wanted = (table for table in part.tables.sorted_tables if table.name not in _FROM_THE_BEGINNING | PASSING)
    return any(connection.execute(select(table).limit(1)).first() is not None for table in wanted)


def _count(connection: Connection, table: Table) -> int:
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


@contextmanager
def _refusals(place: Place) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise CatalogFailed(str(place), str(getattr(error, "orig", None) or error).splitlines()[0]) from error
