"""Where restores can go, asked of a real vCenter (the simulator) and a real iSCSI target."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.auth.roles import Caller, Permission
from appliance.config import parse
from appliance.web.restore_places import Places
from appliance.wiring import Services
from proxy.units import MiB
from tests.integration.transport.tgt_array import RESTORE, Array, disk_image
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (LabMachine("web", (LabDisk(size=8 * MiB),)),)
STORES = (LabDatastore("san1", "VMFS", (2,)), LabDatastore("nfs1", "NFS", ()))
CALLER = Caller("alice", frozenset(Permission))


@pytest.fixture
def array(tmp_path: Path) -> Iterator[Array]:
    """A target that restores may write to, with two units."""
    made = Array()
    try:
        made.start()
        made.target(1, RESTORE)
        made.lun(1, 1, disk_image(tmp_path / "one.img", 32 * MiB), "lanfree-one")
        made.lun(1, 2, disk_image(tmp_path / "two.img", 48 * MiB), "lanfree-two")
        yield made
    finally:
        made.stop()


@pytest.fixture
def services(tmp_path: Path, array: Array) -> Iterator[Services]:
    with VcsimLab(tmp_path / "lab", MACHINES, STORES) as lab:
        portals = ", ".join(f'"{portal}"' for portal in array.portals)
        text = f"""
[repository]
path = "{tmp_path}/repository"
unencrypted = true
[state]
directory = "{tmp_path}/state"
[[vcenter]]
name = "vc1"
host = "{lab.host}"
port = {lab.port}
user = "{lab.user}"
password_file = "{lab.password_file}"
thumbprint = "{lab.thumbprint}"
[[san.target]]
iqn = "{RESTORE}"
portals = [{portals}]
access = "restore"
"""
        with Services(parse(text, tmp_path / "lanfree.toml")) as made:
            yield made


def test_hosts_datastores_networks_and_units_are_told_with_their_room(services: Services, array: Array) -> None:
    places = Places(services)
    seen = places.look(CALLER)
    assert seen.problems == ()
    assert [(lun.target, lun.lun, lun.size) for lun in seen.luns] == [
        (RESTORE, 1, 32 * MiB),
        (RESTORE, 2, 48 * MiB),
    ]
    assert services.vcenters is not None
    hosts = {host.name for host in seen.hosts}
    assert {machine.host for machine in services.hypervisor.machines()} < hosts, "also hosts without machines"
    assert {(host.hypervisor, host.kind, host.silent) for host in seen.hosts} == {("vc1", "vsphere", "")}
    stores = {store.name: store for store in seen.datastores}
    assert {"san1", "nfs1"} <= set(stores), "also one on which no machine lies"
    assert all(store.hypervisor == "vc1" and store.capacity for store in stores.values())
    assert any(store.hosts and set(store.hosts) <= hosts for store in stores.values())
    assert "VM Network" in seen.networks
    array.kill()
    assert places.look(CALLER) == seen, "nobody is asked again within a minute"


def test_what_is_away_is_a_problem_and_not_an_error(services: Services, array: Array) -> None:
    array.kill()
    seen = Places(services).look(CALLER)
    assert seen.luns == ()
    assert any(RESTORE in problem for problem in seen.problems)
    assert seen.datastores
