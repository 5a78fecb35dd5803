"""Five hundred machines in one job, three proxies, one of them killed: no limit is exceeded at any instant."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.jobs.values import JobRunState, TaskState
from tests.integration.catalog.postgres_server import PostgresServer
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.slow, pytest.mark.requires("initdb")]

MACHINES = 500


@pytest.fixture
def large(tmp_path: Path, server: PostgresServer) -> Iterator[Fleet]:
    """Eight hosts and as many places."""
    database = server.database()
    made = Fleet(tmp_path, f'[database]\nurl = "{server.url(database)}"\n', hosts=8)
    yield made
    made.close()
    server.drop(database)


@pytest.mark.timeout(900)
def test_five_hundred_machines_are_backed_up_within_all_limits_though_a_proxy_dies(large: Fleet) -> None:
    large.machines(MACHINES, 16 * 1024)
    large.job(name="all")
    begin = time.monotonic()
    proxies = [large.start(state=name) for name in ("one", "two", "three")]
    until(lambda: len(large.points()) > MACHINES // 4, "a quarter is done", within=400)
    proxies[0].send_signal(signal.SIGKILL)
    until(large.ended, "the job run has ended", within=800)
    seconds = time.monotonic() - begin
    tasks = large.tasks()
    assert [task.state for task in tasks] == [TaskState.DONE] * MACHINES
    assert large.runs()[0].state is JobRunState.DONE
    assert len(large.points()) == len(set(large.points())) == MACHINES, "each machine once"
    most = {key: number for key, number in large.site.ledger.most().items() if not key.startswith("machine:")}
    assert large.site.ledger.most().total() - sum(most.values()) == MACHINES, "a machine is frozen once at a time"
    proxies_used = len({task.proxy for task in tasks})
    print(f"{MACHINES} machines in {seconds:.0f} s by {proxies_used} proxies; most at once: {sorted(most.items())}")
    assert {number for key, number in most.items() if key.startswith("host:")} == {2}, "the limit, and no more"
    assert max(number for key, number in most.items() if key.startswith("place:")) <= 3
    assert large.site.leftovers == ()
