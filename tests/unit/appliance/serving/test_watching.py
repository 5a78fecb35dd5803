"""The watch: what its looks at the hosts' counters lead to. A test moves its clock and looks in its place."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from appliance.config_serving import Latency, PlaceLatency
from appliance.serving.watching import AROUND, Watch
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.errors import CatalogFailed, ConfigurationError, DatabaseAway, HypervisorError
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.ports import HostLoad, Load, Meters, PlaceLoad
from proxy.units import MiB

pytestmark = pytest.mark.slow

AT = datetime(2026, 11, 23, tzinfo=UTC)


@dataclass
class Rig:
    site: MemoryHypervisor = field(default_factory=MemoryHypervisor)
    saved: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    now: float = 1000.0

    def watch(self, settings: Latency) -> Watch:
        return Watch(settings, self.site.meters, self.save, clock=lambda: self.now)

    def save(self, task: str, more: Mapping[str, object]) -> None:
        self.saved[task] = more

    def slow(self, seconds: float) -> None:
        self.site.counters.steady["gold"] = PlaceLoad(reads=200, read_latency=seconds)

    def look(self, watch: Watch, meters: Meters, times: int = 1) -> None:
        for _ in range(times):
            self.now += 20.0
            watch.look(meters)


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.site.counters.work("h1")
    return made


def a_task(run: str = "run-1") -> Task:
    return Task(
        f"task of {run}",
        "job-run",
        TaskKind.BACKUP,
        TaskState.RUNNING,
        machine="m1",
        host="h1",
        keys=("machine:m1", "host:h1", "place:gold", "place:silver"),
        run=run,
    )


GOVERNED = Latency(hold_ms=20, slow_ms=30)


def test_a_place_where_guests_wait_too_long_is_closed_and_opened_again(rig: Rig) -> None:
    watch, meters = rig.watch(GOVERNED), rig.site.meters()
    rig.slow(0.050)
    rig.look(watch, meters, 3)
    assert watch.closed() == {"place:gold"}
    assert "50.0 ms" in watch.reasons()["place:gold"].detail

    rig.slow(0.002)
    rig.look(watch, meters, 8)
    assert watch.closed() == frozenset()


def test_without_thresholds_nothing_is_closed_and_nothing_paced(rig: Rig) -> None:
    watch, meters = rig.watch(Latency()), rig.site.meters()
    machine = rig.site.machine(rig.site.add("web", {"vda": bytes(10)}))
    rig.slow(0.500)
    rig.look(watch, meters, 10)

    assert watch.closed() == frozenset()
    assert watch.pace(machine, machine.disks[0]) is None


def test_a_place_may_have_thresholds_of_its_own(rig: Rig) -> None:
    settings = Latency(place={"gold": PlaceLatency(hold_ms=100, slow_ms=200)})
    watch, meters = rig.watch(settings), rig.site.meters()
    rig.slow(0.050)
    rig.site.counters.steady["silver"] = PlaceLoad(reads=200, read_latency=5.0)
    rig.look(watch, meters, 5)

    assert watch.closed() == frozenset()


def test_what_reads_from_a_slow_place_gets_a_pace_and_is_lifted_when_the_guests_are_well(rig: Rig) -> None:
    watch, meters = rig.watch(GOVERNED), rig.site.meters()
    machine = rig.site.machine(rig.site.add("web", {"vda": bytes(10)}))
    place = f"h1:{machine.disks[0].location.path.rpartition('/')[0]}"  # type: ignore[union-attr]
    pace = watch.pace(machine, machine.disks[0])
    assert pace is not None
    rig.site.counters.steady[place] = PlaceLoad(reads=200, read_latency=0.090)

    for _ in range(5):
        assert pace(100 * 20 * MiB) == 0.0 or watch.paces()
        rig.look(watch, meters)
    assert 0 < watch.paces()[place] < 100 * MiB

    rig.site.counters.steady[place] = PlaceLoad(reads=200, read_latency=0.001)
    rig.look(watch, meters, 12)  # and nothing of ours reads there
    assert watch.paces() == {}


def test_the_impact_of_a_run_is_saved_with_what_was_before_during_and_after(rig: Rig) -> None:
    watch, meters = rig.watch(Latency()), rig.site.meters()
    rig.slow(0.002)
    rig.look(watch, meters, 5)
    with watch.tracking(a_task()):
        rig.slow(0.009)
        rig.look(watch, meters, 4)
    rig.slow(0.003)
    rig.look(watch, meters, AROUND - 1)
    assert rig.saved == {}
    rig.look(watch, meters, 2)

    impact = rig.saved["task of run-1"]["impact"]
    assert impact["places"]["gold"]["read_latency"] == {"before": 0.002, "during": 0.009, "after": 0.003}
    assert impact["places"]["silver"]["read_latency"] == {"before": None, "during": None, "after": None}
    assert impact["host"] == "h1"


def test_a_run_that_ends_with_the_process_is_saved_as_far_as_it_was_seen(rig: Rig) -> None:
    watch, meters = rig.watch(Latency()), rig.site.meters()
    rig.slow(0.002)
    with watch.tracking(a_task()):
        rig.look(watch, meters, 4)
    watch.close()

    assert rig.saved["task of run-1"]["impact"]["samples"]["after"] == 0


def test_a_run_on_hosts_without_counters_is_forgotten_after_a_while(rig: Rig) -> None:
    watch, meters = rig.watch(Latency()), MemoryHypervisor().meters()
    with watch.tracking(a_task()):
        rig.look(watch, meters)
    rig.look(watch, meters, AROUND + 2)

    assert rig.saved == {}
    assert not watch._tracked


class Broken:
    """Counters that nobody can read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self) -> Load:
        raise self.error


def test_when_nobody_can_measure_any_more_closed_places_are_let_go(rig: Rig) -> None:
    watch, meters = rig.watch(GOVERNED), rig.site.meters()
    rig.slow(0.050)
    rig.look(watch, meters, 3)
    assert watch.closed()

    rig.look(watch, Broken(HypervisorError("counters", "no")), 16)

    assert watch.closed() == frozenset()


def test_job_runs_are_told_of_a_closed_place_now_and_then(rig: Rig) -> None:
    told: list[tuple[str, str]] = []
    watch = Watch(
        GOVERNED, rig.site.meters, rig.save, tell=lambda key, text: told.append((key, text)), clock=lambda: rig.now
    )
    rig.slow(0.050)
    rig.look(watch, rig.site.meters(), 11)  # closed at the second look

    assert [key for key, _ in told] == ["place:gold"] * 4
    assert len({text for _, text in told}) == 1
    assert "latency-hold" in told[0][1]


def test_a_host_that_keeps_the_watch_waiting_keeps_no_place_closed_for_ever(rig: Rig) -> None:
    watch, meters = rig.watch(GOVERNED), rig.site.meters()
    rig.slow(0.050)
    rig.look(watch, meters, 3)
    assert watch.closed()
    rig.now += 400  # the next look does not come back

    assert watch.closed() == frozenset()


def test_what_cannot_be_written_down_ends_nothing(rig: Rig) -> None:
    def save(_task: str, _more: Mapping[str, object]) -> None:
        raise CatalogFailed("jobs.db", "disk full")

    watch, meters = Watch(Latency(), rig.site.meters, save, clock=lambda: rig.now), rig.site.meters()
    rig.slow(0.002)
    with watch.tracking(a_task()):
        rig.look(watch, meters)
    rig.look(watch, meters, AROUND + 2)

    assert not watch._tracked


class Alternating:
    """A fault of ours: the second look fails, the others show a slow place."""

    def __init__(self) -> None:
        self.looks = 0
        self.many = threading.Event()

    def read(self) -> Load:
        self.looks += 1
        if self.looks > 5:
            self.many.set()
        if self.looks == 2:
            raise ZeroDivisionError
        return Load(AT, 0.1, {"h1": HostLoad(cpu=0.5)}, {"gold": PlaceLoad(reads=100, read_latency=0.5)})


def test_the_watch_goes_on_looking_after_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    meters = Alternating()
    settings = Latency(hold_ms=20, slow_ms=30, interval=0.1)
    with Watch(settings, lambda: meters, lambda *_: None) as watch:
        watch.start()
        assert meters.many.wait(20)
        assert watch.closed() == {"place:gold"}
    assert "the watch failed" in caplog.text


@pytest.mark.slow
def test_meters_that_cannot_be_made_yet_are_made_later() -> None:
    meters, tries = Alternating(), iter([DatabaseAway("jobs", "no")] * 2)

    def make() -> Meters:
        error = next(tries, None)
        if error is not None:
            raise error
        return meters

    with Watch(Latency(interval=0.1), make, lambda *_: None) as watch:
        watch.start()
        assert meters.many.wait(20)


def test_without_hosts_nothing_is_watched_and_nothing_fails() -> None:
    asked = threading.Event()

    def make() -> Meters:
        asked.set()
        raise ConfigurationError("[[host]]", "no hypervisor is configured")

    with Watch(Latency(interval=0.1), make, lambda *_: None) as watch:
        watch.start()
        assert asked.wait(20)
        assert watch.closed() == frozenset()
