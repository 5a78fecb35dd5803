"""The nouns of Lanfree as frozen values. No behaviour that needs the outside; sizes in bytes, times in UTC.

Identity: a machine is its hypervisor's UUID and never its host, so that live migration changes nothing. A disk is its
*key* within the machine (libvirt: the target, ``vda``), which survives renaming, moving and conversion of its file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from proxy.reasons import Reason as Reason  # noqa: PLC0414  # whoever has a decision has its reason
from proxy.reasons import ReasonCode as ReasonCode  # noqa: PLC0414  # the same

MachineId = str
"""Hypervisor's UUID of the machine, lower case with dashes."""

RunId = str
"""Identifies one job run; every outside thing made by a run carries it in its name, which makes the steps idempotent."""

RestorePointId = str
"""Identifies one restore point in its repository; sorts by time."""

ChangeId = str
"""Opaque mark for "changed since": name of a QEMU dirty bitmap or overlay, VMware changeId, Hyper-V RCT id."""


class PowerState(StrEnum):
    """``SUSPENDED`` means that memory was saved to disk and the machine runs nowhere."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"


class Format(StrEnum):
    """How virtual disk bytes lie in their container."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"


class Consistency(StrEnum):
    """What a restore point was proven to be, best first.

    ``APPLICATION``: the guest's hooks reported success for this very snapshot. ``FILESYSTEM``: file systems were frozen.
    ``CRASH``: as if the power had failed.
    """

    APPLICATION = "application"
    FILESYSTEM = "filesystem"
    CRASH = "crash"


class QuiescePolicy(StrEnum):
    """``REQUIRE``: fail rather than take less than a file-system-consistent snapshot; ``PREFER``: try, then take what is."""

    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class Level(StrEnum):
    """How much was *read* for a restore point. Every restore point restores like a full."""

    FULL = "full"
    INCREMENTAL = "incremental"


class Tracking(StrEnum):
    """Who knows what changed on a frozen disk since a ``ChangeId``.

    ``IMAGE``: the frozen image's own metadata (a persistent bitmap), read through the transport.
    ``LAYER``: all that the top layer holds is what changed. ``HYPERVISOR``: ask ``Hypervisor.changed``. ``NONE``: nobody.
    """

    NONE = "none"
    IMAGE = "image"
    LAYER = "layer"
    HYPERVISOR = "hypervisor"


@dataclass(frozen=True, slots=True)
class LunAddress:
    """A logical unit as a hypervisor host names it. ``portals``: ``host:port``; ``name``: ``naa.…`` if it is known."""

    target: str
    lun: int
    portals: tuple[str, ...] = ()
    name: str | None = None


@dataclass(frozen=True, slots=True)
class FileAddress:
    """A file by its path on the hypervisor host (the proxy may see it too, if the directory is shared)."""

    path: str


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """A block device by its path on the hypervisor host; ``name``: ``naa.…`` where the path tells it."""

    path: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class NbdAddress:
    """An export of an NBD server that the hypervisor opened for us.

    ``uri`` as libnbd takes it (NBD URI specification). ``bitmap``: name of the meta context ``qemu:dirty-bitmap:…``
    that tells what changed, or ``None`` when the server was asked for no changes.
    """

    uri: str
    bitmap: str | None = None
    tls_directory: str | None = None


@dataclass(frozen=True, slots=True)
class VmdkAddress:
    """A disk of a vSphere machine, by its descriptor: ``path`` within ``datastore`` (``vm/vm-000001.vmdk``).

    ``kind``: of the datastore, in vSphere's own word (``VMFS``, ``NFS``, ``vsan``, ``VVOL``). ``volume``: UUID of a VMFS
    volume, as vSphere writes it; ``devices``: its LUNs in the order of its extents (``naa.…``). ``machine``, ``snapshot``:
    managed object ids by which the hypervisor exports the disk itself (no snapshot: it is not frozen yet); ``device``: key of
    the virtual device. ``encrypted``: by the hypervisor, so that nobody else can read its blocks. ``site``: name of the
    vCenter; the ids mean something there alone.
    """

    datastore: str
    path: str
    kind: str = "VMFS"
    volume: str = ""
    devices: tuple[str, ...] = ()
    machine: str = ""
    snapshot: str = ""
    device: int = 0
    encrypted: bool = False
    site: str = ""


Location = LunAddress | FileAddress | DeviceAddress | NbdAddress | VmdkAddress


@dataclass(frozen=True, slots=True)
class Disk:
    """A machine's disk. ``size``: virtual size in bytes, 0 when unknown; ``excluded``: why no snapshot can hold it.

    ``below``: places of the images under the first one (somebody else's snapshots, linked clones): they are the machine's
    too, and no restore may write there. ``overlay``: where its newest bytes are kept above all that by us, between backups
    (rolling overlay) or because a run died: who overwrites what lies below makes rubbish of both."""

    key: str
    size: int
    format: Format
    location: Location | None
    excluded: Reason | None = None
    below: tuple[Location, ...] = ()
    overlay: str | None = None


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A machine as its hypervisor shows it now. ``host`` is where it is now and no part of its identity."""

    id: MachineId
    name: str
    host: str
    state: PowerState
    disks: tuple[Disk, ...]
    agent: bool = False


APPLIANCE = "lanfree-appliance"
"""Kind of the configuration of the restore points that hold the appliance's own state: no hypervisor has their machine."""


@dataclass(frozen=True, slots=True)
class MachineConfiguration:
    """All that is needed to define the machine again: ``kind`` names the dialect (``libvirt-xml``)."""

    kind: str
    text: str
    nvram: bytes | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a chain: where it is and how it is formed."""

    location: Location
    format: Format


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """A disk held still by a snapshot. ``size`` in bytes, 0 when only the image can tell (a machine that is off).

    ``layers``: top first; a read looks in the first layer that has the bytes.

    ``change_id``: the mark that this snapshot set, to be kept with the image and given as ``since`` next time.
    ``overlay``: where guest writes go meanwhile, ``None`` when nothing is written (machine off).
    """

    key: str
    size: int
    layers: tuple[Layer, ...]
    tracking: Tracking = Tracking.NONE
    change_id: ChangeId | None = None
    overlay: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The hypervisor's snapshot of one machine, made by and named after one run.

    ``frozen_seconds``: how long the guest's file systems stood still, 0.0 without quiesce.
    ``method``: the driver's own word for how it was made (``overlay``, ``pull``, ``off``); drivers read it back.
    """

    run: RunId
    machine: MachineId
    machine_name: str
    host: str
    method: str
    created_at: datetime
    disks: tuple[FrozenDisk, ...]
    consistency: Consistency
    reasons: tuple[Reason, ...] = ()
    frozen_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What a run asks of a hypervisor.

    ``disks``: keys to freeze. ``since``: the ``ChangeId`` per disk of the parent restore point; what is not in it is
    read whole. ``pull``: the data shall come from the hypervisor itself (LAN) because the SAN cannot serve the machine.
    """

    run: RunId
    machine: MachineId
    disks: tuple[str, ...]
    quiesce: QuiescePolicy = QuiescePolicy.PREFER
    since: Mapping[str, ChangeId] = field(default_factory=dict)
    pull: bool = False
    freeze_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One disk in a restore point. ``index``: the repository's name of the full chunk index; ``digest``: see FORMAT.md.

    ``bytes_read``: taken from the transport. ``bytes_new``: of chunks that the repository did not have, before
    compression; ``bytes_stored``: what they take in the repository. ``source``: identity of the device that was read.
    """

    key: str
    size: int
    index: str
    digest: str
    transport: str
    source: str
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    change_id: ChangeId | None = None
    reasons: tuple[Reason, ...] = ()
    level: Level = Level.FULL


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """One machine at one moment. Exists if and only if its manifest exists. ``created_at``: moment of the snapshot."""

    id: RestorePointId
    machine: MachineId
    machine_name: str
    host: str
    run: RunId
    created_at: datetime
    level: Level
    consistency: Consistency
    images: tuple[ImageInfo, ...]
    configuration: MachineConfiguration
    reasons: tuple[Reason, ...] = ()
    parent: RestorePointId | None = None
    hypervisor: str = ""
    frozen_seconds: float = 0.0
    sealed_at: datetime | None = None

    @property
    def of_appliance(self) -> bool:
        """Whether it holds the appliance's own state and no machine. Only manifests tell: the catalog has none of these."""
        return self.configuration.kind == APPLIANCE

    def image(self, key: str) -> ImageInfo | None:
        """The image of one disk, or ``None``."""
        return next((i for i in self.images if i.key == key), None)
