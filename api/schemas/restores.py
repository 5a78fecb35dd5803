"""Whole machines back. Two steps: a preview says exactly what will happen and gives a word (``confirm``); the order repeats the
plan with that word, and is refused when what was shown is not true any more."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import Answer, MachineRef, Model, Refusal
from proxy.model import PowerState

# No name and no path of ours holds a control character, and C libraries end at the first NUL.
_PLAIN = r"^[^\x00-\x1f\x7f]*$"

_Name = Annotated[str, Field(max_length=500, pattern=_PLAIN)]
_Path = Annotated[str, Field(max_length=4096, pattern=_PLAIN)]


class LunPlace(Model):
    """A LUN: ``target`` is the iqn as hosts name it."""

    kind: Literal["lun"] = "lun"
    target: Annotated[str, Field(min_length=1, max_length=500, pattern=_PLAIN)]
    lun: int = Field(ge=0, le=2**31 - 1)


class PathPlace(Model):
    """A file in a directory that hosts and proxies share; absolute."""

    kind: Literal["path"] = "path"
    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00-\x1f\x7f]*$")]


class DatastorePlace(Model):
    """In a vSphere datastore: a new disk with the new machine, or the file at ``path`` within it."""

    kind: Literal["datastore"] = "datastore"
    datastore: Annotated[str, Field(min_length=1, max_length=500, pattern=_PLAIN)]
    path: _Path = ""


Place = Annotated[LunPlace | PathPlace | DatastorePlace, Field(discriminator="kind")]


class RestorePlan(Model):
    """What is to be restored, and where to. ``disks``: key of a disk -> its place; a disk that is not named is left out.

    ``name``: restore beside the original, under this name and a new identity; null: the machine itself, in place of what
    there is of it. ``host``: empty for where it was. ``overwrite``: what the places hold now may go. ``disks_only``: write
    the disks, define no machine. ``connected``: network links up. ``without_hosts``: hosts that are known to be dead.
    ``unidentified``: machines whose disks nobody can tell apart are known not to live on the places. ``differential``: read
    the places and write only what differs; needs ``overwrite``. ``compare``: read every disk back. vSphere: ``folder``,
    ``pool``, ``networks`` (saved name -> new one), ``attach``: identity of a machine that is given the one disk beside its
    own.
    """

    point: Annotated[str, Field(min_length=1, max_length=200)]
    disks: Annotated[dict[_Name, Place], Field(max_length=256)]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)] | None = None
    host: _Name = ""
    overwrite: bool = False
    disks_only: bool = False
    connected: bool = False
    without_hosts: Annotated[tuple[_Name, ...], Field(max_length=1000)] = ()
    unidentified: bool = False
    differential: bool = False
    compare: bool = True
    folder: _Path = ""
    pool: _Path = ""
    networks: Annotated[dict[_Name, _Name], Field(max_length=256, default_factory=dict)]
    attach: Annotated[str, Field(max_length=200, pattern=_PLAIN)] | None = None


class RestoreOrder(RestorePlan):
    """The plan again, with the word of its preview."""

    confirm: Annotated[str, Field(min_length=16, max_length=200)]


class Occupant(Answer):
    """A machine's disk that lies on a place now."""

    machine: MachineRef
    disk: str
    state: PowerState
    host: str
    same: bool = Field(description="It is the very machine that is restored.")


class PlannedDisk(Answer):
    """One disk. ``size``: of the disk; ``data``: bytes of it that the image holds (the rest is zero); null when not known.
    ``capacity``: of the place; ``device``: what the place turned out to be. ``effect``: ``create`` (nothing is there),
    ``overwrite`` (something is there and goes), ``unknown``: nobody could look."""

    key: str
    size: int
    data: int | None = None
    place: str
    kind: Literal["lun", "path", "datastore"]
    device: str = ""
    capacity: int | None = None
    effect: Literal["create", "overwrite", "unknown"]
    content: str = Field("", description="What is there now, for people: a signature that was found.")
    occupants: tuple[Occupant, ...] = ()


class PlannedMachine(Answer):
    """What becomes of the machine: ``new`` (beside whatever there is), ``replaced`` (its own definition there),
    ``recreated`` (it exists no more), ``disks-only`` or ``attached`` (to ``name``). ``now``: how the one that is
    replaced stands."""

    name: str
    host: str
    effect: Literal["new", "replaced", "recreated", "disks-only", "attached"]
    now: PowerState | None = None
    powered_on: bool = Field(False, description="Always false: a restored machine is defined, and left off.")
    connected: bool = False


class RestorePreview(Answer):
    """Exactly what would happen; nothing was written. ``confirm``: for the order; null when it would be refused.
    ``refusals``: all that stands against it. ``left_out``: disks and devices that the restored machine will not have.
    ``estimated_seconds``: by what restores or backups of this machine took; null when nobody knows."""

    point: str
    machine: MachineRef
    taken_at: datetime
    consistency: str
    result: PlannedMachine
    disks: list[PlannedDisk]
    total_bytes: int
    estimated_seconds: float | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    confirm: str | None = None
    valid_until: datetime | None = Field(None, description="Until when the word is taken.")


class TargetHost(Answer):
    """A hypervisor host on which machines can be defined. ``hypervisor``: its site. ``silent``: why it does not answer."""

    name: str
    hypervisor: str
    kind: Literal["kvm", "vsphere"]
    silent: str = ""


class TargetLun(Answer):
    """A LUN that restores may write to. ``occupants``: machines whose disks lie on it, as far as that can be told."""

    target: str
    lun: int
    name: str = ""
    size: int | None = None
    occupants: tuple[Occupant, ...] = ()
    writable: bool = True


class TargetDatastore(Answer):
    """A vSphere datastore. Bytes."""

    name: str
    hypervisor: str
    capacity: int | None = None
    free: int | None = None
    hosts: tuple[str, ...] = ()


class TargetDirectory(Answer):
    """A directory that hosts and proxies share. ``error``: why it cannot be used now."""

    path: str
    free: int | None = None
    error: str = ""


class RestoreTargets(Answer):
    """Where a restore can go. ``problems``: what could not be looked at, and why."""

    hosts: tuple[TargetHost, ...] = ()
    luns: tuple[TargetLun, ...] = ()
    datastores: tuple[TargetDatastore, ...] = ()
    directories: tuple[TargetDirectory, ...] = ()
    networks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
