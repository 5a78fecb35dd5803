"""The rows are a function of the indexed restore points alone: compared with a naive model, row by row."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from catalog.carry import Carry
from catalog.stage import Stage
from catalog.tables import OPEN, DirectoryRow, FileRow, NameRow, PathRow, RestorePointRow, VersionRow
from catalog.unit_of_work import Catalog, Unit
from proxy.errors import CarryRefused

pytestmark = pytest.mark.slow

State = Mapping[bytes, int]
Rows = set[tuple[bytes, int, str, str]]

PATHS = st.sampled_from([b"/a", b"/b", b"/d/c", b"/d/\xff"])
STATES = st.dictionaries(PATHS, st.integers(1, 3), max_size=4)
# The volumes of which only changes are listed in a step; all is listed of the others.
CARRIED = st.sets(st.sampled_from(["v1", "v2"]))
# What to do: index a state at a point (again, perhaps), or remove the point.
STEPS = st.lists(st.tuples(st.integers(0, 5), st.one_of(STATES, st.none()), CARRIED), min_size=1, max_size=14)


@dataclass(frozen=True)
class Volume:
    id: str
    device: str
    mountpoint: str
    type: str = "ext4"
    label: str = ""
    size: int = 1
    problem: str | None = None
    state: str = "clean"
    state_detail: str = ""


NOTHING: State = MappingProxyType({})
VOLUMES = [Volume("v1", "/dev/sda", "/"), Volume("v2", "/dev/sdb", "/d")]


def volume_of(path: bytes) -> str:
    return "v2" if path.startswith(b"/d/") else "v1"


def index(
    unit: Unit, make: Any, number: int, state: State, carry: Carry | None = None, *, base: State = NOTHING
) -> None:
    """Index a state; with ``carry``, only what differs from ``base`` in its volumes."""
    carried = frozenset() if carry is None else carry.volumes
    listed = {p: c for p, c in state.items() if volume_of(p) not in carried or base.get(p) != c}
    stage = Stage(unit.files._session.connection())
    stage.add([make.record(p, size=c, volume=volume_of(p)) for p, c in listed.items()])
    unit.files.index_staged(f"p{number}", stage, VOLUMES, carry=carry)


def carry_to(number: int, states: Mapping[int, State], state: State, volumes: set[str]) -> Carry | None:
    """What an honest walk says is carried from the newest state, and what is gone since; a directory as a whole if all in
    it is."""
    if not volumes or not states:
        return None
    base = states[max(states)]
    gone = [(volume_of(p), p) for p in base if p not in state]
    if not any(p.startswith(b"/d/") for p in state):
        gone = [("v2", b"/d"), *((v, p) for v, p in gone if v == "v1")]
    return Carry(f"p{max(states)}", frozenset(volumes), lambda: gone)


def naive_rows(states: Mapping[int, State]) -> Rows:
    """Longest runs of neighbours with equal content, straight from the definition."""
    points = sorted(states)
    rows: Rows = set()
    for path in {p for state in states.values() for p in state}:
        for size, run in groupby(range(len(points)), key=lambda i: states[points[i]].get(path)):
            places = list(run)
            if size is not None:
                end = places[-1] + 1
                until = f"p{points[end]}" if end < len(points) else "open"
                rows.add((path, size, f"p{points[places[0]]}", until))
    return rows


def rows_of(unit: Unit) -> Rows:
    """The rows in the database, positions named by their restore points."""
    session = unit.files._session
    names: dict[int, str] = {p.position: p.id for p in session.scalars(select(RestorePointRow))}
    names[OPEN] = "open"
    query = select(PathRow.path, NameRow.name, VersionRow).join(DirectoryRow, DirectoryRow.path_id == PathRow.id)
    query = query.join(FileRow, FileRow.directory_id == DirectoryRow.id).join(NameRow, NameRow.id == FileRow.name_id)
    found = session.execute(query.join(VersionRow, VersionRow.file_id == FileRow.id)).all()
    rows = {(d.rstrip(b"/") + b"/" + n, v.size, names[v.first], names[v.until]) for d, n, v in found}
    assert len(rows) == len(found)
    return rows


def nothing_is_unused(unit: Unit) -> bool:
    """Whether every name, path, directory and file in the database is one that a version has."""
    session = unit.files._session
    needs = (
        (FileRow.id, VersionRow.file_id),
        (NameRow.id, FileRow.name_id),
        (DirectoryRow.id, FileRow.directory_id),
        (PathRow.id, DirectoryRow.path_id),
    )
    return all(set(session.scalars(select(a))) == set(session.scalars(select(b))) for a, b in needs)


class Undo(Exception):
    """Ends an example's transaction, so that the next one finds the catalog empty."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_indexing_and_removing_in_any_order_gives_the_rows_of_the_definition(
    steps: Any, catalog: Catalog, make: Any
) -> None:
    states: dict[int, State] = {}
    with suppress(Undo), catalog.transaction() as unit:
        for number, state, volumes in steps:
            if state is None:
                unit.restore_points.remove(f"p{number}")
                states.pop(number, None)
            else:
                unit.restore_points.add(make.point(number))
                carry = carry_to(number, states, state, volumes)
                if carry is not None and number <= max(states):
                    with pytest.raises(CarryRefused):
                        index(unit, make, number, state, carry)
                    assert rows_of(unit) == naive_rows(states)
                    carry = None
                index(unit, make, number, state, carry, base=states[max(states)] if carry else {})
                states[number] = state
            assert rows_of(unit) == naive_rows(states)
            assert nothing_is_unused(unit)
        for number, state in states.items():
            listed = {f.path: f.size for d in (b"/", b"/d") for f in unit.files.list_directory(f"p{number}", d)}
            assert listed == dict(state)
        raise Undo


@pytest.mark.parametrize(
    ("contents", "rows"),
    [
        pytest.param((1, 1, 1), {(1, "p0", "open")}, id="1 nothing changed"),
        pytest.param((1, 2, 1), {(1, "p0", "p1"), (2, "p1", "p2"), (1, "p2", "open")}, id="2 changed and back"),
        pytest.param((1, None, 1), {(1, "p0", "p1"), (1, "p2", "open")}, id="3 gone and back"),
        pytest.param((1, 2, 2), {(1, "p0", "p1"), (2, "p1", "open")}, id="4 changed earlier than was known"),
        pytest.param((None, 1, None), {(1, "p1", "p2")}, id="5 there only once"),
    ],
)
def test_a_restore_point_indexed_late_takes_its_place(
    contents: tuple[int | None, ...], rows: set[tuple[int, str, str]], catalog: Catalog, make: Any
) -> None:
    with catalog.transaction() as unit:
        for number in (0, 2, 1):
            size = contents[number]
            unit.restore_points.add(make.point(number))
            unit.files.index(f"p{number}", [make.files({} if size is None else {b"/x": size})])
        assert {row[1:] for row in rows_of(unit)} == rows


def test_an_unchanged_machine_adds_no_rows(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in range(5):
            unit.restore_points.add(make.point(number))
            unit.files.index(f"p{number}", [make.files({b"/%d" % i: i for i in range(50)})])
        assert len(rows_of(unit)) == 50


def test_a_carried_directory_that_is_gone_takes_all_below_it_along(catalog: Catalog, make: Any) -> None:
    before = {b"/a/b/c/deep": 1, b"/a/b/x": 1, b"/a/bc": 1, b"/a/b": 1, b"/z": 1}
    with catalog.transaction() as unit:
        for number in (1, 2):
            unit.restore_points.add(make.point(number))
        index(unit, make, 1, before)
        carry = Carry("p1", frozenset({"v1"}), lambda: [("v1", b"/a/b")])
        stage = Stage(unit.files._session.connection())
        stage.add([make.record(b"/a/b/new", size=2)])
        unit.files.index_staged("p2", stage, VOLUMES, carry=carry)
        now = {path for path, _, _, until in rows_of(unit) if until == "open"}
    assert now == {b"/a/b/new", b"/a/bc", b"/z"}


@pytest.mark.parametrize(
    ("volumes", "base", "why"),
    [
        (VOLUMES, "p0", "newest"),
        (VOLUMES, "p9", "newest"),
        ([VOLUMES[0], Volume("v2", "/dev/sdb", "/mnt")], "p1", "mounted elsewhere"),
        (VOLUMES[:1], "p1", "not there any more"),
    ],
)
def test_what_cannot_be_carried_is_refused_and_nothing_is_written(
    volumes: list[Volume], base: str, why: str, catalog: Catalog, make: Any
) -> None:
    with catalog.transaction() as unit:
        for number in (0, 1, 2):
            unit.restore_points.add(make.point(number))
        index(unit, make, 0, {b"/a": 1})
        index(unit, make, 1, {b"/a": 1, b"/d/c": 1})
        before = rows_of(unit)
    carry = Carry(base, frozenset({"v2"}))
    asked: list[bool] = []

    def batches() -> Any:
        asked.append(True)
        yield [make.record(b"/a", size=5)]

    with pytest.raises(CarryRefused, match=why):
        catalog.index("p2", batches(), volumes, carry=carry)
    assert bool(asked) == (why != "newest")
    with catalog.transaction(write=False) as unit:
        assert rows_of(unit) == before
        assert unit.files.newest_indexed("m1") == "p1"


def test_a_volume_that_was_not_read_whole_is_not_carried(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in (1, 2):
            unit.restore_points.add(make.point(number))
    catalog.index("p1", [[make.record(b"/a")]], [Volume("v1", "/dev/sda", "/", problem="bad superblock")])
    for volume in ("v1", "v2"):
        with pytest.raises(CarryRefused):
            catalog.index("p2", [], VOLUMES, carry=Carry("p1", frozenset({volume})))
