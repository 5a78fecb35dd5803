from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from catalog.jobs.limits import Limits
from catalog.jobs.values import ProxyFacts, TaskKind, TaskState
from tests.unit.catalog.jobs.conftest import START, Site

LATER = START + timedelta(hours=1)


def machines(site: Site, proxy: ProxyFacts, limits: Limits, closed: Collection[str] = ()) -> list[str]:
    """Machines of all that this proxy can claim now, in that order."""
    taken = []
    with site.store.transaction() as unit:
        while task := unit.tasks.claim(proxy, START, limits, closed=closed):
            taken.append(task.machine)
    return taken


def test_jobs_of_higher_priority_come_first_then_the_plan(site: Site) -> None:
    low, high = site.run(site.job("low")), site.run(site.job("high", priority=1))
    site.add(site.task(low, 1), site.task(low, 2, order=START), site.task(low, 3, order=None))
    site.add(site.task(high, 4, order=LATER))
    assert machines(site, site.proxy(), Limits()) == ["m4", "m3", "m2", "m1"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(Limits({"host": 1}), ["m1", "m4"], id="one-a-host"),
        pytest.param(Limits({"host": 2}), ["m1", "m2", "m4"], id="two-a-host"),
        pytest.param(Limits({"host": 1}, {"host:a": 3}), ["m1", "m2", "m3", "m4"], id="this-host-takes-more"),
        pytest.param(Limits({"place": 1}), ["m1", "m3"], id="one-a-place"),
        pytest.param(Limits({"host": 1, "place": 1}), ["m1"], id="both"),
        pytest.param(Limits({"host": 0}), [], id="none"),
        pytest.param(Limits({"repository": 2}), ["m1", "m2"], id="two-into-the-repository"),
    ],
)
def test_every_key_has_its_limit(limits: Limits, expected: list[str], site: Site) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, "host:a", "place:x", "repository:r"),
        site.task(run, 2, "host:a", "place:x", "repository:r"),
        site.task(run, 3, "host:a", "place:y", "repository:r"),
        site.task(run, 4, "host:b", "place:x", "place:y", "repository:r"),
    )
    assert machines(site, site.proxy(), limits) == expected


def test_a_machine_runs_once_at_a_time_whatever_limits_say(site: Site) -> None:
    first, second = site.run(site.job("first")), site.run(site.job("second"))
    site.add(site.task(first, 1), site.task(second, 1))
    proxy = site.proxy()
    assert machines(site, proxy, Limits({"machine": 9}, {"machine:m1": 9})) == ["m1"]
    with site.store.transaction() as unit:
        (running,) = unit.tasks.running()
        unit.tasks.end(running.id, TaskState.DONE, START)
    assert machines(site, proxy, Limits()) == ["m1"]


def test_what_is_closed_is_passed_over(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, "place:x"), site.task(run, 2, "place:y"), site.task(run, 3, "place:z"))
    assert machines(site, site.proxy(), Limits(), closed=["place:x", "machine:m3"]) == ["m2"]


def test_a_policy_limits_its_own_tasks(site: Site) -> None:
    few, many = site.run(site.job("few", parallel=2)), site.run(site.job("many"))
    site.add(*(site.task(few, n) for n in range(1, 5)), *(site.task(many, n) for n in range(5, 8)))
    proxy = site.proxy()
    assert machines(site, proxy, Limits()) == ["m1", "m2", "m5", "m6", "m7"]
    with site.store.transaction() as unit:
        unit.tasks.end(f"{few.id}-00001", TaskState.FAILED, START)
    assert machines(site, proxy, Limits()) == ["m3"]


def test_a_proxy_takes_as_many_as_it_has_slots(site: Site) -> None:
    run = site.run(site.job())
    site.add(*(site.task(run, n) for n in range(1, 6)))
    one, two = site.proxy("p1", slots=2), site.proxy("p2", slots=1)
    assert machines(site, one, Limits()) == ["m1", "m2"]
    assert machines(site, two, Limits()) == ["m3"]
    assert machines(site, one, Limits()) == []


def test_what_is_not_due_or_too_late_is_not_begun(site: Site) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, not_before=START + timedelta(seconds=1)),
        site.task(run, 2, not_before=START),
        site.task(run, 3, deadline=START),
        site.task(run, 4, deadline=START + timedelta(seconds=1)),
    )
    assert machines(site, site.proxy(), Limits()) == ["m2", "m4"]


def test_who_reaches_the_disks_takes_them_before_others(site: Site) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, paths=frozenset({"iqn.a"})),
        site.task(run, 2, paths=frozenset({"iqn.b", "iqn.c"})),
        site.task(run, 3, paths=frozenset({"iqn.nobody"})),
        site.task(run, 4),
    )
    near, far = site.proxy("near", "iqn.a", "iqn.b"), site.proxy("far")
    assert machines(site, far, Limits()) == ["m3", "m4"]
    assert machines(site, near, Limits()) == ["m1", "m2"]


def test_a_dead_proxy_keeps_no_disks_from_others(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, paths=frozenset({"iqn.a"})))
    site.proxy("near", "iqn.a")
    far = site.proxy("far")
    with site.store.transaction() as unit:
        assert unit.tasks.claim(far, START, Limits()) is None
        unit.proxies.gone("near")
        assert unit.tasks.claim(far, START, Limits()) is not None


def test_a_silent_proxy_counts_for_as_long_as_is_said(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, paths=frozenset({"iqn.a"})))
    site.proxy("near", "iqn.a")
    far = site.proxy("far")
    with site.store.transaction() as unit:
        assert unit.tasks.claim(far, START, Limits(), living=30.0) is None
        assert unit.tasks.claim(far, START, Limits(), living=-1.0) is not None


def test_work_without_a_machine_has_limits_too(site: Site) -> None:
    run = site.run(site.job())
    task = site.task(run, 1, machine="", keys=("repository:r",), kind=TaskKind.PRUNE)
    site.add(task, replace(task, id="second"))
    assert len(machines(site, site.proxy(), Limits({"repository": 1}))) == 1


def test_it_is_told_what_holds_waiting_tasks_up(site: Site) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, "host:a", "place:x"),
        site.task(run, 2, "host:a", "place:y"),
        site.task(run, 3, "host:a", "place:z"),
        site.task(run, 4, "host:b", "place:z"),
        site.task(run, 5, "host:a", not_before=LATER),
    )
    limits = Limits({"host": 1})
    proxy = site.proxy(slots=1)
    assert machines(site, proxy, limits) == ["m1"]
    with site.store.transaction(write=False) as unit:
        held = unit.tasks.waiting_for(START, limits, ["place:z"])
        assert held == {"host:a": 2, "place:z": 2}
