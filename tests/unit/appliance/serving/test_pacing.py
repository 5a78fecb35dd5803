"""Paces of places: token buckets that any number of copies share."""

import random
import threading

import pytest

from appliance.serving.pacing import LONGEST, Paces
from proxy.units import MiB


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def copied(paces: Paces, clock: Hands, places: list[list[str]], seconds: float) -> list[int]:
    """Bytes that copies on these places get, when each asks as often as it may."""
    asks = [paces.of(names) for names in places]
    got = [0] * len(asks)
    end, luck = clock.now + seconds, random.Random(1)
    while clock.now < end:
        for number, ask in sorted(enumerate(asks), key=lambda _: luck.random()):
            assert ask is not None
            for _ in range(50):  # as fast as a disk can be read here: 50 MiB in a hundredth of a second
                if ask(MiB) > 0:
                    break
                got[number] += MiB
        clock.now += 0.01
    return got


def test_copies_on_one_place_get_its_pace_together() -> None:
    clock = Hands()
    paces = Paces(clock)
    paces.set({"gold": 20 * MiB})

    got = copied(paces, clock, [["gold"], ["gold"]], 10.0)

    assert sum(got) == pytest.approx(200 * MiB, rel=0.05)
    assert min(got) > 0


def test_a_disk_on_two_places_is_as_slow_as_the_slower_one_and_counts_on_both() -> None:
    clock = Hands()
    paces = Paces(clock)
    paces.set({"gold": 20 * MiB, "silver": 5 * MiB})

    got = copied(paces, clock, [["gold", "silver"]], 10.0)

    assert sum(got) == pytest.approx(50 * MiB, rel=0.1)
    assert paces.taken() == {"gold": sum(got), "silver": sum(got)}
    assert paces.taken() == {}


def test_places_without_a_pace_cost_no_wait_and_are_counted() -> None:
    clock = Hands()
    paces = Paces(clock)
    ask = paces.of(["gold", ""])
    assert ask is not None

    assert [ask(MiB) for _ in range(1000)] == [0.0] * 1000
    assert paces.taken() == {"gold": 1000 * MiB}
    assert paces.of([""]) is None


def test_a_pace_that_is_set_changed_or_lifted_counts_at_once() -> None:
    clock = Hands()
    paces = Paces(clock)
    paces.set({"gold": 1 * MiB})
    ask = paces.of(["gold"])
    assert ask is not None
    assert ask(8 * MiB) == 0.0
    assert ask(MiB) == LONGEST  # eight seconds are owed, and something may change meanwhile

    paces.set({"gold": 16 * MiB})
    assert 0 < ask(MiB) <= 0.5
    paces.set({})
    assert ask(MiB) == 0.0


def test_a_place_saves_little_up_while_nobody_reads() -> None:
    clock = Hands()
    paces = Paces(clock)
    paces.set({"gold": 10 * MiB})
    clock.now += 3600

    assert sum(copied(paces, clock, [["gold"]], 1.0)) <= 16 * MiB


def test_many_threads_may_ask_at_once() -> None:
    paces = Paces()
    ask = paces.of(["gold"])
    assert ask is not None
    threads = [threading.Thread(target=lambda: [ask(1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert paces.taken() == {"gold": 8000}
