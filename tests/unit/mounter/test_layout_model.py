"""Changed bytes of a volume, and trees that cannot be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.layout.model import Changes, Doubt, LayoutDoubt, Node, Tree, exactly, reachable
from mounter.layout.owners import FREE, Owners
from mounter.ports import FileType
from proxy.extents import Extent, normal

EMPTY = Tree(2, {2: Node(FileType.DIRECTORY, 0, 0, 0, 0, 0, 0)}, {2: {}})


class Zeroes:
    size = 100

    def pread(self, offset: int, length: int) -> bytes:
        return bytes(max(0, min(length, self.size - offset)))


runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=8)


@pytest.mark.slow
@given(runs, st.integers(0, 30), st.integers(1, 30), runs)
def test_an_extent_is_touched_exactly_if_one_of_its_bytes_changed(
    changed: list[tuple[int, int]], offset: int, size: int, asked: list[tuple[int, int]]
) -> None:
    extents = normal(Extent(start, length) for start, length in changed)
    changes = Changes.of(extents, offset, size)
    bytes_ = {b - offset for e in extents for b in range(e.start, e.end) if offset <= b < offset + size}
    starts = np.array([start for start, _ in asked], dtype=np.int64)
    ends = np.array([start + length for start, length in asked], dtype=np.int64)
    expected = [bool(bytes_ & set(range(start, start + length))) for start, length in asked]
    assert changes.touch(starts, ends).tolist() == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (99, 2), (0, 0), (100, 1), (1 << 70, 1)])
def test_bytes_outside_of_a_volume_are_a_doubt(offset: int, length: int) -> None:
    with pytest.raises(LayoutDoubt) as refused:
        exactly(Zeroes(), offset, length)
    assert refused.value.doubt is Doubt.DAMAGED


def test_a_directory_with_two_names_is_a_doubt() -> None:
    with pytest.raises(LayoutDoubt):
        reachable(2, {2: {b"a": 3, b"b": 3}, 3: {}})
    with pytest.raises(LayoutDoubt):
        reachable(2, {2: {b"a": 3}, 3: {b"again": 3}})
    with pytest.raises(LayoutDoubt):
        reachable(2, {2: {b"a": 3}, 3: {b"root": 2}})


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), st.integers(10, 15)), max_size=8))
def test_each_byte_has_one_owner_whatever_a_volume_claims(claims: list[tuple[int, int, int]]) -> None:
    owners = Owners.of([(start, start + length, who) for start, length, who in claims], EMPTY)
    told = owners.at(np.arange(80, dtype=np.int64)).tolist()
    for byte, who in enumerate(told):
        claimants = {owner for start, length, owner in claims if start <= byte < start + length}
        assert who in claimants if claimants else who == FREE
