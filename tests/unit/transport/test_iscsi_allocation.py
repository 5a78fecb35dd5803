"""The map from GET LBA STATUS: each drawing of what a device may answer, and one that answers anything at all."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.extents import Extent, Kind, is_map
from proxy.transport.iscsi.allocation import allocation
from proxy.transport.iscsi.scsi import LbaStatus

BLOCK = 512


def runs(text: str, first: int = 0) -> list[LbaStatus]:
    """``Z`` deallocated, ``D`` mapped, ``.`` not in the answer; one block a letter."""
    return [LbaStatus(first + at, 1, letter == "D") for at, letter in enumerate(text) if letter != "."]


def drawn(extents: Sequence[Extent]) -> str:
    return "".join(("D" if e.kind is Kind.DATA else "Z") * (e.length // BLOCK) for e in extents)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({0: runs("ZZDDZZZZ")}, "ZZDDZZZZ"),
        ({0: runs("ZZZ"), 3: runs("DD", 3), 5: runs("ZZZ", 5)}, "ZZZDDZZZ"),
        ({0: runs("ZZZ"), 3: runs("ZZZZZZ", 1)}, "ZZZZZZZD"),
        ({0: runs("ZZ..ZZ"), 6: runs("ZZ", 6)}, "ZZDDZZZZ"),
        ({0: runs("ZZ", 2)}, "DDZZDDDD"),
        ({0: []}, "DDDDDDDD"),
        ({0: runs("ZZZZ"), 4: runs("ZZZZ")}, "ZZZZDDDD"),
        ({0: [LbaStatus(0, 100, False)]}, "ZZZZZZZZ"),
        ({0: [LbaStatus(0, 4, True), LbaStatus(2, 6, False)]}, "DDDDZZZZ"),
    ],
    ids=[
        "one answer",
        "in several answers",
        "an answer that starts before the question",
        "a gap is data",
        "an answer that starts late",
        "no answer at all",
        "a device that starts anew",
        "a run beyond the end",
        "overlapping runs: the first counts",
    ],
)
def test_a_device_may_answer_like_this(answers: dict[int, list[LbaStatus]], expected: str) -> None:
    assert drawn(allocation(lambda block: answers.get(block, []), 8, BLOCK)) == expected


def test_a_part_of_a_device_is_asked_for_from_its_start() -> None:
    found = allocation(lambda block: runs("ZZZZDDDD")[block:], 6, BLOCK, first=2)
    assert found == [Extent(1024, 1024, Kind.ZERO), Extent(2048, 1024, Kind.DATA)]


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.builds(LbaStatus, st.integers(0, 40), st.integers(1, 20), st.booleans()), max_size=5), max_size=8
    )
)
def test_whatever_a_device_answers_the_map_is_whole_and_zero_only_where_it_said_so(
    answers: list[list[LbaStatus]],
) -> None:
    left = list(answers)
    found = allocation(lambda _: left.pop(0) if left else [], 32, BLOCK)
    assert is_map(found, 32 * BLOCK)
    said = {block for a in answers for r in a if not r.mapped for block in range(r.block, r.block + r.blocks)}
    zero = {at // BLOCK for e in found if e.kind is Kind.ZERO for at in range(e.start, e.end, BLOCK)}
    assert zero <= said
