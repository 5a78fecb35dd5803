"""A serving proxy yields to the guests: nothing begins where they wait too long, and everything does once they are well."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.jobs import governor
from appliance.serving import service, watching
from catalog.jobs.values import TaskState
from proxy.hypervisor.memory_meters import MemoryCounters, MemoryMeters
from proxy.hypervisor.several import Sites
from proxy.places import places_of
from proxy.ports import PlaceLoad
from tests.integration.serving.directory_site import DirectorySite
from tests.integration.serving.fleet import Fleet, until
from tests.integration.serving.proxy_process import services_on

pytestmark = pytest.mark.tools

LATENCY = """
[latency]
interval = 0.2
hold_ms = 20
slow_ms = 30
"""


class MeteredSite(DirectorySite):
    """Whose counters a test moves."""

    counters = MemoryCounters()

    def meters(self) -> MemoryMeters:
        return MemoryMeters(self.counters)


@pytest.fixture
def metered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(governor, "SETTLE", 0.5)
    monkeypatch.setattr(watching, "TELL_AGAIN", 0.5)
    made = Fleet(tmp_path, LATENCY)
    made.site = MeteredSite(tmp_path / "site", ["h1"])
    yield made
    made.close()


@pytest.mark.timeout(120)
def test_nothing_begins_at_a_slow_place_until_its_guests_are_well_again(metered: Fleet) -> None:
    site = metered.site
    assert isinstance(site, MeteredSite)
    site.add("held", {"vda": b"1" * 65536}, host="h1", place="slow")
    site.add("free", {"vda": b"2" * 65536}, host="h1", place="fast")
    places = {machine.name: places_of(machine)[0] for machine in site.machines()}
    site.counters.work("h1", busy=0.1)
    site.counters.steady[places["held"]] = PlaceLoad(reads=500, read_latency=0.080)
    site.counters.steady[places["free"]] = PlaceLoad(reads=500, read_latency=0.001)
    services = services_on(metered.configuration("looking-on"), site)
    services.__dict__["hypervisor"] = Sites([site], lambda _configuration, _new: site)
    serving = threading.Thread(target=service.serve, args=(services,))
    serving.start()
    try:
        until(services.closed, "the slow place is closed")
        metered.job()
        until(lambda: metered.points() == ["free"], "the other machine is backed up")
        states = {task.machine_name: task.state for task in metered.tasks()}
        assert states["held"] is TaskState.WAITING
        until(lambda: metered.runs()[0].notes, "the run is told why")
        site.counters.steady[places["held"]] = PlaceLoad(reads=500, read_latency=0.002)
        until(metered.ended, "the place is open again, and the run ends")
        until(lambda: all("impact" in task.measures for task in metered.tasks()), "what they cost is written down")
    finally:
        services.cancelled.set()
        serving.join(60)
        services.close()

    assert sorted(metered.points()) == ["free", "held"]
    assert [places["held"] in note for note in metered.runs()[0].notes] == [True]
    for task in metered.tasks():
        impact = task.measures["impact"]
        assert isinstance(impact, dict)
        assert set(impact["places"]) == {places[task.machine_name]}
        assert isinstance(task.measures["stages"], dict)
