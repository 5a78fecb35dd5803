"""The extent algebra against a byte-by-byte model, and its drawings."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.extents import Extent, Kind, aligned, intersect, is_map, normal, segments, subtract, total

D, Z = Kind.DATA, Kind.ZERO
SIZE = 64


def paint(extents: list[Extent]) -> list[Kind | None]:
    """A disk of SIZE bytes as one kind a byte; DATA wins."""
    disk: list[Kind | None] = [None] * SIZE
    for e in extents:
        for i in range(e.start, min(e.end, SIZE)):
            disk[i] = D if D in (disk[i], e.kind) else Z
    return disk


any_extents = st.lists(
    st.builds(
        lambda start, length, kind: Extent(start, min(length, SIZE - start), kind),
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.sampled_from(Kind),
    ),
    max_size=8,
)


@pytest.mark.slow
@given(any_extents)
def test_normal_keeps_every_byte_and_is_sorted_and_merged(extents: list[Extent]) -> None:
    result = normal(extents)
    assert paint(result) == paint(extents)
    for a, b in pairwise(result):
        assert a.end < b.start or (a.end == b.start and a.kind is not b.kind)


@pytest.mark.slow
@given(any_extents, any_extents)
def test_intersect_and_subtract_split_the_left_list(left: list[Extent], right: list[Extent]) -> None:
    a, b = normal(left), normal(right)
    inside, outside = intersect(a, b), subtract(a, b)
    covered = [kind is not None for kind in paint(b)]
    assert paint(inside) == [k if c else None for k, c in zip(paint(a), covered, strict=True)]
    assert paint(outside) == [None if c else k for k, c in zip(paint(a), covered, strict=True)]
    assert total(inside) + total(outside) == total(a)


@pytest.mark.slow
@given(any_extents, st.sampled_from([1, 4, 8, 16]), st.integers(1, SIZE))
def test_aligned_never_calls_an_unknown_byte_zero(extents: list[Extent], block: int, size: int) -> None:
    given_kinds = paint(normal(extents))
    result = aligned(normal(extents), block, size)
    for e in result:
        assert e.start % block == 0
        assert e.end % block == 0 or e.end == size
        assert e.end <= size
        if e.kind is Z:
            assert all(kind is Z for kind in given_kinds[e.start : e.end])
    painted = paint(result)
    for i in range(size):
        assert given_kinds[i] is None or painted[i] is not None
        assert given_kinds[i] is not D or painted[i] is D


@pytest.mark.parametrize(
    ("given_extents", "expected"),
    [
        pytest.param([Extent(3, 2)], [Extent(0, 8)], id="a little data takes its whole block"),
        pytest.param([Extent(3, 21, Z)], [Extent(0, 8), Extent(8, 16, Z)], id="a zero run covers only whole blocks"),
        pytest.param([Extent(24, 6, Z)], [Extent(24, 6, Z)], id="the disk ends inside a block"),
        pytest.param(
            [Extent(0, 40, Z), Extent(9, 1)], [Extent(0, 8, Z), Extent(8, 8), Extent(16, 14, Z)], id="data in zero"
        ),
    ],
)
def test_aligned_as_drawn(given_extents: list[Extent], expected: list[Extent]) -> None:
    assert aligned(normal(given_extents), 8, 30) == expected


def test_segments_cut_data_at_multiples_and_leave_zero_whole() -> None:
    assert list(segments([Extent(3, 14), Extent(17, 30, Z)], 8)) == [
        Extent(3, 5),
        Extent(8, 8),
        Extent(16, 1),
        Extent(17, 30, Z),
    ]


def test_a_map_has_no_gap() -> None:
    assert is_map([Extent(0, 4), Extent(4, 4, Z)], 8)
    assert not is_map([Extent(0, 4), Extent(5, 3, Z)], 8)
    assert not is_map([Extent(0, 4)], 8)


def test_an_empty_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="0 bytes at 5"):
        Extent(5, 0)
