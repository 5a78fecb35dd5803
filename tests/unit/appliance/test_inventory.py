from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config_serving import Accepted
from appliance.inventory import note_standings, place_text, refresh, refresh_if_old
from appliance.web.inventory_refresh import refresh as refresh_task
from appliance.wiring import Services
from catalog.inventory import OTHERS
from catalog.jobs.policy import Policy, Selection
from catalog.machine_list import ListedMachine, MachineQuery
from proxy.errors import Cancelled, HostUnreachable, HypervisorError
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import DeviceAddress, FileAddress, Location, LunAddress, NbdAddress, Reason, ReasonCode, VmdkAddress
from proxy.repository import PosixStore, create

pytestmark = pytest.mark.slow


@pytest.fixture
def memory() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def services(tmp_path: Path, memory: MemoryHypervisor) -> Iterator[Services]:
    (tmp_path / "repository").mkdir()
    create(PosixStore(tmp_path / "repository"), secret=None).close()
    text = (
        f'[repository]\npath = "{tmp_path}/repository"\nunencrypted = true\n[state]\ndirectory = "{tmp_path}/state"\n'
    )
    with Services(config.parse(text, tmp_path / "lanfree.toml")) as made:
        made.__dict__["hypervisor"] = Sites([memory], lambda _configuration, _new: None)
        yield made


def listed(services: Services) -> dict[str, ListedMachine]:
    """By name."""
    with services.catalog.transaction(write=False) as unit:
        return {one.name: one for one in unit.machines.page(MachineQuery(), services.clock.now())[0]}


def job(services: Services, name: str, *include: str, exclude: tuple[str, ...] = (), **policy: Any) -> None:
    said = Policy(select=Selection(include=include, exclude=exclude), **policy)
    with services.jobs.transaction() as unit:
        unit.jobs.add(name, said, datetime.now(UTC))


def test_jobs_say_who_protects_a_machine_and_within_which_time(services: Services, memory: MemoryHypervisor) -> None:
    for name in ("web", "db", "scratch"):
        memory.add(name, {"vda": b"x" * 512})
    job(services, "all", "", exclude=("name=scratch",), objective=50)
    job(services, "often", "name=db", objective=4)
    refresh(services)
    found = listed(services)
    assert {name: (one.jobs, one.objective) for name, one in found.items()} == {
        "db": (("all", "often"), 4.0),
        "scratch": ((), services.settings.coverage.objective),
        "web": (("all",), 50.0),
    }
    assert found["scratch"].excluded == "job all leaves it out: name=scratch"
    assert found["scratch"].protection == "excluded"


def test_what_a_person_accepts_is_no_alarm(services: Services, memory: MemoryHypervisor) -> None:
    memory.add("lab-1", {"vda": b"x" * 512})
    memory.add("lab-2", {"vda": b"x" * 512})
    accept = (Accepted(machine="lab-1", gap=("no-job", "no-restore-point"), why="thrown away each night"),)
    settings = services.settings
    coverage = settings.coverage.model_copy(update={"accept": accept})
    services.settings = settings.model_copy(update={"coverage": coverage})
    refresh(services)
    assert {name: one.excluded for name, one in listed(services).items()} == {
        "lab-1": "thrown away each night",
        "lab-2": "",
    }


def test_the_last_failure_is_a_run_or_a_task_that_never_began_one(services: Services, memory: MemoryHypervisor) -> None:
    web = memory.add("web", {"vda": b"x" * 512})
    now = services.clock.now()
    with services.catalog.transaction() as unit:
        unit.runs.start("r1", web, "web", "backup", now)
        unit.runs.finish("r1", now, error=HypervisorError("snapshot", "refused"))
    refresh(services)
    one = listed(services)["web"]
    assert (one.protection, one.failure, one.failed_at) == ("failed", "hypervisor", now)


def test_a_silent_host_keeps_its_machines_and_says_why(services: Services, memory: MemoryHypervisor) -> None:
    moved = memory.add("web", {"vda": b"x" * 512})
    memory.migrate(moved, "h2")
    refresh(services)
    memory.silent.add("h2")
    told = refresh(services)
    assert (told.machines, told.gone, dict(told.silent)) == (0, 0, {"h2": "silent"})
    assert (listed(services)["web"].state, listed(services)["web"].gone_at) == ("running", None)
    memory.silent.clear()
    memory.remove(moved)
    assert refresh(services).gone == 1
    assert listed(services) == {}


def test_all_silent_is_no_reason_to_forget_anybody(services: Services, memory: MemoryHypervisor) -> None:
    memory.add("web", {"vda": b"x" * 512})
    refresh(services)
    memory.fail(1, HostUnreachable("all", "no route"), call="machines")
    told = refresh(services)
    assert (told.gone, list(told.silent.values())) == (0, ["host all cannot be reached: no route"])
    assert list(listed(services)) == ["web"]


def test_without_any_hypervisor_there_is_nothing_to_see(services: Services) -> None:
    services.__dict__.pop("hypervisor")
    assert refresh(services).machines == 0


def test_another_proxys_look_is_good_enough(services: Services, memory: MemoryHypervisor) -> None:
    memory.add("web", {"vda": b"x" * 512})
    refresh_if_old(services)
    memory.add("db", {"vda": b"x" * 512})
    refresh_if_old(services)
    assert list(listed(services)) == ["web"]
    with services.catalog.transaction() as unit:
        known = unit.inventory.hypervisors()
        assert all(one.looked_at is not None for one in known)
    refresh(services)
    assert list(listed(services)) == ["db", "web"]


def test_a_hypervisor_that_only_another_proxy_knows_keeps_its_machines(
    services: Services, memory: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was just added to the configuration of one proxy, and not yet to that of the others."""
    new = memory.add("new", {"vda": b"x" * 512})
    memory.migrate(new, "added")
    refresh(services)  # as the proxy that has it
    memory.remove(new)
    old = memory.add("old", {"vda": b"x" * 512})
    memory.migrate(old, "h1")
    services.settings = services.settings.model_copy(update={"host": (config.Host(name="h1", uri="qemu:///system"),)})
    assert refresh(services).gone == 0
    assert sorted(listed(services)) == ["new", "old"]
    later = services.clock.now() + OTHERS
    monkeypatch.setattr(services.clock, "now", lambda: later)  # nobody looked there any more
    assert refresh(services).gone == 1
    assert sorted(listed(services)) == ["old"]
    with services.catalog.transaction(write=False) as unit:
        assert [one.name for one in unit.inventory.hypervisors()] == ["h1"]


def test_a_repository_that_is_away_takes_nothing_from_the_inventory(
    services: Services, memory: MemoryHypervisor, tmp_path: Path
) -> None:
    memory.add("web", {"vda": b"x" * 512})
    (tmp_path / "repository").rename(tmp_path / "elsewhere")
    refresh(services)
    assert list(listed(services)) == ["web"]
    note_standings(services, ["p1"])


def test_the_task_says_what_was_silent(services: Services, memory: MemoryHypervisor) -> None:
    memory.add("web", {"vda": b"x" * 512})
    memory.silent.add("h2")
    said: list[str] = []
    done = refresh_task(services, {}, cancelled=lambda: False, progress=None, say=said.append)
    assert done.problems == ("h2 did not answer: silent",)
    assert done.result == {"machines": 1, "new": 1, "gone": 0}
    assert said == ["asking all hypervisors"]
    with pytest.raises(Cancelled):
        refresh_task(services, {}, cancelled=lambda: True, progress=None, say=said.append)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (None, ""),
        (FileAddress("/a/b.qcow2"), "/a/b.qcow2"),
        (DeviceAddress("/dev/sdb"), "/dev/sdb"),
        (LunAddress("iqn.x", 3), "iqn.x/3"),
        (VmdkAddress("ds1", "vm/vm.vmdk"), "[ds1] vm/vm.vmdk"),
        (NbdAddress("nbd://user:secret@host/x"), "over NBD"),
    ],
)
def test_places_of_disks_are_for_people_and_hold_no_secret(location: Location | None, said: str) -> None:
    assert place_text(location) == said


def test_disks_say_why_no_restore_point_holds_them(services: Services, memory: MemoryHypervisor) -> None:
    why = Reason(ReasonCode.DISK_SHARED, "vdb: by two machines")
    machine = memory.add("web", {"vda": b"x" * 512, "vdb": b"y" * 512}, excluded={"vdb": why})
    refresh(services)
    with services.catalog.transaction(write=False) as unit:
        disks = {disk.key: (disk.excluded, disk.detail) for disk in unit.machines.facts(machine).disks}
    assert disks == {"vda": ("", ""), "vdb": ("disk-shared", "vdb: by two machines")}
