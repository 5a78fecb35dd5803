"""Where restored machines can go, of what vCenter answered. The asking itself is tested against the simulator."""

from proxy.hypervisor.vsphere.connection import vim
from proxy.hypervisor.vsphere.targets import build
from tests.unit.hypervisor.vsphere.vim_objects import found


def mount(host: str, *, mounted: bool = True) -> object:
    info = vim.host.MountInfo(accessMode="readWrite", mounted=mounted, accessible=mounted)
    return vim.Datastore.HostMount(key=vim.HostSystem(host, None), mountInfo=info)


HOSTS = [
    found(vim.HostSystem, "host-1", {"name": "esx1", "runtime.connectionState": "connected"}),
    found(vim.HostSystem, "host-2", {"name": "esx2", "runtime.connectionState": "disconnected"}),
    found(
        vim.HostSystem,
        "host-3",
        {"name": "esx3", "runtime.connectionState": "connected", "runtime.inMaintenanceMode": True},
    ),
]


def test_a_host_that_takes_no_machine_says_why() -> None:
    assert build(HOSTS, [], []).hosts == {
        "esx1": "",
        "esx2": "vCenter shows it as disconnected",
        "esx3": "it is in maintenance mode",
    }


def test_a_datastore_is_told_with_its_room_and_the_hosts_that_have_it() -> None:
    summary = vim.Datastore.Summary(
        name="LUN1", capacity=100, freeSpace=40, accessible=True, url="", type="VMFS", multipleHostAccess=True
    )
    there = [mount("host-1"), mount("host-3", mounted=False), mount("host-9")]
    seen = build(HOSTS, [found(vim.Datastore, "datastore-1", {"name": "LUN1", "summary": summary, "host": there})], [])
    (store,) = seen.datastores
    assert (store.name, store.capacity, store.free, store.accessible) == ("LUN1", 100, 40, True)
    assert seen.mounted == {"datastore-1": ("esx1",)}


def test_no_machine_is_connected_to_the_uplinks_of_a_switch() -> None:
    groups = [
        found(vim.Network, "network-1", {"name": "VM Network", "tag": []}),
        found(vim.dvs.DistributedVirtualPortgroup, "dvportgroup-2", {"name": "servers%2fweb"}),
        found(
            vim.dvs.DistributedVirtualPortgroup,
            "dvportgroup-3",
            {"name": "DVS-Uplinks", "tag": [vim.Tag(key="SYSTEM/DVS.UPLINKPG")]},
        ),
    ]
    assert build([], [], groups).networks == ("VM Network", "servers/web")
