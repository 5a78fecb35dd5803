import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from catalog import database
from catalog.audit import AuditHead
from catalog.rebuild import rebuild
from catalog.unit_of_work import Catalog
from proxy.errors import AuditFailed

START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(catalog: Catalog, entries: int = 4) -> None:
    for number in range(entries):
        at = START + timedelta(minutes=number)
        catalog.audit.record("alice@proxy", "browse", f"m{number % 2}", f"p{number}", {"path": f"/{number}"}, at=at)


def meddle(catalog: Catalog, statement: str) -> None:
    engine = create_engine(database.audit_url(catalog._url))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_entries_come_back_newest_first_by_machine_and_page(catalog: Catalog) -> None:
    fill(catalog)
    entries = catalog.audit.list()
    assert next((e.number, e.point, e.detail) for e in entries) == (4, "p3", {"path": "/3"})
    assert [e.number for e in catalog.audit.list("m1")] == [4, 2]
    assert [e.number for e in catalog.audit.list(before=3, limit=1)] == [2]
    assert [e.number for e in catalog.audit.list(since=START + timedelta(minutes=2))] == [4, 3]
    assert (entries[0].before, entries[0].at) == (entries[1].digest, START + timedelta(minutes=3))
    assert catalog.audit.check() == []
    assert catalog.audit.check(catalog.audit.head()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "number", "why"),
    [
        ("UPDATE audit_entries SET who = 'bob@proxy' WHERE number = 2", 2, "changed"),
        ("UPDATE audit_entries SET detail = '{}' WHERE number = 2", 2, "changed"),
        ("UPDATE audit_entries SET machine = NULL WHERE number = 4", 4, "changed"),
        ("UPDATE audit_entries SET digest = before WHERE number = 3", 3, "changed"),
        ("DELETE FROM audit_entries WHERE number = 2", 2, "missing"),
        ("DELETE FROM audit_entries WHERE number = 1", 1, "missing"),
        ("DELETE FROM audit_entries WHERE number > 2", 3, "missing at the end"),
        ("DELETE FROM audit_entries", 1, "missing at the end"),
    ],
)
def test_a_changed_or_missing_entry_is_found(statement: str, number: int, why: str, catalog: Catalog) -> None:
    fill(catalog)
    meddle(catalog, statement)
    faults = catalog.audit.check()
    assert faults[0].number == number
    assert why in faults[0].why


@pytest.mark.slow
def test_a_chain_made_anew_is_found_by_a_head_that_was_kept_elsewhere(catalog: Catalog) -> None:
    fill(catalog, 3)
    kept = catalog.audit.head()
    meddle(catalog, "DELETE FROM audit_entries WHERE number > 1")
    meddle(catalog, "UPDATE audit_head SET number = 1, digest = (SELECT digest FROM audit_entries)")
    assert catalog.audit.check() == []
    assert [f.number for f in catalog.audit.check(kept)] == [2]
    fill(catalog, 3)
    assert [f.why for f in catalog.audit.check(kept)] == ["not the entry that was known elsewhere"]
    assert catalog.audit.check(AuditHead(kept.number, "0" * 64)) != []


def test_an_entry_stays_when_the_work_around_it_is_undone(catalog: Catalog, make: Any) -> None:
    with pytest.raises(KeyError), catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        catalog.audit.record("alice@proxy", "mount")
        raise KeyError
    assert [e.action for e in catalog.audit.list()] == ["mount"]


@pytest.mark.slow
def test_entries_of_many_at_once_are_one_chain(catalog: Catalog) -> None:
    opened = catalog.audit
    threads = [threading.Thread(target=opened.record, args=(f"user{n}@proxy", "browse")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert opened.head().number == 8
    assert opened.check() == []


@pytest.mark.slow
def test_deleting_or_rebuilding_the_catalog_leaves_the_audit_log(tmp_path: Path, make: Any) -> None:
    class Empty:
        def points(self) -> list[Any]:
            return []

        def damaged_points(self) -> list[Any]:
            return []

    url = f"sqlite:///{tmp_path}/catalog.db"
    with Catalog(url) as catalog:
        fill(catalog)
        rebuild(catalog, Empty())  # type: ignore[arg-type]
        head = catalog.audit.head()
    for path in tmp_path.glob("catalog.db*"):
        path.unlink()
    with Catalog(url) as catalog:
        assert catalog.audit.head() == head
        assert catalog.audit.check() == []


def test_an_audit_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit.db").write_bytes(b"not a database at all, " * 100)
    with Catalog(f"sqlite:///{tmp_path}/catalog.db") as catalog, pytest.raises(AuditFailed, match="not a database"):
        catalog.audit.record("alice@proxy", "browse")
