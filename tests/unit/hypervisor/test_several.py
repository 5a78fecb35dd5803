"""Several sites as one Hypervisor: each machine is answered for by its own, and a silent site hides nobody else's."""

import pytest

from proxy.errors import ConfigurationError, HostUnreachable, HypervisorError, MachineNotFound
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.model import MachineConfiguration, ReasonCode, SnapshotRequest
from proxy.ports import DiskPlace, Hypervisor, NewMachine


class Pair:
    """Two sites with a machine each."""

    def __init__(self) -> None:
        self.left = MemoryHypervisor(name="left")
        self.right = MemoryHypervisor(["h3"], name="right")
        self.web = self.left.add("web", {"vda": bytes(4096)})
        self.db = self.right.add("db", {"vda": bytes(8192)})
        self.defined_by: Hypervisor | None = self.right
        self.sites = Sites([self.left, self.right], lambda _configuration, _new: self.defined_by)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_all_machines_are_listed_and_each_is_its_own_sites(pair: Pair) -> None:
    assert {machine.name for machine in pair.sites.machines()} == {"web", "db"}
    assert pair.sites.of(pair.web) is pair.left
    assert pair.sites.of(pair.db) is pair.right
    assert pair.sites.machine(pair.db).host == "h3"
    assert pair.sites.name == "left, right"


def test_a_machine_is_found_without_a_listing(pair: Pair) -> None:
    assert pair.sites.machine(pair.db).name == "db"
    with pytest.raises(MachineNotFound):
        pair.sites.machine("nobody")


def test_a_silent_site_is_named_and_the_others_machines_are_shown(pair: Pair) -> None:
    pair.right.silent = {"h3"}
    assert [machine.name for machine in pair.sites.machines()] == ["web"]
    assert "right" in pair.sites.unreachable()
    pair.right.fail(1, HostUnreachable("h3", "no route"), call="machine")
    with pytest.raises(HostUnreachable):
        pair.sites.machine("a machine that the silent site may have")
    pair.left.silent = {"h1", "h2"}
    with pytest.raises(HostUnreachable):
        pair.sites.machines()


def test_a_machine_that_went_to_another_site_is_found_there(pair: Pair) -> None:
    assert pair.sites.of(pair.web) is pair.left
    pair.left.remove(pair.web)
    moved = pair.right.add("web", {"vda": bytes(4096)})
    pair.sites.machines()
    assert pair.sites.of(moved) is pair.right


def test_snapshots_go_to_the_machines_site_and_back(pair: Pair) -> None:
    snapshot = pair.sites.snapshot(SnapshotRequest("run-1", pair.db, ("vda",)))
    assert pair.right.leftovers == ("run-1",)
    assert pair.left.leftovers == ()
    pair.sites.confirm(snapshot)
    pair.sites.release(snapshot, sealed=True)
    assert pair.right.leftovers == ()


def test_a_site_that_cannot_be_swept_keeps_no_other_from_it(pair: Pair) -> None:
    pair.sites.snapshot(SnapshotRequest("run-1", pair.db, ("vda",)))
    pair.left.fail(1, HypervisorError("left", "no"), call="sweep")
    codes = [reason.code for reason in pair.sites.sweep(list)]
    assert ReasonCode.LEFTOVER_REMOVED in codes
    assert codes[-1] is ReasonCode.SWEEP_INCOMPLETE
    assert pair.right.leftovers == ()
    pair.left.fail(1, HypervisorError("left", "no"), call="sweep")
    with pytest.raises(HypervisorError):
        pair.sites.sweep(list)


def test_who_defines_a_machine_is_asked_and_nobody_is_an_error(pair: Pair) -> None:
    configuration = pair.sites.configuration(pair.db)
    pair.right.remove(pair.db)
    new = NewMachine("db", "h3", {"vda": DiskPlace(path="memory:new")})
    pair.sites.check_define(configuration, new)
    assert pair.sites.define(configuration, new).name == "db"
    pair.defined_by = None
    with pytest.raises(ConfigurationError, match="libvirt-xml"):
        pair.sites.define(MachineConfiguration("libvirt-xml", ""), new)


def test_without_any_site_the_way_out_is_told() -> None:
    with pytest.raises(ConfigurationError, match="no hypervisor") as raised:
        Sites([], lambda _configuration, _new: None)
    assert "host add" in raised.value.hint
