"""What concerns the tasks of one job run and of no other."""

from catalog.jobs.limits import Limits
from catalog.jobs.values import TaskState
from tests.unit.catalog.jobs.conftest import Site


def test_waiting_tasks_that_hold_a_hopeless_key_fail_with_its_error_and_no_others_do(site: Site) -> None:
    first, other = site.run(site.job()), site.run(site.job("weekly"), 1)
    site.add(
        site.task(first, 1, "repository:a"),
        site.task(first, 2, "repository:b"),
        site.task(first, 3, "repository:a"),
        site.task(other, 4, "repository:a"),
    )
    proxy = site.proxy()
    with site.store.transaction() as unit:
        running = unit.tasks.claim(proxy, site.now, Limits())
        assert running is not None
        given_up = unit.tasks.give_up(first.id, ["repository:a"], site.now, error="repository-full", message="no room")
        assert given_up == 1, "neither what runs, nor what another repository or another run is about"
        (failed,) = unit.tasks.of_run(first.id, TaskState.FAILED)
        assert (failed.machine, failed.error, failed.message) == ("m3", "repository-full", "no room")
        assert [task.state for task in unit.tasks.of_run(other.id)] == [TaskState.WAITING]


def test_a_process_that_works_off_one_run_takes_nothing_of_others(site: Site) -> None:
    first, other = site.run(site.job()), site.run(site.job("weekly"), 1)
    site.add(site.task(first, 1), site.task(other, 2), site.task(other, 3))
    proxy = site.proxy()
    with site.store.transaction() as unit:
        taken = [unit.tasks.claim(proxy, site.now, Limits(), only=other.id) for _ in range(3)]
    assert [task.machine if task else None for task in taken] == ["m2", "m3", None]
