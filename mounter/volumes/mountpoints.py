"""Which volume the guest has where, and what runs there: from fstab, os-release, the Windows registry. For both readers.

No volume is mounted and nothing is run: a few small files are read through ``Files``. Symbolic links are followed within
their volume (os-release is one nearly everywhere).
"""

import posixpath
import re
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mounter.ports import FileType, FoundVolume, OperatingSystem
from mounter.volumes.registry import Hive, Value
from proxy.errors import FormatError
from proxy.units import KiB

# A fstab or an os-release is some hundred bytes; what is longer is not read to its end.
LONGEST = 256 * KiB
_LINKS = 16

_NOT_MOUNTED = frozenset({"none", "swap", "ignore", "/proc", "/sys", "/dev"})
_DISTRIBUTIONS = {"arch": "archlinux", "ol": "oraclelinux", "kali": "kalilinux", "opensuse-leap": "opensuse"}
_PACKAGES = {
    "deb": "debian ubuntu linuxmint kalilinux raspbian devuan pop",
    "rpm": "fedora rhel centos rocky almalinux sles opensuse oraclelinux mageia amzn openeuler scientificlinux",
    "apk": "alpine",
    "pacman": "archlinux manjaro",
    "ebuild": "gentoo",
    "xbps": "voidlinux",
}
_SHELLS = ("/bin/bash", "/bin/ls", "/bin/echo", "/bin/rm", "/bin/sh", "/bin/busybox")
_ELF = {3: "i386", 62: "x86_64", 183: "aarch64", 40: "arm", 21: "ppc64", 22: "s390x", 243: "riscv64"}
_PE = {0x14C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64"}
_DISK = re.compile(r"/dev/(?:sd|hd|vd|xvd)([a-z]{1,2})(\d*)$")
_NVME = re.compile(r"/dev/nvme(\d+)n1(?:p(\d+))?$")


class Files(Protocol):
    """Reads small files of volumes, by device and absolute path. Letter case does not count where Windows' file systems
    do not count it. May raise ``LanfreeError`` when a disk cannot be read."""

    def type(self, device: str, path: str) -> FileType | None:
        """Of the entry itself, links not followed; ``None`` if there is none."""
        ...

    def read(self, device: str, path: str, offset: int, length: int) -> bytes:
        """Of a regular file; fewer bytes at its end, none if it is not there."""
        ...

    def link(self, device: str, path: str) -> str:
        """Target of a symbolic link."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """``uuid``: PARTUUID in lower case; ``signature``: of the disk's MBR, 0 with GPT; ``start``: bytes."""

    uuid: str
    signature: int
    start: int


@dataclass(slots=True)
class Inspection:
    """``mountpoints``: by device. ``unsure``: why some of it may be missing, empty when all is known."""

    systems: list[OperatingSystem] = field(default_factory=list)
    mountpoints: dict[str, str] = field(default_factory=dict)
    unsure: str = ""


def inspect(volumes: Sequence[FoundVolume], partitions: Mapping[str, PartitionFacts], files: Files) -> Inspection:
    """``partitions``: by device, those that are known (Windows' drive letters need them)."""
    found = Inspection()
    for volume in volumes:
        if volume.problem is not None:
            continue
        look = _Look(files, volume.device)
        if volume.type == "ntfs" and look.is_file("/Windows/System32/config/SYSTEM"):
            _windows(look, volume, partitions, found)
        elif look.is_directory("/etc") and look.is_directory("/bin") and look.is_file("/etc/fstab"):
            _linux(look, volume, volumes, partitions, found)
    return found


class _Look:
    """One volume's files, links followed."""

    def __init__(self, files: Files, device: str) -> None:
        self._files = files
        self._device = device

    def is_file(self, path: str) -> bool:
        where = self._followed(path)
        return where is not None and self._files.type(self._device, where) is FileType.FILE

    def is_directory(self, path: str) -> bool:
        where = self._followed(path)
        return where is not None and self._files.type(self._device, where) is FileType.DIRECTORY

    def bytes(self, path: str, offset: int, length: int) -> bytes:
        where = self._followed(path)
        return b"" if where is None else self._files.read(self._device, where, offset, length)

    def text(self, path: str) -> str:
        return self.bytes(path, 0, LONGEST).decode(errors="replace") if self.is_file(path) else ""

    def _followed(self, path: str) -> str | None:
        """Every link on the way resolved, as if the volume were the root."""
        done, todo = "/", [part for part in path.split("/") if part]
        for _ in range(_LINKS * 8):
            if not todo:
                return done
            part = todo.pop(0)
            if part == "..":
                done = posixpath.dirname(done)
                continue
            here = posixpath.join(done, part)
            kind = self._files.type(self._device, here)
            if kind is FileType.SYMLINK:
                target = self._files.link(self._device, here)
                done = "/" if target.startswith("/") else done
                todo = [p for p in target.split("/") if p not in ("", ".")] + todo
            elif kind is None:
                return None
            else:
                done = here
        return None


def _linux(
    look: _Look,
    root: FoundVolume,
    volumes: Sequence[FoundVolume],
    partitions: Mapping[str, PartitionFacts],
    found: Inspection,
) -> None:
    taken: set[str] = set(found.mountpoints.values())
    mine: dict[str, str] = {}
    for source, mountpoint, options in _fstab(look.text("/etc/fstab")):
        device = _device(source, options, volumes, partitions)
        if device is not None and mountpoint not in taken:
            mine.setdefault(device, mountpoint)
    if "/" not in mine.values() and "/" not in taken:
        mine[root.device] = "/"
    for device, mountpoint in mine.items():
        found.mountpoints.setdefault(device, mountpoint)
    release = _release(look)
    own = _DISTRIBUTIONS.get(release.get("ID", ""), release.get("ID", ""))
    found.systems.append(
        OperatingSystem(
            root=root.device,
            type="linux",
            distribution=own,
            product=release.get("PRETTY_NAME", ""),
            version=_version(release.get("VERSION_ID", "")),
            hostname=next(iter(look.text("/etc/hostname").split()), "") or _sysconfig(look),
            architecture=_architecture(look),
            packages_format=next((kind for kind, names in _PACKAGES.items() if own in names.split()), ""),
        )
    )


def _fstab(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Source, mount point and options of the lines that mount something of a disk."""
    for line in text.splitlines():
        fields = [_unescaped(f) for f in line.split("#")[0].split()] if not line.lstrip().startswith("#") else []
        if len(fields) < 2 or fields[1] in _NOT_MOUNTED or not fields[1].startswith("/"):
            continue
        if (len(fields) > 2 and fields[2] == "swap") or not fields[1].isprintable():
            continue
        options = fields[3].split(",") if len(fields) > 3 else []
        yield fields[0].strip('"'), posixpath.normpath(fields[1]), options


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def _device(
    source: str, options: Sequence[str], volumes: Sequence[FoundVolume], partitions: Mapping[str, PartitionFacts]
) -> str | None:
    """The volume that a source names; of clones with one UUID the first, as the guest's own kernel would take one."""
    tag, _, wanted = source.partition("=")
    wanted = wanted.strip('"')
    for prefix, name in (("uuid", "UUID"), ("label", "LABEL"), ("partuuid", "PARTUUID")):
        if source.startswith(f"/dev/disk/by-{prefix}/"):
            tag, wanted = name, source.rpartition("/")[2].replace("\\x20", " ")
    if tag == "UUID":
        candidates = [v for v in volumes if v.uuid and v.uuid.lower() == wanted.lower()]
    elif tag == "LABEL":
        candidates = [v for v in volumes if v.label and v.label == wanted]
    elif tag == "PARTUUID":
        candidates = [v for v in volumes if (p := partitions.get(v.device)) is not None and p.uuid == wanted.lower()]
    else:
        names = _names(source)
        candidates = [v for v in volumes if v.device in names]
    subvolume = next((o.partition("=")[2].strip("/") for o in options if o.startswith("subvol=")), "")
    exact = [v for v in candidates if v.name.strip("/") == subvolume]
    chosen = exact or (candidates if not subvolume else [])
    return chosen[0].device if chosen else None


def _names(source: str) -> set[str]:
    """What the appliance may call the device that the guest calls ``source``: disks count in the machine's order."""
    names = {source}
    disk, nvme = _DISK.match(source), _NVME.match(source)
    if disk:
        names.add(f"/dev/sd{disk[1]}{disk[2]}")
    elif nvme and int(nvme[1]) < 26:
        names.add(f"/dev/sd{chr(ord('a') + int(nvme[1]))}{nvme[2] or ''}")
    elif source.startswith("/dev/mapper/"):
        group, _, volume = source.removeprefix("/dev/mapper/").replace("--", "\0").partition("-")
        if volume:
            names.add(f"/dev/{group}/{volume}".replace("\0", "-"))
    return names


def _release(look: _Look) -> dict[str, str]:
    text = look.text("/etc/os-release") or look.text("/usr/lib/os-release")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    found = {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    if not found:
        line = next(iter(look.text("/etc/redhat-release").splitlines()), "")
        numbers = re.search(r"\d+(?:\.\d+)?", line)
        found = {"PRETTY_NAME": line, "VERSION_ID": numbers[0] if numbers else ""} if line else {}
    return found


def _version(text: str) -> str:
    """``12.0`` for ``12``, ``22.4`` for ``22.04``: two numbers, as the appliance tells them."""
    numbers = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", text)
    return f"{int(numbers[1])}.{int(numbers[2] or 0)}" if numbers else ""


def _sysconfig(look: _Look) -> str:
    named = re.search(r"^HOSTNAME=\"?([^\"\s]+)", look.text("/etc/sysconfig/network"), re.MULTILINE)
    return named[1] if named else ""


def _architecture(look: _Look) -> str:
    for path in _SHELLS:
        head = look.bytes(path, 0, 20) if look.is_file(path) else b""
        if head[:4] == b"\x7fELF" and len(head) == 20:
            machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
            return "ppc64le" if machine == 21 and head[5] == 1 else _ELF.get(machine, "")
    return ""


def _windows(look: _Look, root: FoundVolume, partitions: Mapping[str, PartitionFacts], found: Inspection) -> None:
    try:
        system = Hive(lambda offset, length: look.bytes("/Windows/System32/config/SYSTEM", offset, length))
        letters = dict(_letters(system.values("MountedDevices"), partitions))
        current = system.values("Select").get("current")
        tcpip = system.values(f"ControlSet{current.number if current else 1:03d}\\Services\\Tcpip\\Parameters")
    except (FormatError, struct.error, RecursionError) as error:
        found.unsure = f"the registry of {root.device} cannot be read: {error}"
        letters, tcpip = {}, {}
    for device, letter in (letters or {root.device: "C:"}).items():
        if letter not in found.mountpoints.values():
            found.mountpoints.setdefault(device, letter)
    facts = _software(look)
    found.systems.append(
        OperatingSystem(
            root=root.device,
            type="windows",
            distribution="windows",
            product=_text(facts, "productname"),
            version=_windows_version(facts),
            hostname=_text(tcpip, "hostname") or _text(tcpip, "nv hostname"),
            architecture=_pe(look),
        )
    )


def _letters(values: Mapping[str, Value], partitions: Mapping[str, PartitionFacts]) -> Iterator[tuple[str, str]]:
    """Device and drive letter: by disk signature and offset on MBR disks, by the partition's GUID on GPT disks."""
    for name, value in sorted(values.items()):
        letter = re.fullmatch(r"\\dosdevices\\([a-z]:)", name)
        if letter is None:
            continue
        for device, facts in partitions.items():
            by_signature = facts.signature and value.data == struct.pack("<IQ", facts.signature, facts.start)
            if by_signature or (value.data[:8] == b"DMIO:ID:" and _guid(value.data[8:24]) == facts.uuid):
                yield device, letter[1].upper()


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw)) if len(raw) == 16 else ""


def _software(look: _Look) -> Mapping[str, Value]:
    path = "/Windows/System32/config/SOFTWARE"
    if not look.is_file(path):
        return {}
    try:
        hive = Hive(lambda offset, length: look.bytes(path, offset, length))
        return hive.values("Microsoft\\Windows NT\\CurrentVersion")
    except (FormatError, struct.error, RecursionError):
        return {}  # these facts are welcome, never needed


def _text(values: Mapping[str, Value], name: str) -> str:
    return values[name].text if name in values else ""


def _windows_version(facts: Mapping[str, Value]) -> str:
    if "currentmajorversionnumber" in facts and "currentminorversionnumber" in facts:
        return f"{facts['currentmajorversionnumber'].number}.{facts['currentminorversionnumber'].number}"
    return _text(facts, "currentversion")


def _pe(look: _Look) -> str:
    path = "/Windows/System32/cmd.exe"
    head = look.bytes(path, 0, 64) if look.is_file(path) else b""
    if head[:2] != b"MZ" or len(head) < 64:
        return ""
    (at,) = struct.unpack_from("<I", head, 60)
    mark = look.bytes(path, at, 6)
    return _PE.get(int.from_bytes(mark[4:6], "little"), "") if mark[:4] == b"PE\0\0" else ""
