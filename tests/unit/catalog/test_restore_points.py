from datetime import UTC, datetime
from typing import Any

import pytest

from catalog.restore_points import Recency
from catalog.unit_of_work import Catalog
from proxy.errors import RestorePointNotFound
from proxy.model import Level, MachineConfiguration

pytestmark = pytest.mark.slow


def test_a_restore_point_comes_back_as_it_was_but_for_the_configuration(catalog: Catalog, make: Any) -> None:
    point = make.point(1, sealed_at=datetime(2026, 1, 2, tzinfo=UTC), parent="p0", frozen_seconds=0.5)
    with catalog.transaction() as unit:
        unit.restore_points.add(point)
    with catalog.transaction(write=False) as unit:
        listed = unit.restore_points.get("p1")
    expected = make.point(
        1,
        sealed_at=point.sealed_at,
        parent="p0",
        frozen_seconds=0.5,
        configuration=MachineConfiguration("", ""),
    )
    assert (listed.point, listed.files_indexed_at) == (expected, None)


def test_adding_twice_keeps_the_file_index(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        unit.files.index("p1", [[make.record(b"/x")]])
        unit.restore_points.add(make.point(1, host="h2"))
        assert [f.path for f in unit.files.list_directory("p1", b"/")] == [b"/x"]
        assert unit.restore_points.get("p1").point.host == "h2"


def test_points_are_listed_oldest_first_and_by_machine(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number, machine in ((3, "m1"), (1, "m1"), (2, "m2")):
            unit.restore_points.add(make.point(number, machine))
        assert [p.point.id for p in unit.restore_points.list()] == ["p1", "m2-p2", "p3"]
        assert [p.point.id for p in unit.restore_points.list("m1")] == ["p1", "p3"]


def test_recency_tells_the_newest_and_the_newest_full_of_each_machine(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        assert unit.restore_points.recency() == {}
        for number, machine, level in (
            (1, "m1", Level.FULL),
            (2, "m1", Level.FULL),
            (3, "m1", Level.INCREMENTAL),
            (4, "m2", Level.INCREMENTAL),
        ):
            unit.restore_points.add(make.point(number, machine, level=level))
        found = unit.restore_points.recency()
    moments = {number: make.point(number).created_at for number in range(1, 5)}
    assert found == {"m1": Recency(moments[3], moments[1], moments[2]), "m2": Recency(moments[4], moments[4], None)}


def test_two_restore_points_of_one_moment_keep_their_own_files(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for id_, size in (("a", 1), ("b", 2)):
            unit.restore_points.add(make.point(1, id=id_))
            unit.files.index(id_, [[make.record(b"/x", size=size)]])
        assert [unit.files.list_directory(id_, b"/")[0].size for id_ in ("a", "b")] == [1, 2]


def test_only_the_points_without_a_file_index_are_to_be_walked(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in (3, 1, 2):
            unit.restore_points.add(make.point(number))
        unit.files.index("p2", [])
        assert list(unit.restore_points.not_indexed()) == ["p1", "p3"]


def test_a_removed_restore_point_is_not_found_and_removing_again_is_fine(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        unit.restore_points.remove("p1")
        unit.restore_points.remove("p1")
        with pytest.raises(RestorePointNotFound):
            unit.restore_points.get("p1")


def test_a_block_that_raises_leaves_nothing(catalog: Catalog, make: Any) -> None:
    with pytest.raises(KeyError), catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        raise KeyError
    with catalog.transaction(write=False) as unit:
        assert list(unit.restore_points.list()) == []
