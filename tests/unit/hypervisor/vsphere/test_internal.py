"""Holding off Storage vMotion: two calls that are written by hand, asked again where that is safe, their faults understood."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.hypervisor.vsphere import internal
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refusal, Refused
from tests.unit.hypervisor.vsphere.scripted_vcenter import CUT, ScriptedVcenter, fault

Connect = Callable[..., Vcenter]


def machines(vcenter: Vcenter) -> list[Any]:
    return [vcenter.object(vim.VirtualMachine, "vm-1")]


def disable(vcenter: Vcenter) -> None:
    internal.disable_methods(vcenter, machines(vcenter), ["RelocateVM_Task"], source="lanfree <&> 1", why="a & b")


def test_what_is_disabled_where_and_by_whom_is_sent(server: ScriptedVcenter, connect: Connect) -> None:
    disable(connect())
    assert server.bodies["DisableMethods"].endswith(
        '<DisableMethods xmlns="urn:internalvim25"><_this type="AuthorizationManager">AuthorizationManager</_this>'
        '<entity type="VirtualMachine">vm-1</entity>'
        "<method><method>RelocateVM_Task</method><reasonId>a &amp; b</reasonId></method>"
        "<sourceId>lanfree &lt;&amp;&gt; 1</sourceId></DisableMethods></soapenv:Body></soapenv:Envelope>"
    )


def test_it_is_asked_again_after_a_broken_connection_and_an_ended_session(
    server: ScriptedVcenter, connect: Connect
) -> None:
    vcenter = connect()
    vcenter.now()
    server.script("EnableMethods", CUT)
    server.end_sessions()
    internal.enable_methods(vcenter, machines(vcenter), ["RelocateVM_Task"], source="lanfree")
    assert server.calls["EnableMethods"] == 2
    server.script("EnableMethods", fault("NotAuthenticated"))
    server.end_sessions()
    internal.enable_methods(vcenter, machines(vcenter), ["RelocateVM_Task"], source="lanfree")
    assert server.calls["EnableMethods"] == 4


def test_what_is_disabled_already_by_us_is_no_error(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("DisableMethods", fault("MethodAlreadyDisabledFault"))
    disable(connect())
    assert server.calls["DisableMethods"] == 1


def test_a_missing_privilege_is_named(server: ScriptedVcenter, connect: Connect) -> None:
    inside = '<object type="Folder">group-d1</object><privilegeId>Global.DisableMethods</privilegeId>'
    server.script("DisableMethods", fault("NoPermission", inside, "Permission denied."))
    with pytest.raises(Refused, match="Permission denied") as error:
        disable(connect())
    assert (error.value.refusal, error.value.privilege) == (Refusal.NO_PERMISSION, "Global.DisableMethods")


def test_a_connection_that_breaks_every_time_leaves_the_outcome_unknown(
    server: ScriptedVcenter, connect: Connect
) -> None:
    server.script("DisableMethods", *[CUT] * internal.ATTEMPTS)
    with pytest.raises(Refused) as error:
        disable(connect())
    assert error.value.refusal is Refusal.OUTCOME_UNKNOWN
    assert server.calls["DisableMethods"] == internal.ATTEMPTS


def test_an_error_without_a_fault_is_no_fault(server: ScriptedVcenter, connect: Connect) -> None:
    server.script("DisableMethods", "503", "502")
    disable(connect())
    assert server.calls["DisableMethods"] == 3
