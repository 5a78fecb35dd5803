"""The timetable of a night: no limit is exceeded at any instant, and no slot is left empty that somebody could use."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.jobs.estimating import Basis, Estimate
from appliance.jobs.planner import SLOTS, Entry, Item, Plan, Running, plan
from appliance.jobs.window import Span
from catalog.jobs.limits import Limits
from proxy.model import ReasonCode

TEN = datetime(2026, 11, 23, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NIGHT = (Span(TEN, TEN + 480 * MINUTE),)


def item(
    name: str,
    minutes: float,
    *keys: str,
    host: str = "a",
    spans: tuple[Span, ...] = NIGHT,
    priority: int = 0,
    late: bool = False,
) -> Item:
    taken = (f"machine:{name}", f"host:{host}", *keys)
    measured = Estimate(minutes * 60, Basis.MEASURED, "")
    return Item(name, name, name, "nightly", host, taken, measured, spans, priority=priority, late=late)


def shown(made: Plan) -> dict[str, tuple[int, int]]:
    """Name -> minutes after ten at which it begins and ends."""
    return {e.item.name: ((e.begin - TEN) // MINUTE, (e.end - TEN) // MINUTE) for e in made.entries}


def test_the_longest_begins_first_and_limits_of_hosts_are_kept() -> None:
    items = [item("short", 10), item("long", 60), item("other", 30, host="b"), item("middle", 20)]
    made = plan(items, Limits({"host": 1}), TEN)
    assert shown(made) == {"long": (0, 60), "middle": (60, 80), "short": (80, 90), "other": (0, 30)}
    waited = {entry.item.name: entry.waited_for for entry in made.entries}
    assert waited == {"long": "", "middle": "host:a", "short": "host:a", "other": ""}
    assert made.end == TEN + 90 * MINUTE
    assert made.begin_of("middle") == TEN + 60 * MINUTE


def test_priority_of_the_job_goes_before_length() -> None:
    made = plan([item("long", 60), item("gold", 10, priority=5)], Limits({"host": 1}), TEN)
    assert shown(made) == {"gold": (0, 10), "long": (10, 70)}


def test_who_has_to_begin_soonest_goes_before_the_longer_one() -> None:
    soon = (Span(TEN, TEN + 30 * MINUTE),)
    made = plan([item("long", 300), item("hurry", 20, spans=soon)], Limits({"host": 1}), TEN)
    assert shown(made) == {"hurry": (0, 20), "long": (20, 320)}


def test_a_task_behind_a_full_key_does_not_keep_back_one_that_needs_another() -> None:
    items = [item("a1", 60), item("a2", 50), item("b1", 10, host="b")]
    made = plan(items, Limits({"host": 1, "repository": 2}), TEN)
    assert shown(made)["b1"] == (0, 10)


def test_heavy_ones_have_a_limit_of_their_own() -> None:
    items = [item(f"full{n}", 60, "full:host:a") for n in range(2)] + [item("light", 5)]
    made = plan(items, Limits({"host": 2, "full": 1}), TEN)
    assert shown(made) == {"full0": (0, 60), "light": (0, 5), "full1": (60, 120)}


def test_what_would_not_be_done_in_time_is_named_with_the_reason() -> None:
    items = [item("a", 300), item("b", 200), item("huge", 500), item("shut", 5, spans=())]
    made = plan(items, Limits({"host": 1}), TEN)
    assert set(shown(made)) == {"b"} or set(shown(made)) == {"a"}
    told = {unfit.item.name: (unfit.reason.code, unfit.reason.detail) for unfit in made.unfit}
    assert told["huge"] == (ReasonCode.NOT_PLANNED_IN_WINDOW, "it needs about 8 h 20 min, its window has 8 h 00 min")
    assert told["shut"][0] is ReasonCode.WINDOW_CLOSED
    (left,) = set(told) & {"a", "b"}
    assert told[left] == (ReasonCode.NOT_PLANNED_IN_WINDOW, "host:a is at its limit of 1 too long")


def test_where_not_all_have_room_the_plan_leaves_out_few_and_the_late_ones_go_first() -> None:
    items = [item("huge", 479), *(item(f"m{n}", 60) for n in range(8))]
    made = plan(items, Limits({"host": 1}), TEN)
    assert [unfit.item.name for unfit in made.unfit] == ["huge"]
    late = [item("late", 121, late=True), *(item(f"m{n}", 60) for n in range(8))]
    assert shown(plan(late, Limits({"host": 1}), TEN))["late"] == (0, 121)


def test_a_machine_waits_for_the_next_open_stretch() -> None:
    two = (Span(TEN, TEN + 30 * MINUTE), Span(TEN + 100 * MINUTE, TEN + 200 * MINUTE))
    made = plan([item("first", 30, spans=two), item("second", 25, spans=two)], Limits({"host": 1}), TEN)
    assert shown(made) == {"first": (0, 30), "second": (100, 125)}


def test_nothing_is_planned_before_now_and_what_runs_already_counts() -> None:
    later = TEN + 60 * MINUTE
    busy = [Running(("host:a", "machine:x"), later + 15 * MINUTE)]
    made = plan([item("one", 10), item("x", 10, host="b")], Limits({"host": 1}), later, running=busy)
    assert shown(made) == {"one": (75, 85), "x": (75, 85)}


def test_a_limit_of_nought_lets_nothing_begin() -> None:
    made = plan([item("one", 10)], Limits(keys={"host:a": 0}), TEN)
    assert [unfit.reason.detail for unfit in made.unfit] == ["host:a is at its limit of 0 too long"]


def test_slots_of_all_proxies_bound_what_runs_at_once() -> None:
    made = plan([item(str(n), 10, host=str(n)) for n in range(5)], Limits(), TEN, slots=2)
    assert sorted(begin for begin, _ in shown(made).values()) == [0, 0, 10, 10, 20]
    assert {entry.waited_for for entry in made.entries} == {"", SLOTS}


# --- all of it at once, on many nights ---------------------------------------------------------------------------------

HOSTS, PLACES = ("a", "b", "c"), ("p", "q", "r")


@st.composite
def nights(draw: st.DrawFn) -> list[Item]:
    made = []
    for number in range(draw(st.integers(1, 40))):
        places = draw(st.sets(st.sampled_from(PLACES), max_size=2))
        begin = TEN + draw(st.integers(0, 120)) * MINUTE
        end = draw(st.none() | st.integers(1, 400).map(lambda m, begin=begin: begin + m * MINUTE))
        spans: tuple[Span, ...] = (Span(begin, end),)
        if end is not None and draw(st.booleans()):
            spans += (Span(end + 60 * MINUTE, end + 300 * MINUTE),)
        keys = [f"place:{place}" for place in sorted(places)] + ["repository:r"]
        host = draw(st.sampled_from(HOSTS))
        if draw(st.booleans()):
            keys.append(f"full:host:{host}")
        length = draw(st.integers(1, 200))
        made.append(item(str(number), length, *keys, host=host, spans=spans, priority=draw(st.integers(0, 2))))
    return made


limits = st.builds(
    Limits,
    st.fixed_dictionaries(
        {},
        optional={
            "host": st.integers(1, 3),
            "place": st.integers(1, 3),
            "repository": st.integers(1, 6),
            "full": st.integers(1, 2),
        },
    ),
    st.dictionaries(st.sampled_from(["host:a", "place:p"]), st.integers(0, 2), max_size=2),
)


def taken(entries: tuple[Entry, ...], moment: datetime) -> Counter[str]:
    """Key -> how many hold it right after this moment."""
    return Counter(key for e in entries if e.begin <= moment < e.end for key in (*e.item.keys, SLOTS))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(nights(), limits, st.none() | st.integers(1, 5))
def test_no_limit_is_exceeded_and_no_slot_is_left_empty(items: list[Item], limits: Limits, slots: int | None) -> None:
    made = plan(items, limits, TEN, slots=slots)
    assert sorted([e.item.id for e in made.entries] + [u.item.id for u in made.unfit]) == sorted(i.id for i in items)

    def bound(key: str) -> int | None:
        return slots if key == SLOTS else limits.of(key)

    for entry in made.entries:
        assert (entry.end - entry.begin).total_seconds() == pytest.approx(entry.item.estimate.seconds)
        assert any(entry.begin in s and (s.end is None or entry.end <= s.end) for s in entry.item.spans)
        for key, held in taken(made.entries, entry.begin).items():
            limit = bound(key)
            assert limit is None or held <= limit
    events = {TEN} | {e.end for e in made.entries} | {s.begin for i in items for s in i.spans}
    for moment in events:
        held = taken(made.entries, moment)
        for entry in made.entries:
            if entry.begin > moment and _could(entry.item, moment):
                assert any((limit := bound(k)) is not None and held[k] >= limit for k in (*entry.item.keys, SLOTS))


def _could(one: Item, moment: datetime) -> bool:
    done = moment + timedelta(seconds=one.estimate.seconds)
    return any(moment in s and (s.end is None or done <= s.end) for s in one.spans)
