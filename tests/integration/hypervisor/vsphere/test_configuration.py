"""A machine's configuration taken from the real simulator, its NVRAM from the datastore."""

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.errors import MachineNotFound
from proxy.hypervisor.vsphere import collector, configuration, files
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from proxy.hypervisor.vsphere.settings import VsphereSettings
from proxy.hypervisor.vsphere.tags import Tag
from proxy.units import MiB
from tests.system.vcsim.lab import LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

MACHINES = (
    LabMachine(
        "web",
        (LabDisk(size=8 * MiB), LabDisk("nvme0:0", 12 * MiB, "thick")),
        folder="prod",
        firmware="efi",
        annotation="the shop",
        tags=("backup:gold",),
        attributes={"owner": "team-a"},
    ),
    LabMachine("old", (LabDisk(size=8 * MiB),)),
)

NVRAM = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VcsimLab]:
    with VcsimLab(tmp_path_factory.mktemp("configuration") / "lab", MACHINES) as found:
        yield found


@pytest.fixture(scope="module")
def vcenter(lab: VcsimLab) -> Iterator[Vcenter]:
    found = Vcenter(VsphereSettings("lab", lab.host, lab.user, lab.password_file, lab.port, lab.thumbprint))
    yield found
    found.close()


def machine(vcenter: Vcenter, name: str) -> Any:
    found = collector.find(vcenter, vim.VirtualMachine, ["name"])
    return next(one.object for one in found if one.get("name") == name)


def test_everything_that_a_restore_needs_is_taken(lab: VcsimLab, vcenter: Vcenter) -> None:
    saved = configuration.parse(configuration.capture(vcenter, lab.instance_uuid("web")))
    assert (saved.name, saved.identity) == ("web", lab.instance_uuid("web"))
    assert (saved.settings["firmware"], saved.settings["annotation"]) == ("efi", "the shop")
    assert (saved.tags, saved.attributes) == ((Tag("backup", "gold"),), {"owner": "team-a"})
    assert (saved.place["folder"], saved.place["vcenter"]) == ("/DC0/vm/prod", "lab")
    assert [(d.key, d.size, d.thin) for d in saved.disks] == [("scsi0:0", 8 * MiB, True), ("nvme0:0", 12 * MiB, False)]
    live = machine(vcenter, "web").config.hardware.device
    assert [d["key"] for d in saved.devices] == [d.key for d in live]
    macs = [d.macAddress for d in live if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    assert [nic.mac for nic in saved.nics] == macs
    assert all(nic.network for nic in saved.nics)


def test_the_password_is_nowhere_in_it(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter, "old")
    secret = vim.option.OptionValue(key="RemoteDisplay.vnc.password", value="geheim")
    one.ReconfigVM_Task(spec=vim.vm.ConfigSpec(extraConfig=[secret]))
    taken = configuration.capture(vcenter, lab.instance_uuid("old"))
    assert "geheim" not in taken.text
    assert lab.password not in taken.text
    assert "RemoteDisplay.vnc.password" in configuration.parse(taken).left_out


def test_the_firmwares_variables_are_taken_whole(lab: VcsimLab, vcenter: Vcenter) -> None:
    files.write(vcenter, "DC0", "[san1] web/web.nvram", NVRAM)
    assert files.read(vcenter, "DC0", "[san1] web/web.nvram", len(NVRAM)) == NVRAM
    one = machine(vcenter, "web")
    name = vim.option.OptionValue(key="nvram", value="web.nvram")
    one.ReconfigVM_Task(spec=vim.vm.ConfigSpec(extraConfig=[name]))
    taken = configuration.capture(vcenter, lab.instance_uuid("web"))
    assert taken.nvram == NVRAM
    assert configuration.parse(taken).nvram_path == "[san1] web/web.nvram"


def test_a_machine_without_them_is_taken_all_the_same(lab: VcsimLab, vcenter: Vcenter) -> None:
    one = machine(vcenter, "old")
    name = vim.option.OptionValue(key="nvram", value="gone.nvram")
    one.ReconfigVM_Task(spec=vim.vm.ConfigSpec(extraConfig=[name]))
    taken = configuration.capture(vcenter, lab.instance_uuid("old"))
    assert taken.nvram is None
    assert configuration.parse(taken).name == "old"


def test_a_file_is_read_after_the_session_has_ended(lab: VcsimLab, vcenter: Vcenter) -> None:
    files.write(vcenter, "DC0", "[san1] web/a b+ü.nvram", b"x")
    lab.expire_sessions()
    assert files.read(vcenter, "DC0", "[san1] web/a b+ü.nvram", 10) == b"x"


def test_a_file_that_is_not_there_is_none_and_one_too_large_is_refused(vcenter: Vcenter) -> None:
    assert files.read(vcenter, "DC0", "[san1] web/nothing", 10) is None
    files.write(vcenter, "DC0", "[san1] web/large", b"x" * 100)
    with pytest.raises(Refused) as error:
        files.read(vcenter, "DC0", "[san1] web/large", 99)
    assert error.value.refusal is Refusal.FILE


def test_a_machine_that_is_not_there_is_told(vcenter: Vcenter) -> None:
    with pytest.raises(MachineNotFound):
        configuration.capture(vcenter, "00000000-0000-0000-0000-000000000000")
