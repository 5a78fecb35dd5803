"""Differences and growth, compared with what two dictionaries say."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.changes import ChangeKind, Sums
from catalog.unit_of_work import Catalog, Unit
from proxy.errors import FilesNotIndexed, SearchRefused

pytestmark = pytest.mark.slow

State = Mapping[bytes, int]
PATHS = st.sampled_from([b"/a", b"/d", b"/d/c", b"/d/e/f", b"/de", b"/d/\xff"])
STATES = st.lists(st.dictionaries(PATHS, st.integers(1, 3), max_size=6), min_size=2, max_size=5)


def record(unit: Unit, make: Any, states: list[State], machine: str = "m1") -> None:
    for number, state in enumerate(states):
        point = make.point(number, machine)
        unit.restore_points.add(point)
        unit.files.index(point.id, [make.files(state)])


def within(path: bytes, under: bytes) -> bool:
    return under in (b"/", path) or path.startswith(under + b"/")


def naive_sums(before: State, after: State, under: bytes) -> Sums:
    paths = [p for p in {*before, *after} if within(p, under)]
    added = [after[p] for p in paths if p not in before]
    removed = [before[p] for p in paths if p not in after]
    changed = [(before[p], after[p]) for p in paths if p in before and p in after and before[p] != after[p]]
    growth = sum(b - a for a, b in changed)
    sizes = (sum(added), sum(removed), sum(b for _, b in changed), growth)
    return Sums(len(added), len(removed), len(changed), *sizes)


class Undo(Exception):
    """Ends an example's transaction, so that the next one finds the catalog empty."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=STATES, under=st.sampled_from([b"/", b"/d", b"/d/e", b"/nowhere"]), data=st.data())
def test_the_difference_is_that_of_the_two_states_whatever_lies_between(
    states: Any, under: bytes, data: Any, catalog: Catalog, make: Any
) -> None:
    one, two = (data.draw(st.integers(0, len(states) - 1)) for _ in range(2))
    before, after = states[one], states[two]
    with suppress(Undo), catalog.transaction() as unit:
        record(unit, make, states)
        changes = list(unit.files.changes.between(f"p{one}", f"p{two}", under))
        told = {c.path: (c.before.size if c.before else None, c.after.size if c.after else None) for c in changes}
        paths = [p for p in {*before, *after} if within(p, under)]
        assert told == {p: (before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)}
        assert len(changes) == len(told)
        assert all(c.facts == ("size",) for c in changes if c.kind is ChangeKind.CHANGED)
        assert unit.files.changes.sums(f"p{one}", f"p{two}", under) == naive_sums(before, after, under)
        totals = unit.files.changes.over_time("m1", under)
        assert [t.bytes for t in totals] == [sum(c for p, c in s.items() if within(p, under)) for s in states]
        raise Undo


def test_what_grew_most_comes_first_and_directories_hold_what_is_below(catalog: Catalog, make: Any) -> None:
    states: list[State] = [
        {b"/var/log/a": 10, b"/var/log/b": 10, b"/home/x": 100},
        {b"/var/log/a": 500, b"/var/log/b": 11, b"/home/x": 1, b"/var/new": 50},
    ]
    with catalog.transaction() as unit:
        record(unit, make, states)
        growth = unit.files.changes.growth("p0", "p1")
        below = unit.files.changes.growth("p0", "p1", b"/var/log", limit=1)
        back = unit.files.changes.growth("p1", "p0")
    assert [(c.path, c.growth) for c in growth.files] == [(b"/var/log/a", 490), (b"/var/new", 50), (b"/var/log/b", 1)]
    assert [(d.path, d.growth, d.changes) for d in growth.directories] == [
        (b"/var", 541, 3),
        (b"/var/log", 491, 2),
        (b"/", 442, 4),
    ]
    assert [(d.path, d.growth) for d in below.directories] == [(b"/var/log", 491)]
    assert [c.path for c in below.files] == [b"/var/log/a"]
    assert [(c.path, c.growth) for c in back.files] == [(b"/home/x", 99)]


def test_windows_drives_are_the_tops_of_their_directories(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        record(unit, make, [{b"C:/a": 1}, {b"C:/a": 5, b"C:/Users/x": 2, b"D:/y": 1}])
        growth = unit.files.changes.growth("p0", "p1")
        assert {(d.path, d.growth) for d in growth.directories} == {(b"C:", 6), (b"C:/Users", 2), (b"D:", 1)}
        assert [c.path for c in unit.files.changes.between("p0", "p1", b"C:/")] == [b"C:/a", b"C:/Users/x"]


def test_restore_points_of_two_machines_or_without_an_index_are_not_compared(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        record(unit, make, [{b"/x": 1}])
        record(unit, make, [{b"/x": 1}], "m2")
        unit.restore_points.add(make.point(5))
        with pytest.raises(SearchRefused, match="two machines"):
            unit.files.changes.between("p0", "m2-p0")
        with pytest.raises(FilesNotIndexed):
            unit.files.changes.sums("p0", "p5")


def test_a_version_is_held_by_the_points_that_are_left(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        record(unit, make, [{b"/x": 1}, {b"/x": 1}, {b"/x": 1}, {b"/x": 2}])
        new, old = unit.files.versions("m1", b"/x")
        assert (unit.files.holding(new), unit.files.holding(old)) == (["p3"], ["p0", "p1", "p2"])
        unit.restore_points.remove("p0")
        assert unit.files.holding(old) == ["p1", "p2"]
        for number in (1, 2):
            unit.restore_points.remove(f"p{number}")
        assert list(unit.files.holding(old)) == []
