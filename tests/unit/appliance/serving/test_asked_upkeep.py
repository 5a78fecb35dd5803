"""What keeps a repository in shape, asked for by a person: what it brings is told line by line, and bounded."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance import config, operations
from appliance.keeping import lines
from appliance.keeping.copying import copy_run
from appliance.serving import asked, wishes
from appliance.serving.performing import Done
from appliance.web import asking
from appliance.wiring import Services
from catalog.jobs.values import TaskKind, TaskState
from proxy.errors import Cancelled
from proxy.model import RestorePoint
from proxy.repository.selection import Selection
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, key, seal
from tests.unit.appliance.serving.job_with_tasks import claimed

pytestmark = pytest.mark.slow


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """``[retention]`` keeps one; there is a second repository, "vault"."""
    vault = f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{key(tmp_path / "vault.key")}"\n'
    with appliance(tmp_path / "site", f"[retention]\nlast = 1\n{vault}") as made:
        yield made


@pytest.fixture
def points(services: Services) -> list[RestorePoint]:
    """Three of one machine, oldest first."""
    return [seal(services.repository, NOW - timedelta(days=3 - n)) for n in range(3)]


def perform(services: Services, kind: TaskKind, wish: wishes.Wish | None = None, target: str = "") -> Done:
    """As a proxy does it that serves."""
    asking.ask(services, "alice", kind, wish, target=target)
    task = claimed(services, "p1")
    done = asked.perform(services, task, frozenset)
    with services.jobs.transaction() as unit:
        unit.tasks.end(task.id, TaskState.DONE, services.clock.now())
    return done


def told(done: Done) -> list[Mapping[str, Any]]:
    found = done.result["lines"]
    assert isinstance(found, list)
    return found


def test_what_would_go_is_told_first_and_stays(services: Services, points: list[RestorePoint]) -> None:
    done = perform(services, TaskKind.PRUNE, wishes.PruneWish(dry_run=True))
    assert (done.result["remove"], done.result["keep"], done.result["more"]) == (2, 1, 0)
    assert [(line["point"], line["verdict"]) for line in told(done)] == [
        (points[0].id, "remove"),
        (points[1].id, "remove"),
        (points[2].id, "keep"),
    ]
    assert all(line["why"] for line in told(done))
    assert [point.id for point in services.repository.points()] == [point.id for point in points]


def test_what_went_is_told(services: Services, points: list[RestorePoint]) -> None:
    done = perform(services, TaskKind.PRUNE)
    assert (done.result["removed"], done.result["kept"]) == (2, 1)
    assert [(line["point"], line["verdict"]) for line in told(done)] == [(p.id, "removed") for p in points[:2]]


def test_a_preview_ends_when_it_is_told_to(services: Services, points: list[RestorePoint]) -> None:
    services.cancelled.set()
    with pytest.raises(Cancelled):
        perform(services, TaskKind.PRUNE, wishes.PruneWish(dry_run=True))
    assert len(services.repository.points()) == len(points)


def test_damage_is_mended_from_the_copy_and_told(services: Services, points: list[RestorePoint]) -> None:
    copy_run(services, "vault", Selection(), make=True)
    for pack in (services.settings.repository.path or Path()).glob("packs/*/*"):
        pack.chmod(0o600)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 0xFF
        pack.write_bytes(data)
    done = perform(services, TaskKind.REPAIR, wishes.RepairWish(), target="vault")
    assert done.problems == ()
    assert done.result["damaged"] == done.result["mended"] == len(told(done)) > 0
    assert {line["machine"] for line in told(done)} == {points[0].machine_name}
    again = perform(services, TaskKind.REPAIR, wishes.RepairWish(only=points[0].id), target="vault")
    assert (again.result["damaged"], told(again)) == (0, [])


def test_a_restore_point_that_was_taken_away_is_found(services: Services, points: list[RestorePoint]) -> None:
    assert perform(services, TaskKind.AUDIT).result["tampered"] is False
    name = services.repository.ledger.name(points[1])
    (services.settings.repository.path or Path()).joinpath(name).unlink()
    done = perform(services, TaskKind.AUDIT, wishes.AuditWish(publish=True))
    assert done.result["tampered"] is True
    assert [line["trouble"] for line in told(done)] == ["removed"]
    assert done.problems
    assert points[1].id in done.problems[0]


def test_the_appliance_is_protected_where_that_is_wanted(services: Services) -> None:
    services.settings.source.write_text("# what is protected\n")
    wanted = config.Protect(enabled=True)
    services.settings = services.settings.model_copy(update={"protect": wanted, "copy_to": ()})
    done = perform(services, TaskKind.PROTECT)
    assert [line["outcome"] for line in told(done)] == ["made"]
    assert [point.of_appliance for point in services.repository.points()] == [True]
    services.settings = services.settings.model_copy(update={"protect": config.Protect(enabled=False)})
    assert perform(services, TaskKind.PROTECT).result["enabled"] is False


def test_the_catalogs_list_is_made_again(services: Services, points: list[RestorePoint]) -> None:
    asking.ask(services, "alice", TaskKind.REBUILD, wishes.RebuildWish(files=False))
    listed, missing = asked.rebuild(services, claimed(services, "p1"))
    assert (listed, list(missing)) == (3, [point.id for point in points])
    assert operations.rebuild_catalog(services) == missing


def test_a_task_keeps_no_more_lines_than_people_read() -> None:
    found = lines.kept(range(lines.MOST + 7), lambda number: {"number": number})
    assert len(found["lines"]) == lines.MOST  # type: ignore[arg-type]  # a list
    assert found["more"] == 7
    problems = asked.first([f"damaged: {number}" for number in range(1000)])
    assert (len(problems), problems[-1]) == (201, "and 800 more")
