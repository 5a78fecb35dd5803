"""Properties of many objects: pages, sessions that end between pages, objects that vanish meanwhile."""

import random
from collections.abc import Callable

import pytest

from proxy.errors import LanfreeError
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from tests.unit.hypervisor.vsphere.scripted_vcenter import CUT, ScriptedVcenter, fault

# Each test speaks TLS to a server of its own, in the many ways in which pages may come.
pytestmark = pytest.mark.slow

Connect = Callable[..., Vcenter]

VIEW = '<returnval type="ContainerView">session[1]view-1</returnval>'


def one(reference: str, name: str) -> str:
    value = f'<propSet><name>name</name><val xsi:type="xsd:string">{name}</val></propSet>'
    return f'<objects><obj type="VirtualMachine">{reference}</obj>{value}</objects>'


def page(*objects: str, token: str = "") -> str:
    return f"<returnval>{f'<token>{token}</token>' if token else ''}{''.join(objects)}</returnval>"


def gone(kind: str, reference: str) -> str:
    return fault("ManagedObjectNotFound", f'<obj type="{kind}">{reference}</obj>')


def names(vcenter: Vcenter) -> list[str]:
    return [str(f.get("name")) for f in collector.find(vcenter, vim.VirtualMachine, ["name"])]


def machines(vcenter: Vcenter, *references: str) -> list[object]:
    return [vcenter.object(vim.VirtualMachine, reference) for reference in references]


def test_all_pages_are_fetched_and_the_view_is_given_back(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("CreateContainerView", VIEW)
    server.script("RetrievePropertiesEx", page(one("vm-1", "a"), token="1"))
    server.script("ContinueRetrievePropertiesEx", page(one("vm-2", "b"), token="2"), page(one("vm-3", "c")))
    assert names(connect()) == ["a", "b", "c"]
    assert server.calls["DestroyView"] == 1


def test_an_empty_inventory_is_no_error(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("CreateContainerView", VIEW)
    server.script("RetrievePropertiesEx", " ")
    assert names(connect()) == []


@pytest.mark.parametrize(
    "lost", [CUT, fault("InvalidArgument", "<invalidProperty>token</invalidProperty>"), fault("NotAuthenticated")]
)
def test_a_page_that_is_lost_makes_the_whole_question_be_asked_again(
    lost: str, server: ScriptedVcenter, connect: Connect
) -> None:
    server.script("CreateContainerView", VIEW, VIEW)
    server.script("RetrievePropertiesEx", page(one("vm-1", "a"), token="1"), page(one("vm-1", "a"), token="9"))
    stale = fault("InvalidArgument", "<invalidProperty>token</invalidProperty>")
    after = [lost, stale] if "NotAuthenticated" in lost else [lost]
    server.script("ContinueRetrievePropertiesEx", *after, page(one("vm-2", "b")))
    assert names(connect()) == ["a", "b"]
    assert server.calls["RetrievePropertiesEx"] == 2


def test_a_view_that_ended_with_its_session_is_made_again(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("CreateContainerView", VIEW, VIEW)
    server.script("RetrievePropertiesEx", gone("ContainerView", "session[1]view-1"), page(one("vm-1", "a")))
    assert names(connect()) == ["a"]


def test_a_session_that_ended_may_also_show_as_properties_that_cannot_be_read(
    server: ScriptedVcenter, connect: Connect
) -> None:
    denied = '<missingSet><path>name</path><fault><fault xsi:type="NotAuthenticated"/></fault></missingSet>'
    nothing = page(f'<objects><obj type="VirtualMachine">vm-1</obj>{denied}</objects>')
    server.script("RetrievePropertiesEx", nothing, page(one("vm-1", "a")))
    vcenter = connect()
    assert collector.read_one(vcenter, *machines(vcenter, "vm-1"), "name").get("name") == "a"
    assert server.calls["Login"] == 2


def test_a_question_that_is_lost_every_time_is_given_up(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("CreateContainerView", *[VIEW] * collector.ATTEMPTS)
    server.script("RetrievePropertiesEx", *[page(one("vm-1", "a"), token="1")] * collector.ATTEMPTS)
    server.script("ContinueRetrievePropertiesEx", *[CUT] * collector.ATTEMPTS)
    with pytest.raises(Refused) as error:
        names(connect())
    assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
    assert server.calls["RetrievePropertiesEx"] == collector.ATTEMPTS


def test_objects_that_vanished_are_left_out(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("RetrievePropertiesEx", gone("VirtualMachine", "vm-2"), page(one("vm-1", "a"), one("vm-3", "c")))
    vcenter = connect()
    found = collector.read(vcenter, machines(vcenter, "vm-1", "vm-2", "vm-3"), ["name"])
    assert [f.id for f in found] == ["vm-1", "vm-3"]


def test_one_object_that_vanished_is_told(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("RetrievePropertiesEx", gone("VirtualMachine", "vm-2"))
    vcenter = connect()
    with pytest.raises(Refused) as error:
        collector.read_one(vcenter, *machines(vcenter, "vm-2"), "name")
    assert (error.value.refusal, error.value.subject) == (Refusal.GONE, "vm-2")


def test_many_objects_are_asked_about_in_portions(
    server: ScriptedVcenter, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PAGE", 2)
    server.script("RetrievePropertiesEx", page(one("vm-1", "a"), one("vm-2", "b")), page(one("vm-3", "c")))
    vcenter = connect()
    assert len(collector.read(vcenter, machines(vcenter, "vm-1", "vm-2", "vm-3"), ["name"])) == 3


def test_mangled_answers_never_come_out_as_anybody_elses_error(server: ScriptedVcenter, connect: Connect) -> None:
    vcenter = connect(restart_patience=0.0)
    vcenter.now()
    sound = page(one("vm-1", "a"), one("vm-2", "b"))
    chance = random.Random(20261122)
    outcomes = set()
    for _ in range(80):
        text = list(sound)
        if chance.random() < 0.3:
            del text[chance.randrange(len(text)) :]
        for _ in range(chance.randrange(4)):
            text[chance.randrange(len(text) - 1)] = chance.choice('<>/"=&;x0 \x00é')
        server.scripted.clear()
        server.script("RetrievePropertiesEx", *["".join(text)] * 3)
        try:
            outcomes.add(len(collector.read(vcenter, machines(vcenter, "vm-1"), ["name"])))
        except LanfreeError as error:
            outcomes.add(type(error).__name__)
    assert {"HostUnreachable", "Refused", 2} <= outcomes


def test_properties_that_may_not_be_read_are_named(server: ScriptedVcenter, connect: Connect) -> None:
    denied = '<missingSet><path>config</path><fault><fault xsi:type="NoPermission"/></fault></missingSet>'
    server.script("RetrievePropertiesEx", page(f'<objects><obj type="VirtualMachine">vm-1</obj>{denied}</objects>'))
    vcenter = connect()
    found = collector.read_one(vcenter, *machines(vcenter, "vm-1"), "config")
    assert found.missing == {"config": "NoPermission"}
    assert found.get("config", "?") == "?"
