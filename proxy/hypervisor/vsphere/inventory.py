"""What a vCenter has: machines and templates with their places, datastores, hosts, clusters, folders, tags, attributes.

``read`` asks in a few paged questions and gives one consistent ``Inventory``; ``read_machine`` asks about one machine. What is
made of the answers is pure (``build``). Identity is the instance UUID, which vMotion, Storage vMotion and registering a
machine anew keep; managed object ids, names, folders and datastores are only where it is now.

Paths are written as vSphere's own tools do: ``/DC0/vm/Prod/Web`` (folder), ``/DC0/host/Cluster1/Resources/Gold`` (pool).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import MachineNotFound
from proxy.hypervisor.vsphere import collector, places
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.devices import RDM, Datastore, Surroundings, disks
from proxy.hypervisor.vsphere.faults import Refusal, Refused, moid
from proxy.hypervisor.vsphere.places import Tree, name_of
from proxy.hypervisor.vsphere.tags import Tag, TagService
from proxy.model import MachineId, PowerState, VirtualMachine, VmdkAddress

MACHINE_PATHS = (
    "name",
    "parent",
    "parentVApp",
    "resourcePool",
    "datastore",
    "customValue",
    "config.instanceUuid",
    "config.template",
    "config.version",
    "config.changeTrackingEnabled",
    "config.keyId",
    "config.managedBy",
    "config.ftInfo",
    "config.files.vmPathName",
    "config.hardware.device",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "runtime.consolidationNeeded",
    "guest.toolsRunningStatus",
)

DATASTORE_PATHS = ("name", "summary", "info", "parent")
HOST_PATHS = ("name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode")

_STATES = {"poweredOn": PowerState.RUNNING, "poweredOff": PowerState.OFF, "suspended": PowerState.SUSPENDED}


@dataclass(frozen=True, slots=True)
class Host:
    """An ESXi host. ``cluster``: name of its cluster, or its own for a host alone. ``connected``: vCenter reaches it;
    ``usable``: connected, and in no maintenance, so that machines can be put on it."""

    id: str
    name: str
    cluster: str
    connected: bool
    usable: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine or template with all that selecting and restoring need of its place.

    ``id``: managed object id, good for calls now and no identity. ``folder``, ``pool``: paths; a template has no pool.
    ``tags``: its own, not those of its folders; ``None``: nobody could ask. ``hardware``: version (``vmx-19``).
    ``vmx``: ``[datastore] folder/name.vmx``. ``managed_by``: extension that owns it (agents of vSphere itself).
    ``change_tracking``: on now; ``consolidation_needed``: files of a removed snapshot still lie there.
    """

    id: str
    machine: VirtualMachine
    template: bool
    folder: str
    pool: str
    cluster: str
    datacenter: str
    datastores: tuple[str, ...]
    tags: tuple[Tag, ...] | None
    attributes: Mapping[str, str]
    vmx: str
    hardware: str
    change_tracking: bool
    consolidation_needed: bool
    managed_by: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One vCenter at one time. Machines by name, then identity.

    ``unreadable``: machines that vCenter shows and cannot describe now (host disconnected, files gone): name -> why.
    ``without_tags``: why the tags could not be read, empty when they were.
    """

    machines: tuple[Machine, ...]
    datastores: tuple[Datastore, ...]
    hosts: tuple[Host, ...]
    clusters: tuple[str, ...]
    folders: tuple[str, ...]
    pools: tuple[str, ...]
    unreadable: Mapping[str, str]
    without_tags: str = ""

    def machine(self, identity: MachineId) -> Machine:
        """Raises ``MachineNotFound``."""
        found = next((m for m in self.machines if m.machine.id == identity), None)
        if found is None:
            raise MachineNotFound(identity)
        return found


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked for, as it came: the input of ``build``."""

    machines: Sequence[Found]
    datastores: Sequence[Found] = ()
    hosts: Sequence[Found] = ()
    places: Sequence[Found] = ()
    """Folders, data centres, clusters, pools and vApps: ``name`` and ``parent``."""
    attributes: Mapping[int, str] = field(default_factory=dict)
    tags: Mapping[str, tuple[Tag, ...]] | None = None
    without_tags: str = ""
    luns: Mapping[str, str] = field(default_factory=dict)
    site: str = ""


def read(vcenter: Vcenter, *, tags: bool = True) -> Inventory:
    """Everything, now. Without ``tags`` they are left out (``None``). Raises ``Refused``, ``HostUnreachable``."""
    machines = collector.find(vcenter, vim.VirtualMachine, MACHINE_PATHS)
    attached, without = _tags(vcenter, machines) if tags else (None, "not asked for")
    return build(
        Answers(
            machines=machines,
            datastores=collector.find(vcenter, vim.Datastore, DATASTORE_PATHS),
            hosts=collector.find(vcenter, vim.HostSystem, HOST_PATHS),
            places=places.everywhere(vcenter),
            attributes=_attributes(vcenter),
            tags=attached,
            without_tags=without,
            luns=_luns(vcenter, machines),
            site=vcenter.name,
        )
    )


def read_machine(vcenter: Vcenter, identity: MachineId, *, tags: bool = False) -> Machine:
    """One machine as it is now. Raises ``MachineNotFound``; ``Refused`` (``HOST``) when vCenter cannot describe it now."""
    found = collector.read(vcenter, [find_machine(vcenter, identity)], MACHINE_PATHS)
    attached, without = _tags(vcenter, found) if tags else (None, "not asked for")
    stores = collector.read(vcenter, [s for f in found for s in f.get("datastore") or ()], DATASTORE_PATHS)
    running_on = [f.get("runtime.host") for f in found if f.get("runtime.host") is not None]
    hosts = collector.read(vcenter, running_on, HOST_PATHS)
    answers = Answers(
        machines=found,
        datastores=stores,
        hosts=hosts,
        places=places.above(vcenter, [*found, *stores, *hosts]),
        attributes=_attributes(vcenter),
        tags=attached,
        without_tags=without,
        luns=_luns(vcenter, found),
        site=vcenter.name,
    )
    seen = build(answers)
    for name, why in seen.unreadable.items():
        raise Refused(f"read machine {name}", why, Refusal.HOST, subject=found[0].id)
    return seen.machine(identity)


def find_machine(vcenter: Vcenter, identity: MachineId) -> Any:
    """The ``vim.VirtualMachine`` (or template) with that instance UUID. Raises ``MachineNotFound``."""
    index = vcenter.content.searchIndex
    found = index.FindByUuid(datacenter=None, uuid=identity, vmSearch=True, instanceUuid=True)
    if found is None:
        raise MachineNotFound(identity)
    return found


def surroundings(vcenter: Vcenter, machine: Any) -> Surroundings:
    """What ``devices.address`` needs to name the places of a machine's files, asked now. Raises ``Refused``."""
    found = collector.read_one(vcenter, machine, "datastore", "config.keyId", "config.hardware.device", "runtime.host")
    stores = collector.read(vcenter, found.get("datastore") or (), DATASTORE_PATHS)
    return Surroundings(
        machine=found.id,
        encrypted=found.get("config.keyId") is not None,
        datastores={s.id: datastore(s, "") for s in stores},
        luns=_luns(vcenter, [found]),
        site=vcenter.name,
    )


def build(answers: Answers) -> Inventory:
    """An ``Inventory`` of what was answered. Pure."""
    tree = Tree([*answers.places, *answers.hosts])
    stores = {found.id: datastore(found, tree.datacenter(found.get("parent"))) for found in answers.datastores}
    hosts = {found.id: _host(found, tree) for found in answers.hosts}
    machines, unreadable = [], {}
    for found in answers.machines:
        if why := _unreadable(found):
            unreadable[name_of(found)] = why
        elif not _is_secondary(found):
            machines.append(_machine(found, answers, tree, stores, hosts))
    return Inventory(
        machines=tuple(sorted(machines, key=lambda m: (m.machine.name, m.machine.id))),
        datastores=tuple(sorted(stores.values(), key=lambda s: (s.name, s.id))),
        hosts=tuple(sorted(hosts.values(), key=lambda h: (h.name, h.id))),
        clusters=tuple(sorted({host.cluster for host in hosts.values()})),
        folders=tree.paths(vim.Folder, below="vm"),
        pools=tree.paths(vim.ResourcePool),
        unreadable=unreadable,
        without_tags=answers.without_tags,
    )


def datastore(found: Found, datacenter: str) -> Datastore:
    """One datastore of its properties ``DATASTORE_PATHS``; what the user may not read of it is empty."""
    summary, info = found.get("summary"), found.get("info")
    volume, nas = getattr(info, "vmfs", None), getattr(info, "nas", None)
    extents = list(getattr(volume, "extent", None) or ())
    server = f"{nas.remoteHost}:{nas.remotePath}" if nas is not None else ""
    return Datastore(
        id=found.id,
        name=name_of(found),
        kind=str(getattr(summary, "type", "") or ""),
        capacity=int(getattr(summary, "capacity", 0) or 0),
        free=int(getattr(summary, "freeSpace", 0) or 0),
        accessible=bool(getattr(summary, "accessible", False)),
        volume=str(getattr(volume, "uuid", "") or ""),
        devices=tuple(str(e.diskName) for e in extents),
        partitions=tuple(int(e.partition) for e in extents),
        version=str(getattr(volume, "version", "") or ""),
        server=server,
        datacenter=datacenter,
    )


def _machine(
    found: Found, answers: Answers, tree: Tree, stores: Mapping[str, Datastore], hosts: Mapping[str, Host]
) -> Machine:
    host = hosts.get(moid(found.get("runtime.host")))
    encrypted = found.get("config.keyId") is not None
    around = Surroundings(found.id, encrypted, stores, answers.luns, answers.site)
    shown = VirtualMachine(
        id=str(found.values["config.instanceUuid"]).lower(),
        name=name_of(found),
        host=host.name if host else "",
        state=_STATES.get(str(found.get("runtime.powerState")), PowerState.OFF),
        disks=disks(found.get("config.hardware.device") or (), around),
        agent=found.get("guest.toolsRunningStatus") == "guestToolsRunning",
    )
    parent = found.get("parent") or tree.folder_of_vapp(found.get("parentVApp"))
    named = {v.key: str(v.value) for v in found.get("customValue") or () if hasattr(v, "value")}
    return Machine(
        id=found.id,
        machine=shown,
        template=bool(found.get("config.template")),
        folder=tree.path(parent),
        pool=tree.path(found.get("resourcePool")),
        cluster=host.cluster if host else "",
        datacenter=tree.datacenter(parent),
        datastores=tuple(sorted(stores[moid(s)].name for s in found.get("datastore") or () if moid(s) in stores)),
        tags=None if answers.tags is None else answers.tags.get(found.id, ()),
        attributes={answers.attributes.get(key, str(key)): value for key, value in named.items()},
        vmx=str(found.get("config.files.vmPathName") or ""),
        hardware=str(found.get("config.version") or ""),
        change_tracking=bool(found.get("config.changeTrackingEnabled")),
        consolidation_needed=bool(found.get("runtime.consolidationNeeded")),
        managed_by=str(getattr(found.get("config.managedBy"), "extensionKey", "") or ""),
    )


def _unreadable(found: Found) -> str:
    state = str(found.get("runtime.connectionState") or "connected")
    if found.get("config.instanceUuid") is None:
        fault = found.missing.get("config.instanceUuid", "")
        return f"vCenter has no configuration of it ({fault or state})"
    if not found.get("config.hardware.device"):  # every machine has some: without them it would seem to have no disks
        fault = found.missing.get("config.hardware.device", "")
        return f"vCenter does not tell its devices ({fault or state})"
    return "" if state in {"connected", "disconnected"} else f"vCenter calls it {state}"


def _is_secondary(found: Found) -> bool:
    """The shadow of a fault-tolerant machine: it has the identity of its primary, which is the one to back up."""
    return int(getattr(found.get("config.ftInfo"), "role", 1) or 1) > 1


def _host(found: Found, tree: Tree) -> Host:
    connected = str(found.get("runtime.connectionState")) == "connected"
    usable = connected and not found.get("runtime.inMaintenanceMode")
    return Host(found.id, name_of(found), tree.name(found.get("parent")), connected, usable)


def _attributes(vcenter: Vcenter) -> dict[int, str]:
    """Names of custom attributes by key; a host without vCenter has none."""
    manager = vcenter.content.customFieldsManager
    return {} if manager is None else {f.key: str(f.name) for f in manager.field or ()}


def _tags(vcenter: Vcenter, machines: Sequence[Found]) -> tuple[Mapping[str, tuple[Tag, ...]] | None, str]:
    """Tags by managed object id, or ``None`` and why not: an inventory without tags is still one."""
    try:
        with TagService(vcenter) as service:
            return service.attached("VirtualMachine", [m.id for m in machines]), ""
    except Refused as error:
        return None, error.message


def _luns(vcenter: Vcenter, machines: Sequence[Found]) -> dict[str, str]:
    """LUN UUID -> canonical name (``naa.…``), asked only if a machine maps a raw LUN: hosts list thousands of them."""
    mapping = vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo
    hosts = {
        moid(host): host
        for found in machines
        for device in found.get("config.hardware.device") or ()
        if (host := found.get("runtime.host")) is not None and _maps(device, mapping)
    }
    luns = collector.read(vcenter, hosts.values(), ("config.storageDevice.scsiLun",))
    return {
        str(lun.uuid): str(lun.canonicalName)
        for found in luns
        for lun in found.get("config.storageDevice.scsiLun") or ()
        if lun.uuid and lun.canonicalName
    }


def _maps(device: Any, mapping: Any) -> bool:
    backing = getattr(device, "backing", None)
    while backing is not None and not isinstance(backing, mapping):
        backing = getattr(backing, "parent", None)
    return backing is not None


def raw_lun(place: object) -> str:
    """Name of the array's LUN that a disk maps, empty for any other disk."""
    return place.devices[0] if isinstance(place, VmdkAddress) and place.kind == RDM and place.devices else ""
