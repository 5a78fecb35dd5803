"""Copies between sites, each with its own key: pushed and pulled, only what is missing, and gone on with."""

import random
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from appliance.keeping.copying import copy_run, job_points, pull_run
from appliance.keeping.maintenance import copy_repository, remembered_copy
from appliance.keeping.pruning import prune
from appliance.wiring import Services
from proxy.errors import Cancelled, ConfigurationError, KeyRefused, RepositoryUnavailable
from proxy.model import ReasonCode, RestorePoint
from proxy.ports import Progress
from proxy.repository import Repository
from proxy.repository.copy import Outcome
from proxy.repository.records import Health
from proxy.repository.selection import Selection
from tests.unit.appliance.keeping.sealed_points import CHUNK, NOW, appliance, key, seal

pytestmark = pytest.mark.slow


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Services]:
    """The other site."""
    with appliance(tmp_path / "north") as made:
        yield made


@pytest.fixture
def south(tmp_path: Path, north: Services) -> Iterator[Services]:
    """Ours: pulls from the other one, keeps one of what it pulled, and pushes to a vault."""
    source = f'[[copy_from]]\nname = "north"\npath = "{tmp_path}/north/repo"\nkey_file = "{tmp_path}/north/repo.key"\n'
    vault = f'[[copy_to]]\nname = "vault"\npath = "{tmp_path}/vault"\nkey_file = "{key(tmp_path / "vault.key")}"\n'
    with appliance(tmp_path / "south", f"{source}[copy_from.retention]\nlast = 1\n{vault}") as made:
        yield made


def disks(seed: int, count: int) -> list[bytes]:
    """A disk of 16 chunks on several days; each day one chunk of it changes."""
    dice = random.Random(seed)
    days = [dice.randbytes(16 * CHUNK)]
    for day in range(1, count):
        changed = dice.randbytes(CHUNK)
        days.append(days[-1][: day * CHUNK] + changed + days[-1][(day + 1) * CHUNK :])
    return days


def nights(repository: Repository, data: list[bytes], machine: str = "m1", job: str = "nightly") -> list[RestorePoint]:
    """One restore point for each disk, a day apart, the newest now."""
    moments = [NOW - timedelta(days=len(data) - n) for n in range(len(data))]
    return [seal(repository, at, machine=machine, job=job, data=disk) for at, disk in zip(moments, data, strict=True)]


def contents(repository: Repository) -> dict[str, bytes]:
    found = {}
    for point in repository.points():
        with repository.open_image(point, "vda") as image:
            data = bytearray(image.size)
            image.read_into(0, memoryview(data))
            found[point.id] = bytes(data)
    return found


def tree(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_pulled_points_hold_the_same_bytes_under_our_own_key_and_say_where_they_came_from(
    north: Services, south: Services, tmp_path: Path
) -> None:
    made = nights(north.repository, disks(1, 3))
    before = tree(tmp_path / "north" / "repo")
    done = pull_run(south, "north", read_back=True)
    assert ([c.outcome for c in done.copied], done.problems) == ([Outcome.COPIED] * 3, ())
    assert contents(south.repository) == contents(north.repository)
    for point in south.repository.points():
        assert [reason.detail for reason in point.reasons if reason.code is ReasonCode.PULLED] == ["north"]
        assert [reason.detail for reason in point.reasons if reason.code is ReasonCode.MADE_BY_JOB] == ["nightly"]
    assert [point.id for point in south.repository.points()] == [point.id for point in made]
    with south.catalog.transaction(write=False) as unit:
        assert [listed.point.id for listed in unit.restore_points.list()] == [point.id for point in made]
    assert south.repository.settings.public_key != north.repository.settings.public_key
    assert tree(tmp_path / "north" / "repo") == before, "the other site's repository is only read"


def test_the_other_sites_key_does_not_open_ours(south: Services, tmp_path: Path) -> None:
    wrong = f'[[copy_from]]\nname = "ours"\npath = "{tmp_path}/south/repo"\nkey_file = "{tmp_path}/north/repo.key"\n'
    with appliance(tmp_path / "third", wrong) as third, pytest.raises(KeyRefused):
        pull_run(third, "ours")


def test_only_chunks_that_are_missing_are_read_and_stored(north: Services, south: Services) -> None:
    data = disks(2, 3)
    seal(north.repository, NOW - timedelta(days=3), data=data[0])
    first = pull_run(south, "north").copied[0]
    assert (first.bytes_read, first.bytes_new) == (16 * CHUNK, 16 * CHUNK)
    nights(north.repository, data[1:])
    second = pull_run(south, "north").copied[1:]
    assert [(c.outcome, c.bytes_read, c.bytes_new) for c in second] == [(Outcome.COPIED, CHUNK, CHUNK)] * 2
    third = pull_run(south, "north")
    assert [(c.outcome, c.bytes_read) for c in third.copied] == [(Outcome.PRESENT, 0)] * 3


def test_what_another_machine_brought_is_not_stored_again(north: Services, south: Services) -> None:
    (data,) = disks(3, 1)
    seal(south.repository, NOW - timedelta(days=30), machine="clone", data=data)
    nights(north.repository, [data])
    (copied,) = pull_run(south, "north").copied
    assert (copied.outcome, copied.bytes_read, copied.bytes_new) == (Outcome.COPIED, 16 * CHUNK, 0)


def test_pulled_points_have_their_own_retention(north: Services, south: Services) -> None:
    made = nights(north.repository, disks(4, 3))
    other = nights(north.repository, disks(4, 2), job="weekly", machine="m2")
    pull_run(south, "north")
    own = [seal(south.repository, NOW - timedelta(days=n), machine="m3") for n in range(3, 0, -1)]
    done = prune(south, apply=True, told=lambda _: None)
    assert {line.point for line in done if line.keep} == {made[-1].id, other[-1].id, *(point.id for point in own)}
    assert done[0].why == "no rule of copies from north, job nightly keeps it: last 1"
    again = pull_run(south, "north")
    assert {c.outcome for c in again.copied} == {Outcome.PRESENT, Outcome.BURIED}, "what went is not brought back"
    assert again.problems == ()


def test_points_that_a_job_names_are_copied_and_those_that_are_gone_are_told(south: Services) -> None:
    made = nights(south.repository, disks(5, 3))
    done = copy_run(south, "vault", [made[2].id, made[0].id, "20200101T000000.000000Z-gone"], make=True)
    assert {c.point: c.outcome for c in done.copied} == {made[0].id: Outcome.COPIED, made[2].id: Outcome.COPIED}
    assert done.problems == ("restore point 20200101T000000.000000Z-gone is gone, it was not copied",)
    again = copy_run(south, "vault", [point.id for point in made])
    assert [(c.point, c.outcome.value) for c in again.copied] == [
        (made[0].id, "present"),
        (made[2].id, "present"),
        (made[1].id, "copied"),
    ]
    assert copy_run(south, "vault", []).copied == ()


def test_the_points_of_a_job_are_named_with_those_that_were_not_copied_last_night(south: Services) -> None:
    made = nights(south.repository, disks(6, 3))
    other = nights(south.repository, disks(7, 2), machine="m2")
    nights(south.repository, disks(8, 2), machine="m3", job="weekly")
    assert job_points(south, "j1", "nightly") == sorted(point.id for point in (*made, *other))
    assert job_points(south, "j1", "nightly", newest=1) == sorted([made[-1].id, other[-1].id])
    assert job_points(south, "j2", "no such job") == []


def test_points_of_a_job_are_known_by_its_identity_whatever_it_is_called_by_now(south: Services) -> None:
    before = seal(south.repository, NOW - timedelta(days=2), job="nightly", job_id="j1")
    after = seal(south.repository, NOW - timedelta(days=1), job="every night", job_id="j1")
    seal(south.repository, NOW, machine="m2", job="every night", job_id="j2")
    assert job_points(south, "j1", "every night") == [before.id, after.id]


def test_a_damaged_point_is_a_problem_and_the_others_are_copied(south: Services, tmp_path: Path) -> None:
    made = nights(south.repository, disks(9, 3))
    index = tmp_path / "south" / "repo" / made[1].images[0].index
    index.write_bytes(index.read_bytes()[:-1])
    done = copy_run(south, "vault", make=True)
    assert [c.outcome for c in done.copied] == [Outcome.COPIED, Outcome.FAILED, Outcome.COPIED]
    assert len(done.problems) == 1
    assert made[1].id in done.problems[0]


def test_a_copy_that_is_there_and_damaged_is_a_problem_of_every_run(south: Services) -> None:
    made = nights(south.repository, disks(13, 2))
    assert copy_run(south, "vault", make=True).problems == ()
    with copy_repository(south, "vault") as vault:
        vault.ledger.note_health(vault.point(made[0].id), Health.DAMAGED)
        vault.ledger.note_health(vault.point(made[1].id), Health.GOOD)
    for wanted in ([point.id for point in made], None):
        done = copy_run(south, "vault", wanted)
        assert [(c.outcome, c.why) for c in done.copied] == [
            (Outcome.PRESENT, "verification found damage in it"),
            (Outcome.PRESENT, ""),
        ]
        (problem,) = done.problems
        assert made[0].id in problem


def test_a_point_of_the_future_takes_no_place_of_those_that_are_copied(south: Services) -> None:
    made = nights(south.repository, disks(14, 3))
    future = seal(south.repository, NOW + timedelta(days=999), job="nightly")
    assert job_points(south, "j1", "nightly", newest=1) == [made[-1].id, future.id]


def test_another_repository_in_the_place_of_a_second_one_is_refused_until_a_person_makes_a_new_one(
    south: Services, tmp_path: Path
) -> None:
    assert remembered_copy(south, "vault") == ""
    nights(south.repository, disks(15, 1))
    copy_run(south, "vault", make=True)
    first = remembered_copy(south, "vault")
    (tmp_path / "vault").rename(tmp_path / "unmounted")
    (tmp_path / "vault").mkdir()
    with pytest.raises(RepositoryUnavailable, match="there is no repository"):
        copy_run(south, "vault")
    assert not (tmp_path / "vault" / "config").exists()
    copy_run(south, "vault", make=True)
    assert remembered_copy(south, "vault") not in ("", first)
    (tmp_path / "vault").rename(tmp_path / "new")
    (tmp_path / "unmounted").rename(tmp_path / "vault")
    for make in (False, True):
        with pytest.raises(RepositoryUnavailable, match="until now"):
            copy_run(south, "vault", make=make)


def test_a_copy_that_is_ended_keeps_what_it_copied_and_the_next_goes_on(south: Services) -> None:
    made = nights(south.repository, disks(10, 4))
    seen: list[Progress] = []
    asked = False

    def watch(event: Progress) -> None:
        nonlocal asked
        seen.append(event)
        asked = len(seen) > 2

    with pytest.raises(Cancelled):
        copy_run(south, "vault", make=True, cancelled=lambda: asked, progress=watch)
    with copy_repository(south, "vault") as vault:
        there = vault.points()
        assert len(there) < 4
    done = copy_run(south, "vault")
    assert [c.outcome for c in done.copied] == [Outcome.PRESENT] * len(there) + [Outcome.COPIED] * (4 - len(there))
    with copy_repository(south, "vault") as vault:
        assert contents(vault) == contents(south.repository)
    assert len(made) == 4


def test_a_person_selects_by_machine_and_by_beginnings_of_ids(north: Services, south: Services) -> None:
    nights(north.repository, disks(11, 2))
    other = nights(north.repository, disks(12, 2), machine="m2")
    done = pull_run(south, "north", Selection(machines=frozenset({"m2"}), newest=1))
    assert [c.point for c in done.copied] == [other[-1].id]


def test_a_repository_that_is_not_configured_is_refused_by_name(south: Services) -> None:
    with pytest.raises(ConfigurationError, match="there are: north"):
        pull_run(south, "east")
    with pytest.raises(ConfigurationError, match="there are: vault"):
        copy_run(south, "attic")


def test_the_other_site_is_told_while_a_point_is_copied_only_where_that_is_wanted(
    north: Services, tmp_path: Path
) -> None:
    nights(north.repository, disks(13, 1))

    def look(held: list[str], _: Progress) -> None:
        held += [each.kind for each in north.repository.leases.living()]

    for leases in (True, False):
        source = f'[[copy_from]]\nname = "n"\npath = "{tmp_path}/north/repo"\nkey_file = "{tmp_path}/north/repo.key"\n'
        held: list[str] = []
        directory = tmp_path / f"leases-{leases}"
        with appliance(directory, f"{source}leases = {str(leases).lower()}\n") as ours:
            pull_run(ours, "n", progress=partial(look, held))
        assert set(held) == ({"restore"} if leases else set())
        assert north.repository.leases.living() == []
