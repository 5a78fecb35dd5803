import threading
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from catalog import database
from catalog.tables import Base
from catalog.unit_of_work import Catalog


def test_the_migrations_make_exactly_the_tables_of_the_code() -> None:
    engine = database.open_engine("sqlite://")
    database.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_going_down_to_nothing_and_up_again_works() -> None:
    engine = database.open_engine("sqlite://")
    database.upgrade(engine)
    database.downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    database.upgrade(engine)
    assert "versions" in inspect(engine).get_table_names()


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
