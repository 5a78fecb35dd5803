import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    insert,
    inspect,
    text,
)

from catalog import database
from catalog.access.store import AccessStore
from catalog.access.tables import Base as AccessBase
from catalog.audit import Base as AuditBase
from catalog.jobs.store import JobStore
from catalog.jobs.tables import Base as JobsBase
from catalog.machine_list import MachineQuery
from catalog.search import Query
from catalog.tables import OPEN, Base
from catalog.unit_of_work import Catalog
from proxy.errors import (
    AccessStoreFailed,
    AuditFailed,
    CatalogFailed,
    JobStoreFailed,
    LanfreeError,
    RestorePointNotFound,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("schema", "place", "opened", "refused"),
    [
        (database.CATALOG, str, Catalog, CatalogFailed),
        (database.AUDIT, database.audit_url, lambda url: Catalog(url).audit, AuditFailed),
        (database.JOBS, database.jobs_url, JobStore, JobStoreFailed),
        (database.ACCESS, database.access_url, AccessStore, AccessStoreFailed),
    ],
    ids=["catalog", "audit", "jobs", "access"],
)
def test_what_a_newer_version_wrote_is_said_to_be_so_and_left_alone(
    schema: database.Schema,
    place: Callable[[str], str],
    opened: Callable[[str], object],
    refused: type[LanfreeError],
    url: str,
) -> None:
    engine = database.open_engine(place(url))
    database.upgrade(engine, schema=schema)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.version_table} SET version_num = '9999'"))
    with pytest.raises(refused, match="a newer version of Lanfree wrote it"):
        opened(url)
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {schema.version_table}")).scalar_one() == "9999"
    engine.dispose()


def of_no_model(thing: object, name: str | None, kind: str, reflected: bool, _: object) -> bool:
    """What SQLAlchemy has no words for: the tables and indexes of trigrams, which migrations make; or cannot read: an index
    that is looked for in another way."""
    if name == "ix_tasks_waiting":
        return False
    return not (reflected and kind in ("table", "index") and "_search" in (name or ""))


@pytest.mark.parametrize(
    ("schema", "tables"),
    [
        (database.CATALOG, Base.metadata),
        (database.AUDIT, AuditBase.metadata),
        (database.JOBS, JobsBase.metadata),
        (database.ACCESS, AccessBase.metadata),
    ],
    ids=["catalog", "audit", "jobs", "access"],
)
def test_the_migrations_make_exactly_the_tables_of_the_code(
    schema: database.Schema, tables: MetaData, url: str
) -> None:
    engine = database.open_engine(url)
    database.upgrade(engine, schema=schema)
    if schema is database.JOBS:
        _the_order_of_claims_is_an_index(engine)
    with engine.connect() as connection:
        options = {"compare_type": True, "include_object": of_no_model, "version_table": schema.version_table}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables) == []
    engine.dispose()


def _the_order_of_claims_is_an_index(engine: Engine) -> None:
    """What ``of_no_model`` leaves out."""
    source = "sqlite_master" if engine.dialect.name == "sqlite" else "pg_indexes"
    columns = ("sql", "name") if engine.dialect.name == "sqlite" else ("indexdef", "indexname")
    with engine.connect() as connection:
        query = f"SELECT {columns[0]} FROM {source} WHERE {columns[1]} = 'ix_tasks_waiting'"
        made = str(connection.execute(text(query)).scalar())
    assert re.search(r'\(priority DESC, "order", id\).* WHERE .*state.* = .waiting', made)


@pytest.mark.slow
def test_going_down_to_nothing_and_up_again_works(url: str) -> None:
    engine = database.open_engine(url)
    for schema, table in (
        (database.CATALOG, "versions"),
        (database.AUDIT, "audit_head"),
        (database.JOBS, "tasks"),
        (database.ACCESS, "users"),
    ):
        database.upgrade(engine, schema=schema)
        before = set(inspect(engine).get_table_names())
        database.downgrade(engine, "base", schema)
        assert set(inspect(engine).get_table_names()).isdisjoint(
            before - {s.version_table for s in (database.CATALOG, database.AUDIT, database.JOBS, database.ACCESS)}
        )
        database.upgrade(engine, schema=schema)
        assert table in inspect(engine).get_table_names()
        database.downgrade(engine, "base", schema)
    engine.dispose()


def test_stores_that_are_made_at_once_by_several_threads_each_get_their_own_tables(tmp_path: Path) -> None:
    schemas = [
        (database.CATALOG, Base),
        (database.JOBS, JobsBase),
        (database.ACCESS, AccessBase),
        (database.AUDIT, AuditBase),
    ]
    engines = [database.open_engine(f"sqlite:///{tmp_path}/{schema.version_table}.db") for schema, _ in schemas]
    together = threading.Barrier(len(schemas))

    def make(at: int) -> None:
        together.wait(30)
        database.upgrade(engines[at], schema=schemas[at][0])

    with ThreadPoolExecutor(len(schemas)) as threads:
        list(threads.map(make, range(len(schemas))))
    for engine, (_, base) in zip(engines, schemas, strict=True):
        assert set(base.metadata.tables) <= set(inspect(engine).get_table_names())
        engine.dispose()


def test_opening_twice_keeps_what_is_there(tmp_path: Path, make: Any) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    with Catalog(url) as first, first.transaction() as unit:
        unit.restore_points.add(make.point(1))
    with Catalog(url) as second, second.transaction(write=False) as unit:
        assert [p.point.id for p in unit.restore_points.list()] == ["p1"]


def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    engine = database.open_engine(f"sqlite:///{tmp_path}/catalog.db")
    with engine.connect() as connection:
        values = {
            p: connection.execute(text(f"PRAGMA {p}")).scalar()
            for p in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": database.BUSY_MILLISECONDS}


@pytest.mark.slow
def test_readers_go_on_and_writers_wait_while_somebody_writes(tmp_path: Path, make: Any) -> None:
    with Catalog(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        written = threading.Event()

        def write() -> None:
            with catalog.transaction() as unit:
                unit.restore_points.add(make.point(2))
            written.set()

        other = threading.Thread(target=write)
        with catalog.transaction() as unit:
            unit.restore_points.add(make.point(1))
            other.start()
            with catalog.transaction(write=False) as reader:
                assert list(reader.restore_points.list()) == []
            assert not written.wait(0.2)
        other.join(30)
        with catalog.transaction(write=False) as reader:
            assert [p.point.id for p in reader.restore_points.list()] == ["p1", "p2"]


def test_nobody_waits_for_a_walk(tmp_path: Path, make: Any) -> None:
    with Catalog(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        with catalog.transaction() as unit:
            unit.restore_points.add(make.point(1))

        def walk() -> Iterator[Any]:
            yield [make.record(b"/x")]
            with catalog.transaction() as unit:
                unit.restore_points.add(make.point(2))
            yield [make.record(b"/d/y")]

        assert catalog.index("p1", walk()) == 2
        assert catalog.index("p2", [[make.record(b"/x")]]) == 1
        with catalog.transaction(write=False) as unit:
            assert [f.path for f in unit.files.list_directory("p1", b"/d")] == [b"/d/y"]
            assert {(f.path, f.last_point) for f in unit.files.search(Query()).files} == {
                (b"/d/y", "p1"),
                (b"/x", "p2"),
            }


def test_a_restore_point_that_is_gone_after_the_walk_leaves_no_files(tmp_path: Path, make: Any) -> None:
    with Catalog(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        with pytest.raises(RestorePointNotFound):
            catalog.index("p1", [[make.record(b"/x")]])
        with catalog.transaction(write=False) as unit:
            assert list(unit.files.search(Query()).files) == []


def test_a_database_that_is_none_is_told_in_our_own_words(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database at all, " * 100)
    with pytest.raises(CatalogFailed, match="file is not a database"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db")
    with pytest.raises(CatalogFailed, match="unable to open"):
        Catalog(f"sqlite:///{tmp_path}/nowhere/catalog.db")


FIRST = {
    "machines": [{"id": "m1", "name": "n", "host": "h"}],
    "volumes": [{"id": 1, "machine_id": "m1", "name": "v"}],
    "directories": [
        {"id": 1, "volume_id": 1, "path": b"/"},
        {"id": 2, "volume_id": 1, "path": b"/d\xe9" + b"e" * 4000},
    ],
    "files": [
        {"id": 1, "directory_id": 1, "name": b"Stra\xc3\x9fe", "search": "/strasse"},
        {"id": 2, "directory_id": 2, "name": b"Stra\xc3\x9fe", "search": "/d\\xe9" + "e" * 4000 + "/strasse"},
        {"id": 3, "directory_id": 2, "name": b"\xff", "search": "/d\\xe9" + "e" * 4000 + "/\\xff"},
    ],
}
"""Rows of the first schema, as its code wrote them. PostgreSQL has no index entry for a path so long; it gets a shorter one."""


def fill_first(connection: Connection) -> dict[str, list[Any]]:
    """Fill a database of the first schema; what is in its file tables."""
    short = connection.dialect.name == "postgresql"
    facts = {"machine_name": "n", "host": "h", "hypervisor": "kvm", "run": "r", "level": "full", "reasons": []}
    point = {"id": "p1", "machine_id": "m1", "position": 5, "consistency": "crash", "frozen_seconds": 0.0, **facts}
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"created_at": moment, "files_indexed_at": moment}
    sizes = {"size": 3, "mode": 420, "uid": 0, "gid": 0, "mtime_ns": 1, "ctime_ns": 1, "inode": 9}
    version = {"volume_id": 1, "first": 5, "until": OPEN, "content": b"c", "type": "file", **sizes}
    rows: dict[str, list[dict[str, Any]]] = {**FIRST, "restore_points": [{**point, **times}]}
    rows["versions"] = [{"id": i, "file_id": i, **version} for i in (1, 2, 3)]
    rows["point_volumes"] = [
        {"point_id": "p1", "volume_id": 1, "device": "sda", "type": "ext4", "label": "", "size": 1}
    ]
    for table, values in rows.items():
        for value in values:
            shown = {k: v.replace(b"e" * 4000, b"e") if isinstance(v, bytes) and short else v for k, v in value.items()}
            connection.execute(insert(Table(table, MetaData(), autoload_with=connection)), shown)
    return first_rows(connection)


def first_rows(connection: Connection) -> dict[str, list[Any]]:
    tables = ("machines", "volumes", "directories", "files", "versions", "restore_points", "point_volumes")
    columns = {"files": "id, directory_id, name, search", "directories": "id, volume_id, path"}
    return {
        t: [tuple(row) for row in connection.execute(text(f"SELECT {columns.get(t, '*')} FROM {t} ORDER BY 1"))]
        for t in tables
    }


@pytest.mark.slow
def test_a_database_of_the_schema_before_keeps_its_files_up_and_down(url: str) -> None:
    engine = database.open_engine(url)
    database.upgrade(engine, "0001")
    with engine.begin() as connection:
        before = fill_first(connection)
    with Catalog(url) as catalog, catalog.transaction(write=False) as unit:
        found = unit.files.search(Query("STRASSE"))
        assert sorted(f.path.rpartition(b"/")[2] for f in found.files) == ["Straße".encode()] * 2
        assert [f.path[-2:] for f in unit.files.search(Query("\\xff")).files] == [b"/\xff"]
        assert [f.size for f in unit.files.list_directory("p1", b"/")] == [3]
        assert [v.state for v in unit.files.volumes("p1")] == ["unknown"]
        assert list(unit.files.index_reasons("p1")) == []
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.downgrade(engine, "0001")
    with engine.connect() as connection:
        after = first_rows(connection)
        short = engine.dialect.name == "postgresql"
    if short:  # what is searched is made of what is there
        before["files"] = [(*row[:3], row[3].replace("e" * 4000, "e")) for row in before["files"]]
    assert after == before
    engine.dispose()


@pytest.mark.slow
def test_figures_of_machines_are_made_from_the_restore_points_that_were_there(url: str) -> None:
    engine = database.open_engine(url)
    database.upgrade(engine, "0002")
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    facts = {"machine_name": "n", "host": "h", "hypervisor": "kvm", "run": "r", "level": "full", "reasons": []}
    more = {"machine_id": "m1", "consistency": "crash", "frozen_seconds": 0.0, "index_reasons": []}
    image = {
        "key": "vda",
        "level": "full",
        "transport": "san",
        "source": "s",
        "index": "i",
        "digest": "d",
        "reasons": [],
    }
    sizes = {"size": 7, "bytes_read": 5, "bytes_new": 3, "bytes_stored": 2}
    rows: dict[str, list[dict[str, Any]]] = {
        "machines": [{"id": "m1", "name": "Stra\u00dfe", "host": "h"}, {"id": "m2", "name": "n", "host": "h"}],
        "restore_points": [
            {"id": f"p{n}", "position": n, "created_at": begin + timedelta(days=n), **facts, **more} for n in (1, 2, 3)
        ],
        "images": [{"point_id": f"p{n}", **image, **sizes} for n in (1, 2, 3)],
    }
    with engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(Table(table, MetaData(), autoload_with=connection)), values)
    with Catalog(url) as catalog, catalog.transaction() as unit:
        now = begin + timedelta(days=4)
        one = unit.machines.get("m1", now)
        assert one is not None
        assert (one.points, one.stored, one.size, one.newest_point) == (3, 6, 7, "p3")
        assert (one.newest_at, one.oldest_at) == (begin + timedelta(days=3), begin + timedelta(days=1))
        found, _ = unit.machines.page(MachineQuery(text="strasse"), now)
        assert [each.id for each in found] == ["m1"]
    database.downgrade(engine, "0002")
    with engine.connect() as connection:
        left = [tuple(row) for row in connection.execute(text("SELECT * FROM machines"))]
    assert left == [("m1", "Stra\u00dfe", "h")]
    engine.dispose()


def test_the_schema_is_described_as_it_is() -> None:
    described = (Path(database.__file__).with_name("SCHEMA.md")).read_text()
    rows = re.findall(r"^\| (\w+) \| .* \| (`.*`) \|$", described, re.MULTILINE)
    keys = {table: {each.replace("`", "").replace(" ", "") for each in key.split(";")} for table, key in rows}
    tables = {**Base.metadata.tables, **JobsBase.metadata.tables, **AccessBase.metadata.tables}
    assert set(keys) == set(tables)
    for name, table in tables.items():
        unique = [c for c in table.constraints if isinstance(c, UniqueConstraint | PrimaryKeyConstraint)]
        found = {",".join(column.name for column in c.columns) for c in unique}
        assert keys[name] <= found, name


def test_every_revision_is_described() -> None:
    described = (Path(database.__file__).with_name("SCHEMA.md")).read_text()
    scripts = (database.CATALOG.migrations / "versions").glob("[0-9]*.py")
    assert {path.name[:4] for path in scripts} == set(re.findall(r"^\| (\d{4}) \|", described, re.MULTILINE))
