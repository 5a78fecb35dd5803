"""A machine's configuration as a restore point keeps it: everything that a new machine can be given, without secrets.

``MachineConfiguration(kind="vsphere-json")``. The text is one JSON object::

    format      1
    name, identity (instance UUID), bios_uuid, template, hardware ("vmx-19"), guest, guest_name, managed_by
    place       where it was: vcenter, datacenter, folder, pool, cluster, host, datastores, vmx
    tags        [category, name] …, null when nobody could ask; attributes: name -> value
    settings    processors, memory, firmware, boot, allocations, … under the names of vim.vm.ConfigSpec
    extra       advanced settings (vmx keys) -> value; left_out: the keys of those that are secrets
    devices     every virtual device, as vim_json writes it
    disks       key, device, size, thin, eager, mode, uuid, path, excluded: for people, and for a restore's choices
    nics        device, mac, network, kind: which network each was on, by name
    nvram       path, missing: why the firmware's variables are not here, if they are not

What ``definition`` makes a new machine of it from is ``Saved``. Reading checks shapes: the text may be old, or tampered with.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import FormatError
from proxy.hypervisor.vsphere import collector, devices, files, inventory
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refused
from proxy.hypervisor.vsphere.inventory import Machine
from proxy.hypervisor.vsphere.tags import Tag
from proxy.hypervisor.vsphere.vim_json import WHAT, decode, encode
from proxy.model import MachineConfiguration, MachineId
from proxy.units import MiB

KIND = "vsphere-json"
FORMAT = 1

# EFI variables of a virtual machine are 64 KiB to 256 KiB, of large Secure Boot databases a few MiB.
NVRAM_LIMIT = 16 * MiB

# Properties of vim.vm.ConfigInfo that vim.vm.ConfigSpec takes under the same name and type, and that say something about the
# machine and not about the host that it ran on. Change tracking is not among them: it starts anew with a new machine.
SETTINGS = (
    *("guestId", "alternateGuestName", "annotation", "flags", "rebootPowerOff", "cpuAllocation", "memoryAllocation"),
    *("latencySensitivity", "memoryHotAddEnabled", "cpuHotAddEnabled", "cpuHotRemoveEnabled", "swapPlacement"),
    *("bootOptions", "vAssertsEnabled", "firmware", "maxMksConnections", "guestAutoLockEnabled"),
    *("memoryReservationLockedToMax", "nestedHVEnabled", "vPMCEnabled", "messageBusTunnelEnabled", "migrateEncryption"),
    *("sevEnabled", "fixedPassthruHotPlugEnabled"),
)

# The same for vim.vm.VirtualHardware: there -> in ConfigSpec.
HARDWARE = {
    "numCPU": "numCPUs",
    "numCoresPerSocket": "numCoresPerSocket",
    "memoryMB": "memoryMB",
    "virtualICH7MPresent": "virtualICH7MPresent",
    "virtualSMCPresent": "virtualSMCPresent",
    "simultaneousThreads": "simultaneousThreads",
    "motherboardLayout": "motherboardLayout",
}

# Of vim.vm.ToolsConfigInfo only what is configured; the rest is what Tools reported last.
TOOLS = (
    *("afterPowerOn", "afterResume", "beforeGuestStandby", "beforeGuestShutdown", "beforeGuestReboot"),
    *("toolsUpgradePolicy", "syncTimeWithHostAllowed", "syncTimeWithHost"),
)

# Advanced settings that hold secrets: console passwords, keys, and what clouds hand to a guest at its first start.
SECRET = re.compile(
    r"password|passwd|secret|private.?key|\.vnc\.key|^encryption\.|^dataFileKey"
    r"|^guestinfo\.(userdata|vendordata|ovfenv|metadata)",
    re.IGNORECASE,
)

# Which place a NIC's network is, by the class of its backing.
_KINDS = {
    "NetworkBackingInfo": "standard",
    "DistributedVirtualPortBackingInfo": "distributed",
    "OpaqueNetworkBackingInfo": "opaque",
}


@dataclass(frozen=True, slots=True)
class SavedDisk:
    """A disk as it was. ``device``: key of its virtual device; ``excluded``: it is not in the restore point."""

    key: str
    device: int
    size: int
    thin: bool
    eager: bool
    uuid: str
    excluded: bool


@dataclass(frozen=True, slots=True)
class SavedNic:
    """A network card as it was. ``network``: by name; ``kind``: ``standard``, ``distributed``, ``opaque`` or empty."""

    device: int
    mac: str
    network: str
    kind: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A configuration that was read back. ``devices`` as JSON; ``decode`` makes API objects of them."""

    name: str
    identity: MachineId
    bios_uuid: str
    template: bool
    hardware: str
    place: Mapping[str, Any]
    tags: tuple[Tag, ...]
    attributes: Mapping[str, str]
    settings: Mapping[str, Any]
    extra: Mapping[str, Any]
    devices: Sequence[Mapping[str, Any]]
    disks: tuple[SavedDisk, ...]
    nics: tuple[SavedNic, ...]
    left_out: tuple[str, ...]
    nvram_path: str

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that it was on, each once."""
        return tuple(dict.fromkeys(nic.network for nic in self.nics if nic.network))


def capture(vcenter: Vcenter, identity: MachineId) -> MachineConfiguration:
    """The configuration as it is now. Raises ``MachineNotFound``, ``Refused``."""
    machine = inventory.read_machine(vcenter, identity, tags=True)
    moving = vcenter.object(vim.VirtualMachine, machine.id)
    found = collector.read_one(vcenter, moving, "config", "network", "layoutEx.file")
    path = nvram_path(found)
    nvram, missing = _nvram(vcenter, machine, path)
    document = describe(vcenter.name, machine, found, _network_names(vcenter, found))
    document["nvram"] = {"path": path, "missing": missing}
    return MachineConfiguration(KIND, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False), nvram)


def describe(vcenter: str, machine: Machine, found: Found, networks: Mapping[str, str]) -> dict[str, Any]:
    """The document without ``nvram``. ``found``: has ``config``; ``networks``: id or port group key -> name. Pure."""
    config = found.values["config"]
    extra = {str(o.key): encode(o.value) for o in config.extraConfig or ()}
    secret = sorted(key for key in extra if SECRET.search(key))
    return {
        "format": FORMAT,
        "name": machine.machine.name,
        "identity": machine.machine.id,
        "bios_uuid": str(config.uuid or ""),
        "template": machine.template,
        "hardware": str(config.version or ""),
        "guest": str(config.guestId or ""),
        "guest_name": str(config.guestFullName or ""),
        "managed_by": machine.managed_by,
        "place": _place(vcenter, machine),
        "tags": None if machine.tags is None else [[t.category, t.name] for t in machine.tags],
        "attributes": dict(machine.attributes),
        "settings": _settings(config),
        "extra": {key: value for key, value in extra.items() if key not in secret},
        "left_out": secret,
        "devices": [_device(d) for d in config.hardware.device],
        "disks": _disks(config.hardware.device, machine),
        "nics": _nics(config.hardware.device, networks),
    }


def nvram_path(found: Found) -> str:
    """``[datastore] folder/file`` of the firmware's variables, empty for a machine that has none."""
    listed = [str(f.name) for f in found.get("layoutEx.file") or () if f.type == "nvram"]
    if listed:
        return listed[0]
    config = found.values["config"]
    name = next((str(o.value) for o in config.extraConfig or () if o.key == "nvram"), "")
    folder = str(config.files.vmPathName or "").rpartition("/")[0]
    return f"{folder}/{name}" if name and folder and "/" not in name else ""


def parse(configuration: MachineConfiguration) -> Saved:
    """Read a configuration back. Raises ``FormatError``."""
    if configuration.kind != KIND:
        raise FormatError(WHAT, f"kind {configuration.kind} is not {KIND}")
    try:
        document = json.loads(configuration.text)
        if document["format"] != FORMAT:
            raise FormatError(WHAT, f"format {document['format']} is not {FORMAT}")
        return _saved(document)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(WHAT, f"{type(error).__name__}: {error}") from None


def _saved(document: Mapping[str, Any]) -> Saved:
    return Saved(
        name=str(document["name"]),
        identity=str(document["identity"]),
        bios_uuid=str(document["bios_uuid"]),
        template=bool(document["template"]),
        hardware=str(document["hardware"]),
        place=dict(document["place"]),
        tags=tuple(Tag(str(category), str(name)) for category, name in document["tags"] or ()),
        attributes={str(k): str(v) for k, v in document["attributes"].items()},
        settings=dict(document["settings"]),
        extra=dict(document["extra"]),
        devices=[dict(d) for d in document["devices"]],
        disks=tuple(_saved_disk(d) for d in document["disks"]),
        nics=tuple(
            SavedNic(int(n["device"]), str(n["mac"]), str(n["network"]), str(n["kind"])) for n in document["nics"]
        ),
        left_out=tuple(str(key) for key in document["left_out"]),
        nvram_path=str(document["nvram"]["path"]),
    )


def _saved_disk(saved: Mapping[str, Any]) -> SavedDisk:
    return SavedDisk(
        key=str(saved["key"]),
        device=int(saved["device"]),
        size=int(saved["size"]),
        thin=bool(saved["thin"]),
        eager=bool(saved["eager"]),
        uuid=str(saved["uuid"]),
        excluded=bool(saved["excluded"]),
    )


def _place(vcenter: str, machine: Machine) -> dict[str, Any]:
    return {
        "vcenter": vcenter,
        "datacenter": machine.datacenter,
        "folder": machine.folder,
        "pool": machine.pool,
        "cluster": machine.cluster,
        "host": machine.machine.host,
        "datastores": list(machine.datastores),
        "vmx": machine.vmx,
    }


def _settings(config: Any) -> dict[str, Any]:
    found = {name: encode(getattr(config, name, None)) for name in SETTINGS}
    found |= {there: encode(getattr(config.hardware, here, None)) for here, there in HARDWARE.items()}
    found["powerOpInfo"] = encode(getattr(config, "defaultPowerOps", None))
    if config.tools is not None:
        tools = vim.vm.ToolsConfigInfo(**{name: getattr(config.tools, name, None) for name in TOOLS})
        found["tools"] = encode(tools)
    return {name: value for name, value in found.items() if value is not None}


def _device(device: Any) -> Any:
    """A device without the chain below a disk's newest file: a restored disk has none."""
    saved = encode(device)
    backing = saved.get("backing")
    if isinstance(backing, dict):
        for gone in ("parent", "changeId", "contentId"):
            backing.pop(gone, None)
    return saved


def _disks(present: Sequence[Any], machine: Machine) -> list[dict[str, Any]]:
    shown = {disk.key: disk for disk in machine.machine.disks}
    return [
        {
            "key": key,
            "device": device.key,
            "size": devices.size_of(device),
            "thin": bool(getattr(devices.chain(device)[-1], "thinProvisioned", False)),
            "eager": bool(getattr(devices.chain(device)[-1], "eagerlyScrub", False)),
            "mode": str(getattr(device.backing, "diskMode", "") or ""),
            "uuid": str(getattr(device.backing, "uuid", "") or ""),
            "path": str(getattr(device.backing, "fileName", "") or ""),
            "excluded": key in shown and shown[key].excluded is not None,
        }
        for key, device in devices.virtual_disks(present).items()
    ]


def _nics(present: Sequence[Any], networks: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "device": device.key,
            "mac": str(device.macAddress or ""),
            "network": _network(device.backing, networks),
            "kind": _KINDS.get(type(device.backing).__name__.rpartition(".")[2], ""),
        }
        for device in present
        if isinstance(device, vim.vm.device.VirtualEthernetCard)
    ]


def _network(backing: Any, networks: Mapping[str, str]) -> str:
    """Name of the network behind a NIC, empty when it is not known."""
    port = getattr(backing, "port", None)
    key = getattr(port, "portgroupKey", None) or getattr(backing, "opaqueNetworkId", None)
    name = networks.get(str(key)) if key else getattr(backing, "deviceName", None)
    return str(name or "")


def _network_names(vcenter: Vcenter, found: Found) -> dict[str, str]:
    """Port group key or opaque network id -> name, of the networks that the machine is on."""
    networks = list(found.get("network") or ())
    groups = [n for n in networks if isinstance(n, vim.dvs.DistributedVirtualPortgroup)]
    opaque = [n for n in networks if isinstance(n, vim.OpaqueNetwork)]
    names = {str(f.get("key")): str(f.get("name")) for f in collector.read(vcenter, groups, ("key", "name"))}
    for one in collector.read(vcenter, opaque, ("summary", "name")):
        names[str(getattr(one.get("summary"), "opaqueNetworkId", ""))] = str(one.get("name"))
    return names


def _nvram(vcenter: Vcenter, machine: Machine, path: str) -> tuple[bytes | None, str]:
    """The file, or ``None`` and why not: a machine without it can be restored, its boot entries are found anew."""
    if not path:
        return None, ""
    try:
        data = files.read(vcenter, machine.datacenter, path, NVRAM_LIMIT)
    except Refused as error:
        return None, error.message
    return data or None, "" if data else "the file is not there, or empty"


def saved_device(saved: Mapping[str, Any]) -> Any:
    """An API object of one of ``Saved.devices``. Raises ``FormatError``, also for what is no device."""
    device = decode(saved)
    if not isinstance(device, vim.vm.device.VirtualDevice):
        raise FormatError(WHAT, f"{type(device).__name__} is no virtual device")
    return device
