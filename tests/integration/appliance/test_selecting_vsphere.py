"""Which machines jobs mean on a real vCenter (the simulator), beside a site without folders and tags."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import parse
from appliance.selecting import Sight, facts_of, look
from appliance.wiring import Services
from catalog.jobs.policy import Selection
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.hypervisor.several import Sites
from proxy.units import MiB
from tests.system.vcsim.lab import LabDatastore, LabDisk, LabMachine, VcsimLab

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root", "go")]

DISK = (LabDisk(size=8 * MiB),)
MACHINES = (
    LabMachine("web", DISK, folder="prod/web", tags=("backup:gold",), attributes={"owner": "team-a"}),
    LabMachine("shop", DISK, folder="prod/shop", tags=("backup:none",)),
    LabMachine("golden", DISK, power="poweredOff", template=True),
)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("selecting")
    with VcsimLab(home / "lab", MACHINES, (LabDatastore("san1", "VMFS", (2,)),)) as lab:
        text = f"""
[repository]
path = "{home}/repository"
unencrypted = true
[state]
directory = "{home}/state"
[[vcenter]]
name = "vc1"
host = "{lab.host}"
port = {lab.port}
user = "{lab.user}"
password_file = "{lab.password_file}"
thumbprint = "{lab.thumbprint}"
"""
        with Services(parse(text, home / "lanfree.toml")) as made:
            yield made


@pytest.fixture
def sight(services: Services) -> Sight:
    """Both sites."""
    kvm = MemoryHypervisor(["kvm1"], name="kvm")
    kvm.add("web-kvm", {"vda": bytes(4096)})
    assert services.vcenters is not None
    services.__dict__["hypervisor"] = Sites([kvm, *services.vcenters.sites.values()], lambda _configuration, _new: None)
    return look(services)


def chosen(sight: Sight, include: tuple[str, ...], exclude: tuple[str, ...] = ()) -> set[str]:
    selected = sight.choose(Selection(include=include, exclude=exclude))
    assert (selected.idle, dict(selected.silent)) == ((), {})
    return {each.machine.name for each in selected.machines}


def test_rules_reach_over_all_sites_and_each_has_its_own_words(sight: Sight) -> None:
    assert chosen(sight, ("name=web*",)) == {"web", "web-kvm"}
    assert chosen(sight, ("folder=prod", "host=kvm1")) == {"web", "shop", "web-kvm"}
    assert chosen(sight, ("tag=gold",)) == {"web"}
    assert chosen(sight, ("",), ("tag=backup:none", "template=true")) == {"web", "web-kvm"}
    assert chosen(sight, ("attribute=owner=team-*", "datastore=san1, name=shop")) == {"web", "shop"}


def test_places_are_named_as_the_meters_name_them(services: Services, sight: Sight) -> None:
    facts = facts_of(services)
    where = {machine.name: facts.of(machine) for machine in sight.machines}
    assert where["web"].places == ("vc1/san1",)
    assert where["web"].host
    assert where["web"].paths == frozenset(), "no target is configured"


def test_a_vcenter_that_refuses_hides_nobody_elses_machines(services: Services, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("not the password\n")
    wrong.chmod(0o600)
    kvm = MemoryHypervisor(["kvm1"], name="kvm")
    kvm.add("web-kvm", {"vda": bytes(4096)})
    section = services.settings.vcenter[0].model_copy(update={"password_file": wrong})
    with Services(services.settings.model_copy(update={"vcenter": (section,)})) as other:
        assert other.vcenters is not None
        other.__dict__["hypervisor"] = Sites([kvm, *other.vcenters.sites.values()], lambda _configuration, _new: None)
        selected = look(other).choose(Selection(include=("",)))
    assert [each.machine.name for each in selected.machines] == ["web-kvm"]
    assert "vc1" in selected.silent
    assert "not the password" not in str(selected.silent)
