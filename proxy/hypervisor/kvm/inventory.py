"""Domain XML as libvirt writes it -> machines, disks and chains. Pure: no connection, no file.

https://libvirt.org/formatdomain.html, sections "Hard drives, floppy disks, CDROMs" and "Backing store".
"""

import re
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from proxy.errors import FormatError
from proxy.hypervisor.kvm.ownership import Ownership
from proxy.model import (
    DeviceAddress,
    Disk,
    FileAddress,
    Format,
    Layer,
    Location,
    LunAddress,
    MachineId,
    Reason,
    ReasonCode,
)

AGENT_CHANNEL = "org.qemu.guest_agent.0"
ISCSI_PORT = "3260"
# What can lie in a chain that is frozen here and read by our transports; Format has more, those of other hypervisors.
_FORMATS = frozenset({Format.RAW.value, Format.QCOW2.value})

# udev's persistent names that carry the NAA identifier; SCSI id type 3 is NAA, written without "naa." or "0x".
_NAA_PATHS = (
    re.compile(r"/wwn-0x([0-9a-f]{16}|[0-9a-f]{32})$"),
    re.compile(r"/scsi-3([0-9a-f]{16}|[0-9a-f]{32})$"),
    re.compile(r"/dm-uuid-mpath-3([0-9a-f]{16}|[0-9a-f]{32})$"),
    re.compile(r"^/dev/mapper/3([0-9a-f]{16}|[0-9a-f]{32})$"),
)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One image in a disk's chain. ``path`` as libvirt's API takes it.

    ``location`` is ``None`` where we have no word for the place, ``layer`` also where we cannot read the format.
    """

    location: Location | None
    layer: Layer | None
    path: str | None
    what: str


@dataclass(frozen=True, slots=True)
class DiskXml:
    """A disk of a domain. ``chain``: top first, empty for an empty drive; ``excluded``: why no snapshot can hold it.

    ``target``: the key is a target name that libvirt's calls take (it is not for SCSI host devices).
    """

    key: str
    chain: tuple[ChainLink, ...]
    excluded: Reason | None = None
    target: bool = True

    def layers(self, start: int) -> tuple[Layer, ...]:
        """Layers from depth ``start`` down (0 = top). Only for disks that are not excluded."""
        return tuple(link.layer for link in self.chain[start:] if link.layer is not None)

    @property
    def top(self) -> ChainLink | None:
        """What the guest writes to."""
        return self.chain[0] if self.chain else None


@dataclass(frozen=True, slots=True)
class DomainXml:
    """What a definition says. ``agent``: the guest has the agent's channel open (live definition only)."""

    machine: MachineId
    name: str
    disks: tuple[DiskXml, ...]
    agent: bool
    agent_channel: bool
    nvram: str | None

    @property
    def targets(self) -> list[str]:
        """Keys that libvirt's calls take."""
        return [d.key for d in self.disks if d.target]

    def disk(self, key: str) -> DiskXml | None:
        """The disk with that target."""
        return next((d for d in self.disks if d.key == key), None)


def parse(text: str) -> Element:
    """XML of libvirt or of a restore point. Raises ``FormatError``."""
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - expat limits entity expansion; no external entities
    except ElementTree.ParseError as error:
        raise FormatError("machine definition", str(error)) from None


def domain(text: str) -> DomainXml:
    """Read a domain definition, live or inactive. Raises ``FormatError``."""
    root = parse(text)
    machine, name = root.findtext("uuid"), root.findtext("name")
    if root.tag != "domain" or not machine or not name:
        raise FormatError("machine definition", "no domain with uuid and name")
    channels = [t for t in root.findall("devices/channel/target") if t.get("name") == AGENT_CHANNEL]
    nvram = root.find("os/nvram")
    return DomainXml(
        machine=machine.lower(),
        name=name,
        disks=(*_disks(root), *_passed_through(root)),
        agent=any(t.get("state") == "connected" for t in channels),
        agent_channel=bool(channels),
        nvram=None if nvram is None else (nvram.text or "").strip() or None,
    )


def location(kind: str | None, source: Element | None) -> Location | None:
    """A ``<source>`` of the disk type ``kind`` as an address; ``None`` where we have no word for it."""
    if source is None:
        return None
    if kind == "file" and source.get("file"):
        return FileAddress(source.get("file", ""))
    if kind == "block" and source.get("dev"):
        return DeviceAddress(source.get("dev", ""), naa(source.get("dev", "")))
    if kind == "network" and source.get("protocol") == "iscsi":
        return _lun(source)
    return None


def naa(path: str) -> str | None:
    """``naa.…`` from udev's persistent names of a block device."""
    for pattern in _NAA_PATHS:
        if found := pattern.search(path):
            return f"naa.{found[1]}"
    return None


def _lun(source: Element) -> LunAddress | None:
    target, _, number = source.get("name", "").rpartition("/")
    if not target:
        target, number = number, "0"
    if not number.isdecimal():
        return None
    portals = tuple(_portal(h.get("name", ""), h.get("port") or ISCSI_PORT) for h in source.findall("host"))
    return LunAddress(target, int(number), portals)


def _portal(name: str, port: str) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _disks(root: Element) -> list[DiskXml]:
    found = []
    for element in root.findall("devices/disk"):
        target = element.find("target")
        key = target.get("dev", "") if target is not None else ""
        if key:
            chain = _chain(element)
            found.append(DiskXml(key, chain, _exclusion(element, chain)))
    return found


def _passed_through(root: Element) -> list[DiskXml]:
    """SCSI host devices have no target name; they get one from their order, so that they are shown and not forgotten."""
    devices = [h for h in root.findall("devices/hostdev") if h.get("type") in ("scsi", "scsi_host")]
    reason = Reason(ReasonCode.DISK_PASSTHROUGH, "SCSI host device")
    return [DiskXml(f"hostdev{i}", (), reason, target=False) for i, _ in enumerate(devices)]


def _chain(element: Element) -> tuple[ChainLink, ...]:
    """The disk's source and all ``<backingStore>`` below it. An empty drive has none."""
    links = []
    driver = element.find("driver")
    kind, source = element.get("type"), element.find("source")
    word = driver.get("type", "raw") if driver is not None else "raw"
    below = element.find("backingStore")
    while source is not None:
        links.append(_link(kind, source, word))
        if below is None or below.get("type") is None:
            break
        kind, source = below.get("type"), below.find("source")
        form = below.find("format")
        word = form.get("type", "raw") if form is not None else "raw"
        below = below.find("backingStore")
    return tuple(links)


def _link(kind: str | None, source: Element, word: str) -> ChainLink:
    place = location(kind, source)
    readable = place is not None and word in _FORMATS
    return ChainLink(
        location=place,
        layer=Layer(place, Format(word)) if readable and place is not None else None,
        path=source.get("file") or source.get("dev"),
        what=f"{source.get('protocol') or kind} {word}",
    )


def _exclusion(element: Element, chain: tuple[ChainLink, ...]) -> Reason | None:
    """The first reason that applies, from "it is no disk" to "we cannot read it"."""
    device = element.get("device", "disk")
    unread = next((link.what for link in chain if link.layer is None), None)
    rules = (
        (not chain, ReasonCode.DISK_EMPTY_DRIVE, device),
        (device in ("cdrom", "floppy"), ReasonCode.DISK_READ_ONLY, device),
        (device == "lun", ReasonCode.DISK_PASSTHROUGH, "SCSI commands go straight to the device"),
        (
            element.get("type") in ("nvme", "vhostuser", "vhostvdpa"),
            ReasonCode.DISK_PASSTHROUGH,
            element.get("type", ""),
        ),
        (element.find("readonly") is not None, ReasonCode.DISK_READ_ONLY, "attached read-only"),
        (element.find("shareable") is not None, ReasonCode.DISK_SHARED, "shared with other machines"),
        (element.find("transient") is not None, ReasonCode.DISK_UNSUPPORTED, "transient: dropped at power-off"),
        (unread is not None, ReasonCode.DISK_UNSUPPORTED, unread or ""),
    )
    return next((Reason(code, detail) for applies, code, detail in rules if applies), None)


def shown_disk(disk: DiskXml, owned: Ownership, size: int) -> Disk:
    """As the guest has it: an overlay of ours is not its disk but what lies below. ``size``: 0 when unknown."""
    ours = [link for link in disk.chain if isinstance(link.location, FileAddress) and owned.owns(link.location.path)]
    own = [link for link in disk.chain if link not in ours]
    first = own[0] if own else None
    return Disk(
        key=disk.key,
        size=size,
        format=first.layer.format if first is not None and first.layer is not None else Format.RAW,
        location=first.location if first is not None else None,
        excluded=disk.excluded,
        below=tuple(link.location for link in own[1:] if link.location is not None),
        overlay=ours[0].path if ours else None,
    )
