"""Faults of vSphere are known by what they are a kind of, and keep their words."""

from typing import Any

import pytest

from proxy.hypervisor.vsphere.connection import vim, vmodl
from proxy.hypervisor.vsphere.faults import Refusal, refusal_of, refused


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (vim.fault.NoPermission(privilegeId="System.Read"), Refusal.NO_PERMISSION),
        (vmodl.fault.ManagedObjectNotFound(), Refusal.GONE),
        (vim.fault.TaskInProgress(), Refusal.BUSY),
        (vim.fault.InvalidPowerState(), Refusal.STATE),
        (vim.fault.ApplicationQuiesceFault(), Refusal.QUIESCE),
        (vim.fault.FilesystemQuiesceFault(), Refusal.QUIESCE),
        (vim.fault.TooManySnapshotLevels(), Refusal.SNAPSHOT),
        (vim.fault.MultipleSnapshotsNotSupported(), Refusal.SNAPSHOT),
        (vim.fault.NoDiskSpace(), Refusal.NO_SPACE),
        (vim.fault.FileLocked(), Refusal.FILE_LOCKED),
        (vim.fault.CannotAccessFile(), Refusal.FILE),
        (vim.fault.DuplicateName(), Refusal.NAME_TAKEN),
        (vmodl.fault.InvalidArgument(), Refusal.ARGUMENT),
        (vmodl.fault.RequestCanceled(), Refusal.CANCELED),
        (vim.fault.Timedout(), Refusal.TIMEOUT),
        (vmodl.fault.HostNotConnected(), Refusal.HOST),
        (vim.fault.RestrictedVersion(), Refusal.LICENSE),
        (vmodl.fault.SystemError(), Refusal.OTHER),
    ],
)
def test_a_fault_takes_the_class_of_its_nearest_known_ancestor(fault: Any, refusal: Refusal) -> None:
    assert refused("do it", fault).refusal is refusal


def test_the_message_has_what_was_asked_the_kind_and_every_word_once() -> None:
    fault = vim.fault.ApplicationQuiesceFault()
    fault.msg = "Quiescing failed.\n  See the guest."
    fault.faultMessage = [
        vmodl.LocalizableMessage(key="a", message="Quiescing failed.\n  See the guest."),
        vmodl.LocalizableMessage(key="b", message="VSS writer SqlServerWriter timed out"),
    ]
    assert refused("snapshot of web", fault).message == (
        "snapshot of web: ApplicationQuiesceFault; Quiescing failed. See the guest.; VSS writer SqlServerWriter timed out"
    )


def test_a_missing_privilege_is_named_with_where_and_what_to_do() -> None:
    where = vim.VirtualMachine("vm-3", None)
    error = refused("snapshot", vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot", object=where))
    assert (error.privilege, error.subject) == ("VirtualMachine.State.CreateSnapshot", "vm-3")
    assert "privilege VirtualMachine.State.CreateSnapshot is missing" in error.message
    assert "doctor" in error.hint


def test_a_fault_known_by_name_only_has_a_class_too() -> None:
    assert refusal_of("MethodDisabled") is Refusal.DISABLED
    assert refusal_of("SomethingNew") is Refusal.OTHER
