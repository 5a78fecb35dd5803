"""What everything keeps that tells which processes live. See ``appliance/serving/liveness.py``.

A *rig* makes liveness after liveness, as so many processes would, and lets one of them die.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.serving.heartbeats import Heartbeats, Times
from appliance.serving.liveness import FileLocks, Liveness
from catalog.jobs.store import JobStore
from catalog.jobs.values import ProxyFacts

pytestmark = pytest.mark.slow

# A machine that is busy stands still for half a second now and then: that is neither a fence nor a gap between signs.
TIMES = Times(beat=0.05, fence=1.0, takeover=2.5)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class LockRig:
    """Processes of one machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self) -> Liveness:
        return FileLocks(self._directory)

    def die(self, liveness: Liveness) -> None:
        """As the kernel does for a process that ends: its descriptors are closed, its file stays."""
        assert isinstance(liveness, FileLocks)
        assert liveness._lock is not None
        os.close(liveness._lock)
        liveness._lock = None

    def close(self) -> None:
        pass


class BeatRig:
    """Processes anywhere, over one database."""

    def __init__(self, directory: Path) -> None:
        self.store = JobStore(f"sqlite:///{directory / 'catalog.db'}")
        self._made: list[Heartbeats] = []

    def make(self) -> Heartbeats:
        now = datetime.now(UTC)
        made = Heartbeats(self.store, lambda name: ProxyFacts(name, "here", now, now), TIMES)
        self._made.append(made)
        return made

    def die(self, liveness: Liveness) -> None:
        """It beats no more, and says nothing of it."""
        assert isinstance(liveness, Heartbeats)
        liveness._ended.set()
        assert liveness._thread is not None
        liveness._thread.join()

    def close(self) -> None:
        for made in self._made:
            made.leave()
        self.store.close()


@pytest.fixture(params=[LockRig, BeatRig])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LockRig | BeatRig]:
    made = request.param(tmp_path)
    yield made
    made.close()


def test_who_joined_lives_for_all_and_is_not_declared_gone(rig: LockRig | BeatRig) -> None:
    one, two = rig.make(), rig.make()
    one.join("one")
    two.join("two")
    assert one.living() == two.living() == {"one", "two"}
    with two.declared_gone("one") as gone:
        assert not gone
    until(one.sure)
    assert not one.lost()
    assert one.confirm()
    one.leave()
    two.leave()


def test_nobody_is_gone_for_itself(rig: LockRig | BeatRig) -> None:
    one = rig.make()
    one.join("one")
    with one.declared_gone("one") as gone:
        assert not gone
    assert "one" in one.living()
    one.leave()


def test_who_leaves_is_gone_and_may_leave_twice(rig: LockRig | BeatRig) -> None:
    one, two = rig.make(), rig.make()
    one.join("one")
    two.join("two")
    one.leave()
    one.leave()
    assert two.living() == {"two"}
    with two.declared_gone("one") as gone:
        assert gone
    two.leave()


def test_who_dies_is_gone_after_a_while_and_stays_so(rig: LockRig | BeatRig) -> None:
    one, two = rig.make(), rig.make()
    one.join("one")
    two.join("two")
    rig.die(one)
    until(lambda: two.living() == {"two"})
    for _ in range(2):
        with two.declared_gone("one") as gone:
            assert gone
    two.leave()


def test_a_name_that_nobody_knows_is_gone(rig: LockRig | BeatRig) -> None:
    one = rig.make()
    one.join("one")
    with one.declared_gone("never-heard-of") as gone:
        assert gone
    one.leave()


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[BeatRig]:
    made = BeatRig(tmp_path)
    yield made
    made.close()


def test_who_cannot_give_a_sign_is_not_sure_of_itself_before_others_may_take_over(beats: BeatRig) -> None:
    one, two = beats.make(), beats.make()
    one.join("one")
    two.join("two")
    beats.die(one)
    until(lambda: not one.sure())
    assert "one" in two.living(), "it held still before anybody counted it out"
    assert one.confirm(), "and may go on when a sign comes through in time"
    until(lambda: one.sure() or not one.confirm())
    assert not one.lost()


def test_a_sleeper_that_was_counted_out_learns_it_with_its_next_sign_and_for_good(beats: BeatRig) -> None:
    one, two = beats.make(), beats.make()
    one.join("one")
    two.join("two")
    beats.die(one)
    until(lambda: "one" not in two.living())
    with two.declared_gone("one") as gone:
        assert gone
    assert two.buried == {"one"}
    assert not one.lost(), "it has not asked yet"
    assert not one.confirm()
    assert one.lost()
    assert not one.sure()
    assert not one.confirm()
    assert "one" not in two.living()


def test_only_the_first_who_counts_a_proxy_out_is_told_so(beats: BeatRig) -> None:
    one, two, three = beats.make(), beats.make(), beats.make()
    one.join("one")
    two.join("two")
    three.join("three")
    beats.die(one)
    until(lambda: "one" not in two.living())
    for each in (two, three):
        with each.declared_gone("one") as gone:
            assert gone
    assert (two.buried, three.buried) == ({"one"}, set())
