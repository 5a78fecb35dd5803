"""What a rule may name, for machines of any hypervisor."""

import pytest

from proxy.errors import ConfigurationError
from proxy.machine_rules import Candidate, Rule, fits
from proxy.model import PowerState, VirtualMachine

IDENTITY = "0d8c1ab2-0000-4000-8000-00000000ab01"
PLAIN = Candidate(VirtualMachine(IDENTITY, "Web01", "kvm1", PowerState.RUNNING, ()))


@pytest.mark.parametrize(
    "text", ["", "name=web*", f"machine={IDENTITY.upper()}", "host=KVM?", "state=running, host=kvm1", "template=false"]
)
def test_a_machine_of_a_plain_host_fits_what_it_has(text: str) -> None:
    assert fits(PLAIN, Rule.parse(text))


@pytest.mark.parametrize("text", ["folder=Prod", "tag=*", "pool=*", "cluster=*", "datastore=*", "attribute=*"])
def test_a_machine_of_a_plain_host_fits_nothing_that_only_vcenters_have(text: str) -> None:
    rule = Rule.parse(text)
    assert not fits(PLAIN, rule)
    assert rule.foreign == text.partition("=")[0]


@pytest.mark.parametrize("text", ["host=kvm2", "machine=0d8c1ab2", "name=web", "state=off", "template=true"])
def test_a_machine_that_differs_in_one_thing_does_not_fit(text: str) -> None:
    assert not fits(PLAIN, Rule.parse(text))
    assert Rule.parse(text).foreign == ""


def test_a_tag_is_named_with_its_category_or_without() -> None:
    tagged = Candidate(PLAIN.machine, tags=("backup:gold",))
    assert fits(tagged, Rule(tag="backup:gold"))
    assert fits(tagged, Rule(tag="gold"))
    assert fits(tagged, Rule(tag="backup:*"))
    assert not fits(tagged, Rule(tag="backup"))
    assert not fits(Candidate(PLAIN.machine, tags=None), Rule(tag="*"))


def test_a_slip_in_a_rule_names_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match="machine, host"):
        Rule.parse("hots=kvm1")
