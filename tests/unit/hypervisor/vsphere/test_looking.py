"""A machine as snapshots need to see it, and the room that its deltas need."""

from typing import Any

import pytest

from proxy.errors import NoSpaceForOverlay
from proxy.hypervisor.vsphere import room
from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.devices import Datastore, Surroundings, disks
from proxy.hypervisor.vsphere.looking import Look
from proxy.hypervisor.vsphere.ownership import Mark, description, snapshot_name
from proxy.model import PowerState
from proxy.units import GiB, MiB
from tests.unit.hypervisor.vsphere.vim_objects import LUN1, D, disk, flat, found, scsi

WEB = "51fa1814-c4e4-5e30-acaa-7503896f99a7"


def look(**values: Any) -> Look:
    named = {name.replace("__", "."): value for name, value in values.items()}
    return Look(WEB, None, found(vim.VirtualMachine, "vm-1", named))


def test_a_guest_is_what_its_tools_say_and_else_what_was_configured():
    linux = look(guest__guestFamily="linuxGuest", config__guestId="windows2019srv_64Guest")
    windows = look(config__guestId="windows2019srv_64Guest", guest__toolsRunningStatus="guestToolsRunning")
    assert (linux.guest.windows, linux.guest.tools) == (False, False)
    assert (windows.guest.windows, windows.guest.tools) == (True, True)


def test_what_keeps_writers_from_taking_part_is_seen():
    ide = D.VirtualIDEController(key=200, busNumber=0)
    flags = vim.vm.FlagInfo(diskUuidEnabled=False)
    seen = look(config__flags=flags, config__hardware__device=[ide, disk(flat(), controller=200)])
    assert (seen.guest.uuids, seen.guest.ide) == (False, True)
    assert (look().guest.uuids, look().guest.ide) == (True, False)


@pytest.mark.parametrize(
    ("power", "state"),
    [("poweredOn", PowerState.RUNNING), ("suspended", PowerState.SUSPENDED), ("poweredOff", PowerState.OFF)],
)
def test_states_are_told(power, state):
    assert look(runtime__powerState=power).state is state


def test_a_template_is_as_clean_as_a_guest_that_shut_itself_down():
    assert look(config__template=True).guest.clean
    assert look(runtime__cleanPowerOff=True).guest.clean
    assert not look(runtime__cleanPowerOff=False).guest.clean


def test_a_name_is_shown_as_people_wrote_it():
    assert look(name="web%2f1").name == "web/1"


def test_chains_are_told_from_what_is_written_to_down():
    top = flat("[LUN1] web/web-000001.vmdk", parent=flat())
    seen = look(config__hardware__device=[scsi(), disk(top)])
    assert seen.chains() == {"scsi0:0": ["[LUN1] web/web-000001.vmdk", "[LUN1] web/web.vmdk"]}


def test_only_marked_snapshots_are_ours_and_any_counts_as_one():
    mark = Mark("r1", WEB, "0" * 32, "none")
    ours = vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot("s-1", None), name=snapshot_name("r1", "web"), description=description(mark)
    )
    theirs = vim.vm.SnapshotTree(snapshot=vim.vm.Snapshot("s-2", None), name="x", description="y")
    with_ours = look(snapshot=vim.vm.SnapshotInfo(rootSnapshotList=[ours]))
    with_theirs = look(snapshot=vim.vm.SnapshotInfo(rootSnapshotList=[theirs]))
    assert [f.mark for f in with_ours.snapshots] == [mark]
    assert (with_theirs.snapshots, with_theirs.has_snapshot, look().has_snapshot) == ([], True, False)


# -- room


def shown(size: int) -> Any:
    around = Surroundings("vm-1", datastores={"datastore-1": LUN1})
    independent = disk(flat(diskMode="independent_persistent"), unit=1, key=2001, size=900 * GiB)
    return disks([scsi(), disk(flat(), size=size), independent], around)


@pytest.mark.parametrize(
    ("power", "free", "fits"),
    [
        ("poweredOn", 4 * GiB, True),
        ("poweredOn", 4 * GiB - 1, False),
        ("poweredOff", 64 * MiB, True),
        ("poweredOff", 64 * MiB - 1, False),
    ],
)
def test_a_tenth_of_what_gets_deltas_must_be_free_and_little_for_a_machine_that_is_off(power, free, fits):
    seen = look(runtime__powerState=power)
    store = Datastore("datastore-1", "LUN1", "VMFS", free=free)
    if fits:
        assert room.guard(seen, shown(40 * GiB), [store]) == ("LUN1",)
    else:
        with pytest.raises(NoSpaceForOverlay, match="datastore LUN1"):
            room.guard(seen, shown(40 * GiB), [store])
