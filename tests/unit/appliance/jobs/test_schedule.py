"""Fires of schedules, also where the clock jumps; compared with a clock that is watched minute by minute."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.jobs.schedule import BELIEVED, GRACE, Due, check, due, fires_between, next_fire
from catalog.jobs.policy import EVERY_DAY, Policy, Schedule, Weekday, Window
from catalog.jobs.values import Cause
from proxy.errors import ConfigurationError

pytestmark = pytest.mark.slow

BERLIN = "Europe/Berlin"
# Half an hour, a gap at midnight, a whole day left out, both sides of the equator, none at all.
ZONES = (
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Pacific/Apia",
    "Asia/Tehran",
    "Africa/Casablanca",
    "America/Havana",
    "UTC",
)
MINUTE = timedelta(minutes=1)


def at(text: str, zone: str = "UTC", *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def daily(*times: str, zone: str = BERLIN, **others: object) -> Policy:
    return Policy(zone=zone, schedule=Schedule(at=tuple(time.fromisoformat(t) for t in times), **others))  # type: ignore[arg-type]


def cron(line: str, zone: str = BERLIN) -> Policy:
    return Policy(zone=zone, schedule=Schedule(cron=line))


@pytest.mark.parametrize("policy", [daily("02:30"), cron("30 2 * * *")], ids=["at", "cron"])
def test_a_time_that_the_clock_skips_comes_once_right_after_the_gap(policy: Policy) -> None:
    fires = fires_between(policy, at("2026-03-28T12:00"), at("2026-03-30T12:00"))
    assert fires == [at("2026-03-29T03:00", BERLIN), at("2026-03-30T02:30", BERLIN)]


@pytest.mark.parametrize("policy", [daily("02:30"), cron("30 2 * * *")], ids=["at", "cron"])
def test_a_time_that_the_clock_shows_twice_comes_once(policy: Policy) -> None:
    fires = fires_between(policy, at("2026-10-24T12:00"), at("2026-10-26T12:00"))
    assert fires == [at("2026-10-25T02:30", BERLIN), at("2026-10-26T02:30", BERLIN)]
    assert fires[0] == at("2026-10-25T00:30")


def test_several_times_within_one_gap_come_as_one() -> None:
    fires = fires_between(daily("02:00", "02:15", "02:45", "03:00"), at("2026-03-29T00:00"), at("2026-03-29T12:00"))
    assert fires == [at("2026-03-29T01:00")]


def test_a_day_that_a_country_leaves_out_does_not_lose_its_backup() -> None:
    """Samoa went from the 29th to the 31st of December 2011."""
    fires = fires_between(daily("22:00", zone="Pacific/Apia"), at("2011-12-29T12:00"), at("2011-12-31T12:00"))
    shown = [fire.astimezone(ZoneInfo("Pacific/Apia")).strftime("%d %H:%M") for fire in fires]
    assert shown == ["29 22:00", "31 00:00", "31 22:00"]


def test_times_of_day_come_in_order_on_their_days_only() -> None:
    policy = daily("22:00", "06:30", days=(Weekday.MON, Weekday.FRI), zone="UTC")
    fires = fires_between(policy, at("2026-11-20T06:30"), at("2026-11-23T22:00"))  # from a Friday to a Monday
    assert fires == [at("2026-11-20T22:00"), at("2026-11-23T06:30"), at("2026-11-23T22:00")]
    assert next_fire(policy, at("2026-11-23T22:00")) == at("2026-11-27T06:30")


def test_a_job_without_schedule_never_fires() -> None:
    assert next_fire(Policy(), at("2026-01-01T00:00")) is None
    assert due(Policy(), at("2026-01-01T00:00"), at("2027-01-01T00:00")) is None


@pytest.mark.parametrize(
    "line",
    ["", "x", "* * * *", "60 * * * *", "0 25 * * *", "* * * * * *", "@daily", "R * * * *", "H 2 * * *", "0 0 30 2 *"],
)
def test_a_cron_line_that_nobody_can_run_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError, match="schedule"):
        check(cron(line))


@pytest.mark.parametrize(
    "line", ["0 22 * * mon-fri", "*/15 8-18 1,15 jan,jul *", "0 0 29 2 *", "0 3 l * *", "0 3 * * sun#1"]
)
def test_a_cron_line_that_comes_some_day_is_taken(line: str) -> None:
    check(cron(line))
    assert next_fire(cron(line), at("2026-03-01T00:00")) is not None


# --- what is due ------------------------------------------------------------------------------------------------------

NIGHTLY = daily("22:00", zone="UTC")
TEN = at("2026-11-20T22:00")
DAY = timedelta(days=1)


def test_a_fire_is_due_once() -> None:
    assert due(NIGHTLY, TEN - DAY, TEN - MINUTE) is None
    assert due(NIGHTLY, TEN - DAY, TEN) == Due(TEN, Cause.SCHEDULE)
    assert due(NIGHTLY, TEN - DAY, TEN + GRACE) == Due(TEN, Cause.SCHEDULE)
    assert due(NIGHTLY, TEN, TEN + GRACE) is None


def test_missed_fires_are_made_up_for_by_one_run() -> None:
    assert due(NIGHTLY, TEN - 4 * DAY, TEN + timedelta(hours=3)) == Due(TEN, Cause.MISSED, passed=3)


def test_missed_fires_are_skipped_where_the_policy_says_so() -> None:
    policy = daily("22:00", zone="UTC", missed="skip")
    assert due(policy, TEN - 2 * DAY, TEN + timedelta(hours=3)) == Due(TEN, Cause.MISSED, skip=True, passed=1)
    assert due(policy, TEN - DAY, TEN + MINUTE) == Due(TEN, Cause.SCHEDULE)


def test_a_missed_run_waits_for_its_window() -> None:
    policy = NIGHTLY.model_copy(update={"window": (Window(start=time(22), end=time(6)),)})
    assert due(policy, TEN - DAY, TEN + timedelta(hours=7, minutes=59)) == Due(TEN, Cause.MISSED)
    assert due(policy, TEN - DAY, TEN + timedelta(hours=8)) is None
    assert due(policy, TEN - DAY, TEN + DAY) == Due(TEN + DAY, Cause.SCHEDULE, passed=1)


def test_a_clock_that_goes_back_begins_nothing_twice() -> None:
    seen = TEN
    for back in (MINUTE, timedelta(hours=1), timedelta(hours=24)):
        assert due(NIGHTLY, seen, TEN - back) is None
        assert due(NIGHTLY, seen, TEN) is None
    assert due(NIGHTLY, seen, TEN + DAY) == Due(TEN + DAY, Cause.SCHEDULE)


def test_a_mark_made_by_a_clock_years_ahead_stops_no_job() -> None:
    wrong = at("2036-01-01T22:00")
    assert due(NIGHTLY, wrong, TEN - DAY / 2) is None
    assert due(NIGHTLY, wrong, TEN + MINUTE) == Due(TEN, Cause.SCHEDULE)
    assert due(NIGHTLY, TEN + BELIEVED + MINUTE, TEN) == Due(TEN, Cause.SCHEDULE)


def test_years_of_absence_cost_no_search_through_every_minute() -> None:
    found = due(cron("* * * * *", "UTC"), at("1999-01-01T00:00"), TEN)
    assert found is not None
    assert (found.scheduled_for, found.cause) == (TEN, Cause.SCHEDULE)
    assert found.passed < 8 * 24 * 60


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-90, 400), min_size=1, max_size=60), st.sampled_from(["run", "skip"]))
def test_whatever_the_clock_does_no_fire_is_acted_on_twice(steps: list[int], missed: str) -> None:
    """Steps of the clock in minutes, also back, as the scheduler sees them."""
    policy = daily("22:00", "23:00", "00:30", "06:00", zone="UTC", missed=missed)
    now = seen = at("2026-11-20T12:00")
    acted: list[datetime] = []
    for step in steps:
        now += step * MINUTE
        found = due(policy, seen, now)
        if found is not None:
            assert found.scheduled_for <= now
            assert now - found.scheduled_for <= GRACE or found.cause is Cause.MISSED
            seen = found.scheduled_for
            acted.append(seen)
    assert acted == sorted(set(acted))


# --- against a clock that is watched ---------------------------------------------------------------------------------


def watched(zone: ZoneInfo, begin: datetime, end: datetime, fits: Callable[[datetime], bool]) -> Iterator[datetime]:
    """The rule as it is told: look at the clock each minute; fire when it shows a time that fits, or jumped over one, and never
    showed it before."""
    moment = begin - timedelta(days=2)
    shown = moment.astimezone(zone).replace(tzinfo=None, fold=0)
    while moment <= end:
        now_shown = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        fire = False
        while shown < now_shown:
            shown += MINUTE
            fire |= fits(shown)
        if fire and moment > begin:
            yield moment
        moment += MINUTE


def jumps(zone: ZoneInfo, year: int) -> list[datetime]:
    """Hours of a year after which its clock differs."""
    moment, found = datetime(year, 1, 1, tzinfo=UTC), []
    while moment.year == year:
        if moment.astimezone(zone).utcoffset() != (moment + timedelta(hours=6)).astimezone(zone).utcoffset():
            found.append(moment)
        moment += timedelta(hours=6)
    return found


fields = st.tuples(
    st.sets(st.integers(0, 59), min_size=1, max_size=3),
    st.sets(st.integers(0, 23), min_size=1, max_size=4),
    st.none() | st.sets(st.integers(1, 31), min_size=1, max_size=20),
    st.none() | st.sets(st.integers(0, 6), min_size=1, max_size=6),
)


def listed(numbers: set[int] | None) -> str:
    return "*" if numbers is None else ",".join(map(str, sorted(numbers)))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ZONES), st.integers(1985, 2037), st.integers(0, 1 << 30), fields)
def test_cron_fires_as_a_watched_clock_does(
    name: str, year: int, pick: int, parts: tuple[set[int], set[int], set[int] | None, set[int] | None]
) -> None:
    minutes, hours, days, weekdays = parts
    zone = ZoneInfo(name)
    middle = (jumps(zone, year) or [datetime(year, 6, 1, tzinfo=UTC)])[pick % 2 - 1]
    begin, end = middle - timedelta(hours=30), middle + timedelta(hours=30)

    def fits(shown: datetime) -> bool:
        # crontab(5): where both are named, either does.
        by_day = days is not None and shown.day in days
        by_weekday = weekdays is not None and (shown.weekday() + 1) % 7 in weekdays
        any_day = days is None and weekdays is None
        return shown.minute in minutes and shown.hour in hours and (any_day or by_day or by_weekday)

    line = f"{listed(minutes)} {listed(hours)} {listed(days)} * {listed(weekdays)}"
    assert fires_between(cron(line, name), begin, end) == list(watched(zone, begin, end, fits))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.integers(1985, 2037),
    st.integers(0, 1 << 30),
    st.sets(st.times().map(lambda t: t.replace(second=0, microsecond=0)), min_size=1, max_size=6),
    st.sets(st.sampled_from(EVERY_DAY), min_size=1),
)
def test_times_of_day_fire_as_a_watched_clock_does(
    name: str, year: int, pick: int, times: set[time], days: set[Weekday]
) -> None:
    zone = ZoneInfo(name)
    middle = (jumps(zone, year) or [datetime(year, 6, 1, tzinfo=UTC)])[pick % 2 - 1]
    begin, end = middle - timedelta(hours=30), middle + timedelta(hours=30)
    policy = Policy(zone=name, schedule=Schedule(at=tuple(times), days=tuple(days)))
    expected = watched(zone, begin, end, lambda s: s.time() in times and EVERY_DAY[s.weekday()] in days)
    fires = fires_between(policy, begin, end)
    assert fires == list(expected)
    assert next_fire(policy, begin) == next(iter([*fires, *fires_between(policy, end, end + 40 * DAY)]))
