"""Verification as jobs do it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.keeping.verifying import verify_due, verify_run
from appliance.wiring import Services
from proxy.errors import Cancelled
from proxy.model import RestorePoint
from proxy.repository.records import Health
from tests.unit.appliance.keeping.sealed_points import NOW, StandingClock, appliance, seal

pytestmark = pytest.mark.slow


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with appliance(tmp_path / "site") as made:
        yield made


@pytest.fixture
def points(services: Services) -> list[RestorePoint]:
    """Of ten machines, two each: m0 … m9."""
    return [
        seal(services.repository, NOW - timedelta(days=days, minutes=number), machine=f"m{number}")
        for number in range(10)
        for days in (2, 1)
    ]


def at(services: Services, days: float) -> None:
    """So many days later."""
    clock: object = services.clock
    assert isinstance(clock, StandingClock)
    clock.moment = NOW + timedelta(days=days)


def test_each_night_a_share_of_the_machines_is_verified_and_all_within_the_cadence(
    services: Services, points: list[RestorePoint]
) -> None:
    machines = {point.machine for point in points}
    newest = {point.machine: point.id for point in points}
    seen: list[str] = []
    for night in range(5):
        at(services, night)
        due = verify_due(services, machines, 5)
        assert len(due) == 2
        report = verify_run(services, due)
        assert (report.points, report.damage) == (2, ())
        seen += due
    assert sorted(seen) == sorted(newest.values())
    at(services, 5)
    assert set(verify_due(services, machines, 5)) == set(seen[:2]), (
        "those come first that were not verified for longest"
    )


def test_only_the_machines_that_are_asked_for_are_due_and_none_without_a_cadence(
    services: Services, points: list[RestorePoint]
) -> None:
    assert verify_due(services, {"m3"}, 30) == [points[7].id]
    assert verify_due(services, {"m3"}, 0) == []
    assert verify_due(services, {"unknown"}, 30) == []


def test_a_point_of_the_future_is_not_the_newest(services: Services, points: list[RestorePoint]) -> None:
    seal(services.repository, NOW + timedelta(days=900), machine="m3")
    seal(services.repository, NOW + timedelta(days=900), machine="only in the future")
    assert verify_due(services, {"m3", "only in the future"}, 30) == [points[7].id]


def test_damage_is_told_and_recorded_and_the_others_are_verified(
    services: Services, points: list[RestorePoint], tmp_path: Path
) -> None:
    index = tmp_path / "site" / "repo" / points[1].images[0].index
    index.write_bytes(index.read_bytes()[:-1])
    report = verify_run(services, [points[1].id, "20200101T000000.000000Z-gone", points[3].id])
    assert report.points == 2
    assert {damage.point for damage in report.damage} == {points[1].id}
    ledger = services.repository.ledger
    judged = [ledger.health(point) for point in (points[1], points[3])]
    assert [known.health if known else None for known in judged] == [Health.DAMAGED, Health.GOOD]


def test_a_verification_ends_when_it_is_asked_to(services: Services, points: list[RestorePoint]) -> None:
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        verify_run(services, [point.id for point in points], cancelled=lambda: next(asked))
