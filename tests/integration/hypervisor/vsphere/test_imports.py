"""Restores by import leases against the simulated vCenter: a machine is whole, or there is none, and no other is touched."""

import hashlib
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest

from proxy.errors import HypervisorError, RestoreRefused, WriteFailed
from proxy.hypervisor.vsphere import configuration, inventory, tasks
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import virtual_disks
from proxy.hypervisor.vsphere.exports import Exports
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.imports import Imports
from proxy.hypervisor.vsphere.inventory import Inventory, Machine
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.model import MachineConfiguration, PowerState
from proxy.ports import DiskPlace, NewMachine
from proxy.transport.nfc_target import ImportTargets
from proxy.units import MiB
from tests.integration.transport.tgt_array import until
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

NEW = "22222222-2222-4333-8444-555555555555"
HOST = "DC0_C0_H1"
MACHINES = (
    LabMachine(
        "web",
        (
            LabDisk(datastore="nfs1"),
            LabDisk("scsi0:1", 40 * MiB, "lazy", "nfs1"),
            LabDisk("nvme0:0", 8 * MiB, datastore="nfs1"),
        ),
        folder="prod/web",
        datastore="nfs1",
        annotation="the shop",
        firmware="efi",
        tags=("backup:gold",),
        attributes={"owner": "sales"},
    ),
    LabMachine("off", (LabDisk(size=8 * MiB, datastore="nfs1"),), power="poweredOff", datastore="nfs1"),
)
SIZES = {"scsi0:0": 64 * MiB, "scsi0:1": 40 * MiB, "nvme0:0": 8 * MiB}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    stores = (LabDatastore("nfs1", "NFS", ()), LabDatastore("nfs2", "NFS", ()))
    with VcsimLab(tmp_path_factory.mktemp("imports") / "lab", MACHINES, stores) as made:
        yield made


class Site:
    """A vCenter, and what every test does with it."""

    def __init__(self, lab: VcsimLab) -> None:
        self.lab = lab
        self.vcenter = Vcenter(
            VsphereSettings("lab", lab.host, lab.user, lab.password_file, port=lab.port, thumbprint=lab.thumbprint)
        )
        self.imports = Imports(self.vcenter)
        self.exports = Exports(self.vcenter)
        self.before = {m.id for m in self.seen().machines}

    def seen(self) -> Inventory:
        return inventory.read(self.vcenter, tags=True)

    def named(self, name: str) -> Machine:
        return next(m for m in self.seen().machines if m.machine.name == name)

    def new(self) -> list[str]:
        """Names of machines that were not there before."""
        return [m.machine.name for m in self.seen().machines if m.id not in self.before]

    def saved(self, machine: str = "web") -> MachineConfiguration:
        return configuration.capture(self.vcenter, self.lab.instance_uuid(machine))

    def live(self, machine: Machine) -> object:
        return self.vcenter.object(vim.VirtualMachine, machine.id)

    def targets(self, saved: MachineConfiguration, new: NewMachine) -> ImportTargets:
        return ImportTargets(self.imports.beginner("run-1", saved, new), self.exports.export, new.name)

    def upload(self, targets: ImportTargets, new: NewMachine, content: Mapping[str, bytes]) -> None:
        for key, place in new.disks.items():
            targets.open(place, len(content[key]), overwrite=False).close()
        for key, place in new.disks.items():
            with targets.open(place, len(content[key]), overwrite=False) as target:
                for start in range(0, len(content[key]), MiB):
                    target.write(start, memoryview(content[key])[start : start + MiB])
                target.flush()

    def clean(self) -> None:
        self.lab.mend()
        for machine in self.seen().machines:
            if machine.id not in self.before:
                with suppress(Refused):
                    task = self.live(machine).Destroy_Task()  # type: ignore[attr-defined]
                    tasks.wait(self.vcenter, task, "clean", limit=60)
        self.vcenter.close()


@pytest.fixture
def site(lab: VcsimLab) -> Iterator[Site]:
    made = Site(lab)
    yield made
    made.clean()


def places(*keys: str, datastore: str = "nfs2") -> dict[str, DiskPlace]:
    return {key: DiskPlace(datastore=datastore, disk=key) for key in keys}


def contents(**sizes: int) -> dict[str, bytes]:
    """A little data in much nothing."""
    made = {}
    for key, size in (sizes or SIZES).items():
        data = bytearray(size)
        data[: 3 * MiB] = random.Random(key).randbytes(3 * MiB)
        data[size - 70_000 :] = random.Random(key * 2).randbytes(70_000)
        made[key] = bytes(data)
    return made


def test_a_machine_is_imported_beside_its_original_and_reads_back(site: Site) -> None:
    saved, content = site.saved(), contents()
    new = NewMachine("web-copy", HOST, places(*SIZES), identity=NEW)
    site.imports.check_define(saved, new)
    with site.targets(saved, new) as targets:
        site.upload(targets, new, content)
        for key, place in new.disks.items():
            back = bytearray(len(content[key]))
            with targets.read_back(place, len(back)) as source:
                source.read_into(0, memoryview(back))
            assert back == content[key]
    assert site.imports.define(saved, new) == NEW
    made, old = site.named("web-copy"), site.named("web")
    assert (made.machine.id, made.machine.host, made.machine.state) == (NEW, HOST, PowerState.OFF)
    assert {d.key: d.size for d in made.machine.disks} == SIZES
    assert site.imports.unfinished() == []
    assert made.datastores == ("nfs2",)
    assert (made.folder, made.tags, made.attributes, made.hardware) == (
        old.folder,
        old.tags,
        old.attributes,
        old.hardware,
    )
    for key, data in content.items():
        assert site.lab.digest("web-copy", key) == hashlib.sha256(data).hexdigest()


def test_a_copy_is_off_disconnected_and_shares_nothing_that_must_be_unique(site: Site) -> None:
    saved = site.saved()
    new = NewMachine("web-copy", HOST, places("scsi0:0"), identity=NEW)
    with site.targets(saved, new) as targets:
        site.upload(targets, new, contents(**{"scsi0:0": 64 * MiB}))
    site.imports.define(saved, new)
    made, old = site.live(site.named("web-copy")).config, site.live(site.named("web")).config  # type: ignore[attr-defined]
    cards = [d for d in made.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    assert cards
    macs = {d.macAddress for d in old.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard)}
    for card in cards:
        assert not card.connectable.startConnected
        assert not card.connectable.connected
        assert card.macAddress not in macs
    assert made.uuid != old.uuid
    assert (made.annotation, made.firmware, made.guestId) == (old.annotation, old.firmware, old.guestId)
    assert not made.changeTrackingEnabled
    assert not [o for o in made.extraConfig if o.key.startswith("lanfree") and o.value]
    assert list(virtual_disks(made.hardware.device)) == ["scsi0:0"]


def test_thin_stays_thin_and_zeroes_do_not_cross_the_network(site: Site) -> None:
    saved = site.saved()
    new = NewMachine("thin", HOST, places("scsi0:0"), identity=NEW)
    site.lab.counters(reset=True)
    with site.targets(saved, new) as targets:
        site.upload(targets, new, contents(**{"scsi0:0": 64 * MiB}))
    site.imports.define(saved, new)
    assert site.lab.counters()["Written"] < 4 * MiB
    disk = virtual_disks(site.live(site.named("thin")).config.hardware.device)["scsi0:0"]  # type: ignore[attr-defined]
    assert disk.backing.thinProvisioned


def test_over_its_original_that_is_off_the_original_steps_aside_whole(site: Site) -> None:
    saved, identity = site.saved("off"), site.lab.instance_uuid("off")
    old = site.named("off")
    bios = site.live(old).config.uuid  # type: ignore[attr-defined]
    before = site.lab.digest("off", "scsi0:0")
    content = contents(**{"scsi0:0": 8 * MiB})
    new = NewMachine("off", old.machine.host, places("scsi0:0"))
    try:
        with site.targets(saved, new) as targets:
            site.upload(targets, new, content)
            assert site.named("off").id == old.id  # until it is defined
        assert site.imports.define(saved, new) == identity
        made = site.named("off")
        assert (made.machine.id, made.id != old.id) == (identity, True)
        assert site.live(made).config.uuid == bios  # type: ignore[attr-defined]
        aside = next(m for m in site.seen().machines if m.id == old.id)
        assert aside.machine.name.startswith("off (before restore ")
        assert aside.machine.id != identity
        assert [d.location for d in aside.machine.disks] == [d.location for d in old.machine.disks]
        assert site.lab.digest("off", "scsi0:0") == hashlib.sha256(content["scsi0:0"]).hexdigest()
        assert site.lab.digest(old.id, "scsi0:0") == before
    finally:
        made_task = site.live(site.named("off")).Destroy_Task()  # type: ignore[attr-defined]
        tasks.wait(site.vcenter, made_task, "clean", limit=60)
        spec = vim.vm.ConfigSpec(name="off", uuid=bios, instanceUuid=identity)
        tasks.wait(site.vcenter, site.live(old).ReconfigVM_Task(spec), "back", limit=60)  # type: ignore[attr-defined]


def test_nvram_is_put_back(site: Site) -> None:
    saved = site.saved("off")
    saved = MachineConfiguration(saved.kind, saved.text, nvram=b"variables of the firmware" * 100)
    new = NewMachine("efi", HOST, places("scsi0:0"), identity=NEW)
    with site.targets(saved, new) as targets:
        site.upload(targets, new, contents(**{"scsi0:0": 8 * MiB}))
    site.imports.define(saved, new)
    again = configuration.capture(site.vcenter, NEW)
    assert again.nvram == saved.nvram


def test_another_place_folder_pool_and_network(site: Site) -> None:
    saved = site.saved()
    network = configuration.parse(saved).networks[0]
    others = [n.name for n in site.vcenter.content.rootFolder.childEntity[0].network if n.name != network]
    group = next(name for name in others if "Uplink" not in name)
    new = NewMachine(
        "elsewhere",
        "DC0_C0",
        places("scsi0:0"),
        identity=NEW,
        connected=True,
        folder="/DC0/vm/prod",
        pool="/DC0/host/DC0_C0/Resources/DC0_C0_RP1",
        networks={network: group},
    )
    with site.targets(saved, new) as targets:
        site.upload(targets, new, contents(**{"scsi0:0": 64 * MiB}))
    site.imports.define(saved, new)
    made = site.named("elsewhere")
    assert (made.folder, made.pool) == (new.folder, new.pool)
    live = site.live(made)
    assert [n.name for n in live.network] == [group]  # type: ignore[attr-defined]
    cards = [d for d in live.config.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard)]  # type: ignore[attr-defined]
    assert all(card.connectable.startConnected for card in cards)


def test_a_machine_of_disks_that_lie_there_already(site: Site) -> None:
    saved = site.saved("off")
    device = virtual_disks(site.live(site.named("off")).config.hardware.device)["scsi0:0"]  # type: ignore[attr-defined]
    path = device.backing.fileName.split("] ")[1]
    new = NewMachine("attached", HOST, {"scsi0:0": DiskPlace(datastore="nfs1", path=path)}, identity=NEW)
    assert site.imports.define(saved, new) == NEW
    made = site.named("attached")
    assert [d.key for d in made.machine.disks] == ["scsi0:0"]
    assert site.lab.digest("attached", "scsi0:0") == site.lab.digest("off", "scsi0:0")
    without = NewMachine("attached", HOST, {}, identity=NEW)
    assert site.imports.define(saved, without) == NEW
    assert site.named("attached").machine.disks == ()
    tasks.wait(site.vcenter, site.live(site.named("attached")).Destroy_Task(), "x", limit=60)  # type: ignore[attr-defined]
    for machine in site.seen().machines:
        if machine.id not in site.before:
            site.live(machine).UnregisterVM()  # type: ignore[attr-defined]  # its disk is another's


# --- refusals ---


@pytest.mark.parametrize(
    ("machine", "changed", "words"),
    [
        ("web", {"host": "nowhere"}, "no host or cluster nowhere"),
        ("web", {"disks": places("scsi0:0", datastore="nothing")}, "no datastore nothing"),
        ("web", {"disks": places("scsi3:0")}, "no disk scsi3:0"),
        ("web", {"folder": "/DC0/vm/nothing"}, "no folder"),
        ("web", {"pool": "/DC0/host/DC0_C0/Resources/nothing"}, "no resource pool"),
        ("web", {"networks": {"VM Network": "nothing"}}, "no network nothing"),
        ("web", {"name": "off"}, "the name is taken"),
        ("web", {"name": "web"}, "the name is taken"),
        ("web", {"identity": None, "name": "web-again"}, "which is running"),
        ("web", {"disks": {"scsi0:0": DiskPlace(path="/images/a")}}, "lies in a datastore"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    site: Site, machine: str, changed: dict[str, object], words: str
) -> None:
    saved = site.saved(machine)
    facts: dict[str, object] = {"name": "new", "host": HOST, "disks": places("scsi0:0"), "identity": NEW}
    new = NewMachine(**{**facts, **changed})  # type: ignore[arg-type]
    for call in (site.imports.check_define, site.imports.define):
        with pytest.raises(RestoreRefused, match=words):
            call(saved, new)
    with pytest.raises(RestoreRefused, match=words):
        site.imports.beginner("run-1", saved, new)(
            {key: 64 * MiB for key, place in new.disks.items() if not place.path}
        )
    assert site.new() == []


def test_a_disk_that_was_not_named_is_not_made(site: Site) -> None:
    saved, new = site.saved(), NewMachine("new", HOST, places("scsi0:0"), identity=NEW)
    for sizes in ({}, {"scsi0:1": MiB}, {"scsi0:0": MiB, "scsi0:1": MiB}):
        with pytest.raises(RestoreRefused, match="was not named"):
            site.imports.beginner("run-1", saved, new)(sizes)
    assert site.new() == []


def test_a_configuration_of_another_kind_is_refused(site: Site) -> None:
    new = NewMachine("new", HOST, {}, identity=NEW)
    for saved in (MachineConfiguration("libvirt-xml", "<domain/>"), MachineConfiguration("vsphere-json", "{")):
        with pytest.raises(RestoreRefused):
            site.imports.check_define(saved, new)


def test_a_mac_address_that_somebody_else_has_is_refused(site: Site) -> None:
    saved, identity = site.saved("off"), site.lab.instance_uuid("off")
    old = site.named("off")
    spec = vim.vm.ConfigSpec(instanceUuid=NEW, name="renamed")
    tasks.wait(site.vcenter, site.live(old).ReconfigVM_Task(spec), "x", limit=60)  # type: ignore[attr-defined]
    try:
        with pytest.raises(RestoreRefused, match="MAC address"):
            site.imports.check_define(saved, NewMachine("off", HOST, places("scsi0:0")))
        other = NewMachine("off", HOST, places("scsi0:0"), identity="33333333-2222-4333-8444-555555555555")
        site.imports.check_define(saved, other)
    finally:
        back = vim.vm.ConfigSpec(instanceUuid=identity, name="off")
        tasks.wait(site.vcenter, site.live(old).ReconfigVM_Task(back), "x", limit=60)  # type: ignore[attr-defined]


# --- faults: nothing half of it stays ---


def test_an_import_that_the_host_aborts_leaves_no_machine(site: Site) -> None:
    saved = site.saved()
    new = NewMachine("gone", HOST, places("scsi0:0"), identity=NEW)
    site.lab.fault("import-aborted", times=1, value=200_000)
    with site.targets(saved, new) as targets, pytest.raises(WriteFailed) as error:
        site.upload(targets, new, contents(**{"scsi0:0": 64 * MiB}))
    assert "nfc-" not in str(error.value)
    assert site.new() == []


def test_a_restore_that_ends_in_the_middle_leaves_no_machine(site: Site) -> None:
    saved, content = site.saved(), contents()
    new = NewMachine("gone", HOST, places(*SIZES), identity=NEW)
    with site.targets(saved, new) as targets:
        for key, place in new.disks.items():
            targets.open(place, SIZES[key], overwrite=False).close()
        with targets.open(new.disks["scsi0:0"], SIZES["scsi0:0"], overwrite=False) as target:
            target.write(0, memoryview(content["scsi0:0"])[:MiB])
            assert site.new() == ["gone"]
            with pytest.raises(Refused):
                tasks.wait(site.vcenter, site.live(site.named("gone")).PowerOnVM_Task(), "start", limit=60)  # type: ignore[attr-defined]
    assert site.new() == []


def test_a_lease_that_is_refused_is_told_and_leaves_no_machine(site: Site) -> None:
    saved = site.saved()
    new = NewMachine("gone", HOST, places("scsi0:0"), identity=NEW)
    site.lab.fault("lease-refused", times=1)
    with site.targets(saved, new) as targets, pytest.raises(HypervisorError, match="no NFC connection left"):
        site.upload(targets, new, contents(**{"scsi0:0": 64 * MiB}))
    assert site.new() == []


@pytest.mark.parametrize("loss", ["lease", "vcenter"])
def test_an_import_that_is_lost_on_the_way_leaves_no_machine(site: Site, loss: str) -> None:
    saved, content = site.saved(), contents(**{"scsi0:0": 64 * MiB})["scsi0:0"]
    new = NewMachine("lost", HOST, places("scsi0:0"), identity=NEW)
    with site.targets(saved, new) as targets, targets.open(new.disks["scsi0:0"], 64 * MiB, overwrite=False) as target:
        target.write(0, memoryview(content)[:MiB])
        if loss == "lease":
            site.lab.lose_leases("lost")
        else:
            site.lab.restart_vcenter(0.3)
        with pytest.raises((WriteFailed, HypervisorError)):
            target.write(MiB, memoryview(content)[MiB:])
            target.flush()
    assert site.new() == []


def test_an_original_that_stepped_aside_comes_back_when_the_new_one_cannot_be_defined(site: Site) -> None:
    saved, old = site.saved("off"), site.named("off")
    new = NewMachine("off", old.machine.host, places("scsi0:0"))
    with site.targets(saved, new) as targets:
        site.upload(targets, new, contents(**{"scsi0:0": 8 * MiB}))
    site.lab.fault("call-refused", machine="off (restore run-1)", times=1, value="ReconfigVM_Task")
    with pytest.raises(HypervisorError):
        site.imports.define(saved, new)
    again = site.named("off")
    assert (again.id, again.machine.id) == (old.id, old.machine.id)
    assert site.new() == ["off (restore run-1)"]
    assert site.imports.unfinished() == [("off (restore run-1)", "run-1")]


def test_a_slow_restore_keeps_its_lease_and_a_dead_ones_machine_goes_by_itself(site: Site) -> None:
    saved, content = site.saved("off"), contents(**{"scsi0:0": 8 * MiB})
    new = NewMachine("slow", HOST, places("scsi0:0"), identity=NEW)
    site.lab.fault("lease-timeout", value=1)
    with site.targets(saved, new) as targets, targets.open(new.disks["scsi0:0"], 8 * MiB, overwrite=False) as target:
        target.write(0, memoryview(content["scsi0:0"])[:MiB])
        end = time.monotonic() + 2.5
        until(lambda: time.monotonic() > end or site.new() != ["slow"], 10, "some time passed")
        target.write(MiB, memoryview(content["scsi0:0"])[MiB:])
        target.flush()
    assert site.imports.define(saved, new) == NEW
    assert site.lab.digest("slow", "scsi0:0") == hashlib.sha256(content["scsi0:0"]).hexdigest()
    dead = NewMachine("dead", HOST, places("scsi0:0"), identity=NEW[:-1] + "6")
    begun = site.imports.beginner("run-2", saved, dead)({"scsi0:0": 8 * MiB})
    assert "dead" in site.new()
    begun._lease._stop()  # as if the process was killed: no sign of life any more
    until(lambda: "dead" not in site.new(), 20, "the host gave up on the lease")
