"""The rows are a function of the indexed restore points alone: compared with a naive model, row by row."""

from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from catalog.tables import OPEN, DirectoryRow, FileRow, NameRow, PathRow, RestorePointRow, VersionRow
from catalog.unit_of_work import Catalog, Unit

State = Mapping[bytes, int]
Rows = set[tuple[bytes, int, str, str]]

PATHS = st.sampled_from([b"/a", b"/b", b"/d/c", b"/d/\xff"])
STATES = st.dictionaries(PATHS, st.integers(1, 3), max_size=4)
# What to do: index a state at a point (again, perhaps), or remove the point.
STEPS = st.lists(st.tuples(st.integers(0, 5), st.one_of(STATES, st.none())), min_size=1, max_size=14)


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


class Undo(Exception):
    """Ends an example's transaction, so that the next one finds the catalog empty."""


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_indexing_and_removing_in_any_order_gives_the_rows_of_the_definition(
    steps: Any, catalog: Catalog, make: Any
) -> None:
    states: dict[int, State] = {}
    with suppress(Undo), catalog.transaction() as unit:
        for number, state in steps:
            if state is None:
                unit.restore_points.remove(f"p{number}")
                states.pop(number, None)
            else:
                unit.restore_points.add(make.point(number))
                unit.files.index(f"p{number}", [make.files(state)])
                states[number] = state
            assert rows_of(unit) == naive_rows(states)
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
