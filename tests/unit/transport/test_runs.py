"""Runs: exact below their limit, coarse in the safe direction above it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.extents import Extent, Kind, normal, subtract
from proxy.transport.runs import DATA, ZERO, Runs, alternating
from proxy.units import KiB

pieces = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.sampled_from([DATA, ZERO])), max_size=60)
UNIT = 16 * KiB


def collected(told: list[tuple[int, int, int]], limit: int) -> tuple[list[Extent], list[Extent]]:
    """What ``Runs`` makes of (gap, length, kind) in units, and the exact extents."""
    runs, exact, position = Runs(limit), [], 0
    for gap, length, kind in told:
        start = position + gap * UNIT
        position = start + length * UNIT
        runs.add(start, position, kind)
        exact.append(Extent(start, length * UNIT, Kind.DATA if kind == DATA else Kind.ZERO))
    return runs.extents(position), normal(exact)


@pytest.mark.slow
@given(pieces)
@settings(deadline=None)
def test_below_the_limit_nothing_is_forgotten(told: list[tuple[int, int, int]]) -> None:
    found, exact = collected(told, 1000)
    assert found == exact


@pytest.mark.slow
@given(pieces)
@settings(deadline=None)
def test_above_the_limit_data_only_grows_and_zero_only_shrinks(told: list[tuple[int, int, int]]) -> None:
    found, exact = collected(told, 6)
    assert len(found) <= 7
    assert found == normal(found)
    for kind, inner, outer in ((Kind.DATA, exact, found), (Kind.ZERO, found, exact)):
        assert not subtract([e for e in inner if e.kind is kind], [e for e in outer if e.kind is kind])


def test_extents_are_cut_at_the_size() -> None:
    runs = Runs()
    runs.add(0, 100, DATA)
    runs.add(200, 300, ZERO)
    runs.add(300, 400, DATA)
    assert runs.extents(250) == [Extent(0, 100), Extent(200, 50, Kind.ZERO)]


turns = st.lists(st.integers(1, 5), max_size=40).map(lambda gaps: [sum(gaps[: n + 1]) * UNIT for n in range(len(gaps))])


@pytest.mark.slow
@given(turns, st.booleans(), st.integers(0, 5), st.sampled_from([1000, 4]))
@settings(deadline=None)
def test_a_map_by_its_edges_is_the_same_as_run_by_run(told: list[int], first: bool, behind: int, limit: int) -> None:
    edges = [0, *told] if first else told
    edges = edges[: len(edges) // 2 * 2]
    size = (edges[-1] if edges else 0) + behind * UNIT
    runs, position = Runs(limit), 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if position < start:
            runs.add(position, start, ZERO)
        runs.add(start, end, DATA)
        position = end
    if position < size:
        runs.add(position, size, ZERO)
    assert alternating(edges, size, limit) == runs.extents(size)
