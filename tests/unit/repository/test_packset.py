"""Many pack names in little memory: as a sorted list would have them."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.repository import packset
from proxy.repository.packset import PackSet

# Few distinct bytes, so that many names begin alike and some halves are equal.
names = st.lists(
    st.one_of(
        st.binary(min_size=16, max_size=16),
        st.tuples(st.sampled_from([bytes(8), b"\xff" * 8]), st.integers(0, 3)).map(
            lambda t: t[0] + t[1].to_bytes(8, "big")
        ),
    ),
    max_size=30,
)


@pytest.fixture(params=[packset.FEW, 0, 3], ids=["few", "many", "some"], scope="module")
def few(request: pytest.FixtureRequest) -> Iterator[int]:
    """From how many names on numpy does it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packset, "FEW", request.param)
        yield request.param


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@given(names, names)
def test_it_is_a_sorted_set(mine: list[bytes], others: list[bytes]) -> None:
    packs = PackSet.of(mine)
    expected = sorted(set(mine))
    assert list(packs) == expected
    assert len(packs) == len(expected)
    assert packs.table() == b"".join(expected)
    asked = [*others, *mine]
    numbers = packs.numbers(b"".join(asked)).tolist()
    assert numbers == [expected.index(name) if name in expected else -1 for name in asked]
    assert [name in packs for name in asked] == [name in expected for name in asked]
    assert list(packs.union(others)) == sorted({*mine, *others})
    assert packs.minus(PackSet.of(others)) == sorted(set(mine) - set(others))


@pytest.mark.usefixtures("few")
def test_a_table_may_be_in_any_order_and_hold_names_twice() -> None:
    assert list(PackSet.parse(b"b" * 16 + b"a" * 16 + b"b" * 16)) == [b"a" * 16, b"b" * 16]


@pytest.mark.usefixtures("few")
def test_half_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="multiple"):
        PackSet.parse(os.urandom(24))
