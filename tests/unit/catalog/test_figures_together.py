"""Several processes that write at once, as proxies over one server do: figures stay what restore points come to."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from catalog.inventory import SeenMachine
from catalog.machine_list import MachineQuery
from catalog.tables import MachineRow, RestorePointRow
from catalog.unit_of_work import Catalog
from proxy.model import Disk, FileAddress, Format, PowerState, VirtualMachine

NOW = datetime(2026, 1, 2, tzinfo=UTC)
THREADS = 4
POINTS = 8


def seen(identity: str) -> SeenMachine:
    disk = Disk("vda", 1024, Format.RAW, FileAddress("/vda"))
    return SeenMachine(VirtualMachine(identity, identity, "h1", PowerState.RUNNING, (disk,)), "h1", objective=24.0)


def together(*works: Callable[[], None]) -> None:
    """All at the same time; what one of them raises, this raises."""
    begin, failures = threading.Barrier(len(works)), []

    def one(work: Callable[[], None]) -> None:
        try:
            begin.wait(30)
            work()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []


def figures(catalog: Catalog, machine: str = "m1") -> tuple[Any, ...]:
    """As kept, and as counted."""
    with catalog.transaction(write=False) as unit:
        one = unit.machines.get(machine, NOW)
        session = unit.inventory._session
        p = RestorePointRow
        counted = session.execute(
            select(func.count(), func.max(p.created_at), func.min(p.created_at)).where(p.machine_id == machine)
        ).one()
    assert one is not None
    return (one.points, one.newest_at, one.oldest_at, one.stored), (*counted, counted[0] * 3)


@pytest.mark.slow
def test_points_that_are_added_and_removed_at_once_are_all_counted(catalog: Catalog, make: Any) -> None:
    def work(number: int) -> Callable[[], None]:
        def add_and_remove() -> None:
            for n in range(POINTS):
                with catalog.transaction() as unit:
                    unit.restore_points.add(make.point(number * 100 + n))
                if n % 2:
                    with catalog.transaction() as unit:
                        unit.restore_points.remove(make.point(number * 100 + n - 1).id)

        return add_and_remove

    together(*(work(number) for number in range(THREADS)))
    kept, counted = figures(catalog)
    assert kept == counted
    assert kept[0] == THREADS * POINTS // 2


@pytest.mark.slow
def test_looks_at_once_and_first_restore_points_meet_in_one_row_of_each_machine(catalog: Catalog, make: Any) -> None:
    machines = [f"m{n}" for n in range(40)]

    def look(order: list[str]) -> Callable[[], None]:
        def record() -> None:
            with catalog.transaction() as unit:
                unit.inventory.seen([seen(machine) for machine in order], NOW)
                unit.inventory.not_seen(frozenset(order), NOW, lambda _: False)

        return record

    def back_up() -> None:
        for number, machine in enumerate(machines):
            with catalog.transaction() as unit:
                unit.restore_points.add(make.point(number, machine))

    together(look(machines), look(machines[::-1]), back_up)
    with catalog.transaction(write=False) as unit:
        found, _ = unit.machines.page(MachineQuery(), NOW, limit=100)
    assert {one.id: one.points for one in found} == dict.fromkeys(machines, 1)


def test_a_machine_is_not_forgotten_with_restore_points_that_nobody_counted(catalog: Catalog, make: Any) -> None:
    """As a proxy of the version before adds them, which knows no figures."""
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
        unit.inventory._session.execute(update(MachineRow).values(points=0))
    with catalog.transaction() as unit:
        unit.inventory.seen([], NOW)
        unit.inventory.not_seen(frozenset(), NOW + timedelta(hours=1), lambda _: False)
    with catalog.transaction(write=False) as unit:
        assert len(unit.restore_points.list("m1")) == 1
