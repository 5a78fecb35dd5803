"""Who is judged by signs of life after nobody could give any, and what must not end them. Times are the usual ones, fifty times
as fast; the rest is in ``tests/contract/test_liveness.py``."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.serving.heartbeats import Heartbeats, Times
from catalog.jobs.store import JobStore
from catalog.jobs.values import ProxyFacts

pytestmark = pytest.mark.slow  # they wait for time to pass

TIMES = Times(beat=0.1, fence=0.6, takeover=1.2)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def facts(name: str) -> ProxyFacts:
    now = datetime.now(UTC)
    return ProxyFacts(name, "here", now, now)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with JobStore(f"sqlite:///{tmp_path}/catalog.db") as opened:
        yield opened


@pytest.fixture
def pair(store: JobStore) -> Iterator[tuple[Heartbeats, Heartbeats]]:
    """Two whose signs stopped for so long that all are old, as when a database comes back."""
    one, two = (Heartbeats(store, facts, TIMES) for _ in range(2))
    one.join("one")
    two.join("two")
    for each in (one, two):
        cut_off(each)
    until(lambda: not heard(store))
    yield one, two
    for each in (one, two):
        each.leave()


def cut_off(beats: Heartbeats) -> None:
    beats._ended.set()
    assert beats._thread is not None
    beats._thread.join()


def heard(store: JobStore) -> list[str]:
    with store.transaction(write=False) as unit:
        return [each.name for each in unit.proxies.living(TIMES.takeover)]


def gone(beats: Heartbeats, name: str) -> bool:
    with beats.declared_gone(name) as found:
        return found


def test_the_first_that_a_database_hears_again_declares_nobody_gone(
    store: JobStore, pair: tuple[Heartbeats, Heartbeats]
) -> None:
    one, two = pair
    assert two.confirm()
    assert heard(store) == ["two"], "by signs alone the other would be gone"
    assert not gone(two, "one")
    assert two.living() == {"one", "two"}
    until(lambda: one.confirm() and one.sure())
    assert not one.lost()


def test_who_does_not_come_back_with_the_database_is_gone_after_a_while(pair: tuple[Heartbeats, Heartbeats]) -> None:
    _, two = pair
    begun = time.monotonic()
    until(lambda: two.confirm() and gone(two, "one"))
    assert time.monotonic() - begun >= TIMES.fence
    assert two.living() == {"two"}
    assert two.buried == {"one"}


def test_a_process_that_is_cut_off_itself_declares_nobody_gone(store: JobStore) -> None:
    one, two = (Heartbeats(store, facts, TIMES) for _ in range(2))
    one.join("one")
    two.join("two")
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > TIMES.grace)
    for each in (one, two):
        cut_off(each)
    until(lambda: not heard(store))
    assert not gone(two, "one")
    assert two.living() == {"one", "two"}
    two.leave()


def test_a_fault_of_ours_does_not_end_the_signs(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()
    tried: list[bool] = []

    def told(name: str) -> ProxyFacts:
        tried.append(broken.is_set())
        if broken.is_set():
            raise KeyError("what is told of this process")
        return facts(name)

    one = Heartbeats(store, told, TIMES)
    one.join("one")
    broken.set()
    until(lambda: not one.sure())
    broken.clear()
    until(one.sure)
    one.leave()
    assert tried.count(True) > 1
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.exc_info is not None for record in said] == [True, False], "once when it begins, once when it ends"
    assert "KeyError" in said[0].message


def test_nobody_is_judged_sooner_than_all_can_have_connected_anew_or_later_than_after_a_takeover() -> None:
    assert Times().grace == 30
    assert Times(beat=1, fence=2, takeover=60).grace == 12
    assert Times(beat=0.1, fence=0.6, takeover=1.2).grace == 1.2
