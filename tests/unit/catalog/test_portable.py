"""Copies of the databases: as files, and from one kind to another."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog import portable
from catalog.portable import Place
from catalog.search import Query
from catalog.unit_of_work import Catalog
from proxy.errors import CatalogFailed, ConfigurationError
from proxy.model import ReasonCode

pytestmark = pytest.mark.slow

PATHS = (b"/etc/passwd", b"/d\xe9/\xff\xfe.txt", b"/var/log/report.pdf")


@pytest.fixture
def there(tmp_path: Path) -> str:
    """URL of an empty place for another catalog."""
    (tmp_path / "there").mkdir()
    return f"sqlite:///{tmp_path}/there/catalog.db"


@pytest.fixture
def filled(url: str, make: Any) -> str:
    """A URL with restore points, files and an audit log behind it."""
    with Catalog(url) as catalog:
        for number in (1, 2):
            with catalog.transaction() as unit:
                unit.restore_points.add(make.point(number))
                unit.files.index(f"p{number}", [[make.record(path, size=number) for path in PATHS]])
        for _ in range(3):
            catalog.audit.record("root@proxy", "browse", "m1", "p1", {"paths": ["/etc"]})
    return url


def save(url: str, directory: Path) -> Mapping[str, bytes]:
    """Bytes of every part's file."""
    directory.mkdir()
    files = {}
    with portable.saving(Place(url)) as saved:
        for part in portable.PARTS:
            file = directory / f"{part.name}.db"
            if saved(part, file):
                files[part.name] = file.read_bytes()
    return files


def check(url: str) -> None:
    """It answers as what ``filled`` made."""
    with Catalog(url) as catalog:
        with catalog.transaction(write=False) as unit:
            assert [p.point.id for p in unit.restore_points.list()] == ["p1", "p2"]
            (point, _) = unit.restore_points.list()
            assert point.point.reasons[0].code is ReasonCode.FIRST_BACKUP
            assert point.point.created_at == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
            assert [f.path for f in unit.files.list_directory("p2", b"/d\xe9")] == [PATHS[1]]
            assert [f.path for f in unit.files.search(Query("report")).files] == [PATHS[2]]
        assert catalog.audit.head().number == 3
        assert catalog.audit.check() == []


def test_the_files_hold_all_that_the_databases_hold(filled: str, tmp_path: Path) -> None:
    files = save(filled, tmp_path / "saved")
    assert {"catalog", "audit"} <= set(files)
    check(f"sqlite:///{tmp_path}/saved/catalog.db")


def test_an_unchanged_database_gives_the_same_bytes_again(filled: str, tmp_path: Path) -> None:
    assert save(filled, tmp_path / "one") == save(filled, tmp_path / "two")


def test_nothing_of_a_change_that_is_not_committed_is_in_the_files(filled: str, make: Any, tmp_path: Path) -> None:
    with Catalog(filled) as catalog, catalog.transaction() as unit:
        unit.restore_points.add(make.point(3))
        save(filled, tmp_path / "saved")
    check(f"sqlite:///{tmp_path}/saved/catalog.db")


@pytest.mark.slow
def test_rows_move_to_the_other_kind_of_database_and_new_ones_follow_them(filled: str, there: str, make: Any) -> None:
    copied = portable.transfer(Place(filled), Place(there))
    assert (copied["restore_points"], copied["versions"], copied["audit_entries"]) == (2, 6, 3)
    check(there)
    with Catalog(there) as catalog, catalog.transaction() as unit:
        unit.restore_points.add(make.point(3))
        unit.files.index("p3", [[make.record(b"/quite/novelty.txt")]])
        assert [f.path for f in unit.files.search(Query("novelty")).files] == [b"/quite/novelty.txt"]
        assert [f.path for f in unit.files.search(Query("report")).files] == [PATHS[2]]


@pytest.mark.tools
def test_postgresql_takes_what_was_in_sqlite_and_goes_on_counting(filled: str, make: Any, postgres: Any) -> None:
    target = postgres.url(postgres.database())
    portable.transfer(Place(filled), Place(target))
    check(target)
    with Catalog(target) as catalog, catalog.transaction() as unit:
        unit.restore_points.add(make.point(3))
        unit.files.index("p3", [[make.record(b"/quite/new")]])
        assert [f.path for f in unit.files.list_directory("p3", b"/quite")] == [b"/quite/new"]


@pytest.mark.slow
def test_a_database_that_somebody_uses_is_not_copied_to(filled: str, there: str) -> None:
    assert portable.is_empty(Place(there))
    portable.transfer(Place(filled), Place(there))
    assert not portable.is_empty(Place(there))
    with pytest.raises(ConfigurationError, match="has rows of the catalog already"):
        portable.transfer(Place(filled), Place(there))
    check(there)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database" * 1000)
    with portable.saving(Place(f"sqlite:///{tmp_path}/catalog.db")) as saved, pytest.raises(CatalogFailed):
        saved(portable.CATALOG, tmp_path / "copy.db")


def test_what_was_never_made_is_left_out(tmp_path: Path) -> None:
    with portable.saving(Place(f"sqlite:///{tmp_path}/catalog.db")) as saved:
        assert not saved(portable.JOBS, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_one_process_at_a_time_is_let_in(url: str) -> None:
    with portable.alone(Place(url), "trial") as first, portable.alone(Place(url), "trial") as second:
        assert first
        assert second is (url.startswith("sqlite"))  # there it is a lock of files that keeps others out
    with portable.alone(Place(url), "trial") as later:
        assert later
