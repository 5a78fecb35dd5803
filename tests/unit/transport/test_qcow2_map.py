"""Tables and bitmaps in C-speed steps against the same thing said slowly."""

import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import FormatError
from proxy.extents import Extent, normal
from proxy.transport.qcow2_format import L2_COMPRESSED, L2_ZERO, OFFSET_MASK
from proxy.transport.qcow2_map import (
    ABSENT,
    SUBCLUSTERS,
    add_bits,
    add_classes,
    adjacent,
    class_runs,
    extended_table_classes,
    table_classes,
)
from proxy.transport.runs import DATA, ZERO, Runs

# Tables of every content against the same thing said slowly.
pytestmark = pytest.mark.slow

entries = st.one_of(
    st.just(0),
    st.integers(0, (1 << 64) - 1),
    st.builds(lambda cluster, flags: cluster << 16 | flags, st.integers(0, 1 << 30), st.sampled_from([0, 1, 1 << 63])),
    st.sampled_from([1, 1 << 8, 1 << 9, 1 << 55, 1 << 56, 1 << 62, 1 << 63, (1 << 63) + 1]),
)


def slowly(entry: int) -> int:
    """The specification's words, one entry at a time."""
    if entry & L2_COMPRESSED:
        return DATA
    if entry & L2_ZERO:
        return ZERO
    return DATA if entry & OFFSET_MASK else ABSENT


@given(st.lists(entries, min_size=1, max_size=70))
@settings(deadline=None)
def test_a_table_has_the_classes_that_its_entries_have(table: list[int]) -> None:
    packed = struct.pack(f">{len(table)}Q", *table)
    assert list(table_classes("it", packed, 3)) == [slowly(entry) for entry in table]


@given(st.lists(entries, min_size=1, max_size=70))
@settings(deadline=None)
def test_version_2_knows_no_zero_clusters(table: list[int]) -> None:
    packed = struct.pack(f">{len(table)}Q", *table)
    if any(slowly(entry) == ZERO for entry in table):
        with pytest.raises(FormatError):
            table_classes("it", packed, 2)
    else:
        assert list(table_classes("it", packed, 2)) == [slowly(entry) for entry in table]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=8))
@settings(deadline=None)
def test_subclusters_are_bits_from_the_least_significant_on(table: list[tuple[bool, int, int]]) -> None:
    packed = b"".join(
        struct.pack(">QII", L2_COMPRESSED if compressed else 1 << 16, zero & ~allocated, allocated)
        for compressed, zero, allocated in table
    )
    expected = [
        DATA if compressed or allocated >> bit & 1 else ZERO if zero >> bit & 1 else ABSENT
        for compressed, zero, allocated in table
        for bit in range(SUBCLUSTERS)
    ]
    assert list(extended_table_classes("it", packed)) == expected


@pytest.mark.parametrize(
    "entry",
    [struct.pack(">QII", 1 << 16, 1, 1), struct.pack(">QII", 0, 0, 1)],
    ids=["allocated-and-zero", "allocated-nowhere"],
)
def test_subclusters_that_contradict_themselves_are_damage(entry: bytes) -> None:
    with pytest.raises(FormatError):
        extended_table_classes("it", entry)


@given(st.binary(max_size=40) | st.lists(st.sampled_from([0, 0xFF]), max_size=40).map(bytes), st.integers(0, 3))
@settings(deadline=None)
def test_set_bits_become_runs(bits: bytes, first: int) -> None:
    runs = Runs()
    add_bits(runs, first * 512, bits, 512)
    marked = [i for i in range(len(bits) * 8) if bits[i // 8] >> i % 8 & 1]
    assert runs.extents(1 << 40) == normal(Extent((first + i) * 512, 512) for i in marked)


@given(st.lists(st.sampled_from([ABSENT, DATA, ZERO]), max_size=50).map(bytes))
@settings(deadline=None)
def test_runs_of_classes_cover_them_all(classes: bytes) -> None:
    assert b"".join(bytes([kind]) * (end - first) for first, end, kind in class_runs(classes)) == classes
    runs = Runs()
    add_classes(runs, 4096, classes, 512)
    held = [(i, kind) for i, kind in enumerate(classes) if kind != ABSENT]
    assert sum(e.length for e in runs.extents(1 << 40)) == 512 * len(held)


@pytest.mark.parametrize(
    ("numbers", "pieces"),
    [
        ([], []),
        ([0, 0], []),
        ([8, 16, 24], [(0, 2), (2, 1)]),
        ([0, 8, 16, 0, 24], [(1, 2), (4, 1)]),
        ([8, 24, 16], [(0, 1), (1, 1), (2, 1)]),
    ],
)
def test_neighbours_are_told_together_up_to_the_longest_piece(
    numbers: list[int], pieces: list[tuple[int, int]]
) -> None:
    assert list(adjacent(array("Q", numbers), 8, 2)) == pieces
