"""Directories page by page, single entries, and whose files they are."""

from typing import Any

import pytest

from catalog.unit_of_work import Catalog
from proxy.errors import FilesNotIndexed

pytestmark = pytest.mark.slow


def index(catalog: Catalog, make: Any, number: int, paths: list[bytes], machine: str = "m1", **facts: Any) -> None:
    point = make.point(number, machine)
    with catalog.transaction() as unit:
        unit.restore_points.add(point)
        unit.files.index(point.id, [[make.record(path, **facts) for path in paths]])


def test_a_directory_comes_in_pages_by_the_bytes_of_its_names(catalog: Catalog, make: Any) -> None:
    names = [b"A", b"a", b"a b", b"ab", b"\xc3\xa4", b"\xff"]
    index(catalog, make, 1, [b"/d/" + name for name in reversed(names)])
    with catalog.transaction(write=False) as unit:
        pages, after = [], None
        while page := unit.files.list_directory("p1", b"/d", after=after, limit=2):
            pages.append([entry.name for entry in page])
            after = page[-1].name
    assert pages == [names[:2], names[2:4], names[4:]]


def test_only_wanted_types_are_on_a_page(catalog: Catalog, make: Any) -> None:
    point = make.point(1)
    with catalog.transaction() as unit:
        unit.restore_points.add(point)
        records = [make.record(b"/%d" % n, type="directory" if n % 2 else "file") for n in range(6)]
        unit.files.index("p1", [records])
        found = unit.files.list_directory("p1", b"/", types=["directory"], limit=2, after=b"1")
    assert [entry.name for entry in found] == [b"3", b"5"]


def test_one_entry_is_found_as_it_was_in_its_restore_point(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [b"/etc/hosts"], size=1)
    index(catalog, make, 2, [b"/etc/hosts"], size=2)
    index(catalog, make, 3, [b"/etc/other"])
    with catalog.transaction(write=False) as unit:
        sizes = [
            entry.size if (entry := unit.files.entry(point, b"/etc/hosts")) else None for point in ("p1", "p2", "p3")
        ]
        assert unit.files.entry("p1", b"/") is None
    assert sizes == [1, 2, None]


def test_an_entry_of_a_restore_point_that_is_not_indexed_is_not_just_missing(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        with pytest.raises(FilesNotIndexed):
            unit.files.entry("p1", b"/x")


def test_machines_are_found_by_identity_before_they_are_by_name(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1, "m1", machine_name="web"))
        unit.restore_points.add(make.point(1, "m2", machine_name="web"))
        unit.restore_points.add(make.point(1, "web", machine_name="other"))
        owners = unit.files.owners
        assert owners.called("web") == [("web", "other")]
        assert sorted(owners.called("other")) == [("web", "other")]
        assert owners.called("none") == []
        assert (owners.name("m2"), owners.name("none")) == ("web", None)
        assert owners.names() == {"m1": "web", "m2": "web", "web": "other"}


def test_restore_points_that_are_not_recorded_are_counted_by_machine(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [b"/x"])
    with catalog.transaction() as unit:
        for machine, number in (("m1", 2), ("m2", 1), ("m2", 2)):
            unit.restore_points.add(make.point(number, machine))
        owners = unit.files.owners
        counts = [owners.not_indexed(machines) for machines in (None, ["m1"], ["m1", "m2"], [])]
    assert counts == [3, 1, 3, 0]
