"""What a guest's file systems look like from here: one port, a handful of values. Names are bytes and stay bytes.

A guest may name its files as it likes: not UTF-8, with newlines, with ``..`` in hostile images. Nothing in this package
decodes a name on the way; ``shown`` is for people's eyes only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from proxy.ports import Closing


class FileType(StrEnum):
    """What an entry is. ``OTHER``: the file system says something that POSIX has no word for."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    BLOCK_DEVICE = "block-device"
    CHARACTER_DEVICE = "character-device"
    FIFO = "fifo"
    SOCKET = "socket"
    OTHER = "other"


TYPE_OF_MODE: Mapping[int, FileType] = {
    0o040000: FileType.DIRECTORY,
    0o100000: FileType.FILE,
    0o120000: FileType.SYMLINK,
    0o060000: FileType.BLOCK_DEVICE,
    0o020000: FileType.CHARACTER_DEVICE,
    0o010000: FileType.FIFO,
    0o140000: FileType.SOCKET,
}
"""By the type bits of ``st_mode`` (``0o170000``): stat(2)."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One name in one volume. Hard links are several entries with one ``inode``; ``links`` tells how many, 1 if unknown.

    ``path``: absolute within the volume, ``b"/"`` is its root. ``size`` in bytes. ``mode``: permission bits (``07777``).
    Times in nanoseconds since 1970 UTC. ``link_target``: of symbolic links, as stored; never followed. ``allocated``: bytes
    that it takes on its disk, -1 if unknown; less than ``size`` for sparse and compressed files. ``device``: major and
    minor number of a device file.
    """

    path: bytes
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes | None = None
    links: int = 1
    allocated: int = -1
    device: tuple[int, int] = (0, 0)

    @property
    def name(self) -> bytes:
        """Last part of the path; empty for the root."""
        return self.path.rsplit(b"/", 1)[-1]


class VolumeState(StrEnum):
    """What a file system says about how it was left. ``CLEAN``: nothing to replay or to repair; ``DIRTY``: its journal has
    entries that were not written in place, or its dirty mark is set, as after a power cut; ``UNKNOWN``: it does not tell."""

    CLEAN = "clean"
    DIRTY = "dirty"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system, or something that is none, in the disks of one machine.

    ``id``: names the volume the same way in every restore point (see ``identified``). ``device``: the adapter's own name,
    good for this session only. ``mountpoint``: where the guest mounts it (``/``, ``/data``, ``C:``), ``None`` if unknown
    or nowhere. ``size`` in bytes, 0 when unknown. ``problem``: why no file of it can be read, ``None`` when all is well.
    ``state_detail``: what was read to tell ``state``, for people (``needs_recovery``).
    """

    id: str
    device: str
    type: str
    label: str
    uuid: str
    size: int
    mountpoint: str | None = None
    problem: str | None = None
    state: VolumeState = VolumeState.UNKNOWN
    state_detail: str = ""

    def guest_path(self, path: bytes) -> bytes:
        """A path in this volume as the guest names it: ``/data/x``, ``C:/x``; ``/dev/sdb1:/x`` when it is not mounted.

        The root is the mount point itself: ``/``, ``/data``, ``C:``, ``/dev/sdb1:``.
        """
        prefix = self.device + ":" if self.mountpoint is None else self.mountpoint.rstrip("/")
        full = prefix.encode(errors="surrogateescape") + path
        return full if path != b"/" else full.rstrip(b"/") or b"/"


@dataclass(frozen=True, slots=True)
class OperatingSystem:
    """An operating system found by looking at the volumes. Empty strings where the guest does not tell.

    ``type``: ``linux``, ``windows``, …; ``root``: device of its root volume; ``packages_format``: ``deb``, ``rpm``, ….
    """

    root: str
    type: str
    distribution: str
    product: str
    version: str
    hostname: str
    architecture: str
    packages_format: str = ""


class GuestFilesystem(Closing, Protocol):
    """All disks of one machine, opened together and read-only. Calls may come from many threads; they take turns.

    ``close`` may come from any thread at any time and ends calls under way; they and all later calls raise ``MountEnded``
    (but for the facts that were known at the start). What the disks cannot answer raises ``MountFailed``. ``path`` is
    absolute within the volume; symbolic links are not followed in its last part, and never out of the volumes.
    """

    def volumes(self) -> Sequence[Volume]:
        """Every file system, also those that cannot be opened (with ``problem``). The same answer for the whole session."""
        ...

    def operating_systems(self) -> Sequence[OperatingSystem]:
        """What was recognised; empty for data disks."""
        ...

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        """Every entry of the volume but its root, a directory before what it holds, in batches; bounded memory."""
        ...

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        """Entries of one directory, sorted by name. Raises ``GuestFileNotFound``."""
        ...

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        """One entry. Raises ``GuestFileNotFound``."""
        ...

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        """A regular file's bytes from ``offset`` to its end, piece by piece; bounded memory. ``GuestFileNotFound``."""
        ...

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        """Extended attributes by their full names (``user.x``, ``security.selinux``); POSIX ACLs are
        ``system.posix_acl_access`` and ``system.posix_acl_default`` as the kernel gives them. Empty where the file system
        has none or cannot tell. Raises ``GuestFileNotFound``."""
        ...


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """What an adapter knows before volumes have an ``id``; ``name`` tells subvolumes of one file system apart."""

    device: str
    type: str
    label: str
    uuid: str
    size: int
    mountpoint: str | None = None
    problem: str | None = None
    name: str = ""
    state: VolumeState = VolumeState.UNKNOWN
    state_detail: str = ""


def identified(found: Sequence[FoundVolume]) -> tuple[Volume, ...]:
    """Give every volume its ``id``: the file system's UUID (and subvolume) where that is one of a kind in the machine,
    else the device, since clones of a disk in one machine have equal UUIDs."""
    wanted = [f"{f.uuid}/{f.name}" if f.uuid and f.name else f.uuid for f in found]
    return tuple(
        Volume(
            id=want if want and wanted.count(want) == 1 else f"device:{f.device}",
            device=f.device,
            type=f.type,
            label=f.label,
            uuid=f.uuid,
            size=f.size,
            mountpoint=f.mountpoint,
            problem=f.problem,
            state=f.state,
            state_detail=f.state_detail,
        )
        for f, want in zip(found, wanted, strict=True)
    )


def shown(path: bytes) -> str:
    """A name for people's eyes: what is not UTF-8 or not printable is escaped. Not reversible, never used to open."""
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
