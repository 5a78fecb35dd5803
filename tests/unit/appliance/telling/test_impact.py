from typing import Any

import pytest

from appliance.jobs.measures import Sample, impact
from appliance.telling.html import rendered
from appliance.telling.impact import Times, hosts, places
from appliance.telling.report import Item, made
from proxy.ports import HostLoad, PlaceLoad
from tests.unit.appliance.telling.nights import NIGHT, a_run, a_task


def sample(cpu: float, latency: float) -> Sample:
    return Sample(HostLoad(cpu=cpu), {"ds1": PlaceLoad(reads=10, read_latency=latency)})


def item(number: int, host: str, *cpu: float, over: int = 0, latency: float = 0.002) -> Item:
    before, during, after = ([sample(value, latency)] for value in cpu)
    return Item(a_task(number, measures={"over_host": over, "impact": impact(host, ["ds1"], before, during, after)}))


def test_hosts_whose_cpu_rose_most_come_first_with_medians_over_their_backups() -> None:
    items = [
        item(1, "calm", 0.20, 0.21, 0.20),
        item(2, "busy", 0.10, 0.40, 0.20, over=5),
        item(3, "busy", 0.20, 0.50, 0.30, over=7),
        item(4, "busy", 0.30, 0.90, 0.40),
    ]
    busy, calm = hosts(items)
    assert (busy.name, busy.tasks, busy.over, busy.cpu) == ("busy", 3, 12, Times(0.20, 0.50, 0.30))
    assert calm.name == "calm"


def test_places_have_the_latency_of_their_guests() -> None:
    (cost,) = places([item(1, "h", 0, 0, 0, latency=0.004), item(2, "h", 0, 0, 0, latency=0.006)])
    assert (cost.name, cost.read, cost.write) == ("ds1", Times(0.005, 0.005, 0.005), Times(None, None, None))


@pytest.mark.parametrize(
    "measures",
    [
        {},
        {"impact": None},
        {"impact": {"host": 5, "places": [1]}},
        {"impact": {"host": "h", "cpu": "much", "places": {"d": 1}}},
    ],
)
def test_what_nobody_measured_is_no_cost_and_breaks_no_page(measures: dict[str, Any]) -> None:
    report = made(a_run(), [Item(a_task(1, measures=measures))])
    for cost in (*hosts(report.items), *places(report.items)):
        assert {cost.cpu, cost.read, cost.write} <= {None, Times(None, None, None)}
    assert "<h2>Machines" in rendered(report, NIGHT)


def test_the_page_shows_what_the_run_cost() -> None:
    page = rendered(made(a_run(), [item(1, "esx-1", 0.1, 0.25, 0.1, over=2**20, latency=0.0034)]), NIGHT)
    cost = page[page.index("What it cost the hosts") : page.index("<h2>Machines")]
    assert [words in cost for words in ("esx-1", "25 %", "1.0 MiB", "ds1", "3.4 ms")] == [True] * 5
