"""Volumes that a guest mounts over the network by itself: *not protected by a backup* of its disks. Found by looking into
the guest's own configuration; nothing is connected to.

Looked at: ``/etc/fstab``; systemd's mount units under ``/etc/systemd/system``; open-iscsi's and the older initiator's
databases; autofs' master and its plain maps (not executable ones, not those of directories). Sources: fstab(5),
systemd.mount(5), iscsiadm(8), auto.master(5), autofs(5).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from mounter.ports import FileEntry, FileType, shown
from proxy.errors import GuestFileNotFound, MountEnded, MountFailed
from proxy.units import KiB, MiB

# Types of fstab that come over the network. ``fuse.`` before one of them means the same.
TYPES = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "glusterfs",
        "ceph",
        "cephfs",
        "sshfs",
        "davfs",
        "davfs2",
        "lustre",
        "beegfs",
        "gpfs",
        "afs",
        "9p",
        "ocfs2",
        "gfs2",
        "s3fs",
        "rclone",
        "orangefs",
        "pvfs2",
        "moosefs",
        "mfs",
        "juicefs",
        "quobyte",
        "curlftpfs",
        "ncpfs",
        "virtiofs",
    ]
)

# Configuration is small; what is larger is none, and a hostile guest could have us read for hours.
_LARGEST = 1 * MiB
_MOST_NAMES = 1_000
_MOST_FOUND = 1_000
_LONGEST = 1 * KiB

_OCTAL = re.compile(r"\\([0-7]{3})")


class Guest(Protocol):
    """What is looked at: a ``MountSession``. Paths are guest paths."""

    def list_directory(self, path: bytes) -> Sequence[FileEntry]: ...
    def entry(self, path: bytes) -> FileEntry: ...
    def read(self, path: bytes) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class NetworkVolume:
    """``kind``: file system type, or ``iscsi``. ``source``: server and path, or the iSCSI target with its portal.
    ``mountpoint``: in the guest, empty when not known. ``told_by``: the guest's file that says so. For people to read."""

    kind: str
    source: str
    mountpoint: str
    told_by: str


def find(guest: Guest) -> Sequence[NetworkVolume]:
    """All of them, each once, in the order of what tells them. What cannot be read is passed over. Raises ``MountEnded``."""
    found = dict.fromkeys(islice((v for look in _LOOKS for v in look(guest)), _MOST_FOUND))
    return list(found)


def _fstab(guest: Guest) -> Iterator[NetworkVolume]:
    for words in _lines(guest, b"/etc/fstab"):
        if len(words) < 3:
            continue
        source, mountpoint, kind = (_unescaped(word) for word in words[:3])
        options = words[3].split(",") if len(words) > 3 else []
        if _over_network(kind, source) or "_netdev" in options:
            yield _volume(_plain(kind), source, "" if mountpoint == "none" else mountpoint, b"/etc/fstab")


def _units(guest: Guest) -> Iterator[NetworkVolume]:
    for path in _files(guest, b"/etc/systemd/system", b".mount"):
        facts: dict[str, str] = {}
        section = ""
        for line in _text(guest, path).splitlines():
            text = line.strip()
            if text.startswith("["):
                section = text
            elif section == "[Mount]" and "=" in text and not text.startswith(("#", ";")):
                name, _, value = text.partition("=")
                facts[name.strip()] = value.strip()
        source, kind = facts.get("What", ""), facts.get("Type", "")
        if source and (_over_network(kind, source) or "_netdev" in facts.get("Options", "").split(",")):
            yield _volume(_plain(kind) or "unknown", source, facts.get("Where", ""), path)


def _iscsi(guest: Guest) -> Iterator[NetworkVolume]:
    """nodes/<target>/<portal>,<port>,<group>: a directory with records by interface, or with open-iscsi before 2.0 a file."""
    for top in (b"/etc/iscsi/nodes", b"/var/lib/iscsi/nodes"):
        for target in _listed(guest, top):
            if target.type is not FileType.DIRECTORY:
                continue
            path = top + b"/" + target.name
            for portal in _listed(guest, path):
                address = portal.name.split(b",")
                where = b":".join(address[:2]) if len(address) > 1 else address[0]
                yield _volume("iscsi", f"{shown(target.name)} at {shown(where)}", "", path + b"/" + portal.name)


def _autofs(guest: Guest) -> Iterator[NetworkVolume]:
    masters = [b"/etc/auto.master", *_files(guest, b"/etc/auto.master.d", b".autofs")]
    for master in masters:
        for words in _lines(guest, master):
            if len(words) < 2 or not words[0].startswith("/"):
                continue
            place, named = words[0], words[1].removeprefix("file:")
            if named.startswith("/"):
                yield from _map(guest, place, named.encode(errors="surrogateescape"))
            elif named == "-hosts":
                yield _volume("nfs", "every host's exports", place, master)


def _map(guest: Guest, place: str, path: bytes) -> Iterator[NetworkVolume]:
    if _mode(guest, path) & 0o111:
        return  # a program that makes the map; it is not run
    for words in _lines(guest, path):
        kind = "nfs"
        options = [word for word in words[1:] if word.startswith("-")]
        sources = [word for word in words[1:] if not word.startswith("-")]
        for option in ",".join(options).replace("-", "").split(","):
            kind = option.removeprefix("fstype=") if option.startswith("fstype=") else kind
        if sources and words[0] != "+" and _over_network(kind, sources[0]):
            point = words[0] if place == "/-" else f"{place}/{words[0]}"
            yield _volume(_plain(kind), sources[0].removeprefix(":"), point, path)


_LOOKS: tuple[Callable[[Guest], Iterator[NetworkVolume]], ...] = (_fstab, _units, _iscsi, _autofs)


def _over_network(kind: str, source: str) -> bool:
    return _plain(kind) in TYPES or (kind in ("", "auto") and (source.startswith("//") or ":/" in source))


def _plain(kind: str) -> str:
    return kind.removeprefix("fuse.")


def _volume(kind: str, source: str, mountpoint: str, told_by: bytes) -> NetworkVolume:
    # After unescaping, which may have brought control characters: these are for terminals and documents.
    told = (shown(text.encode(errors="surrogateescape")) for text in (kind, _bare(source), mountpoint))
    return NetworkVolume(*(text[:_LONGEST] for text in (*told, shown(told_by))))


def _bare(source: str) -> str:
    """Without a password, which some write before the server's name (``//user:secret@server/share``)."""
    return re.sub(r"(//|^)([^/:@]*):[^/]*@", r"\1\2@", source)


def _unescaped(word: str) -> str:
    """fstab writes blanks as octal numbers."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8) & 0xFF), word)


def _lines(guest: Guest, path: bytes) -> Iterator[list[str]]:
    """Words of each line that is no comment."""
    for line in _text(guest, path).splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words


def _text(guest: Guest, path: bytes) -> str:
    """A small file, for people's eyes; empty if it is not there."""
    data = b""
    try:
        for piece in guest.read(path):
            data += piece
            if len(data) > _LARGEST:
                return ""
    except MountEnded:
        raise
    except (GuestFileNotFound, MountFailed):
        return ""
    return "\n".join(shown(line) for line in data.replace(b"\t", b" ").split(b"\n"))


def _files(guest: Guest, directory: bytes, suffix: bytes) -> list[bytes]:
    return [directory + b"/" + e.name for e in _listed(guest, directory) if e.name.endswith(suffix)]


def _listed(guest: Guest, directory: bytes) -> Sequence[FileEntry]:
    try:
        return guest.list_directory(directory)[:_MOST_NAMES]
    except MountEnded:
        raise
    except (GuestFileNotFound, MountFailed):
        return ()


def _mode(guest: Guest, path: bytes) -> int:
    try:
        return guest.entry(path).mode
    except MountEnded:
        raise
    except (GuestFileNotFound, MountFailed):
        return 0
