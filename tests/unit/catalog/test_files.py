from dataclasses import dataclass, replace
from typing import Any

import pytest

from catalog.search import Query
from catalog.unit_of_work import Catalog
from catalog.values import ListedNetworkVolume, LookedInto
from proxy.errors import FilesNotIndexed, RestorePointNotFound
from proxy.model import Reason, ReasonCode


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    device: str
    mountpoint: str | None
    type: str = "ext4"
    label: str = ""
    size: int = 1
    problem: str | None = None
    state: str = "unknown"
    state_detail: str = ""


def index(catalog: Catalog, make: Any, number: int, records: list[Any], **more: Any) -> None:
    point = make.point(number, more.get("machine", "m1"))
    with catalog.transaction() as unit:
        unit.restore_points.add(point)
        assert unit.files.index(point.id, [records], more.get("volumes", ())) == len(records)


def test_names_that_are_not_utf8_come_back_byte_by_byte(catalog: Catalog, make: Any) -> None:
    path = b"/d\xe9/\xff\xfe\n.txt"
    index(catalog, make, 1, [make.record(path, link_target=b"\xe9", type="symlink")])
    with catalog.transaction(write=False) as unit:
        (found,) = unit.files.list_directory("p1", b"/d\xe9")
    assert (found.path, found.link_target, found.name) == (path, b"\xe9", b"\xff\xfe\n.txt")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"type": "fifo"},
        {"size": 2},
        {"mode": 0o600},
        {"uid": 1},
        {"gid": 1},
        {"mtime_ns": 2},
        {"ctime_ns": 2},
        {"inode": 13},
        {"link_target": b""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_any_attribute_is_a_new_version(change: dict[str, Any], catalog: Catalog, make: Any) -> None:
    before = make.record(b"/etc/passwd")
    index(catalog, make, 1, [before])
    index(catalog, make, 2, [replace(before, **change)])
    with catalog.transaction(write=False) as unit:
        versions = unit.files.versions("m1", b"/etc/passwd")
    assert [(v.first_point, v.last_point) for v in versions] == [("p2", "p2"), ("p1", "p1")]


def test_versions_name_the_first_and_last_restore_point_that_hold_them(catalog: Catalog, make: Any) -> None:
    for number, size in ((1, 10), (2, 10), (3, 20)):
        index(catalog, make, number, [make.record(b"/x", size=size)])
    with catalog.transaction(write=False) as unit:
        versions = unit.files.versions("m1", b"/x")
    assert [(v.size, v.first_point, v.last_point) for v in versions] == [(20, "p3", "p3"), (10, "p1", "p2")]


def test_a_restore_point_without_an_index_is_not_an_empty_one(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [make.record(b"/x")])
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(2))
        with pytest.raises(FilesNotIndexed):
            unit.files.list_directory("p2", b"/")
        with pytest.raises(RestorePointNotFound):
            unit.files.list_directory("p9", b"/")


def test_an_index_that_fails_half_way_leaves_the_old_one(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [make.record(b"/x")])

    def broken() -> Any:
        yield [make.record(b"/y")]
        raise EOFError

    with pytest.raises(EOFError), catalog.transaction() as unit:
        unit.files.index("p1", broken())
    with catalog.transaction(write=False) as unit:
        assert [f.path for f in unit.files.list_directory("p1", b"/")] == [b"/x"]


def test_a_name_twice_in_a_damaged_directory_is_one_file(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [make.record(b"/x", size=1), make.record(b"/x", size=2)])
    with catalog.transaction(write=False) as unit:
        assert [f.size for f in unit.files.list_directory("p1", b"/")] == [1]


def test_the_volume_that_is_mounted_over_a_directory_is_what_is_listed(catalog: Catalog, make: Any) -> None:
    records = [
        make.record(b"/data", type="directory"),
        make.record(b"/data/hidden"),
        make.record(b"/data/seen", volume="v2"),
    ]
    volumes = [
        Volume("v1", "/dev/sda1", "/"),
        Volume("v2", "/dev/sdb", "/data"),
        Volume("v3", "/dev/sdc", None, problem="bad"),
    ]
    index(catalog, make, 1, records, volumes=volumes)
    with catalog.transaction(write=False) as unit:
        assert [f.path for f in unit.files.list_directory("p1", b"/data/")] == [b"/data/seen"]
        assert [f.path for f in unit.files.list_directory("p1", b"/")] == [b"/data"]
        assert [(v.id, v.mountpoint, v.problem) for v in unit.files.volumes("p1")] == [
            ("v1", "/", None),
            ("v2", "/data", None),
            ("v3", None, "bad"),
        ]


def test_a_search_gives_the_newest_version_or_that_of_a_restore_point(catalog: Catalog, make: Any) -> None:
    index(catalog, make, 1, [make.record(b"/x", size=1), make.record(b"/old")])
    index(catalog, make, 2, [make.record(b"/x", size=2)])
    index(catalog, make, 1, [make.record(b"/x", size=3)], machine="m2")
    with catalog.transaction(write=False) as unit:
        assert {(f.machine, f.size) for f in unit.files.search(Query("/x")).files} == {("m1", 2), ("m2", 3)}
        assert [f.size for f in unit.files.search(Query("/x", machines=frozenset({"m1"}))).files] == [2]
        assert [f.size for f in unit.files.search(Query("/x", point="p1")).files] == [1]
        assert [f.last_point for f in unit.files.search(Query("old")).files] == ["p1"]
        assert len(unit.files.search(Query("/", limit=2)).files) == 2


def test_removing_a_restore_point_keeps_what_others_hold(catalog: Catalog, make: Any) -> None:
    for number, size in ((1, 10), (2, 20), (3, 10)):
        index(catalog, make, number, [make.record(b"/x", size=size)])
    with catalog.transaction() as unit:
        unit.restore_points.remove("p2")
        versions = unit.files.versions("m1", b"/x")
    assert [(v.size, v.first_point, v.last_point) for v in versions] == [(10, "p1", "p3")]


@pytest.mark.slow
def test_a_file_from_a_far_future_does_not_keep_the_others_from_the_index(catalog: Catalog, make: Any) -> None:
    year_2300 = 10_413_792_000 * 10**9
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        assert unit.files.index("p1", [[make.record(b"/far", mtime_ns=year_2300), make.record(b"/near")]]) == 2
        assert {f.path for f in unit.files.list_directory("p1", b"/")} == {b"/far", b"/near"}


def test_what_was_seen_in_the_newest_indexed_point_of_each_machine_is_told_at_once(catalog: Catalog, make: Any) -> None:
    dirty = Reason(ReasonCode.QUIESCED_BUT_DIRTY, "vda1")
    with catalog.transaction() as unit:
        for number in (1, 2, 3):
            unit.restore_points.add(make.point(number))
        unit.restore_points.add(make.point(1, "m2"))
        unit.restore_points.add(make.point(1, "m3"))
    volumes = [ListedNetworkVolume("nfs", f"filer:/{n}", "", "/etc/fstab") for n in range(3)]
    catalog.index("p2", [], network=volumes[1:], reasons=[dirty])
    catalog.index("p1", [], network=volumes[:1])
    catalog.index("m2-p1", [])
    with catalog.transaction(write=False) as unit:
        found = unit.files.looked_into()
    assert found == {
        "m1": LookedInto("p2", (dirty,), tuple(volumes[1:])),
        "m2": LookedInto("m2-p1", (), ()),
    }
