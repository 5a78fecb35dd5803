"""Where a restored machine goes: names of a host or cluster, pool, folder, datastores and networks -> vCenter's own objects.

What is not said is as it was saved, where that still exists; what was said and does not exist is refused, before anything is
made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import RestoreRefused
from proxy.hypervisor.vsphere import collector, files
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.configuration import Saved
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import moid
from proxy.ports import NewMachine

HOST_PATHS = ("name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode", "datastore", "network")
COMPUTE_PATHS = ("name", "resourcePool", "host")


@dataclass(frozen=True, slots=True)
class Placement:
    """Managed objects. ``home``: name of the datastore that gets the machine's own files; ``networks``: by the name that the
    saved machine's was called, what a NIC is backed with; ``datacenter``: path of ``center``, without the leading slash."""

    host: Any
    pool: Any
    folder: Any
    center: Any
    datacenter: str
    home: str
    networks: Mapping[str, Any]


def resolve(vcenter: Vcenter, saved: Saved, new: NewMachine) -> Placement:
    """Raises ``RestoreRefused``, ``Refused``."""
    hosts = collector.find(vcenter, vim.HostSystem, HOST_PATHS)
    compute = collector.find(vcenter, vim.ComputeResource, COMPUTE_PATHS)
    wanted = [place.datastore for place in new.disks.values() if place.datastore]
    host = _host(vcenter, hosts, compute, new, wanted)
    stores = _stores(vcenter, host)
    center, path = _datacenter(vcenter, host)
    owner = next(c for c in compute if c.id == moid(host.get("parent")))
    return Placement(
        host=host.object,
        pool=_pool(vcenter, new) or owner.get("resourcePool"),
        folder=_folder(vcenter, saved, new, center, path),
        center=center.object,
        datacenter=path,
        home=_home(saved, new, wanted, stores),
        networks=_networks(vcenter, saved, new, host),
    )


def _host(
    vcenter: Vcenter, hosts: Sequence[Found], compute: Sequence[Found], new: NewMachine, wanted: Sequence[str]
) -> Found:
    """The host by its name, or one of the cluster by that name which sees the datastores."""
    named = [h for h in hosts if h.get("name") == new.host]
    clusters = {c.id for c in compute if c.get("name") == new.host}
    candidates = named or [h for h in hosts if moid(h.get("parent")) in clusters]
    if not candidates:
        known = ", ".join(sorted({str(f.get("name")) for f in (*hosts, *compute)}))
        raise RestoreRefused(new.name, f"there is no host or cluster {new.host}, only {known}")
    usable = [
        h
        for h in candidates
        if h.get("runtime.connectionState") == "connected" and not h.get("runtime.inMaintenanceMode")
    ]
    if not usable:
        raise RestoreRefused(new.name, f"{new.host} is disconnected or in maintenance")
    for host in usable:
        if set(wanted) <= _stores(vcenter, host).keys():
            return host
    missing = ", ".join(sorted(set(wanted) - _stores(vcenter, usable[0]).keys()))
    raise RestoreRefused(new.name, f"{new.host} has no datastore {missing} that it can write to")


def _stores(vcenter: Vcenter, host: Found) -> dict[str, Found]:
    found = collector.read(vcenter, host.get("datastore") or (), ("name", "summary"))
    return {str(s.get("name")): s for s in found if s.get("summary").accessible}


def _datacenter(vcenter: Vcenter, host: Found) -> tuple[Found, str]:
    """The data centre above a host, and its path."""
    names: list[str] = []
    center: Found | None = None
    above = host.get("parent")
    while above is not None:
        found = collector.read(vcenter, [above], ("name", "parent"))
        if not found:
            break
        if isinstance(above, vim.Datacenter):
            center = collector.read_one(vcenter, above, "name", "parent", "vmFolder")
        if center is not None and found[0].get("parent") is not None:
            names.append(str(found[0].get("name")))
        above = found[0].get("parent")
    if center is None:
        raise RestoreRefused(str(host.get("name")), "no data centre is above it")
    return center, "/".join(reversed(names))


def _at(vcenter: Vcenter, path: str, kind: Any) -> Any:
    """The object at an inventory path, ``None`` when there is none of that kind."""
    found = vcenter.content.searchIndex.FindByInventoryPath(path.removeprefix("/")) if path else None
    return found if isinstance(found, kind) else None


def _pool(vcenter: Vcenter, new: NewMachine) -> Any:
    """Only if it was named: pools are how shares are dealt out, and a restored machine does not belong to any by itself."""
    pool = _at(vcenter, new.pool, vim.ResourcePool)
    if new.pool and pool is None:
        raise RestoreRefused(
            new.name, f"there is no resource pool {new.pool}", hint="pools are named as /DC/host/CLUSTER/Resources/POOL"
        )
    return pool


def _folder(vcenter: Vcenter, saved: Saved, new: NewMachine, center: Found, path: str) -> Any:
    named = _at(vcenter, new.folder, vim.Folder)
    if new.folder and (named is None or not _is_within(new.folder, path)):
        raise RestoreRefused(
            new.name, f"there is no folder {new.folder} in {path}", hint="folders are named as /DC/vm/FOLDER"
        )
    before = str(saved.place.get("folder") or "")
    old = _at(vcenter, before, vim.Folder) if _is_within(before, path) else None
    return named or old or center.get("vmFolder")


def _is_within(folder: str, center: str) -> bool:
    return f"{folder.removeprefix('/')}/".startswith(f"{center}/vm/")


def _home(saved: Saved, new: NewMachine, wanted: Sequence[str], stores: Mapping[str, Found]) -> str:
    """With its first disk; a machine without disks where it was, or where there is most room."""
    if wanted:
        return wanted[0]
    before = files.split(str(saved.place.get("vmx") or ""))[0]
    if before in stores:
        return before
    if not stores:
        raise RestoreRefused(new.name, f"{new.host} has no datastore that it can write to")
    return max(stores, key=lambda name: int(stores[name].get("summary").freeSpace or 0))


def _networks(vcenter: Vcenter, saved: Saved, new: NewMachine, host: Found) -> dict[str, Any]:
    known = _backings(vcenter, host.get("network") or ())
    found = {}
    for network in dict.fromkeys(nic.network for nic in saved.nics):
        name = new.networks.get(network, network)
        if name not in known:
            raise RestoreRefused(
                new.name,
                f"{new.host} has no network {name or '(its name was not known when it was saved)'}",
                hint=f"name another one for it: --network '{network}=NAME'; there are {', '.join(sorted(known)) or 'none'}",
            )
        found[network] = known[name]
    return found


def _backings(vcenter: Vcenter, networks: Iterable[Any]) -> dict[str, Any]:
    """Name -> what a NIC on that network is backed with."""
    card = vim.vm.device.VirtualEthernetCard
    groups = [n for n in networks if isinstance(n, vim.dvs.DistributedVirtualPortgroup)]
    opaque = [n for n in networks if isinstance(n, vim.OpaqueNetwork)]
    plain = [n for n in networks if n not in groups and n not in opaque]
    found: dict[str, Any] = {}
    for one in collector.read(vcenter, plain, ("name",)):
        name = str(one.get("name"))
        found[name] = card.NetworkBackingInfo(deviceName=name, network=one.object)
    for one in collector.read(vcenter, opaque, ("name", "summary")):
        summary = one.get("summary")
        found[str(one.get("name"))] = card.OpaqueNetworkBackingInfo(
            opaqueNetworkId=summary.opaqueNetworkId, opaqueNetworkType=summary.opaqueNetworkType
        )
    for one in collector.read(vcenter, groups, ("name", "key", "config.distributedVirtualSwitch", "config.uplink")):
        if one.get("config.uplink"):
            continue  # its ports are the switch's own ways out
        switch = collector.read_one(vcenter, one.get("config.distributedVirtualSwitch"), "uuid")
        port = vim.dvs.PortConnection(portgroupKey=one.get("key"), switchUuid=switch.get("uuid"))
        found[str(one.get("name"))] = card.DistributedVirtualPortBackingInfo(port=port)
    return found
