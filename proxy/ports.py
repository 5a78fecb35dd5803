"""Where the outside is plugged in. The comments are the contract; ``tests/contract`` holds every adapter to it.

All ports are synchronous and say which calls may come from several threads at once. Whatever is opened is a context
manager, and closing twice is allowed. Errors are those of ``proxy.errors``; an adapter lets no vendor's exception out.

Longer than 400 lines: all doors to the outside, on one page.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from proxy.extents import Extent
from proxy.model import (
    ChangeId,
    FrozenDisk,
    ImageInfo,
    Location,
    MachineConfiguration,
    MachineId,
    Reason,
    RestorePoint,
    RestorePointId,
    RunId,
    Snapshot,
    SnapshotRequest,
    VirtualMachine,
)


class Closing(Protocol):
    """Something that holds an outside resource."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StateStore(Protocol):
    """Small named records that must outlive a process, the same for all proxies of a site. Calls may come from any thread,
    process and proxy at once. Names are words of letters, digits and ``._:@-`` with ``/`` between; others: ``ValueError``."""

    def put(self, name: str, data: bytes) -> None:
        """Whole or not at all, in place of what was there; durable when it returns."""
        ...

    def get(self, name: str) -> bytes | None:
        """``None`` when there is none."""
        ...

    def remove(self, name: str) -> None:
        """Removing what is not there is fine."""
        ...

    def names(self, folder: str) -> list[str]:
        """Records directly in a folder, by their last word, sorted."""
        ...

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Alone among all that lock this name; ends with the process at the latest."""
        ...

    def folder(self, name: str) -> Self:
        """What lies in a folder, as a store of its own."""
        ...


class Clock(Protocol):
    """Wall clock, UTC, with time zone. A port so that retention and expiry can be tested."""

    def now(self) -> datetime: ...


class Hypervisor(Protocol):
    """One site: all hosts among which a machine can move. Calls may come from any thread, one at a time a machine."""

    name: str

    def machines(self) -> Sequence[VirtualMachine]:
        """Every machine of every host once, by identity: where it runs, else where it is defined. Hosts that do not
        answer raise ``HostUnreachable`` only if they are all silent; ``unreachable`` names the others."""
        ...

    def unreachable(self) -> Mapping[str, str]:
        """Host name -> why it did not answer the last ``machines`` call."""
        ...

    def machine(self, machine: MachineId) -> VirtualMachine:
        """As it is now. Raises ``MachineNotFound``."""
        ...

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """What a later ``define`` needs, secrets left out."""
        ...

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """Freeze the named disks at one moment. Idempotent by run: asked again, it returns the same frozen disks.

        Raises ``QuiesceFailed`` (policy require), ``SnapshotFailed``, ``NoSpaceForOverlay``; then nothing is left
        behind and the guest is thawed. A machine that is off is "frozen" as it is, and ``confirm`` tells if it held.
        """
        ...

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """Superset of what changed between ``since`` and the snapshot: normal, DATA only, within the disk.
        Only for disks with ``Tracking.HYPERVISOR``. Raises ``ChangesUnknown``."""
        ...

    def confirm(self, snapshot: Snapshot) -> None:
        """After the last read and before the seal. Raises ``SnapshotBroken`` unless the disks stood still until now."""
        ...

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """Undo the snapshot: merge overlays back, confirm the pivot, only then delete overlays. Idempotent.

        ``sealed``: a restore point now holds the new change ids, so older ones of ours go; otherwise the new ones go
        and the old ones keep covering. Works wherever the machine runs by now. Raises ``SnapshotInUse``.
        Returns what it had to mend.
        """
        ...

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """Find and undo what dead runs left behind. Touches nothing that does not carry our name.

        ``live`` gives the runs that somebody works on. It is asked *after* leftovers were found, and again before one is
        touched: a run is recorded before it makes anything, so what began meanwhile is then known to live.
        """
        ...

    def meters(self) -> "Meters":
        """A reader of its hosts' counters, for one user. Asks nobody yet."""
        ...

    def check_define(self, configuration: MachineConfiguration, new: "NewMachine") -> None:
        """Everything that ``define`` would refuse, asked before the disks are written. Raises ``RestoreRefused``."""
        ...

    def define(self, configuration: MachineConfiguration, new: "NewMachine") -> VirtualMachine:
        """Define a machine, powered off. Raises ``RestoreRefused`` if its identity or name is taken."""
        ...


@dataclass(frozen=True, slots=True)
class NewMachine:
    """How a restored machine differs from its saved configuration.

    ``identity``: keep it (``None``) or give this UUID; a new identity gets new MAC addresses too. ``disks``: key ->
    where the restored disk is; a disk that is not named is left out of the definition. ``connected``: network links up.
    ``without_hosts``: hosts that a person knows to be dead; any other one that is silent may run the machine. Where a site
    has them: ``folder`` and ``pool`` by their paths, ``networks``: name of a saved network -> name of the one to take instead.
    """

    name: str
    host: str
    disks: Mapping[str, "DiskPlace"]
    identity: MachineId | None = None
    connected: bool = False
    without_hosts: frozenset[str] = frozenset()
    folder: str = ""
    pool: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """Where a restored raw disk lies for the host: a LUN (``target``, ``lun``, ``portal``) or a ``path``.

    In a ``datastore``: the file at ``path`` within it, or the ``disk`` (its key) that is made there with the new machine.
    """

    target: str = ""
    lun: int = 0
    portal: str = ""
    path: str = ""
    datastore: str = ""
    disk: str = ""

    def __str__(self) -> str:
        """As people name it: the path, ``target/lun``, or ``[datastore]`` and what is in it."""
        if self.datastore:
            return f"[{self.datastore}] {self.path or self.disk}"
        return self.path or f"{self.target}/{self.lun}"


@dataclass(frozen=True, slots=True)
class HostLoad:
    """Means over ``Load.seconds``. ``cpu``: busy share of all processors, 0 to 1; ``received``, ``sent``: bytes/s; each of them
    ``None`` where nobody tells. ``network``: whose interfaces are counted: the ``host``'s own, or those of its ``guests``."""

    cpu: float | None = None
    received: float | None = None
    sent: float | None = None
    network: str = "host"


@dataclass(frozen=True, slots=True)
class PlaceLoad:
    """How a place (``proxy.places``) answers its guests. ``reads``, ``writes``: requests/s; ``read_latency``,
    ``write_latency``: mean seconds a request, ``None`` when there was none. What the proxy reads over the SAN is felt in
    here, and not counted."""

    reads: float = 0.0
    writes: float = 0.0
    read_latency: float | None = None
    write_latency: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What the hypervisor's own counters say of the last ``seconds``. A place or host that is not in it was not measured.

    ``silent``: hosts that did not answer, and why."""

    at: datetime
    seconds: float = 0.0
    hosts: Mapping[str, HostLoad] = field(default_factory=dict)
    places: Mapping[str, PlaceLoad] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)


class Meters(Protocol):
    """Reads the counters of a site's hosts; they cost the hosts next to nothing. One object for one reader, who calls it from
    one thread at a time; others make their own (``Hypervisor.meters``)."""

    def read(self) -> Load:
        """Since the last call of this object (the first one may know nothing yet), or over the site's own newest interval where
        it keeps such (vSphere: 20 s). Counters that began anew (a machine was started, or moved) are left out this once.
        Hosts that are silent are named, and raise nothing."""
        ...


class BlockSource(Closing, Protocol):
    """A frozen disk (or an image in the repository) that can be read. Reads may come from many threads at once."""

    size: int
    identity: str
    """Name of the device that serves it, recorded with the image (``naa.…``, a path, an NBD export)."""
    can_report_extents: bool

    def extents(self) -> Sequence[Extent]:
        """A map: normal, without gaps, ``[0, size)``. One DATA extent when ``can_report_extents`` is false."""
        ...

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """For disks whose tracking lies in the image or its top layer; as ``Hypervisor.changed``."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer or raises: there are no short reads above this line. Holes fill it with zeroes."""
        ...


class BlockTarget(Closing, Protocol):
    """A disk that a restore named, empty or to be overwritten. Writes may come from many threads, never overlapping."""

    size: int
    identity: str

    def write(self, offset: int, data: memoryview) -> None:
        """All of it or an error."""
        ...

    def zero(self, offset: int, length: int) -> None:
        """The range reads as zero afterwards, unallocated where the device can."""
        ...

    def flush(self) -> None:
        """Everything written is durable on the device when this returns."""
        ...


class RestoreTargets(Protocol):
    """The explicit write path: opens only what a restore named, by another door than the transports."""

    together: bool
    """Its disks are finished together: none can be read back before all that were opened are written and flushed."""

    def open(self, place: "DiskPlace", size: int, *, overwrite: bool) -> BlockTarget:
        """Raises ``RestoreRefused`` (nothing was written) when the place is too small, write-protected, not among the
        targets that restores may write to, or carries somebody's signature and ``overwrite`` was not said; ``WriteFailed``
        when another disk of the same machine could not be written, and with it none can."""
        ...

    def holds(self, place: "DiskPlace", disk: Location) -> bool:
        """Whether a machine's disk lies on the place, by whatever names the two are called."""
        ...

    def cannot_tell(self, place: "DiskPlace", disk: Location) -> bool:
        """Whether ``holds`` had to guess: the disk's name says nothing about the device behind it."""
        ...

    def read_back(self, place: "DiskPlace", size: int) -> BlockSource:
        """The first ``size`` bytes of the place as they are on the device now."""
        ...


class Transport(Protocol):
    """A way to a frozen disk's bytes. ``mode``: ``san``, ``lan`` or ``raw``."""

    mode: str

    def probe(self, disk: FrozenDisk) -> None:
        """Cheap look whether ``open`` can work. Raises ``TransportRefused`` with its reason. Never writes."""
        ...

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Raises ``TransportRefused`` or ``ReadFailed``."""
        ...


class ObjectStore(Protocol):
    """Flat names with ``/``, whole immutable objects. Calls may come from many threads and many proxies at once."""

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        """Durable when it returns; nobody ever sees a part. With ``new`` an existing name raises ``FileExistsError``.
        Raises ``RepositoryFull`` (and leaves nothing under the name); ``RepositoryUnavailable``: it may be there or not."""
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Exactly ``length`` bytes (to the end if ``None``). Raises ``FileNotFoundError``; a short object: ``FormatError``."""
        ...

    def size(self, name: str) -> int:
        """Bytes. Raises ``FileNotFoundError``."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Complete, in sorted order, or an error: never a part of the truth. The error may come while it is iterated over;
        what is put or deleted meanwhile may be in it or not."""
        ...

    def delete(self, name: str) -> None:
        """Gone when it returns; deleting what is not there is fine. Raises ``ObjectRetained``."""
        ...

    def age(self, name: str) -> float:
        """Seconds since the object was put (or replaced), measured by the store's own clock alone, to a second or so;
        never negative. Raises ``FileNotFoundError``."""
        ...

    can_retain: bool
    """Whether ``retain`` works here: asked, never tried out."""

    def retain(self, name: str, until: datetime) -> None:
        """The store itself keeps the object until then: whoever tries, ``delete`` and ``put`` without ``new`` raise
        ``ObjectRetained``. Extends and never shortens; a time in the past changes nothing. Raises ``FileNotFoundError``,
        and ``ConfigurationError`` where ``can_retain`` is false or ``until`` is further away than the store allows."""
        ...

    def local_path(self, name: str) -> Path | None:
        """Where the object lies as a local file, so that it can be mapped (objects never change); else ``None``."""
        ...


class ImageWriter(Closing, Protocol):
    """One disk on its way into the repository. What is never written is the parent's, and zero without a parent.

    ``write`` may come from many threads at once for different ranges. Closing before ``seal`` gives everything up.
    """

    size: int
    granularity: int
    """Writes start at multiples of it; their length is a multiple too, but for the end of the disk."""

    def write(self, offset: int, data: memoryview) -> None:
        """Takes the bytes over before it returns; they are durable only after ``seal``."""
        ...

    def zero(self, offset: int, length: int) -> None: ...

    store_seconds: float
    """How long callers' threads have waited for the repository's store so far, summed over all threads."""

    def seal(self) -> ImageInfo:
        """Everything durable, index written. Transport, source, change id, reasons and level are left for the caller."""
        ...


class ImageReader(BlockSource, Protocol):
    """One image of a restore point. Every byte that it gives was checked against its chunk's id (``IntegrityError``)."""

    granularity: int

    def chunk_digest(self, data: memoryview) -> bytes:
        """The id that the repository would give these bytes; to compare a device with an image."""
        ...

    def digest_at(self, offset: int) -> bytes | None:
        """The id of the chunk at ``offset``, ``None`` for a zero chunk."""
        ...

    def map(self) -> Iterable[Extent]:
        """As ``extents``, but made anew whenever it is walked through: a list of a large disk's would be larger than all else
        that a copy needs."""
        ...

    def will_read(self, extents: Iterable[Extent], ahead: int = ...) -> None:
        """The DATA of these extents is going to be read, once, in whole chunks and about in this order: the image may fetch
        up to ``ahead`` bytes before they are asked for. A hint: other reads stay allowed. Ends when the image is closed."""
        ...


class ImageRepository(Protocol):
    """Restore points and their images. Calls may come from many threads."""

    granularity: int

    def image_writer(self, key: str, size: int, parent: ImageInfo | None) -> ImageWriter:
        """Raises ``ChangesUnknown`` when the parent cannot be built upon (other size, damaged): read everything then,
        with no parent."""
        ...

    def seal(self, point: RestorePoint) -> RestorePoint:
        """The commit point of a backup: writes the manifest, last, at once and durably. Sets ``sealed_at``."""
        ...

    def points(self, machine: MachineId | None = None) -> Sequence[RestorePoint]:
        """Oldest first; those whose manifest cannot be read are in ``damaged_points``: no silent gaps."""
        ...

    def damaged_points(self, machine: MachineId | None = None) -> Sequence["DamagedPoint"]:
        """Restore points whose manifest exists and cannot be read. Retention never counts on them."""
        ...

    def point(self, point: RestorePointId) -> RestorePoint:
        """Raises ``RestorePointNotFound``. An unambiguous beginning of the id is enough."""
        ...

    def reading(self, detail: str) -> AbstractContextManager[None]:
        """While inside, what the restore points of now need is kept, though they be deleted and collected meanwhile. Where
        the store takes nothing more (full, read-only) it is entered all the same: reading must not fail for that.
        ``detail``: who reads, for people, and the whole id of the restore point: retention keeps what it finds there."""
        ...

    def open_image(self, point: RestorePoint, key: str) -> ImageReader: ...

    def doubt(self, points: Sequence[RestorePointId], why: str) -> None:
        """Mark restore points that may not be what their machine was, though every byte is as it was stored. They stay, and
        no rule counts on them."""
        ...

    def delete(self, point: RestorePointId) -> None:
        """Refuses (``DeleteRefused``) to delete a machine's only restore point."""
        ...


@dataclass(frozen=True, slots=True)
class DamagedPoint:
    """A manifest that cannot be read: its object name and why. Its machine may not be known any more."""

    object: str
    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes of one disk are through; ``read``: bytes that were really read so far."""

    disk: str
    done: int
    total: int
    read: int


ProgressSink = Callable[[Progress], None]
"""Called from worker threads, often; must be quick."""
