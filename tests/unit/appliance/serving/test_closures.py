"""What is closed for a while."""

from appliance.serving.closures import FIRST_SECONDS, HOPELESS, LONGEST_SECONDS, Closures


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_up_to_the_longest() -> None:
    clock = Clock()
    closures = Closures(clock)
    waits = []
    for _ in range(8):
        waits.append(closures.close(["repository:a"]))
        clock.now += waits[-1]
        assert closures.closed() == frozenset()
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS


def test_what_fails_while_it_is_closed_says_nothing_new() -> None:
    clock = Clock()
    closures = Closures(clock)
    closures.close(["host:a"])
    clock.now += 1
    assert closures.close(["host:a"]) == FIRST_SECONDS - 1
    assert closures.closed() == {"host:a"}


def test_a_success_opens_at_once_and_forgets() -> None:
    clock = Clock()
    closures = Closures(clock)
    closures.close(["host:a", "host:b"])
    closures.succeeded(["host:a", "place:x"])
    assert closures.closed() == {"host:b"}
    assert closures.close(["host:a"]) == FIRST_SECONDS


def test_what_was_closed_often_without_a_success_is_hopeless() -> None:
    clock = Clock()
    closures = Closures(clock)
    for _ in range(HOPELESS):
        assert not closures.hopeless(["host:a"])
        clock.now += closures.close(["host:a"])
    assert closures.hopeless(["place:x", "host:a"])
    assert not closures.hopeless([])
    closures.succeeded(["host:a"])
    assert not closures.hopeless(["host:a"])
