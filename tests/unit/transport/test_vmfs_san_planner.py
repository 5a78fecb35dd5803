"""Scattered pieces of a buffer, and the reads that bring them.

::

    together     |a|b|            neighbours
                 |a|.8K.|b|       a small gap
    apart        |a|.more.|b|     a large gap
                 |a=256K|b|       one request is full
                 |a| LUN 1        another LUN
                 |a+b|            the same bytes twice
"""

import random

import pytest

from proxy.transport.vmfs_san.planner import GAP, REQUEST, Placed, Plan, plan
from proxy.units import KiB


def views(*lengths: int) -> list[memoryview]:
    buffer = memoryview(bytearray(sum(lengths)))
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [buffer[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def ranges(made: Plan) -> list[tuple[int, int, int]]:
    return [(lun, offset, len(view)) for lun, reads in made.reads.items() for offset, view in reads]


@pytest.mark.parametrize(
    ("second", "together"),
    [
        ((0, 4 * KiB), True),
        ((0, 4 * KiB + GAP), True),
        ((0, 4 * KiB + GAP + 1), False),
        ((1, 4 * KiB), False),
        ((0, 2 * KiB), False),
        ((0, 0), False),
    ],
    ids=["neighbours", "small-gap", "large-gap", "other-lun", "overlap", "same-place"],
)
def test_pieces_are_read_together_when_they_are_near(second: tuple[int, int], together: bool) -> None:
    a, b = views(4 * KiB, 4 * KiB)
    made = plan([Placed(0, 0, a), Placed(*second, b)])
    assert len(ranges(made)) == (1 if together else 2)
    assert bool(made.copies) is together


def test_a_read_of_several_pieces_is_no_longer_than_a_request() -> None:
    lengths = [REQUEST // 2, REQUEST // 2, 4 * KiB]
    pieces = views(*lengths)
    made = plan([Placed(0, 0, pieces[0]), Placed(0, REQUEST // 2, pieces[1]), Placed(0, REQUEST, pieces[2])])
    assert ranges(made) == [(0, 0, REQUEST), (0, REQUEST, 4 * KiB)]


def test_a_piece_by_itself_goes_straight_into_the_callers_buffer() -> None:
    (view,) = views(REQUEST * 4)
    made = plan([Placed(2, 512, view)])
    assert made.reads[2][0][1] is view
    assert made.copies == []


def test_nothing_to_read_is_an_empty_plan() -> None:
    assert plan([]) == Plan()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_pieces_every_byte_comes_from_its_place(seed: int) -> None:
    chance = random.Random(seed)
    luns = [chance.randbytes(512 * KiB) for _ in range(2)]
    lengths = [chance.choice([512, 4096, chance.randrange(1, 50_000)]) for _ in range(60)]
    placed = []
    for view in views(*lengths):
        offset = chance.randrange(512 * KiB - len(view)) // 512 * 512
        placed.append(Placed(chance.randrange(2), offset, view))
    made = plan(placed)
    for lun, reads in made.reads.items():
        assert [offset for offset, _view in reads] == sorted(offset for offset, _view in reads)
        for offset, view in reads:
            view[:] = luns[lun][offset : offset + len(view)]
    made.finish()
    for lun, offset, view in placed:
        assert view == luns[lun][offset : offset + len(view)]
