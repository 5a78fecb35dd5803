"""PostgreSQL ends without a word in the middle of a night and comes back late: nothing is lost, nothing is done twice."""

import signal
import time

import pytest

from catalog.jobs.values import JobRunState, TaskState
from proxy.errors import DatabaseAway
from tests.integration.catalog.postgres_server import PostgresServer
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.requires("initdb"), pytest.mark.timeout(240)]

# More than the time after which a silent proxy counts as dead here (``takeover`` of fleet.py): what a minute is to the default.
AWAY = 4.0


def away(server: PostgresServer, seconds: float = AWAY) -> None:
    server.kill()
    time.sleep(seconds)  # no state to wait for: it is the length itself that is tried
    server.start()


def check(fleet: Fleet, machines: int) -> None:
    """Every machine is backed up once, and nothing is left anywhere."""
    until(fleet.ended, "the job run has ended")
    assert [(task.state, task.error, task.problems) for task in fleet.tasks()] == [
        (TaskState.DONE, None, ())
    ] * machines
    assert [run.state for run in fleet.runs()] == [JobRunState.DONE], fleet.runs()
    assert fleet.points() == [f"m{n:03d}" for n in range(machines)]
    assert fleet.site.leftovers == ()
    assert fleet.site.ledger.held() == []
    most = fleet.site.ledger.most()
    assert max(number for key, number in most.items() if key.startswith("host:")) <= 2, most
    assert max(number for key, number in most.items() if key.startswith("machine:")) == 1, most


def test_a_database_that_crashes_and_is_away_for_longer_than_the_takeover(
    spread: Fleet, server: PostgresServer
) -> None:
    spread.machines(6)
    spread.job()
    proxies = [spread.start("--delay", "0.3", state=name) for name in ("one", "two")]
    until(lambda: spread.site.leftovers, "a machine is frozen")
    away(server)
    check(spread, 6)
    assert [proxy.poll() for proxy in proxies] == [None, None], "both waited, neither gave up"
    assert spread.idle()


def test_a_person_is_told_and_a_serving_proxy_says_it_once(spread: Fleet, server: PostgresServer) -> None:
    spread.machines(2)
    spread.start("--delay", "0.1", state="one")
    until(lambda: spread.services.jobs and _proxies(spread), "it serves")
    server.kill()
    with pytest.raises(DatabaseAway) as caught:
        spread.job()
    assert "does not answer" in caught.value.message
    assert caught.value.hint
    time.sleep(AWAY)
    server.start()
    spread.job()
    check(spread, 2)
    assert spread.idle()
    lines = [line for line in spread.said().splitlines() if "does not answer" in line and "sign of life" not in line]
    assert len(lines) <= 2, lines


def test_a_proxy_that_dies_while_the_database_is_away_is_replaced_when_it_is_back(
    spread: Fleet, server: PostgresServer
) -> None:
    spread.machines(3)
    spread.job()
    lost = spread.start("--delay", "0.5", state="one")
    until(lambda: spread.site.leftovers, "a machine is frozen")
    server.kill()
    lost.send_signal(signal.SIGKILL)
    lost.wait(30)
    server.start()
    spread.start(state="two")
    check(spread, 3)


def _proxies(fleet: Fleet) -> int:
    with fleet.services.jobs.transaction(write=False) as unit:
        return len(unit.proxies.living())
