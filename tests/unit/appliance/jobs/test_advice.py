"""Proposals: each helps, by what the planner says of it, and there is none where nothing does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from appliance.jobs.advice import Change, Night, Proposal, advise, effect, host_peaks
from appliance.jobs.estimating import Basis, Estimate
from appliance.jobs.planner import SLOTS, Item
from appliance.jobs.window import Span
from catalog.jobs.limits import Limits

TEN = datetime(2026, 11, 23, 22, tzinfo=UTC)
NOW = TEN - timedelta(hours=6)
HOUR = timedelta(hours=1)


def item(
    name: str, minutes: float, job: str = "nightly", begin: datetime = TEN, *, hours: float = 8, host: str = "a"
) -> Item:
    keys = (f"machine:{name}", f"host:{host}", f"job:{job}")
    measured = Estimate(minutes * 60, Basis.MEASURED, "")
    spans = (Span(begin, begin + hours * HOUR),)
    return Item(f"{job}/{name}", name, name, job, host, keys, measured, spans, run=job)


def of(proposals: list[Proposal], change: Change) -> list[Proposal]:
    return [proposal for proposal in proposals if proposal.change is change]


def test_where_all_fits_without_waiting_nothing_is_proposed() -> None:
    night = Night((item("a", 60), item("b", 60, host="b")), Limits({"host": 1}), NOW)
    assert advise(night) == []


def test_where_nothing_helps_nothing_is_proposed() -> None:
    """Longer than its window, whenever that begins up to four hours earlier; and there is no other job."""
    night = Night((item("huge", 24 * 60),), Limits({"host": 1}), NOW)
    assert effect(night.plan()).unfit == 1
    assert advise(night) == []


def test_the_limit_that_binds_is_named_with_what_one_more_would_change() -> None:
    night = Night(tuple(item(f"m{n}", 100) for n in range(8)), Limits({"host": 1, "place": 4}), NOW)
    before = effect(night.plan())
    assert before.unfit == 4
    (raised,) = of(advise(night), Change.LIMIT)
    assert (raised.key, raised.value) == ("host:a", "2")
    assert raised.before == before
    again = replace(night, limits=Limits({"host": 1, "place": 4}, {"host:a": 2}))
    assert raised.after == effect(again.plan())
    assert raised.after.unfit == 0
    assert raised.after.peak == 2


def test_slots_of_proxies_are_a_limit_like_any_other() -> None:
    night = Night(tuple(item(f"m{n}", 100, host=f"h{n}") for n in range(8)), Limits(), NOW, slots=1)
    (raised,) = of(advise(night), Change.LIMIT)
    assert (raised.key, raised.value) == (SLOTS, "2")


def test_a_job_that_is_in_the_way_of_another_is_moved() -> None:
    """Both begin at ten and share a host; one of them may as well begin before."""
    items = [item(f"db{n}", 120, "databases", hours=6) for n in range(3)] + [
        item(f"w{n}", 60, "web", hours=6) for n in range(4)
    ]
    night = Night(tuple(items), Limits({"host": 1}), NOW)
    before = effect(night.plan())
    assert before.unfit > 0
    moved = of(advise(night), Change.START)
    assert moved
    for proposal in moved:
        assert proposal.after.unfit < before.unfit
        assert "earlier" in proposal.what
        begin = datetime.fromisoformat(proposal.value)
        shifted = tuple(replace(i, spans=(Span(begin, i.spans[0].end),)) if i.job == proposal.job else i for i in items)
        assert effect(replace(night, items=shifted).plan()) == proposal.after


def test_a_machine_that_has_no_place_is_taken_to_a_job_that_has_room() -> None:
    crowded = [item(f"m{n}", 200, hours=8) for n in range(3)]
    night = Night((*crowded, item("w", 10, "weekend", TEN + 9 * HOUR, hours=10)), Limits({"host": 1}), NOW)
    assert effect(night.plan()).unfit == 1
    (taken, *_) = of(advise(night), Change.MACHINE)
    assert (taken.job, taken.value) == ("nightly", "weekend")
    assert taken.after.unfit == 0


def test_no_proposal_makes_anything_begin_in_the_past() -> None:
    night = Night(tuple(item(f"m{n}", 100) for n in range(8)), Limits({"host": 1}), TEN - timedelta(minutes=90))
    proposals = of(advise(night, most=50), Change.START)
    assert proposals
    for proposal in proposals:
        assert datetime.fromisoformat(proposal.value) >= night.now


def test_the_peak_of_a_host_counts_what_runs_at_the_same_instant() -> None:
    items = (item("a", 60), item("b", 60), item("c", 30), item("d", 10, host="b"))
    assert host_peaks(Night(items, Limits({"host": 2}), NOW).plan()) == {"a": 2, "b": 1}


def test_to_begin_an_hour_earlier_only_to_be_done_an_hour_earlier_is_no_advice() -> None:
    night = Night(tuple(item(f"m{n}", 60) for n in range(3)), Limits({"host": 1}), NOW)
    assert of(advise(night, most=50), Change.START) == []


def test_jobs_that_load_a_host_at_once_are_moved_apart() -> None:
    items = (item("db", 50, "databases", hours=1), item("web", 100, "web", hours=6))
    night = Night(items, Limits({"host": 2}), NOW)
    crowded = Night((*items, item("late", 100, "third", hours=1.5)), Limits({"host": 2}), NOW)
    assert effect(night.plan()).peak == 2
    assert advise(night) == [], "nobody waits and all have their place"
    found = [proposal for proposal in of(advise(crowded), Change.START) if proposal.job == "third"]
    assert [(proposal.before.unfit, proposal.after.unfit) for proposal in found] == [(1, 0)]
