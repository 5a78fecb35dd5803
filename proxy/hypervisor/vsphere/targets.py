"""Where a vCenter can put a restored machine: hosts, datastores, networks. Three questions, whatever it manages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.hypervisor.vsphere import collector, inventory
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import Datastore
from proxy.hypervisor.vsphere.faults import moid
from proxy.hypervisor.vsphere.places import name_of

_UPLINKS = "SYSTEM/DVS.UPLINKPG"
"""Tag of port groups that are a distributed switch's own way out: no machine is connected to them."""


@dataclass(frozen=True, slots=True)
class Targets:
    """At one time, by name. ``hosts``: name -> why no machine can be put on it now, or empty. ``mounted``: id of a datastore
    -> names of hosts that have it."""

    hosts: Mapping[str, str]
    datastores: tuple[Datastore, ...]
    mounted: Mapping[str, tuple[str, ...]]
    networks: tuple[str, ...]


def read_targets(vcenter: Vcenter) -> Targets:
    """Now. Raises ``Refused``, ``HostUnreachable``."""
    return build(
        collector.find(vcenter, vim.HostSystem, inventory.HOST_PATHS),
        collector.find(vcenter, vim.Datastore, (*inventory.DATASTORE_PATHS, "host")),
        collector.find(vcenter, vim.Network, ("name", "tag")),
    )


def build(hosts: Sequence[Found], datastores: Sequence[Found], networks: Sequence[Found]) -> Targets:
    """Of what was answered. Pure."""
    names = {host.id: name_of(host) for host in hosts}
    stores = sorted((inventory.datastore(found, "") for found in datastores), key=lambda store: (store.name, store.id))
    return Targets(
        hosts={name_of(host): _why_not(host) for host in sorted(hosts, key=name_of)},
        datastores=tuple(stores),
        mounted={found.id: _mounted(found, names) for found in datastores},
        networks=tuple(sorted({name_of(found) for found in networks if not _is_uplink(found)})),
    )


def _why_not(host: Found) -> str:
    if str(host.get("runtime.connectionState")) != "connected":
        return "vCenter shows it as disconnected"
    return "it is in maintenance mode" if host.get("runtime.inMaintenanceMode") else ""


def _mounted(found: Found, names: Mapping[str, str]) -> tuple[str, ...]:
    there = [mount for mount in found.get("host") or () if getattr(mount.mountInfo, "mounted", None) is not False]
    return tuple(sorted(names[moid(mount.key)] for mount in there if moid(mount.key) in names))


def _is_uplink(found: Found) -> bool:
    return any(str(getattr(tag, "key", "")) == _UPLINKS for tag in found.get("tag") or ())
