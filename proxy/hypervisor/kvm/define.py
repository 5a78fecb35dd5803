"""A machine's definition: saved without traces of us, and turned into a new machine. Pure XML.

https://libvirt.org/formatdomain.html. What a restored machine must not share with a living one: UUID, name, MAC
addresses, NVRAM file, disks. What it keeps: everything else, as it was saved.
"""

import copy
import uuid
from collections.abc import Callable
from pathlib import PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from proxy.errors import FormatError
from proxy.hypervisor.kvm.inventory import ISCSI_PORT, parse
from proxy.model import MachineConfiguration
from proxy.ports import DiskPlace, NewMachine

KIND = "libvirt-xml"

# Enough for a paused emulator that only merges images; QEMU itself needs more than the guest's memory here.
HELPER_MEMORY_MIB = 64


def without_overlays(text: str, ours: Callable[[str], bool]) -> str:
    """The definition with every overlay of ours, at any depth, replaced by what lies below it. ``ours``: whether a path
    is one. Raises ``FormatError`` when the definition does not tell what lies below.
    """
    root = parse(text)
    for disk in root.findall("devices/disk"):
        while _is_ours(disk, ours):
            _descend(disk)
        _bridge(disk, ours)
    return ElementTree.tostring(root, encoding="unicode")


def helper(text: str) -> str:
    """The least machine that has the same disks and identity: for a merge while the machine is off.

    Its processors never run. Nothing that could disturb is in it: no network, no devices, little memory.
    """
    root = parse(text)
    least = Element("domain", {"type": root.get("type", "kvm")})
    for tag in ("name", "uuid"):
        _copy(root, tag, least)
    ElementTree.SubElement(least, "memory", {"unit": "MiB"}).text = str(HELPER_MEMORY_MIB)
    ElementTree.SubElement(least, "vcpu").text = "1"
    for tag in ("iothreads", "iothreadids", "seclabel"):  # disks may name a thread, images may need a label
        _copy(root, tag, least)
    _copy(root, "os/type", ElementTree.SubElement(least, "os"))
    devices = ElementTree.SubElement(least, "devices")
    _copy(root, "devices/emulator", devices)
    for controller in root.findall("devices/controller"):
        if controller.get("type") in ("pci", "scsi", "sata", "ide", "virtio-serial"):
            devices.append(controller)
    for disk in root.findall("devices/disk"):
        if disk.get("device", "disk") == "disk":
            devices.append(disk)
    ElementTree.SubElement(devices, "memballoon", {"model": "none"})
    return ElementTree.tostring(least, encoding="unicode")


def with_overlay(text: str, key: str, path: str) -> str:
    """The definition as it is while ``path`` lies on top of disk ``key``."""
    root = parse(text)
    for disk in root.findall("devices/disk"):
        target = disk.find("target")
        if target is None or target.get("dev") != key:
            continue
        below = Element("backingStore", {"type": disk.get("type", "file")})
        driver, source = disk.find("driver"), disk.find("source")
        form = driver.get("type", "raw") if driver is not None else "raw"
        ElementTree.SubElement(below, "format", {"type": form})
        if source is not None:
            disk.remove(source)
            below.append(source)
            if (auth := disk.find("auth")) is not None:
                disk.remove(auth)
                source.append(auth)
        if driver is not None:
            driver.set("type", "qcow2")
        if (deeper := disk.find("backingStore")) is not None:
            disk.remove(deeper)
            below.append(deeper)
        disk.set("type", "file")
        disk.insert(1, Element("source", {"file": path}))
        disk.insert(2, below)
    return ElementTree.tostring(root, encoding="unicode")


def new_definition(configuration: MachineConfiguration, new: NewMachine) -> str:
    """What to define for a restore. Raises ``FormatError`` for a configuration of another kind or without its parts."""
    if configuration.kind != KIND:
        raise FormatError("machine configuration", f"kind {configuration.kind} is not {KIND}")
    root = parse(configuration.text)
    name, old, devices = root.find("name"), root.find("uuid"), root.find("devices")
    if name is None or old is None or devices is None:
        raise FormatError("machine configuration", "no name, uuid or devices")
    root.attrib.pop("id", None)
    fresh = new.identity is not None and new.identity != old.text
    if fresh:
        old.text = new.identity
        _drop(root, "genid")
        _renew_nvram(root, new.name)
    name.text = new.name
    _settle_disks(devices, new)
    for interface in devices.findall("interface"):
        _settle_link(interface, fresh=fresh, connected=new.connected)
    if fresh:
        _forget_paths(devices)
    return ElementTree.tostring(root, encoding="unicode")


def nvram_path(text: str) -> PurePosixPath | None:
    """Where the definition keeps the firmware's variables."""
    path = (parse(text).findtext("os/nvram") or "").strip()
    return PurePosixPath(path) if path else None


def _settle_disks(devices: Element, new: NewMachine) -> None:
    """Named disks get their new place, drives of removable media are emptied, all other disks go."""
    for disk in devices.findall("disk"):
        target = disk.find("target")
        key = target.get("dev", "") if target is not None else ""
        if key in new.disks:
            _place(disk, new.disks[key])
        elif disk.get("device") in ("cdrom", "floppy"):
            _drop(disk, "source")
            _drop(disk, "backingStore")
            disk.set("type", "file")
        else:
            devices.remove(disk)


def _place(disk: Element, place: DiskPlace) -> None:
    """Raw bytes on a LUN, a device or a file. Auth and initiator of an iSCSI disk stay: they name a secret, not hold it."""
    source = disk.find("source")
    kept = []
    if source is not None:
        kept = [e for e in (source.find("initiator"), source.find("auth") or disk.find("auth")) if e is not None]
    for tag in ("source", "auth", "backingStore", "mirror"):
        _drop(disk, tag)
    driver = disk.find("driver")
    if driver is None:
        driver = Element("driver", {"name": "qemu"})
        disk.insert(0, driver)
    driver.set("type", "raw")
    fresh = _lun_source(place, kept) if place.target else _path_source(disk, place.path)
    if place.target:
        disk.set("type", "network")
    disk.insert(1, fresh)


def _lun_source(place: DiskPlace, kept: list[Element]) -> Element:
    source = Element("source", {"protocol": "iscsi", "name": f"{place.target}/{place.lun}"})
    host, _, port = place.portal.rpartition(":")
    ElementTree.SubElement(source, "host", {"name": (host or place.portal).strip("[]"), "port": port or ISCSI_PORT})
    source.extend(kept)
    return source


def _path_source(disk: Element, path: str) -> Element:
    block = path.startswith("/dev/")
    disk.set("type", "block" if block else "file")
    return Element("source", {"dev" if block else "file": path})


def _settle_link(interface: Element, *, fresh: bool, connected: bool) -> None:
    if fresh:
        _drop(interface, "mac")  # libvirt makes a new one
        _drop(interface, "target")
    _drop(interface, "link")
    if not connected:
        ElementTree.SubElement(interface, "link", {"state": "down"})


def _forget_paths(devices: Element) -> None:
    """Sockets and ports that belong to the first machine: libvirt gives the new one its own."""
    for source in devices.findall("channel/source"):
        if source.get("mode") == "bind":
            source.attrib.pop("path", None)
    for graphics in devices.findall("graphics"):
        graphics.set("autoport", "yes")
        graphics.attrib.pop("port", None)


def _renew_nvram(root: Element, name: str) -> None:
    element = root.find("os/nvram")
    if element is not None and element.text:
        old = PurePosixPath(element.text.strip())
        element.text = str(old.with_name(f"{name}-{uuid.uuid4().hex[:8]}_VARS{old.suffix or '.fd'}"))


def _is_ours(disk: Element, ours: Callable[[str], bool]) -> bool:
    source = disk.find("source")
    return source is not None and ours(source.get("file", ""))


def _descend(disk: Element) -> None:
    """Take the disk's top layer away: its ``<backingStore>`` becomes its source."""
    below = disk.find("backingStore")
    source = below.find("source") if below is not None else None
    if below is None or source is None:
        raise _unknown_below()
    form, driver = below.find("format"), disk.find("driver")
    if form is not None and driver is not None:
        driver.set("type", form.get("type", "raw"))
    deeper = copy.deepcopy(below.find("backingStore"))
    for tag in ("source", "backingStore", "mirror"):
        _drop(disk, tag)
    disk.set("type", below.get("type", "file"))
    disk.insert(1, source)
    if deeper is not None and deeper.get("type"):
        disk.insert(2, deeper)


def _bridge(upper: Element, ours: Callable[[str], bool]) -> None:
    """Take the layers of ours below the top one away."""
    while (below := upper.find("backingStore")) is not None:
        if not _is_ours(below, ours):
            upper = below
            continue
        deeper = below.find("backingStore")
        if deeper is None or deeper.find("source") is None:
            raise _unknown_below()
        upper.insert(list(upper).index(below), deeper)
        upper.remove(below)


def _unknown_below() -> FormatError:
    return FormatError("machine definition", "an overlay of ours is in it, but not what lies below")


def _copy(root: Element, path: str, into: Element) -> None:
    found = root.find(path)
    if found is not None:
        into.append(found)


def _drop(parent: Element, tag: str) -> None:
    for element in parent.findall(tag):
        parent.remove(element)
