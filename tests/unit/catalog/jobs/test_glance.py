"""The glance says what the store says; it reads the same tables in another way, on both kinds of database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.jobs.glance import Glance, Reader
from catalog.jobs.limits import Limits
from catalog.jobs.store import JobStore
from catalog.jobs.values import JobRunState, Task, TaskKind, TaskState
from proxy.errors import DatabaseAway, JobStoreFailed
from proxy.model import Reason, ReasonCode
from tests.unit.catalog.jobs.conftest import START

LIMITS = Limits({"host": 1, "place": 2})
Site = Any  # the class stands in this directory's conftest


@pytest.fixture
def look(jobs_url: str) -> Callable[[], Glance]:
    def now() -> Glance:
        seen = Reader(jobs_url).look(LIMITS)
        assert seen is not None
        return seen

    return now


def claim(site: Site) -> Task:
    proxy = site.proxy("p1")
    with site.store.transaction() as unit:
        task: Task | None = unit.tasks.claim(proxy, site.now, LIMITS)
    assert task is not None
    return task


def test_an_empty_store_shows_nothing(store: JobStore, look: Callable[[], Glance]) -> None:
    seen = look()
    assert (seen.jobs, seen.doing, seen.proxies, seen.waiting.total) == ((), (), (), 0)
    assert abs(seen.at - datetime.now(UTC)) < timedelta(seconds=60)


def test_where_there_are_no_tables_there_is_nothing_to_see(tmp_path: Path) -> None:
    reader = Reader(f"sqlite:///{tmp_path}/catalog.db")
    assert reader.look(LIMITS) is None
    assert not (tmp_path / "jobs.db").exists(), "to look makes nothing"
    (tmp_path / "jobs.db").touch()
    assert reader.look(LIMITS) is None


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(JobStoreFailed):
        Reader(f"sqlite:///{tmp_path}/catalog.db").look(LIMITS)


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    reader = Reader("postgresql+psycopg://lanfree@127.0.0.1:1/lanfree", lambda: "s3cret")
    with pytest.raises(DatabaseAway) as told:
        reader.look(LIMITS)
    assert "127.0.0.1:1" in told.value.message
    assert "s3cret" not in f"{told.value.message} {told.value.hint}"


def test_jobs_are_as_the_store_has_them(site: Site, look: Callable[[], Glance]) -> None:
    nightly = site.job("nightly", priority=3)
    other = site.job("other")
    with site.store.transaction() as unit:
        unit.jobs.enable("other", False, site.now)
        unit.jobs.seen(nightly.id, site.now + timedelta(hours=1))
    old, last, now = site.run(nightly, 0), site.run(nightly, 10), site.run(nightly, 20)
    site.add(site.task(last, 1), site.task(last, 2), site.task(now, 3))
    with site.store.transaction() as unit:
        unit.runs.end(old.id, JobRunState.DONE, site.now)
        unit.runs.end(last.id, JobRunState.FAILED, site.now, (Reason(ReasonCode.HOOK_FAILED, "before"),), ("a note",))
        unit.runs.stop(last.id, site.now)
    found = {job.name: job for job in look().jobs}
    assert list(found) == ["nightly", "other"]
    seen = found["nightly"]
    assert (seen.id, seen.enabled, seen.policy["priority"]) == (nightly.id, True, 3)
    assert seen.seen == site.now + timedelta(hours=1)
    assert seen.last is not None
    assert (seen.last.id, seen.last.state, seen.last.ended_at) == (last.id, JobRunState.FAILED, site.now)
    assert seen.last.reasons == ("hook-failed: before",)
    assert seen.last.notes == ("a note",)
    assert seen.last.tasks == {TaskState.WAITING: 2}
    assert seen.now is not None
    assert (seen.now.id, seen.now.tasks) == (now.id, {TaskState.WAITING: 1})
    assert (found["other"].id, found["other"].enabled, found["other"].last) == (other.id, False, None)


def test_running_tasks_show_how_far_they_are(site: Site, look: Callable[[], Glance]) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, "host:h1", full=True))
    task = claim(site)
    with site.store.transaction() as unit:
        unit.tasks.progress({task.id: (25, 100)})
    (doing,) = look().doing
    assert (doing.id, doing.run, doing.machine, doing.proxy, doing.full) == (task.id, run.id, "name of m1", "p1", True)
    assert (doing.since, doing.attempt, doing.share) == (site.now, 1, 0.25)


def test_waiting_tasks_are_held_up_by_what_the_store_says(site: Site, look: Callable[[], Glance]) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, "host:h1", "place:a"),
        site.task(run, 2, "host:h1", "place:a"),
        site.task(run, 3, "host:h1", "place:b"),
        site.task(run, 4, "host:h2", "place:b"),
        site.task(run, 5, "host:h3", machine="m1"),
        site.task(run, 6, "host:h3", not_before=datetime.now(UTC) + timedelta(hours=1)),
    )
    claim(site)
    seen = look()
    with site.store.transaction(write=False) as unit:
        assert dict(seen.waiting.held_up) == dict(unit.tasks.waiting_for(seen.at, LIMITS))
    assert dict(seen.waiting.held_up) == {"host:h1": 2, "machine:m1": 1}
    assert (seen.waiting.total, seen.waiting.again, seen.waiting.free) == (5, 1, 1)
    assert seen.waiting.next is not None


def test_a_machine_that_is_given_a_disk_is_held_like_the_one_that_comes_back(
    site: Site, look: Callable[[], Glance]
) -> None:
    run = site.run(site.job())
    restore = {"kind": TaskKind.RESTORE, "order": START}
    site.add(
        site.task(run, 1, "machine:m2", **restore), site.task(run, 2), site.task(run, 3), site.task(run, 1, id="t")
    )
    assert claim(site).kind is TaskKind.RESTORE
    site.add(site.task(run, 4, "machine:m1", **restore))
    seen = look()
    with site.store.transaction(write=False) as unit:
        assert dict(seen.waiting.held_up) == dict(unit.tasks.waiting_for(seen.at, LIMITS))
    assert dict(seen.waiting.held_up) == {"machine:m1": 2, "machine:m2": 1}
    assert (seen.waiting.total, seen.waiting.free) == (4, 1)


def test_tasks_wait_for_what_every_living_proxy_has_closed(site: Site, look: Callable[[], Glance]) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, "place:a"), site.task(run, 2, "place:a"), site.task(run, 3, "place:b"))
    one, other = site.proxy("p1"), site.proxy("p2")
    with site.store.transaction() as unit:
        unit.proxies.beat(replace(one, closed=frozenset({"place:a", "place:b"})))
        unit.proxies.beat(replace(other, closed=frozenset({"place:a"})))
        assert [facts.closed for facts in unit.proxies.list()] == [{"place:a", "place:b"}, {"place:a"}]

    seen = look()

    assert dict(seen.waiting.held_up) == {"place:a": 2}
    assert seen.waiting.free == 1
    with site.store.transaction(write=False) as unit:
        assert dict(unit.tasks.waiting_for(seen.at, LIMITS, {"place:a"})) == {"place:a": 2}


def test_keys_may_hold_what_json_escapes(site: Site, look: Callable[[], Glance]) -> None:
    run = site.run(site.job())
    hard = 'host:a"b\\c","é'
    site.add(*(site.task(run, number, hard, "place:a") for number in range(3)))
    claim(site)
    assert dict(look().waiting.held_up) == {hard: 2}


def test_a_job_at_its_own_limit_holds_up_its_tasks(site: Site, look: Callable[[], Glance]) -> None:
    run = site.run(site.job(parallel=1))
    site.add(*(site.task(run, number, f"host:h{number}") for number in range(3)))
    claim(site)
    waiting = look().waiting
    assert (dict(waiting.jobs), waiting.free) == ({run.id: 2}, 0)


def test_proxies_that_are_gone_are_not_shown_and_silence_is_measured(site: Site, look: Callable[[], Glance]) -> None:
    site.proxy("p1", "iqn.a", "dir:/srv", slots=3)
    site.proxy("p2")
    with site.store.transaction() as unit:
        unit.proxies.gone("p2")
    (proxy,) = look().proxies
    assert (proxy.name, proxy.machine, proxy.slots, set(proxy.paths)) == (
        "p1",
        "machine of p1",
        3,
        {"iqn.a", "dir:/srv"},
    )
    assert proxy.silent_for < 60
