"""What serves looks at the hypervisors by itself, and other processes read what it saw."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.machine_list import ListedMachine, MachineQuery
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.slow]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()


def listed(fleet: Fleet) -> dict[str, ListedMachine]:
    """By name."""
    catalog = fleet.services.catalog
    with catalog.transaction(write=False) as unit:
        return {one.name: one for one in unit.machines.page(MachineQuery(), fleet.services.clock.now())[0]}


def test_a_proxy_that_serves_fills_the_inventory_and_backups_change_it_at_once(fleet: Fleet) -> None:
    fleet.machines(3)
    process = fleet.start()
    until(lambda: len(listed(fleet)) == 3, "three machines in the inventory")
    assert {one.protection for one in listed(fleet).values()} == {"never"}
    fleet.job()
    until(lambda: {one.protection for one in listed(fleet).values()} == {"protected"}, "all are protected")
    assert {one.points for one in listed(fleet).values()} == {1}
    with fleet.services.catalog.transaction(write=False) as unit:
        hypervisors = {each.name: each.machines for each in unit.inventory.hypervisors()}
    assert hypervisors == {"h1": 2, "h2": 1}
    assert fleet.end(process) == 0, fleet.said()
