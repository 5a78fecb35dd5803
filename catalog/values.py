"""What goes into the file index and what comes out of it: protocols of a walk's findings, and frozen answers."""

from dataclasses import dataclass
from typing import Protocol

from proxy.model import MachineId, Reason, RestorePointId


class IndexedFile(Protocol):
    """What a walk must tell of a file (``mounter.walk.FileRecord``). ``path``: the guest's own, absolute; ``volume``: id."""

    @property
    def volume(self) -> str: ...
    @property
    def path(self) -> bytes: ...
    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...
    @property
    def link_target(self) -> bytes | None: ...


class IndexedVolume(Protocol):
    """What a walk must tell of a volume (``mounter.ports.Volume``)."""

    @property
    def id(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def mountpoint(self) -> str | None: ...
    @property
    def type(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def state(self) -> str: ...
    @property
    def state_detail(self) -> str: ...


class IndexedNetworkVolume(Protocol):
    """What a look into the guest tells of storage that it uses over its network, and that no image therefore holds.

    ``kind``: ``nfs``, ``cifs``, ``iscsi``, …; ``source``: what is mounted; ``mountpoint``: where, empty if unknown;
    ``told_by``: the file that says so.
    """

    @property
    def kind(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...
    @property
    def told_by(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A volume in one restore point. ``problem``: why its files are not, or not all, listed. ``state``: how its file system
    was left (``clean``, ``dirty``, ``unknown``); ``state_detail``: what was read to tell it."""

    id: str
    device: str
    mountpoint: str | None
    type: str
    label: str
    size: int
    problem: str | None
    state: str = "unknown"
    state_detail: str = ""


@dataclass(frozen=True, slots=True)
class ListedNetworkVolume:
    """Storage that the guest used over its network, as ``IndexedNetworkVolume``: not protected by the restore point."""

    kind: str
    source: str
    mountpoint: str
    told_by: str


@dataclass(frozen=True, slots=True)
class LookedInto:
    """What was seen in a machine's newest indexed restore point. ``reasons``: who read it, and what it says of itself."""

    point: RestorePointId
    reasons: tuple[Reason, ...]
    network_volumes: tuple[ListedNetworkVolume, ...]


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file. ``first_point`` and ``last_point``: the oldest and newest restore point that hold it;
    all indexed ones of the machine between them hold it too. ``path``: the guest's own, as bytes. ``superseded``: the newest
    indexed restore point of the machine does not hold this version."""

    machine: MachineId
    volume: str
    path: bytes
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes | None
    first_point: RestorePointId
    last_point: RestorePointId
    superseded: bool = False

    @property
    def name(self) -> bytes:
        """Last part of the path."""
        return self.path.rsplit(b"/", 1)[-1]
