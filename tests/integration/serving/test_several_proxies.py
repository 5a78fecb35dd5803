"""Several proxies over one PostgreSQL: each run begins once, nobody exceeds a limit, and who dies is replaced."""

import signal
import time

import pytest

from catalog.jobs.values import JobRunState, TaskState
from tests.integration.catalog.postgres_server import PostgresServer
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.requires("initdb")]


def within_limits(fleet: Fleet) -> bool:
    """At every instant, as the site itself saw it."""
    most = fleet.site.ledger.most()
    hosts = {key: number for key, number in most.items() if key.startswith("host:")}
    places = {key: number for key, number in most.items() if key.startswith("place:")}
    machines = {number for key, number in most.items() if key.startswith("machine:")}
    return max(hosts.values()) <= 2 and max(places.values()) <= 3 and machines == {1}


@pytest.mark.timeout(240)
def test_proxies_that_see_the_same_job_at_once_begin_it_once_and_share_its_work(spread: Fleet) -> None:
    spread.machines(16)
    proxies = [spread.start("--delay", "0.1", state=name) for name in ("one", "two", "three")]
    until(lambda: all(spread.serves(proxy) for proxy in proxies), "all of them serve")
    spread.job()
    until(spread.ended, "the job run has ended")
    assert [run.state for run in spread.runs()] == [JobRunState.DONE]
    assert [task.state for task in spread.tasks()] == [TaskState.DONE] * 16
    assert len({task.proxy for task in spread.tasks()}) > 1, "more than one worked"
    assert spread.points() == sorted(f"m{n:03d}" for n in range(16))
    assert within_limits(spread), spread.site.ledger.most()
    assert spread.site.leftovers == ()


@pytest.mark.timeout(240)
def test_a_proxy_that_never_comes_back_is_replaced(spread: Fleet) -> None:
    spread.machines(12)
    spread.job()
    lost = spread.start("--delay", "0.3", state="one")
    until(spread.running, "it works")
    spread.start(state="two")
    until(lambda: spread.site.leftovers, "a machine is frozen")
    lost.send_signal(signal.SIGKILL)
    until(spread.ended, "the job run has ended")
    assert [task.state for task in spread.tasks()] == [TaskState.DONE] * 12, spread.tasks()
    assert spread.points() == sorted(f"m{n:03d}" for n in range(12)), "each machine once"
    assert within_limits(spread), spread.site.ledger.most()
    assert spread.site.leftovers == ()


@pytest.mark.timeout(300)
def test_a_proxy_that_slept_finds_its_runs_taken_over_and_seals_nothing(spread: Fleet) -> None:
    spread.machines(4)
    spread.job()
    sleeper = spread.start("--delay", "0.5", state="one")
    until(lambda: spread.site.leftovers, "a machine is frozen")
    sleeper.send_signal(signal.SIGSTOP)
    spread.start(state="two")
    # One that fell asleep while it alone could write keeps the others from it for a minute: the database ends that then.
    until(spread.ended, "somebody else has done its work", within=200.0)
    before = spread.points()
    sleeper.send_signal(signal.SIGCONT)
    sleeper.communicate(timeout=60)
    assert before == spread.points() == ["m000", "m001", "m002", "m003"]
    assert [task.state for task in spread.tasks()] == [TaskState.DONE] * 4, spread.tasks()
    # It may have been in the middle of a snapshot. It ends when it learns that it is gone, and is started again.
    spread.start(state="one")
    until(lambda: not spread.site.leftovers, "nothing is left")
    assert within_limits(spread), spread.site.ledger.most()


@pytest.mark.timeout(240)
def test_a_database_that_is_away_for_a_while_costs_only_that_while(spread: Fleet, server: PostgresServer) -> None:
    spread.machines(8)
    spread.job()
    spread.start("--delay", "0.3", state="one")
    spread.start("--delay", "0.3", state="two")
    until(lambda: spread.site.leftovers, "a machine is frozen")
    server.stop()
    try:
        # Longer than the others wait before they take over: nobody can, and nobody has to.
        away = time.monotonic() + 4.0
        until(lambda: time.monotonic() > away, "the database is away")
        assert all(process.poll() is None for process in spread.processes), spread.said()
    finally:
        server.start()
    until(spread.ended, "the job run has ended")
    assert [task.state for task in spread.tasks()] == [TaskState.DONE] * 8, spread.tasks()
    assert spread.points() == sorted(f"m{n:03d}" for n in range(8))
    assert spread.site.leftovers == ()
    assert within_limits(spread), spread.site.ledger.most()
