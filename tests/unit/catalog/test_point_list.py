from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog import point_list
from catalog.point_list import PointLine, PointQuery
from catalog.unit_of_work import Catalog
from proxy.errors import ConfigurationError
from proxy.model import Consistency, Level

pytestmark = pytest.mark.slow

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def many(catalog: Catalog, make: Any) -> Catalog:
    """Four machines, twelve points each, two of them at the same moment."""
    levels, consistencies = [*Level], [*Consistency]
    with catalog.transaction() as unit:
        for machine in ("m1", "m2", "m3", "m4"):
            for number in range(12):
                facts = {"level": levels[number % 2], "consistency": consistencies[number % 3]}
                at = BEGIN + timedelta(minutes=number - number % 2)
                unit.restore_points.add(make.point(number, machine, created_at=at, **facts))
    return catalog


def all_pages(catalog: Catalog, query: PointQuery, *, newest_first: bool = True, limit: int = 5) -> list[PointLine]:
    found: list[PointLine] = []
    after = None
    with catalog.transaction(write=False) as unit:
        while True:
            page, after = unit.points.page(query, newest_first=newest_first, limit=limit, after=after)
            found += page
            if after is None:
                return found


QUERIES = [
    (PointQuery(), 48),
    (PointQuery(machine="m2"), 12),
    (PointQuery(machine="nobody"), 0),
    (PointQuery(machine="m2", machines=("name of m1",)), 0),
    (PointQuery(machines=("name of m[12]",)), 24),
    (PointQuery(machines=()), 0),
    (PointQuery(levels=(Level.FULL,)), 24),
    (PointQuery(consistencies=(Consistency.CRASH, Consistency.FILESYSTEM)), 32),
    (PointQuery(levels=(Level.FULL,), consistencies=(Consistency.CRASH,)), 8),
    (PointQuery(machine="m1", levels=(Level.FULL,)), 6),
    (PointQuery(since=BEGIN + timedelta(minutes=4), until=BEGIN + timedelta(minutes=8)), 16),
    (PointQuery(held=True), 0),
    (PointQuery(held=False, levels=(Level.FULL,)), 24),
]


@pytest.mark.parametrize("few", [100, 0], ids=["by machine", "by time"])
def test_pages_hold_each_point_once_and_in_order(many: Catalog, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_list, "FEW", few)
    for query, count in QUERIES:
        found = all_pages(many, query)
        keys = [(line.created_at, line.id) for line in found]
        assert keys == sorted(set(keys), reverse=True), query
        assert len(found) == count, query
        assert all_pages(many, query, newest_first=False) == found[::-1], query
        if query.levels:
            assert {line.level for line in found} == {level.value for level in query.levels}


def test_a_line_has_the_sums_of_its_images(catalog: Catalog, make: Any) -> None:
    point = make.point(1)
    second = type(point.images[0])("vdb", 2048, "i", "d", "lan", "x", 100, 50, 30)
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1, images=(*point.images, second)))
    (line,) = all_pages(catalog, PointQuery())
    assert (line.transports, line.disks, line.size) == (("lan", "san"), 2, 3072)
    assert (line.bytes_read, line.bytes_new, line.bytes_stored) == (110, 55, 33)
    with catalog.transaction(write=False) as unit:
        assert unit.points.get("p1") == line
        assert unit.points.get("p2") is None


def test_a_place_that_no_list_gave_is_refused(many: Catalog) -> None:
    with many.transaction(write=False) as unit, pytest.raises(ConfigurationError, match="cursor"):
        unit.points.page(PointQuery(), after=("yesterday", "p1"))
