from collections.abc import Sequence
from typing import Any, cast

import pytest

from catalog.rebuild import rebuild
from catalog.unit_of_work import Catalog
from proxy.errors import FormatError
from proxy.model import RestorePoint
from proxy.ports import DamagedPoint, ImageRepository


class Points:
    """As much of a repository as a rebuild looks at."""

    def __init__(self, points: Sequence[RestorePoint], damaged: Sequence[DamagedPoint] = ()) -> None:
        self._points = points
        self._damaged = damaged

    def damaged_points(self) -> Sequence[DamagedPoint]:
        """As the port."""
        return self._damaged

    def points(self) -> Sequence[RestorePoint]:
        """As the port."""
        if not self._points:
            raise FormatError("manifest", "cut short")
        return self._points


def repository(*points: RestorePoint) -> ImageRepository:
    return cast(ImageRepository, Points(points))


def test_a_lost_catalog_comes_back_from_the_repository(catalog: Catalog, make: Any) -> None:
    points = [make.point(1), make.point(2), make.point(1, "m2")]
    assert list(rebuild(catalog, repository(*points))) == ["m2-p1", "p1", "p2"]
    with catalog.transaction(write=False) as unit:
        assert {p.point.id for p in unit.restore_points.list()} == {"p1", "p2", "m2-p1"}


def test_a_catalog_that_is_behind_catches_up_and_keeps_its_files(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in (1, 2):
            unit.restore_points.add(make.point(number))
            unit.files.index(f"p{number}", [[make.record(b"/x", size=number)]])
    assert list(rebuild(catalog, repository(make.point(2), make.point(3)))) == ["p3"]
    with catalog.transaction(write=False) as unit:
        assert [p.point.id for p in unit.restore_points.list()] == ["p2", "p3"]
        assert [(v.size, v.first_point) for v in unit.files.versions("m1", b"/x")] == [(2, "p2")]


def test_a_repository_that_cannot_be_read_changes_nothing(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
    with pytest.raises(FormatError):
        rebuild(catalog, repository())
    with catalog.transaction(write=False) as unit:
        assert [p.point.id for p in unit.restore_points.list()] == ["p1"]


def test_a_restore_point_whose_manifest_cannot_be_read_now_is_not_forgotten(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in (1, 2):
            unit.restore_points.add(make.point(number))
    damaged = DamagedPoint("points/0123/p1", "cut short")
    rebuild(catalog, cast(ImageRepository, Points([make.point(2)], [damaged])))
    with catalog.transaction(write=False) as unit:
        assert [p.point.id for p in unit.restore_points.list()] == ["p1", "p2"]
