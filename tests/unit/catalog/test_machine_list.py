from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import pytest

from catalog.inventory import DiskFacts, Judged, LookedAt, SeenMachine
from catalog.machine_list import MachineQuery
from catalog.point_list import PointQuery
from catalog.unit_of_work import Catalog
from proxy.errors import ConfigurationError, HypervisorError
from proxy.model import Disk, FileAddress, Format, PowerState, VirtualMachine

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def seen(identity: str, name: str = "", **facts: Any) -> SeenMachine:
    """A machine as a hypervisor shows it; what does not matter is the same for all."""
    disk = Disk("vda", facts.pop("size", 1024), Format.RAW, FileAddress("/vda"))
    host, state = facts.pop("host", "h1"), facts.pop("state", PowerState.RUNNING)
    machine = VirtualMachine(identity, name or f"name of {identity}", host, state, (disk,))
    return SeenMachine(machine, **{"hypervisor": host, "objective": 24.0, **facts})


def nobody(_: object) -> bool:
    return False


def show(catalog: Catalog, *machines: SeenMachine, at: datetime = NOW) -> None:
    """A look at hypervisors that all answer."""
    with catalog.transaction() as unit:
        unit.inventory.seen(machines, at)
        unit.inventory.not_seen(frozenset(one.machine.id for one in machines), at, nobody)


def names(catalog: Catalog, query: MachineQuery | None = None, now: datetime = NOW, sort: str = "name") -> list[str]:
    with catalog.transaction(write=False) as unit:
        return [one.id for one in unit.machines.page(query or MachineQuery(), now, sort=sort)[0]]


def protection(catalog: Catalog, now: datetime = NOW) -> dict[str, str]:
    with catalog.transaction(write=False) as unit:
        return {one.id: one.protection for one in unit.machines.page(MachineQuery(), now)[0]}


def test_the_list_has_what_hypervisors_show_and_what_restore_points_are_of(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1, "old"))
        unit.restore_points.add(make.point(2, "m1"))
    show(catalog, seen("m1", "web", tags=("env:prod",)), seen("m2", "db"))
    with catalog.transaction(write=False) as unit:
        found = {one.id: one for one in unit.machines.page(MachineQuery(), NOW)[0]}
    assert {id_: (one.points, one.protection) for id_, one in found.items()} == {
        "m1": (1, "protected"),
        "m2": (0, "never"),
        "old": (1, "former"),
    }
    assert (found["m1"].name, found["m1"].tags, found["m1"].newest_point) == ("web", ("env:prod",), "m1-p2"[3:])
    assert found["old"].gone_at == NOW
    assert found["old"].state is None


def test_protection_follows_from_the_clock_the_last_run_and_what_people_said(catalog: Catalog, make: Any) -> None:
    show(catalog, seen("m1"), seen("m2", excluded="scratch"), seen("m3"))
    failure = HypervisorError("snapshot", "no space")
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(0))
        unit.runs.start("r", "m3", "m3", "backup", NOW)
        unit.runs.finish("r", NOW, error=failure)
    assert protection(catalog) == {"m1": "protected", "m2": "excluded", "m3": "failed"}
    assert protection(catalog, NOW + timedelta(hours=1)) == {"m1": "overdue", "m2": "excluded", "m3": "failed"}
    with catalog.transaction() as unit:
        found = unit.machines.get("m3", NOW)
        assert found is not None
        assert (found.failed_at, found.failure) == (NOW, failure.code)
        unit.restore_points.add(make.point(9, "m3", created_at=NOW + timedelta(minutes=1)))
    assert protection(catalog)["m3"] == "protected"
    with catalog.transaction() as unit:  # a run that began before that point and ended late says nothing any more
        unit.runs.finish("r", NOW, error=failure)
    assert protection(catalog)["m3"] == "protected"


def test_a_machine_is_its_identity_wherever_it_runs(catalog: Catalog) -> None:
    show(catalog, seen("m1", "web", host="h1"))
    show(catalog, seen("m1", "web-new", host="h2"), at=NOW + timedelta(minutes=5))
    with catalog.transaction(write=False) as unit:
        (one,) = unit.machines.page(MachineQuery(), NOW)[0]
    assert (one.name, one.host, one.hypervisor) == ("web-new", "h2", "h2")
    assert (one.first_seen, one.seen_at) == (NOW, NOW + timedelta(minutes=5))


def test_machines_of_those_who_are_silent_stay_and_come_back(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        unit.restore_points.add(make.point(1))
    show(catalog, seen("m1", host="h1"))
    later = NOW + timedelta(minutes=5)
    with catalog.transaction() as unit:
        assert unit.inventory.not_seen(frozenset(), later, lambda placed: placed.host == "h1") == 0
        unit.inventory.looked_at([LookedAt("h1", "kvm", "no route", "mend it"), LookedAt("h2", "kvm")], later)
        found = unit.machines.get("m1", later)
        silent, answering = unit.inventory.hypervisors()
    assert found is not None
    assert (found.state, found.seen_at, found.gone_at) == ("running", NOW, None)
    assert (silent.error, silent.hint, silent.answered_at, silent.machines) == ("no route", "mend it", None, 1)
    assert (answering.error, answering.answered_at, answering.machines) == ("", later, 0)
    show(catalog, at=later)
    assert protection(catalog) == {"m1": "former"}
    show(catalog, seen("m1", host="h2"), at=later)
    assert protection(catalog) == {"m1": "protected"}


def test_a_machine_that_was_never_backed_up_is_forgotten_when_it_is_gone(catalog: Catalog) -> None:
    show(catalog, seen("m1"), seen("m2"))
    show(catalog, seen("m2"))
    assert names(catalog) == ["m2"]


def test_the_figures_of_restore_points_are_kept_with_each_of_them(catalog: Catalog, make: Any) -> None:
    show(catalog, seen("m1"))

    def figures() -> tuple[Any, ...]:
        with catalog.transaction(write=False) as unit:
            one = unit.machines.get("m1", NOW)
        assert one is not None
        return one.points, one.stored, one.newest_point, one.newest_at, one.oldest_at, one.due_at

    with catalog.transaction() as unit:
        for number in (2, 1, 3):
            unit.restore_points.add(make.point(number))
        unit.restore_points.add(make.point(3))  # again: nothing more
    first, last = (datetime(2026, 1, 1, 0, minute, tzinfo=UTC) for minute in (1, 3))
    assert figures() == (3, 9, "p3", last, first, last + timedelta(hours=24))
    with catalog.transaction() as unit:
        unit.restore_points.remove("p3")
        unit.restore_points.remove("p1")
    middle = datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
    assert figures() == (1, 3, "p2", middle, middle, middle + timedelta(hours=24))
    with catalog.transaction() as unit:
        unit.restore_points.remove("p2")
    assert figures() == (0, 0, None, None, None, None)
    assert protection(catalog) == {"m1": "never"}


def test_pages_neither_skip_nor_repeat_in_any_order(catalog: Catalog, make: Any) -> None:
    show(catalog, *(seen(f"m{n:02d}", f"vm{n % 4}", host=f"h{n % 3}", size=n % 5) for n in range(23)))
    with catalog.transaction() as unit:
        for n in range(0, 23, 2):
            unit.restore_points.add(make.point(n % 7, f"m{n:02d}"))
    with catalog.transaction(write=False) as unit:
        for sort in ("name", "host", "newest", "points", "size", "stored", "severity"):
            for order in (sort, f"-{sort}"):
                whole = [one.id for one in unit.machines.page(MachineQuery(), NOW, sort=order)[0]]
                found: list[str] = []
                after = None
                while True:
                    page, after = unit.machines.page(MachineQuery(), NOW, sort=order, limit=5, after=after)
                    found += [one.id for one in page]
                    if after is None:
                        break
                assert found == whole, order
                assert len(set(found)) == 23
        downwards = [one.id for one in unit.machines.page(MachineQuery(), NOW, sort="-severity")[0]]
        upwards = [one.id for one in unit.machines.page(MachineQuery(), NOW, sort="severity")[0]]
        assert downwards == upwards[::-1]


FILTERS = [
    (MachineQuery(text="WEB"), ["m1", "m2"]),
    (MachineQuery(text="straSSE"), ["m3"]),
    (MachineQuery(text="100%_"), []),
    (MachineQuery(host="h2"), ["m3", "m2"]),
    (MachineQuery(hypervisor="vc1"), ["m3"]),
    (MachineQuery(state="off"), ["m2"]),
    (MachineQuery(tag="env:prod"), ["m1"]),
    (MachineQuery(tag="prod"), ["m1"]),
    (MachineQuery(tag="pro"), []),
    (MachineQuery(folder="/DC/vm/Web"), ["m1", "m2"]),
    (MachineQuery(folder="/DC/vm/We"), []),
    (MachineQuery(job="nächtlich"), ["m2"]),
    (MachineQuery(protection=("never", "excluded")), ["m3", "m1", "m2"]),
    (MachineQuery(protection=("protected",)), []),
    (MachineQuery(machines=()), []),
    (MachineQuery(machines=("web*",)), ["m1", "m2"]),
    (MachineQuery(machines=("WEB*",)), []),
    (MachineQuery(machines=("m3", "web-[!2]")), ["m3", "m1"]),
]


def test_filters_say_what_they_mean(catalog: Catalog) -> None:
    show(
        catalog,
        seen("m1", "web-1", folder="/DC/vm/Web", tags=("env:prod",)),
        seen("m2", "web-2", folder="/DC/vm/Web/Old", host="h2", state=PowerState.OFF, jobs=("nächtlich",)),
        seen("m3", "Straße", host="h2", hypervisor="vc1", tags=("env:product",)),
    )
    for query, wanted in FILTERS:
        assert names(catalog, query) == wanted, query
        with catalog.transaction(write=False) as unit:
            assert sum(unit.machines.counts(query, NOW).values()) == len(wanted), query
            assert [leaf.id for leaf in unit.machines.leaves(query, NOW)] == wanted, query


PATTERNS = [
    "*",
    "web*",
    "?eb",
    "*-[0-3]",
    "[!w]*",
    "[]]x",
    "[a",
    "a.b",
    "a[.]b",
    "w\\*",
    "*\n*",
    "[^w]*",
    "[[]x",
    "w?b-*",
]
TEXTS = ["web", "web-1", "Web", "]x", "[a", "a.b", "axb", "db", "w\\x", "a\nb", "^x", "[x", "web-9", ""]


def test_patterns_of_machines_mean_the_same_in_the_database(catalog: Catalog) -> None:
    show(catalog, *(seen(f"m{n}", text or " ") for n, text in enumerate(TEXTS)))
    for pattern in PATTERNS:
        wanted = {f"m{n}" for n, text in enumerate(TEXTS) if fnmatchcase(text or " ", pattern)}
        assert set(names(catalog, MachineQuery(machines=(pattern,)))) == wanted, pattern


def test_a_place_that_no_list_gave_is_refused(catalog: Catalog) -> None:
    places: list[tuple[str, tuple[Any, ...]]] = [("newest", ("soon", "m1")), ("size", ("big", "m1"))]
    places += [("name", (1, "m1")), ("size", (2**70, "m1")), ("newest", (1, "m1"))]
    with catalog.transaction(write=False) as unit:
        for sort, after in places:
            with pytest.raises(ConfigurationError, match="cursor"):
                unit.machines.page(MachineQuery(), NOW, sort=sort, after=after)


def test_an_unknown_order_is_refused(catalog: Catalog) -> None:
    with catalog.transaction(write=False) as unit, pytest.raises(ConfigurationError, match="not sorted by"):
        unit.machines.page(MachineQuery(), NOW, sort="colour")


def test_facts_of_a_machine_are_the_newest_ones(catalog: Catalog) -> None:
    disks = (DiskFacts("vda", 7, "raw", "/x"), DiskFacts("vdb", 0, "raw", "", "disk-shared", "vdb: by two"))
    show(catalog, seen("m1", disks=disks[:1], pool="/p"))
    show(catalog, seen("m1", disks=disks, datastores=("ds2", "ds1"), attributes={"owner": "a"}))
    with catalog.transaction(write=False) as unit:
        facts = unit.machines.facts("m1")
        assert (facts.disks, facts.pool, facts.datastores, facts.attributes) == (
            disks,
            "",
            ("ds1", "ds2"),
            {"owner": "a"},
        )
        assert unit.machines.facts("m9").disks == ()


def held(catalog: Catalog) -> Iterable[str]:
    with catalog.transaction(write=False) as unit:
        return sorted(line.id for line in unit.points.page(PointQuery(held=True))[0])


def test_holds_and_verifications_are_those_of_the_repository(catalog: Catalog, make: Any) -> None:
    with catalog.transaction() as unit:
        for number in (1, 2, 3):
            unit.restore_points.add(make.point(number))
        unit.inventory.holds(["p1", "p2"])
    assert held(catalog) == ["p1", "p2"]
    with catalog.transaction() as unit:
        unit.inventory.holds(["p2", "p3", "of another repository"])
        unit.inventory.hold("p2", held=False)
        unit.inventory.judged([Judged("p3", "damaged", NOW), Judged("nobody's", "good", NOW)])
        unit.inventory.judged([])
        line = unit.points.get("p3")
    assert held(catalog) == ["p3"]
    assert line is not None
    assert (line.health, line.verified_at, line.held) == ("damaged", NOW, True)
