"""Bytes a second between looks."""

from appliance.web.speeds import FORGOTTEN, WINDOW, Speeds


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_speed_is_known_from_the_second_look_on_and_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    speeds, key = Speeds(clock), ("t1", 1)
    assert speeds.seen({key: 0}) == {}
    clock.now += 2
    assert speeds.seen({key: 200}) == {key: 100.0}
    for _ in range(20):  # it stands still
        clock.now += 2
        last = speeds.seen({key: 200})
    assert last == {key: 0.0}


def test_looks_in_quick_succession_do_not_shorten_what_is_looked_back() -> None:
    clock = Clock()
    speeds, key = Speeds(clock), ("t1", 1)
    speeds.seen({key: 0})
    for _ in range(400):
        clock.now += 0.1
        last = speeds.seen({key: int((clock.now - 100.0) * 1000)})
    assert 990 <= last[key] <= 1010
    assert len(speeds._seen[key]) <= WINDOW + 2


def test_an_attempt_that_begins_anew_has_a_speed_of_its_own() -> None:
    clock = Clock()
    speeds = Speeds(clock)
    speeds.seen({("t1", 1): 5000})
    clock.now += 5
    assert speeds.seen({("t1", 2): 10}) == {}
    clock.now += 5
    assert speeds.seen({("t1", 2): 20}) == {("t1", 2): 2.0}


def test_what_nobody_looks_at_is_forgotten() -> None:
    clock = Clock()
    speeds = Speeds(clock)
    speeds.seen({("t1", 1): 1})
    clock.now += FORGOTTEN + 1
    speeds.seen({})
    assert speeds._seen == {}
