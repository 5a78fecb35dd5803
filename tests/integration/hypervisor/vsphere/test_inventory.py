"""The inventory of the real simulator: every kind of disk, datastore and machine, tags and attributes, places."""

from collections.abc import Iterator

import pytest

from proxy.errors import MachineNotFound
from proxy.hypervisor.vsphere import collector, inventory
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.inventory import Inventory
from proxy.hypervisor.vsphere.selection import Rule, select
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.hypervisor.vsphere.tags import Tag, TagService
from proxy.hypervisor.vsphere.targets import read_targets
from proxy.model import PowerState, ReasonCode, VmdkAddress
from proxy.units import MiB
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (
    LabMachine(
        "web",
        (LabDisk(size=8 * MiB), LabDisk("nvme0:0", 8 * MiB), LabDisk("sata0:2", 8 * MiB, "thick")),
        folder="prod/web",
        tags=("backup:gold", "site:berlin"),
        attributes={"owner": "team-a"},
    ),
    LabMachine(
        "cluster",
        (
            LabDisk("scsi0:0", 8 * MiB),
            LabDisk("scsi0:1", 8 * MiB, mode="independent_persistent"),
            LabDisk("scsi0:2", 8 * MiB, rdm="physicalMode"),
            LabDisk("scsi0:3", 8 * MiB, rdm="virtualMode"),
            LabDisk("scsi0:4", 8 * MiB, sharing="sharingMultiWriter"),
            LabDisk("scsi1:0", 8 * MiB, sharing="physicalSharedBus"),
            LabDisk("scsi0:6", 8 * MiB, datastore="nfs1"),
        ),
        tools="guestToolsNotRunning",
    ),
    LabMachine("vault", (LabDisk(size=8 * MiB, encrypted=True),)),
    LabMachine("golden", (LabDisk(size=8 * MiB),), power="poweredOff", template=True),
    LabMachine("asleep", (LabDisk(size=8 * MiB),), power="suspended", tags=("backup:gold",)),
)

STORES = (LabDatastore("san1", "VMFS", (2, 2)), LabDatastore("nfs1", "NFS", ()), LabDatastore("v", "vsan", ()))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("inventory") / "lab", MACHINES, STORES) as found:
        yield found


@pytest.fixture(scope="module")
def vcenter(lab: VcsimLab) -> Iterator[Vcenter]:
    found = Vcenter(VsphereSettings("lab", lab.host, lab.user, lab.password_file, lab.port, lab.thumbprint))
    yield found
    found.close()


@pytest.fixture
def shown(vcenter: Vcenter) -> Inventory:
    return inventory.read(vcenter)


def named(shown: Inventory, name: str) -> inventory.Machine:
    return next(m for m in shown.machines if m.machine.name == name)


def test_every_machine_and_template_is_there_once_by_instance_uuid(lab: VcsimLab, shown: Inventory) -> None:
    assert {m.machine.name: m.machine.id for m in shown.machines} == {
        machine.name: lab.instance_uuid(machine.name).lower() for machine in MACHINES
    }
    assert not shown.unreadable
    states = {m.machine.name: (m.machine.state, m.template) for m in shown.machines}
    assert states == {
        "web": (PowerState.RUNNING, False),
        "cluster": (PowerState.RUNNING, False),
        "vault": (PowerState.RUNNING, False),
        "golden": (PowerState.OFF, True),
        "asleep": (PowerState.SUSPENDED, False),
    }
    assert {m.machine.name for m in shown.machines if m.machine.agent} >= {"web"}
    assert not named(shown, "cluster").machine.agent


def test_disks_are_named_by_controller_bus_and_unit(shown: Inventory) -> None:
    assert [d.key for d in named(shown, "web").machine.disks] == ["nvme0:0", "sata0:2", "scsi0:0"]
    assert {d.size for d in named(shown, "web").machine.disks} == {8 * MiB}


def test_what_a_snapshot_cannot_hold_is_excluded_loudly(shown: Inventory) -> None:
    reasons = {d.key: d.excluded.code if d.excluded else None for d in named(shown, "cluster").machine.disks}
    assert reasons == {
        "scsi0:0": None,
        "scsi0:1": ReasonCode.DISK_INDEPENDENT,
        "scsi0:2": ReasonCode.DISK_PASSTHROUGH,
        "scsi0:3": None,
        "scsi0:4": ReasonCode.DISK_SHARED,
        "scsi0:6": None,
        "scsi1:0": ReasonCode.DISK_SHARED,
    }


def test_places_of_disks_name_volume_and_luns(lab: VcsimLab, shown: Inventory) -> None:
    places = {d.key: d.location for d in named(shown, "cluster").machine.disks}
    plain, mapped, shared = (places[key] for key in ("scsi0:0", "scsi0:3", "scsi0:6"))
    [secret] = [d.location for d in named(shown, "vault").machine.disks]
    assert isinstance(plain, VmdkAddress)
    assert (plain.site, plain.datastore, plain.kind, plain.volume) == ("lab", "san1", "VMFS", lab.uuids["san1"])
    assert plain.devices == tuple(lab.names["san1"])
    assert len(plain.devices) == 2
    assert plain.path.startswith("cluster/")
    assert isinstance(mapped, VmdkAddress)
    assert mapped.kind == "RDM"
    assert isinstance(secret, VmdkAddress)
    assert secret.encrypted
    assert not plain.encrypted
    assert isinstance(shared, VmdkAddress)
    assert (shared.datastore, shared.kind, shared.devices) == ("nfs1", "NFS", ())


def test_datastores_hosts_folders_and_pools_are_there(shown: Inventory) -> None:
    assert {s.name: s.kind for s in shown.datastores if s.name in {"san1", "nfs1", "v"}} == {
        "san1": "VMFS",
        "nfs1": "NFS",
        "v": "vsan",
    }
    assert {h.cluster for h in shown.hosts} == {"DC0_C0", "DC0_H0"}
    assert "/DC0/vm/prod/web" in shown.folders
    assert "/DC0/host/DC0_C0/Resources" in shown.pools
    assert named(shown, "web").folder == "/DC0/vm/prod/web"
    assert named(shown, "web").datacenter == "DC0"
    assert named(shown, "web").vmx == "[san1] web/web.vmx"


def test_tags_and_attributes_are_there(shown: Inventory) -> None:
    assert shown.without_tags == ""
    assert named(shown, "web").tags == (Tag("backup", "gold"), Tag("site", "berlin"))
    assert named(shown, "golden").tags == ()
    assert named(shown, "web").attributes == {"owner": "team-a"}


def test_tags_can_be_put_on_a_machine(vcenter: Vcenter, shown: Inventory) -> None:
    with TagService(vcenter) as service:
        missing = service.attach(
            "VirtualMachine", named(shown, "cluster").id, [Tag("site", "berlin"), Tag("site", "rome")]
        )
    assert missing == (Tag("site", "rome"),)
    assert named(inventory.read(vcenter), "cluster").tags == (Tag("site", "berlin"),)


def test_one_machine_is_the_same_as_in_the_whole(vcenter: Vcenter, lab: VcsimLab) -> None:
    whole = inventory.read(vcenter)
    for machine in whole.machines:
        assert inventory.read_machine(vcenter, machine.machine.id, tags=True) == machine
    with pytest.raises(MachineNotFound):
        inventory.read_machine(vcenter, "00000000-0000-0000-0000-000000000000")


def test_pages_are_put_together(vcenter: Vcenter, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inventory.read(vcenter)
    monkeypatch.setattr(collector, "PAGE", 1)
    assert inventory.read(vcenter) == whole


def test_surroundings_name_places_as_the_inventory_does(vcenter: Vcenter, shown: Inventory) -> None:
    web = named(shown, "web")
    around = inventory.surroundings(vcenter, vcenter.object(vim.VirtualMachine, web.id))
    assert around.machine == web.id
    assert {s.name: (s.volume, s.devices) for s in around.datastores.values()} == {
        s.name: (s.volume, s.devices) for s in shown.datastores if s.name in web.datastores
    }


def test_a_selection_is_made_of_it(shown: Inventory) -> None:
    gold = select(shown, [Rule(tag="backup:gold")], [Rule(state=PowerState.SUSPENDED)])
    assert [c.machine.machine.name for c in gold.machines] == ["web"]
    assert [c.machine.machine.name for c in gold.excluded] == ["asleep"]
    stores = select(shown, [Rule(datastore="nfs*"), Rule(folder="prod"), Rule(pool="nowhere")])
    assert [c.machine.machine.name for c in stores.machines] == ["cluster", "web"]
    assert stores.idle == (Rule(pool="nowhere"),)


def test_where_a_restored_machine_can_go_is_told_by_three_questions(vcenter: Vcenter, shown: Inventory) -> None:
    found = read_targets(vcenter)
    assert dict(found.hosts) == {host.name: "" for host in shown.hosts}
    assert [(s.name, s.capacity, s.free) for s in found.datastores] == [
        (s.name, s.capacity, s.free) for s in shown.datastores
    ]
    usable = {store.id for store in found.datastores if found.mounted[store.id]}
    assert usable, "a datastore is mounted by the hosts that have it"
    assert all(set(names) <= set(found.hosts) for names in found.mounted.values())
    assert "VM Network" in found.networks
