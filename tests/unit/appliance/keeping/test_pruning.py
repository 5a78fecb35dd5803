"""Retention by jobs and by repositories, carried out: what goes, what must not, and that a collection follows."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.keeping.copying import copy_run
from appliance.keeping.maintenance import copy_repository
from appliance.keeping.pruning import Pruned, delete_point, known_jobs, prune, prune_run
from appliance.wiring import Services
from catalog.jobs.policy import CopyTo, Keep, Policy
from proxy.errors import Cancelled, DeleteRefused, JobStoreFailed
from proxy.model import APPLIANCE, Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository.leases import READ
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, key, seal

pytestmark = pytest.mark.slow

NIGHTLY = Policy(retention=Keep(last=2), copy_to=(CopyTo(name="vault", retention=Keep(last=1)),))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """``[retention]`` keeps one; a second repository "vault" keeps three of what no job speaks of."""
    vault = f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{key(tmp_path / "vault.key")}"\n'
    with appliance(tmp_path / "site", f"[retention]\nlast = 1\n{vault}[copy_to.retention]\nlast = 3\n") as made:
        with made.jobs.transaction() as unit:
            unit.jobs.add("nightly", NIGHTLY, NOW)
        yield made


@pytest.fixture
def week(services: Services) -> list[RestorePoint]:
    """Seven nights of the job, then two points by hand; oldest first."""
    nights = [seal(services.repository, NOW - timedelta(days=8 - n), job="nightly") for n in range(7)]
    by_hand = [seal(services.repository, NOW - timedelta(hours=2 - n)) for n in range(2)]
    return [*nights, *by_hand]


def left(services: Services) -> list[str]:
    return [point.id for point in services.repository.points()]


def lines(services: Services, repository: str = "", *, apply: bool = True) -> list[Pruned]:
    told: list[str] = []
    done = prune(services, apply=apply, told=told.append, repository=repository)
    assert told == []
    return done


def test_every_victim_is_named_with_the_rules_that_do_not_keep_it(services: Services, week: list[RestorePoint]) -> None:
    preview = lines(services, apply=False)
    assert [(line.point, line.keep, line.rules) for line in preview] == [
        *((point.id, point in week[5:7], "job nightly") for point in week[:7]),
        *((point.id, point is week[8], "") for point in week[7:]),
    ]
    assert preview[0].why == "no rule of job nightly keeps it: last 2"
    assert preview[7].why == "no rule keeps it: last 1"
    assert left(services) == [point.id for point in week], "a preview deletes nothing"
    done = lines(services)
    assert [(line.point, line.keep, line.why) for line in done] == [(p.point, p.keep, p.why) for p in preview]
    assert [line.removed for line in done] == [not line.keep for line in preview]
    assert left(services) == [line.point for line in preview if line.keep]


def test_a_renamed_and_a_removed_job_are_still_known_by_their_last_policy(
    services: Services, week: list[RestorePoint]
) -> None:
    with services.jobs.transaction() as unit:
        unit.jobs.rename("nightly", "every night", NOW)
    newest = seal(services.repository, NOW, job="every night")
    assert [line.point for line in lines(services, apply=False) if line.keep and line.rules] == [week[6].id, newest.id]
    with services.jobs.transaction() as unit:
        unit.jobs.remove("every night")
    assert [line.point for line in lines(services, apply=False) if line.keep and line.rules] == [week[6].id, newest.id]


def test_a_job_that_gets_the_name_of_another_does_not_get_its_points(services: Services) -> None:
    with services.jobs.transaction() as unit:
        old = unit.jobs.get("nightly")
        unit.jobs.rename("nightly", "archive", NOW)
        new = unit.jobs.add("nightly", Policy(retention=Keep(last=1)), NOW)
    moments = [NOW - timedelta(days=9 - n) for n in range(6)]
    nameless = [seal(services.repository, at, job="nightly") for at in moments[:2]]
    first = [seal(services.repository, at, job="nightly", job_id=old.id) for at in moments[2:4]]
    second = [seal(services.repository, at, job="nightly", job_id=new.id) for at in moments[4:]]
    done = lines(services)
    assert [line.point for line in done if line.removed] == [second[0].id]
    assert [line.rules for line in done] == [
        *(2 * ["job nightly, one of 2 of this name"]),
        *(2 * ["job archive"]),
        *(2 * ["job nightly"]),
    ]
    assert left(services) == [point.id for point in (*nameless, *first, second[1])]


def test_another_sites_points_in_a_shared_second_repository_and_in_our_own_stay(
    services: Services, tmp_path: Path
) -> None:
    shared = "".join(
        f'[[copy_to]]\nname = "{name}"\npath = "{tmp_path}/{path}"\nkey_file = "{tmp_path}/{keyed}.key"\n'
        for name, path, keyed in (("vault", "vault", "vault"), ("ours", "site/repo", "site/repo"))
    )
    mine = [seal(services.repository, NOW - timedelta(days=n), job="nightly") for n in range(5, 2, -1)]
    with appliance(tmp_path / "north", shared) as north:
        theirs = [
            seal(north.repository, NOW - timedelta(days=n), machine="m2", job="nightly").id for n in range(5, 0, -1)
        ]
        copy_run(services, "vault", make=True)
        copy_run(north, "vault")
        copy_run(north, "ours")
    for repository, kept in (("", 2), ("vault", 1)):
        done = lines(services, repository)
        assert [line.point for line in done if line.removed] == [point.id for point in mine[: 3 - kept]]
        assert {line.point for line in done if line.rules.startswith("another site's")} == set(theirs)


def test_points_of_a_job_that_nobody_knows_stay(services: Services) -> None:
    made = [seal(services.repository, NOW - timedelta(days=n), job="of another time") for n in range(5, 0, -1)]
    seal(services.repository, NOW)
    assert {line.point for line in lines(services) if line.keep} >= {point.id for point in made}


def test_where_jobs_cannot_be_read_nothing_is_deleted(services: Services, week: list[RestorePoint]) -> None:
    assert known_jobs(services)
    services.jobs.close()
    del services.__dict__["jobs"]
    for database in services.settings.state.directory.glob("jobs.db*"):
        database.write_bytes(b"this was a database" * 1000)
    with pytest.raises(JobStoreFailed):
        lines(services)
    assert left(services) == [point.id for point in week]


def test_each_repository_has_its_own_retention_for_the_same_points(
    services: Services, week: list[RestorePoint]
) -> None:
    copy_run(services, "vault", make=True)
    done = lines(services, "vault")
    assert [line.point for line in done if line.keep] == [week[6].id, week[7].id, week[8].id]
    assert "no rule of job nightly keeps it: last 1" in done[0].why
    assert left(services) == [point.id for point in week], "the first repository is another matter"
    with copy_repository(services, "vault") as vault:
        assert [point.id for point in vault.points()] == [week[6].id, week[7].id, week[8].id]
    assert [line.point for line in lines(services) if line.keep] == [week[5].id, week[6].id, week[8].id]


def test_what_is_held_in_one_repository_stays_there_and_goes_elsewhere(
    services: Services, week: list[RestorePoint]
) -> None:
    copy_run(services, "vault", make=True)
    with copy_repository(services, "vault") as vault:
        vault.ledger.hold(week[0].id, "trial")
    with pytest.raises(DeleteRefused, match="trial"):
        delete_point(services, week[0].id, "asked", "vault")
    assert lines(services, "vault")[0].keep
    assert not lines(services)[0].keep
    with copy_repository(services, "vault") as vault:
        vault.ledger.release_hold(week[0].id)
    assert delete_point(services, week[0].id, "asked", "vault")[0].id == week[0].id


@pytest.mark.parametrize("detail", ["restore point {}", "copy of restore point {}", "restore r1 of restore point {}"])
def test_a_point_that_is_mounted_copied_or_restored_stays(
    detail: str, services: Services, week: list[RestorePoint]
) -> None:
    with services.repository.reading(detail.format(week[0].id)):
        done = lines(services)
    assert ("in use" in done[0].why, done[0].keep, done[1].removed) == (True, True, True)
    assert lines(services)[0].removed


def test_while_somebody_reads_and_nobody_can_tell_what_nothing_is_deleted(
    services: Services, week: list[RestorePoint]
) -> None:
    with services.repository.leases.held(READ, f"restore point {week[0].id}") as lease:
        services.repository.store.put(lease.name, b"nobody can read this", new=False)
        assert all(line.keep for line in lines(services))
    assert not all(line.keep for line in lines(services))


def test_the_appliances_own_points_are_not_its_business(services: Services) -> None:
    image = seal(services.repository, NOW - timedelta(days=9), machine="other").images[0]
    own = [
        RestorePoint(
            *("", "appliance-1", "lanfree", "h", f"a{n}", NOW - timedelta(days=n), Level.FULL, Consistency.CRASH),
            images=(image,),
            configuration=MachineConfiguration(APPLIANCE, ""),
        )
        for n in range(3, 0, -1)
    ]
    sealed = [services.repository.seal(point).id for point in own]
    assert {line.point for line in lines(services)} & set(sealed) == set()
    assert set(left(services)) >= set(sealed)


def test_a_prune_run_deletes_then_collects_and_done_twice_it_has_nothing_left_to_do(
    services: Services, week: list[RestorePoint]
) -> None:
    events: list[str] = []
    first = prune_run(services, progress=lambda event: events.append(event.disk))
    assert (sum(line.removed for line in first.lines), first.problems) == (6, ())
    assert first.collected is not None
    assert first.collected.points == 3
    assert events
    again = prune_run(services)
    assert (sum(line.removed for line in again.lines), len(again.lines)) == (0, 3)
    assert left(services) == [week[5].id, week[6].id, week[8].id]


def test_a_prune_run_tells_that_a_collector_is_at_work_and_has_deleted_all_the_same(
    services: Services, week: list[RestorePoint]
) -> None:
    with services.repository.leases.held("collect", "elsewhere"):
        done = prune_run(services)
    assert done.collected is None
    assert len(done.problems) == 1
    assert "elsewhere" in done.problems[0]
    assert len(left(services)) == 3


def test_a_prune_run_ends_when_it_is_asked_to_and_the_next_goes_on(
    services: Services, week: list[RestorePoint]
) -> None:
    asked = iter([False, False, False, True])
    with pytest.raises(Cancelled):
        prune_run(services, cancelled=lambda: next(asked))
    assert left(services) == [point.id for point in week[3:]]
    assert sum(line.removed for line in prune_run(services).lines) == 3
