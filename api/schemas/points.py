"""Restore points."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from api.paging import MOST
from api.schemas.common import Answer, Bytes, Model, Moment, Plain, Reason, Why
from proxy.model import Consistency, Level


class PointSort(StrEnum):
    """Orders of the list."""

    OLDEST = "created_at"
    NEWEST = "-created_at"


class Health(StrEnum):
    """What the last verification says. ``unknown``: there was none. ``suspect``, ``damaged``: rules do not count on it."""

    UNKNOWN = "unknown"
    GOOD = "good"
    SUSPECT = "suspect"
    DAMAGED = "damaged"


class PointFilter(Model):
    """Which restore points, in which order. ``since``, ``until``: of their moments, ``until`` itself left out."""

    since: Moment | None = None
    until: Moment | None = None
    level: list[Level] = Field(default_factory=list, max_length=2)
    consistency: list[Consistency] = Field(default_factory=list, max_length=3)
    held: bool | None = None
    sort: PointSort = PointSort.NEWEST
    limit: Annotated[int, Field(ge=1, le=MOST, description="Items of a page, at most.")] = 100
    cursor: Annotated[str, Field(max_length=2048, description="`next` of the page before.")] | None = None


class PointQuery(PointFilter):
    """``machine``: identity."""

    machine: Plain = ""


class RestorePoint(Answer):
    """One machine at one moment, in lists. ``size``: of its disks, virtual. ``bytes_read``: taken from the storage;
    ``bytes_new``: what the repository did not have, before compression; ``bytes_stored``: what that took."""

    id: str
    machine: str = Field(description="Identity of the machine.")
    machine_name: str = Field(description="As it was called then.")
    host: str
    hypervisor: str
    created_at: datetime
    sealed_at: datetime | None = None
    level: Level
    consistency: Consistency
    transports: list[str]
    disks: int
    size: Bytes
    bytes_read: Bytes
    bytes_new: Bytes
    bytes_stored: Bytes
    frozen_seconds: float
    files_indexed: bool
    held: bool
    health: Health
    verified_at: datetime | None = None


class Image(Answer):
    """One disk in a restore point. ``source``: the device that was read."""

    key: str
    size: Bytes
    level: Level
    transport: str
    source: str
    bytes_read: Bytes
    bytes_new: Bytes
    bytes_stored: Bytes
    reasons: list[Reason]


class Hold(Answer):
    """Keeps a restore point from being deleted until it is released."""

    since: datetime
    why: str


class Verification(Answer):
    """The last one. ``coverage``: share of its stored bytes that were read; ``damaged``: bytes of its disks; ``doubt``: why
    what was stored may not be what the machine had."""

    health: Health
    verified_at: datetime | None = None
    coverage: float = 0.0
    damaged: Bytes = 0
    doubt: str = ""


class Copy(Answer):
    """Whether a second repository has it too; null: it could not be looked at, and ``problem`` says why."""

    repository: str
    there: bool | None
    problem: str = ""


class RestorePointDetail(RestorePoint):
    """``reasons``: of all decisions that were taken. ``parent``: the one before, which it needs for nothing.
    ``index_reasons``: who read its files, and how much of them."""

    run: str
    parent: str | None = None
    reasons: list[Reason]
    images: list[Image]
    configuration: str = Field(description="Dialect of the saved configuration of the machine.")
    verification: Verification
    hold: Hold | None = None
    copies: list[Copy] | None = Field(default=None, description="Null where they were not asked for.")
    files_indexed_at: datetime | None = None
    index_reasons: list[Reason] = Field(default_factory=list)


class HoldRequest(Model):
    """``why``: recorded and shown."""

    why: Why
