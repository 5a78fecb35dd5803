import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, text

from catalog import database
from catalog.audit import Base as AuditBase
from catalog.tables import Base
from catalog.unit_of_work import Catalog
from proxy.errors import CatalogFailed, RestorePointNotFound


def of_no_model(thing: object, name: str | None, kind: str, reflected: bool, _: object) -> bool:
    """What SQLAlchemy has no words for: the tables and indexes of trigrams, which migrations make."""
    return not (reflected and kind in ("table", "index") and "_search" in (name or ""))


@pytest.mark.parametrize(
    ("schema", "tables"),
    [(database.CATALOG, Base.metadata), (database.AUDIT, AuditBase.metadata)],
    ids=["catalog", "audit"],
)
def test_the_migrations_make_exactly_the_tables_of_the_code(
    schema: database.Schema, tables: MetaData, url: str
) -> None:
    engine = database.open_engine(url)
    database.upgrade(engine, schema=schema)
    with engine.connect() as connection:
        options = {"compare_type": True, "include_object": of_no_model, "version_table": schema.version_table}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables) == []
    engine.dispose()


def test_going_down_to_nothing_and_up_again_works(url: str) -> None:
    engine = database.open_engine(url)
    for schema, table in ((database.CATALOG, "versions"), (database.AUDIT, "audit_head")):
        database.upgrade(engine, schema=schema)
        before = set(inspect(engine).get_table_names())
        database.downgrade(engine, "base", schema)
        assert set(inspect(engine).get_table_names()).isdisjoint(before - {schema.version_table, "alembic_version"})
        database.upgrade(engine, schema=schema)
        assert table in inspect(engine).get_table_names()
        database.downgrade(engine, "base", schema)
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
            assert {(f.path, f.last_point) for f in unit.files.find("/")} == {(b"/d/y", "p1"), (b"/x", "p2")}


def test_a_restore_point_that_is_gone_after_the_walk_leaves_no_files(tmp_path: Path, make: Any) -> None:
    with Catalog(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        with pytest.raises(RestorePointNotFound):
            catalog.index("p1", [[make.record(b"/x")]])
        with catalog.transaction(write=False) as unit:
            assert list(unit.files.find("/")) == []


def test_a_database_that_is_none_is_told_in_our_own_words(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database at all, " * 100)
    with pytest.raises(CatalogFailed, match="file is not a database"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db")
    with pytest.raises(CatalogFailed, match="unable to open"):
        Catalog(f"sqlite:///{tmp_path}/nowhere/catalog.db")
