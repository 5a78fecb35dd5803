"""Machines: what hypervisors show, and what restore points are of."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from api.paging import MOST
from api.schemas.common import Answer, Bytes, Model, Plain, Reason
from proxy.model import Consistency, Format, Level, PowerState


class Protection(StrEnum):
    """How a machine stands against its objective.

    ``protected``: its newest restore point is young enough. ``overdue``: it is too old. ``failed``: its last backup failed,
    and no restore point was made since. ``never``: it has none. ``excluded``: somebody said that it need have none.
    ``former``: no hypervisor shows it any more; its restore points stay.
    """

    PROTECTED = "protected"
    OVERDUE = "overdue"
    FAILED = "failed"
    NEVER = "never"
    EXCLUDED = "excluded"
    FORMER = "former"


class MachineSort(StrEnum):
    """Orders of the list; ``-`` for the largest, newest or last one first. Machines without a value are the smallest."""

    NAME = "name"
    NAME_DOWN = "-name"
    HOST = "host"
    HOST_DOWN = "-host"
    NEWEST = "newest"
    NEWEST_DOWN = "-newest"
    POINTS = "points"
    POINTS_DOWN = "-points"
    SIZE = "size"
    SIZE_DOWN = "-size"
    STORED = "stored"
    STORED_DOWN = "-stored"
    SEVERITY = "severity"
    """What needs somebody first."""


class MachineFilter(Model):
    """Which machines, in which order. What is not said lets all through. ``q``: anywhere in name, host or identity, upper and
    lower case alike; ``folder``: and all below it; ``tag``: ``category:name``, or a name alone; ``job``: that selects them."""

    q: Plain = ""
    host: Plain = ""
    hypervisor: Plain = ""
    cluster: Plain = ""
    state: PowerState | None = None
    protection: list[Protection] = Field(default_factory=list, max_length=6)
    tag: Plain = ""
    folder: Plain = ""
    job: Plain = ""


class MachineQuery(MachineFilter):
    """A page of them."""

    sort: MachineSort = MachineSort.NAME
    limit: Annotated[int, Field(ge=1, le=MOST, description="Items of a page, at most.")] = 100
    cursor: Annotated[str, Field(max_length=2048, description="`next` of the page before.")] | None = None


class Failure(Answer):
    """How the last backup failed. ``code``: of the error."""

    at: datetime
    code: str
    message: str


class Machine(Answer):
    """A machine in lists. ``hypervisor``: name of the vCenter, or of the KVM host where it is now. ``state``: null when no
    hypervisor shows it any more (``gone_at`` then says since when), or none was asked yet.

    ``size``: of its disks, virtual. ``stored``: what its restore points took in the repository when each was made.
    ``objective_hours``: the age that its newest restore point may have; ``due_at``: when it will be overdue. ``jobs``: enabled
    ones that select it. ``excluded``: why somebody said that it need not be protected. ``seen_at``: when it was last seen.
    """

    id: str
    name: str
    host: str
    hypervisor: str
    cluster: str = ""
    folder: str = ""
    tags: list[str] = Field(default_factory=list, description="As `category:name`.")
    state: PowerState | None = None
    agent: bool = Field(default=False, description="Whether the guest's agent answers.")
    template: bool = False
    protection: Protection
    newest_at: datetime | None = None
    newest_point: str | None = None
    oldest_at: datetime | None = None
    points: Annotated[int, Field(ge=0)] = 0
    size: Bytes = 0
    stored: Bytes = 0
    objective_hours: float | None = None
    due_at: datetime | None = None
    jobs: list[str] = Field(default_factory=list)
    excluded: str = ""
    failure: Failure | None = None
    first_seen: datetime | None = None
    seen_at: datetime | None = None
    gone_at: datetime | None = None


class MachineDisk(Answer):
    """``key``: its name within the machine. ``size``: virtual, 0 when unknown. ``location``: for people. ``excluded``: why no
    restore point holds it."""

    key: str
    size: Bytes
    format: Format
    location: str = ""
    excluded: Reason | None = None


class TimelinePoint(Answer):
    """A restore point on the time axis of its machine. ``bytes_new``: what it had that no other one had."""

    id: str
    created_at: datetime
    level: Level
    consistency: Consistency
    transports: list[str]
    size: Bytes
    bytes_new: Bytes
    held: bool
    damaged: bool = Field(default=False, description="Verification found that it cannot be counted on.")


class MachineDetail(Machine):
    """All that is known of a machine. ``pool``, ``datastores``, ``attributes``: where its hypervisor has such things."""

    disks: list[MachineDisk] = Field(default_factory=list)
    pool: str = ""
    datastores: list[str] = Field(default_factory=list)
    attributes: dict[str, str] = Field(default_factory=dict)


class ProtectionCounts(Answer):
    """Machines by protection, of those that the caller reaches and the filters let through."""

    total: int
    protected: int = 0
    overdue: int = 0
    failed: int = 0
    never: int = 0
    excluded: int = 0
    former: int = 0
