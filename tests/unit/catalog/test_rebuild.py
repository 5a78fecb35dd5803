from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from catalog.carry import Carry
from catalog.patterns import Kind
from catalog.rebuild import rebuild
from catalog.search import Query
from catalog.unit_of_work import Catalog
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume, VolumeState
from mounter.walk import TreeWalk
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


def guest(number: int, machine: str) -> MemoryFilesystem:
    """A machine that changes with the number of its restore point: two volumes, one of which was left dirty."""
    root = MemoryVolume(Volume("root", "/dev/sda1", "ext4", "", "u1", 1 << 30, "/"))
    data = MemoryVolume(Volume("data", "/dev/sdb", "xfs", "d", "u2", 1 << 30, "/data", state=VolumeState.DIRTY))
    for name in (b"nginx.conf", b"sites/web.conf", b"sites/\xff.conf"):
        root.add_file(b"/etc/nginx/" + name, b"x" * number, mtime_ns=number)
    root.add_file(b"/etc/hosts", machine.encode())
    root.add_link(b"/etc/mtab", b"/proc/mounts")
    if number % 2:
        data.add_file(b"/odd/report.pdf", b"pdf")
    data.add_file(b"/report-%d.pdf" % number, b"p" * number)
    return MemoryFilesystem([root, data])


def walked(catalog: Catalog, point: RestorePoint, number: int) -> None:
    with guest(number, point.machine) as files:
        walk = TreeWalk(files)
        catalog.index(point.id, walk, walk.volumes)


def answers(catalog: Catalog, points: Sequence[RestorePoint]) -> dict[str, Any]:
    """Everything that can be asked, without the rows' own numbers; times of indexing are of the one who indexes."""
    told: dict[str, Any] = {}
    with catalog.transaction(write=False) as unit:
        files = unit.files
        for query in (Query(), Query("nginx"), Query("*.conf"), Query("pdf", Kind.EXTENSION), Query(deleted=True)):
            for every in (False, True):
                found = files.search(replace(query, all_versions=every))
                told[f"{query} {every}"] = sorted(found.files, key=repr)
        for point in points:
            told[point.id] = (
                files.volumes(point.id),
                [files.list_directory(point.id, path) for path in (b"/", b"/etc/nginx", b"/data", b"/data/odd")],
                files.search(Query("report", point=point.id)).files,
                sorted(files.changes.between(points[0].id, point.id), key=repr)
                if point.machine == points[0].machine
                else (),
            )
        told["versions"] = files.versions("m1", b"/etc/nginx/nginx.conf")
        told["totals"] = files.changes.over_time("m1")
    return told


@pytest.mark.slow
def test_a_catalog_that_was_deleted_gives_the_same_answers_when_it_is_made_again(
    catalog: Catalog, make: Any, tmp_path: Path
) -> None:
    points = [make.point(number, machine) for machine in ("m1", "m2") for number in range(1, 6)]
    kept = [point for point in points if point.id not in ("p2", "m2-p1", "m2-p5")]
    for point in (*points[1::2], *points[::2]):  # late ones take their places
        with catalog.transaction() as unit:
            unit.restore_points.add(point)
        walked(catalog, point, int(point.id[-1]))
    # The newest one again, of which one volume is carried: what did not change there is the same in both.
    with catalog.transaction() as unit:
        unit.files.forget("p5")
        base = unit.files.newest_indexed("m1")
    assert base == "p4"
    with guest(5, "m1") as files:
        walk = TreeWalk(files)
        records = [record for batch in walk for record in batch]
        gone = [("data", b"/data/report-4.pdf")]
        with catalog.transaction(write=False) as unit:
            before = {f.path: f for f in unit.files.search(Query(point="p4")).files}
        listed = [r for r in records if r.volume == "root" or r.path not in before or r.inode != before[r.path].inode]
        catalog.index("p5", [listed], walk.volumes, carry=Carry("p4", frozenset({"data"}), lambda: gone))
    with catalog.transaction() as unit:
        for point in points:
            if point not in kept:
                unit.restore_points.remove(point.id)
    with Catalog(f"sqlite:///{tmp_path}/again.db") as again:
        for name in rebuild(again, repository(*kept)):
            point = next(p for p in kept if p.id == name)
            walked(again, point, int(name[-1]))
        assert answers(again, kept) == answers(catalog, kept)
        assert len(answers(again, kept)["versions"]) == 4
