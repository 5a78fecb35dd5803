"""Repositories: our own, those that copies go to, and other sites' that copies are taken from."""

import datetime as dt
from enum import StrEnum

from pydantic import Field

from api.schemas.common import Answer, MachineRef


class RepositoryRole(StrEnum):
    """``MAIN``: where backups go."""

    MAIN = "main"
    COPY_TO = "copy-to"
    COPY_FROM = "copy-from"


class RepositoryKind(StrEnum):
    """What holds the objects."""

    DIRECTORY = "directory"
    S3 = "s3"


class Space(Answer):
    """Of the file system that it lies on, bytes. ``free``: what its user may still write."""

    total: int
    used: int
    free: int


class MachineShare(Answer):
    """What one machine takes. ``exclusive``: of ``stored``, what no other machine needs."""

    machine: MachineRef
    points: int
    logical: int
    unique: int
    stored: int
    exclusive: int


class Measured(Answer):
    """What a repository held at ``at``, by a measurement that reads all its indexes (``POST /measurements``). Bytes.

    ``logical``: sizes of all disks in all restore points; ``referenced``: of these, what is not zero; ``unique``: the same,
    each chunk once; ``compressed``: what that takes; ``dead``: in packs, and no restore point needs it; ``stored``: all
    objects. ``machines``: those that take most for themselves.
    """

    at: dt.datetime
    seconds: float
    points: int
    logical: int
    referenced: int
    unique: int
    compressed: int
    dead: int
    stored: int
    packs: int
    chunks: int
    deduplication: float
    compression: float
    damaged_points: int
    damaged_images: int
    machines: tuple[MachineShare, ...] = ()


class KeySlot(Answer):
    """One way to open a repository. ``kind``: key-file, passphrase, or paper."""

    id: str
    label: str
    kind: str
    created_at: dt.datetime | None = None


class Verified(Answer):
    """``newest``, ``oldest``: when the newest and the longest ago verified restore point was; ``never``: how many never
    were."""

    newest: dt.datetime | None = None
    oldest: dt.datetime | None = None
    points: int = 0
    never: int = 0
    damaged: int = 0


class LastWork(Answer):
    """The last task of a kind that ended: a verification, pruning, collection, copy or measurement."""

    task: str
    state: str
    ended_at: dt.datetime
    message: str = ""
    problems: tuple[str, ...] = ()


class Repository(Answer):
    """``name``: ``main`` for our own, else as configured. ``place``: for people. ``error``: why it cannot be used now; then
    what is in it is not told. ``stored``, ``logical``: sums over the catalog's restore points (bytes written, sizes of
    disks)."""

    name: str
    role: RepositoryRole
    kind: RepositoryKind
    place: str
    id: str = ""
    encrypted: bool
    immutable_days: int | None = None
    chunk_size: int | None = None
    error: str = ""
    points: int | None = None
    machines: int | None = None
    logical: int | None = None
    stored: int | None = None
    space: Space | None = Field(None, description="Null where nobody knows: object stores do not tell.")
    measured: Measured | None = None
    key_slots: tuple[KeySlot, ...] = ()
    verified: Verified | None = None
    last: dict[str, LastWork] = Field(
        default_factory=dict, description="By kind: verify, prune, collect, copy, measure."
    )


class GrowthDay(Answer):
    """Bytes of one day (UTC): ``stored``: new in the repository; ``read``: from disks; ``restore_points``: that were made."""

    day: dt.date
    stored: int
    read: int
    restore_points: int


class Forecast(Answer):
    """A straight line through the days' sums, with the range in which 95 of 100 such lines would lie. ``full_on``: the day
    on which free space is used up, ``earliest`` and ``latest`` by that range (null: not within ten years). Retention
    gives space back, which this does not foresee: it is what happens when nothing is deleted."""

    bytes_per_day: float
    low: float
    high: float
    days: int
    full_on: dt.date | None = None
    earliest: dt.date | None = None
    latest: dt.date | None = None


class Growth(Answer):
    """``forecast``: null where there are too few days; ``why_not``: why there is none, or why no date."""

    repository: str
    days: list[GrowthDay]
    forecast: Forecast | None = None
    why_not: str = ""
