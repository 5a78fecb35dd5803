"""What vCenter answered becomes machines with their places. The asking itself is tested against the simulator."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import MachineNotFound
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.inventory import Answers, Inventory, _luns, build, raw_lun
from proxy.hypervisor.vsphere.tags import Tag
from proxy.model import PowerState, VmdkAddress
from tests.unit.hypervisor.vsphere.scripted_vcenter import ScriptedVcenter
from tests.unit.hypervisor.vsphere.vim_objects import NAA, disk, flat, found, raw, scsi, store

UUID = "502A1B2C-0000-1111-2222-333344445555"


def place(kind: Any, reference: str, name: str, parent: Any = None, **more: Any) -> Found:
    return found(kind, reference, {"name": name, **({"parent": parent} if parent else {}), **more})


ROOT, DC = vim.Folder("group-d1", None), vim.Datacenter("datacenter-2", None)
VMS, PROD = vim.Folder("group-v3", None), vim.Folder("group-v4", None)
HOSTS, CLUSTER = vim.Folder("group-h5", None), vim.ClusterComputeResource("domain-c6", None)
POOL, GOLD = vim.ResourcePool("resgroup-7", None), vim.ResourcePool("resgroup-8", None)
STORES, VAPP = vim.Folder("group-s9", None), vim.VirtualApp("resgroup-v10", None)
HOST = vim.HostSystem("host-11", None)

PLACES = (
    place(vim.Folder, "group-d1", "Datacenters"),
    place(vim.Datacenter, "datacenter-2", "DC0", ROOT),
    place(vim.Folder, "group-v3", "vm", DC),
    place(vim.Folder, "group-v4", "Prod%2fWeb", VMS),
    place(vim.Folder, "group-h5", "host", DC),
    place(vim.ClusterComputeResource, "domain-c6", "Cluster1", HOSTS),
    place(vim.ResourcePool, "resgroup-7", "Resources", CLUSTER),
    place(vim.ResourcePool, "resgroup-8", "Gold", POOL),
    place(vim.Folder, "group-s9", "datastore", DC),
    place(vim.VirtualApp, "resgroup-v10", "Shop", POOL, parentFolder=PROD),
)


def datastore(**info: Any) -> Found:
    summary = vim.Datastore.Summary(
        name="LUN1", url="ds:///x", type="VMFS", capacity=100, freeSpace=40, accessible=True, multipleHostAccess=True
    )
    extents = [
        vim.host.ScsiDisk.Partition(diskName=NAA, partition=1),
        vim.host.ScsiDisk.Partition(diskName="naa.6002", partition=3),
    ]
    volume = vim.host.VmfsVolume(uuid="65a0-b1", version="6.82", extent=extents)
    about = vim.host.VmfsDatastoreInfo(name="LUN1", vmfs=volume)
    return found(
        vim.Datastore, "datastore-1", {"name": "LUN1", "summary": summary, "info": about, "parent": STORES, **info}
    )


def host(**changed: Any) -> Found:
    given = {"name": "esx1", "parent": CLUSTER, "runtime.connectionState": "connected"}
    return found(vim.HostSystem, "host-11", {**given, "runtime.inMaintenanceMode": False, **changed})


def machine(reference: str = "vm-20", missing: dict[str, str] | None = None, **changed: Any) -> Found:
    given = {
        "name": "web",
        "parent": PROD,
        "resourcePool": GOLD,
        "datastore": [store()],
        "config.instanceUuid": UUID,
        "config.template": False,
        "config.version": "vmx-19",
        "config.changeTrackingEnabled": True,
        "config.files.vmPathName": "[LUN1] web/web.vmx",
        "config.hardware.device": [scsi(), disk(flat())],
        "runtime.powerState": "poweredOn",
        "runtime.connectionState": "connected",
        "runtime.host": HOST,
        "runtime.consolidationNeeded": False,
        "guest.toolsRunningStatus": "guestToolsRunning",
    }
    values = {name: value for name, value in {**given, **changed}.items() if value is not None}
    return found(vim.VirtualMachine, reference, values, missing)


def inventory(*machines: Found, **more: Any) -> Inventory:
    given = {"datastores": [datastore()], "hosts": [host()], "places": PLACES, **more}
    return build(Answers(machines=machines, **given))


def test_a_machine_has_its_identity_state_disks_and_places() -> None:
    [shown] = inventory(machine()).machines
    assert (shown.machine.id, shown.machine.name, shown.machine.host) == (UUID.lower(), "web", "esx1")
    assert (shown.machine.state, shown.machine.agent) == (PowerState.RUNNING, True)
    assert [d.key for d in shown.machine.disks] == ["scsi0:0"]
    assert (shown.id, shown.cluster, shown.datacenter) == ("vm-20", "Cluster1", "DC0")
    assert shown.folder == "/DC0/vm/Prod%2fWeb"
    assert shown.pool == "/DC0/host/Cluster1/Resources/Gold"
    assert (shown.datastores, shown.vmx, shown.hardware) == (("LUN1",), "[LUN1] web/web.vmx", "vmx-19")
    assert shown.change_tracking
    assert not shown.consolidation_needed


@pytest.mark.parametrize(
    ("said", "state"),
    [("poweredOn", PowerState.RUNNING), ("poweredOff", PowerState.OFF), ("suspended", PowerState.SUSPENDED)],
)
def test_power_states_are_ours(said: str, state: PowerState) -> None:
    assert inventory(machine(**{"runtime.powerState": said})).machines[0].machine.state is state


def test_a_template_is_a_machine_without_a_pool() -> None:
    off = {"config.template": True, "resourcePool": None, "runtime.powerState": "poweredOff"}
    [shown] = inventory(machine(**off)).machines
    assert (shown.template, shown.pool, shown.machine.state) == (True, "", PowerState.OFF)


def test_a_machine_of_a_vapp_lies_in_the_folder_of_its_vapp() -> None:
    [shown] = inventory(machine(parent=None, parentVApp=VAPP, resourcePool=VAPP)).machines
    assert shown.folder == "/DC0/vm/Prod%2fWeb"
    assert shown.pool == "/DC0/host/Cluster1/Resources/Shop"


def test_a_datastore_names_its_volume_and_the_luns_of_all_its_extents() -> None:
    [shown] = inventory().datastores
    assert (shown.kind, shown.volume, shown.version) == ("VMFS", "65a0-b1", "6.82")
    assert (shown.devices, shown.partitions) == ((NAA, "naa.6002"), (1, 3))
    assert (shown.capacity, shown.free, shown.datacenter) == (100, 40, "DC0")
    [web] = inventory(machine()).machines
    location = web.machine.disks[0].location
    assert isinstance(location, VmdkAddress)
    assert (location.volume, location.devices) == ("65a0-b1", (NAA, "naa.6002"))


def test_a_datastore_that_the_user_may_not_read_is_there_without_its_facts() -> None:
    [shown] = inventory(datastores=[found(vim.Datastore, "datastore-1", {}, {"summary": "NoPermission"})]).datastores
    assert (shown.name, shown.kind, shown.accessible) == ("datastore-1", "", False)


def test_a_file_share_names_its_server_and_no_lun() -> None:
    summary = vim.Datastore.Summary(
        name="NFS1", url="x", type="NFS41", capacity=1, freeSpace=1, accessible=False, multipleHostAccess=True
    )
    nas = vim.host.NasVolume(remoteHost="filer", remotePath="/export")
    about = vim.host.NasDatastoreInfo(name="NFS1", nas=nas)
    [shown] = inventory(datastores=[datastore(name="NFS1", summary=summary, info=about)]).datastores
    assert (shown.kind, shown.server, shown.devices, shown.accessible) == ("NFS41", "filer:/export", (), False)


@pytest.mark.parametrize("kind", ["vsan", "VVOL", "PMEM"])
def test_other_datastores_keep_vspheres_word_for_their_kind(kind: str) -> None:
    summary = vim.Datastore.Summary(
        name="x", url="x", type=kind, capacity=1, freeSpace=1, accessible=True, multipleHostAccess=True
    )
    [shown] = inventory(datastores=[datastore(summary=summary, info=None)]).datastores
    assert (shown.kind, shown.volume, shown.devices) == (kind, "", ())


def test_a_machine_that_vcenter_cannot_describe_is_named_and_not_dropped() -> None:
    ghost = machine(
        "vm-21", {"config.instanceUuid": "HostCommunication"}, name="ghost", **{"config.instanceUuid": None}
    )
    orphan = machine("vm-22", name="orphan", **{"runtime.connectionState": "orphaned"})
    away = machine("vm-23", name="away", **{"runtime.connectionState": "disconnected"})
    denied = {"config.hardware.device": "NoPermission"}
    bare = machine("vm-24", denied, name="bare", **{"config.hardware.device": None})
    shown = inventory(ghost, orphan, away, bare)
    assert "NoPermission" in shown.unreadable["bare"]
    assert [m.machine.name for m in shown.machines] == ["away"]
    assert "HostCommunication" in shown.unreadable["ghost"]
    assert "orphaned" in shown.unreadable["orphan"]


def test_the_shadow_of_a_fault_tolerant_machine_is_not_a_second_machine() -> None:
    primary = machine("vm-20", **{"config.ftInfo": vim.vm.FaultTolerancePrimaryConfigInfo(role=1)})
    secondary = machine("vm-21", **{"config.ftInfo": vim.vm.FaultToleranceSecondaryConfigInfo(role=2)})
    assert [m.id for m in inventory(secondary, primary).machines] == ["vm-20"]


def test_attributes_have_names_and_tags_are_the_machines_own() -> None:
    values = [
        vim.CustomFieldsManager.StringValue(key=101, value="db"),
        vim.CustomFieldsManager.StringValue(key=9, value=""),
    ]
    tags = {"vm-20": (Tag("backup", "gold"),)}
    tagged = inventory(machine(customValue=values), machine("vm-21"), attributes={101: "role"}, tags=tags)
    assert tagged.machines[0].attributes == {"role": "db", "9": ""}
    assert [m.tags for m in tagged.machines] == [(Tag("backup", "gold"),), ()]
    untagged = inventory(machine(), without_tags="no right")
    assert (untagged.machines[0].tags, untagged.without_tags) == (None, "no right")


def test_names_are_shown_as_people_wrote_them() -> None:
    assert inventory(machine(name="a%2fb%5cc%25d")).machines[0].machine.name == "a/b\\c%d"


def test_a_host_that_is_away_or_in_maintenance_is_not_usable() -> None:
    def told(**changed: Any) -> tuple[bool, bool]:
        [shown] = inventory(hosts=[host(**changed)]).hosts
        return shown.connected, shown.usable

    assert told() == (True, True)
    assert told(**{"runtime.connectionState": "notResponding"}) == (False, False)
    assert told(**{"runtime.inMaintenanceMode": True}) == (True, False)


def test_folders_and_pools_are_listed_by_path() -> None:
    shown = inventory()
    assert shown.folders == ("/DC0/vm", "/DC0/vm/Prod%2fWeb")
    assert shown.pools == (
        "/DC0/host/Cluster1/Resources",
        "/DC0/host/Cluster1/Resources/Gold",
        "/DC0/host/Cluster1/Resources/Shop",
    )
    assert shown.clusters == ("Cluster1",)


def test_places_that_refer_to_each_other_in_a_circle_end() -> None:
    places = [place(vim.Folder, "group-a", "a", vim.Folder("group-b", None))]
    places.append(place(vim.Folder, "group-b", "b", vim.Folder("group-a", None)))
    [shown] = inventory(machine(parent=vim.Folder("group-a", None)), places=places).machines
    assert shown.folder == "/b/a"


def test_a_machine_is_found_by_identity_only() -> None:
    shown = inventory(machine())
    assert shown.machine(UUID.lower()).machine.name == "web"
    with pytest.raises(MachineNotFound):
        shown.machine("web")


def test_luns_are_asked_for_only_where_a_machine_maps_one(
    server: ScriptedVcenter, connect: Callable[..., Vcenter]
) -> None:
    lun = (
        '<ScsiLun xsi:type="HostScsiDisk"><deviceName>/vmfs/devices/disks/naa.5000</deviceName><deviceType>disk</deviceType>'
        "<key>k</key><uuid>0200lun</uuid><canonicalName>naa.5000</canonicalName><lunType>disk</lunType></ScsiLun>"
    )
    value = f'<name>config.storageDevice.scsiLun</name><val xsi:type="ArrayOfScsiLun">{lun}</val>'
    one = f'<objects><obj type="HostSystem">host-11</obj><propSet>{value}</propSet></objects>'
    server.script("RetrievePropertiesEx", f"<returnval>{one}</returnval>")
    vcenter = connect()
    assert _luns(vcenter, [machine()]) == {}
    assert server.calls["RetrievePropertiesEx"] == 0
    mapped = machine(**{"config.hardware.device": [scsi(), disk(raw("virtualMode"))]})
    mapped = Found(mapped.object, {**mapped.values, "runtime.host": vcenter.object(vim.HostSystem, "host-11")}, {})
    assert _luns(vcenter, [mapped, mapped]) == {"0200lun": "naa.5000"}
    assert server.calls["RetrievePropertiesEx"] == 1


def test_the_lun_of_a_mapping_is_named_through_its_host() -> None:
    devices = [scsi(), disk(raw("virtualMode"))]
    [shown] = inventory(machine(**{"config.hardware.device": devices}), luns={"0200lun": "naa.5000"}).machines
    assert raw_lun(shown.machine.disks[0].location) == "naa.5000"
    [plain] = inventory(machine()).machines
    assert raw_lun(plain.machine.disks[0].location) == ""
