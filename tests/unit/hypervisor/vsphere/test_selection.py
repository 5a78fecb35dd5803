"""Which machines a job means is found out when it runs, and said loudly where it is nobody."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.errors import ConfigurationError, HypervisorError
from proxy.hypervisor.vsphere.inventory import Inventory, Machine
from proxy.hypervisor.vsphere.selection import Rule, fits, select
from proxy.hypervisor.vsphere.tags import Tag
from proxy.model import PowerState, VirtualMachine


def machine(name: str, **changed: Any) -> Machine:
    state = changed.pop("state", PowerState.RUNNING)
    made = Machine(
        id=f"vm-{name}",
        machine=VirtualMachine(f"id-{name}", name, "esx1", state, ()),
        template=False,
        folder="/DC0/vm/Prod/Web",
        pool="/DC0/host/Cluster1/Resources/Gold",
        cluster="Cluster1",
        datacenter="DC0",
        datastores=("LUN1", "NFS1"),
        tags=(Tag("backup", "nightly"),),
        attributes={"owner": "team-a"},
        vmx="",
        hardware="vmx-19",
        change_tracking=False,
        consolidation_needed=False,
    )
    return replace(made, **changed)


def inventory(*machines: Machine, without_tags: str = "") -> Inventory:
    return Inventory(machines, (), (), (), (), (), {}, without_tags)


WEB = machine("Web01")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(),
        Rule(name="web*"),
        Rule(name="WEB0?"),
        Rule(folder="Prod"),
        Rule(folder="prod/web"),
        Rule(folder="/DC0/vm"),
        Rule(folder="/dc0/vm/pr*"),
        Rule(folder="Web"),
        Rule(pool="Gold"),
        Rule(pool="Cluster1/Resources"),
        Rule(cluster="cluster?"),
        Rule(datastore="lun*"),
        Rule(datastore="NFS1"),
        Rule(tag="backup:nightly"),
        Rule(tag="nightly"),
        Rule(tag="backup:*"),
        Rule(attribute="owner"),
        Rule(attribute="Owner=Team-*"),
        Rule(state=PowerState.RUNNING),
        Rule(template=False),
        Rule(name="web*", folder="Prod", tag="nightly", state=PowerState.RUNNING),
    ],
    ids=str,
)
def test_a_machine_fits_all_that_a_rule_names(rule: Rule) -> None:
    assert fits(WEB, rule)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(name="web"),
        Rule(name="eb01"),
        Rule(folder="/Prod"),
        Rule(folder="Pro"),
        Rule(folder="Web/Prod"),
        Rule(folder="DC0/Prod"),
        Rule(folder="Prod/Web/Deeper"),
        Rule(pool="Silver"),
        Rule(cluster="Cluster2"),
        Rule(datastore="LUN2"),
        Rule(tag="backup"),
        Rule(tag="other:nightly"),
        Rule(attribute="owner=team-b"),
        Rule(attribute="cost*"),
        Rule(state=PowerState.OFF),
        Rule(template=True),
        Rule(name="web*", folder="Test"),
    ],
    ids=str,
)
def test_a_machine_that_lacks_one_thing_does_not_fit(rule: Rule) -> None:
    assert not fits(WEB, rule)


def test_a_machine_made_after_the_job_was_written_is_in_it() -> None:
    rules = [Rule(folder="Prod")]
    assert [c.machine.machine.name for c in select(inventory(WEB), rules).machines] == ["Web01"]
    later = inventory(WEB, machine("Web02"))
    assert [c.machine.machine.name for c in select(later, rules).machines] == ["Web01", "Web02"]


def test_exclusion_wins_and_both_say_by_which_rule() -> None:
    keep, drop = Rule(folder="Prod"), Rule(tag="no-backup")
    other = machine("Scratch", tags=(Tag("backup", "no-backup"),))
    selected = select(inventory(WEB, other), [keep], [drop])
    assert [(c.machine.machine.name, c.by) for c in selected.machines] == [("Web01", keep)]
    assert [(c.machine.machine.name, c.by) for c in selected.excluded] == [("Scratch", drop)]
    assert selected.idle == ()


def test_rules_that_match_nothing_are_named() -> None:
    typo, unused = Rule(folder="Prdo"), Rule(name="old-*")
    selected = select(inventory(WEB), [Rule(name="web*"), typo], [unused])
    assert selected.idle == (typo, unused)


def test_nothing_is_included_without_a_rule() -> None:
    assert select(inventory(WEB), []).machines == ()


def test_tags_that_nobody_could_read_are_no_reason_to_back_up_nothing() -> None:
    blind = inventory(replace(WEB, tags=None), without_tags="HTTP 403")
    with pytest.raises(HypervisorError, match="HTTP 403"):
        select(blind, [Rule(tag="nightly")])
    with pytest.raises(HypervisorError, match="tag=no-backup"):
        select(blind, [Rule()], [Rule(tag="no-backup")])
    assert len(select(blind, [Rule(folder="Prod")]).machines) == 1


def test_templates_and_machines_that_are_off_can_be_told_apart() -> None:
    golden = machine("golden", template=True, state=PowerState.OFF, pool="")
    off = machine("off", state=PowerState.OFF)
    both = inventory(WEB, golden, off)
    chosen = [c.machine.machine.name for c in select(both, [Rule(template=True)]).machines]
    assert chosen == ["golden"]
    assert [c.machine.machine.name for c in select(both, [Rule(state=PowerState.OFF)]).machines] == ["golden", "off"]
    assert not fits(golden, Rule(pool="Gold"))


def test_vspheres_own_helpers_are_in_no_job() -> None:
    agent = machine("vCLS-1", managed_by="com.vmware.vim.eam")
    selected = select(inventory(WEB, agent), [Rule()])
    assert [c.machine.machine.name for c in selected.machines] == ["Web01"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(name="web*", folder="/DC0/vm/Prod", tag="backup:gold", datastore="LUN?"),
        Rule(attribute="owner=team-a", pool="Gold", cluster="C1"),
        Rule(state=PowerState.OFF, template=False),
        Rule(template=True),
    ],
    ids=str,
)
def test_a_rule_is_read_as_it_is_written(rule: Rule) -> None:
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["colour=red", "name", "name=", "name=a, name=b", "state=asleep", "template=perhaps", "=x"]
)
def test_a_rule_that_says_something_unknown_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="selection"):
        Rule.parse(text)


def test_a_rule_says_what_it_names() -> None:
    assert str(Rule(name="web*", state=PowerState.OFF, template=False)) == "name=web*, state=off, template=False"
    assert str(Rule()) == "every machine"
