"""Restore points are chosen by machine, id, age and number, from names alone."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from proxy.errors import RestorePointNotFound
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository.manifest import point_id
from proxy.repository.selection import Selection, choose, point_of, select

Backup = Callable[..., RestorePoint]

IDS = {
    (day, machine): point_id(datetime(2026, 1, day, tzinfo=UTC), machine, "run")
    for day in (1, 2, 3)
    for machine in "ab"
}
NAMES = [f"points/{machine * 16}/{point}" for (_, machine), point in sorted(IDS.items(), reverse=True)]
SECOND = datetime(2026, 1, 2, tzinfo=UTC)


def shown(names: list[str]) -> list[str]:
    return [f"{int(point_of(name)[6:8])}{name.split('/')[1][0]}" for name in names]


@pytest.mark.parametrize(
    ("wanted", "folders", "expected"),
    [
        (Selection(), None, ["1a", "2a", "3a", "1b", "2b", "3b"]),
        (Selection(), {"b" * 16}, ["1b", "2b", "3b"]),
        (Selection(), set(), []),
        (Selection(newest=1), None, ["3a", "3b"]),
        (Selection(newest=9), {"a" * 16}, ["1a", "2a", "3a"]),
        (Selection(newest=0), None, []),
        (Selection(since=SECOND), None, ["2a", "3a", "2b", "3b"]),
        (Selection(since=SECOND + timedelta(microseconds=1)), None, ["3a", "3b"]),
        (Selection(since=SECOND.astimezone(timezone(timedelta(hours=9)))), None, ["2a", "3a", "2b", "3b"]),
        (Selection(since=SECOND, newest=1), {"a" * 16}, ["3a"]),
        (Selection(since=SECOND + timedelta(days=9)), None, []),
        (Selection(points=(IDS[2, "a"], IDS[1, "b"][:-1])), None, ["2a", "1b"]),
    ],
)
def test_points_are_chosen_and_ordered_by_machine_and_time(
    wanted: Selection, folders: set[str] | None, expected: list[str]
) -> None:
    assert shown(choose(NAMES, wanted, folders)) == expected


@pytest.mark.parametrize("start", ["20260102", "x", ""])
def test_a_beginning_of_several_points_or_of_none_is_refused(start: str) -> None:
    with pytest.raises(RestorePointNotFound):
        choose(NAMES, Selection(points=(start,)), None)


def test_machines_are_known_by_id_and_by_name(repository: Repository, backup: Backup) -> None:
    points = {machine: backup(repository, os.urandom(10), machine) for machine in ("a", "b", "c")}
    chosen = select(repository, Selection(machines=frozenset({"a", "name of c"})))
    assert {point_of(name) for name in chosen} == {points["a"].id, points["c"].id}
    for unknown in ("d", "name of d", ""):
        with pytest.raises(RestorePointNotFound, match="of a machine"):
            select(repository, Selection(machines=frozenset({"a", unknown})))


def test_a_machine_is_known_by_its_name_although_its_newest_manifest_is_damaged(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    points = [backup(repository, os.urandom(10)) for _ in range(2)]
    store.objects[repository.ledger.name(points[1])] = b"rubbish"
    chosen = select(repository, Selection(machines=frozenset({"name of m1"})))
    assert [point_of(name) for name in chosen] == [p.id for p in points]
