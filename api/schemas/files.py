"""Files inside restore points, as the API tells them. Names: see ``guest_names``."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.paging import Page
from api.schemas.common import Answer, Model, Moment, Reason
from api.schemas.guest_names import PathId, PathText, guest_path
from catalog.patterns import Kind
from mounter.ports import FileType
from mounter.restore.directory import Existing

MOST_PATHS = 10_000
"""Paths of one request; who wants more takes the directory that they are in."""


class Source(StrEnum):
    """Where an answer comes from: what was recorded after the backup, or the restore point itself, opened."""

    CATALOG = "catalog"
    SESSION = "session"


class Facts(Answer):
    """Of one entry of a guest's file system. Sizes in bytes; ``mode``: permission bits, as a number; ``changed_at``: of its
    inode. Times are null where the guest has none that a calendar knows. ``link_target``: as stored, never followed."""

    path: str
    path_id: str
    name: str
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: datetime | None
    changed_at: datetime | None
    link_target: str | None = None


class GuestVolume(Answer):
    """A file system in a restore point. ``root``, ``root_id``: where listing it begins. ``problem``: why its files are not,
    or not all, to be had; ``state``: how it was left."""

    id: str
    device: str
    mountpoint: str | None
    root: str
    root_id: str
    type: str
    label: str
    size: int
    problem: str | None = None
    state: str = "unknown"
    state_detail: str = ""


class NetworkVolume(Answer):
    """What the guest used over its network: not in the restore point."""

    kind: str
    source: str
    mountpoint: str
    told_by: str


class Volumes(Answer):
    """``read_by``: who read the file systems, and how much of them."""

    point: str
    source: Source
    volumes: list[GuestVolume]
    network_volumes: list[NetworkVolume] = Field(default_factory=list)
    read_by: list[Reason] = Field(default_factory=list)


class Listing(Page[Facts]):
    """A directory. ``unread``: volumes of the restore point that could not be read, with the reasons: what is missing may be
    in them. ``session``: the mount session that answered, if one did."""

    point: str
    path: str
    path_id: str
    source: Source
    session: str | None = None
    unread: list[GuestVolume] = Field(default_factory=list)


class FoundFile(Facts):
    """``first_point``, ``last_point``: the oldest and newest restore point that hold this version. ``current``: the newest
    recorded restore point of its machine holds it still."""

    machine: str
    machine_name: str
    volume: str
    first_point: str
    last_point: str
    current: bool


class FoundFiles(Page[FoundFile]):
    """``complete``: false when the search has ended before the page was full, since it had looked at too much: go on with
    ``next``. ``unsearched``: restore points within reach whose files are not recorded."""

    complete: bool
    unsearched: int


class HoldingPoint(Answer):
    """A restore point that holds a version."""

    id: str
    created_at: datetime


class FileVersionFacts(FoundFile):
    """``held_by``: oldest first."""

    held_by: list[HoldingPoint]


class FileVersions(Answer):
    """All recorded versions of one path, newest first."""

    machine: str
    machine_name: str
    path: str
    path_id: str
    versions: list[FileVersionFacts]
    unsearched: int


class ChangeKind(StrEnum):
    """What became of a file."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class FileChange(Answer):
    """One difference. ``growth`` in bytes; ``facts``: which of them differ, where it was changed."""

    kind: ChangeKind
    path: str
    path_id: str
    growth: int
    facts: list[str]
    before: FoundFile | None
    after: FoundFile | None


class ChangeSums(Answer):
    """Of all differences, however many are on a page. Bytes; ``growth``: how many more than before."""

    added: int
    removed: int
    changed: int
    bytes_added: int
    bytes_removed: int
    bytes_changed: int
    growth: int


class Comparison(Page[FileChange]):
    """What differs from ``before`` to ``after``, by path."""

    before: str
    after: str
    path: str
    path_id: str
    sums: ChangeSums


class PointTotal(Answer):
    """All regular files of a restore point."""

    point: str
    created_at: datetime
    files: int
    bytes: int


class GrownDirectory(Answer):
    """A directory with all below it; bytes more in it, and entries that differ."""

    path: str
    path_id: str
    growth: int
    changes: int


class FileGrowth(Answer):
    """What grew most from one restore point to another, and the size of everything in each recorded one, oldest first."""

    machine: str
    machine_name: str
    first: str
    last: str
    totals: list[PointTotal]
    directories: list[GrownDirectory]
    files: list[FileChange]


class LostBecause(StrEnum):
    """Why a file may be the one that somebody misses."""

    DELETED_SINCE = "deleted-since"
    CHANGED_SINCE = "changed-since"
    UNCHANGED = "unchanged"
    SEEN_ONLY_LATER = "seen-only-later"
    SAME_NAME = "same-name"
    SIMILAR_NAME = "similar-name"
    IN_SUCH_A_FOLDER = "in-such-a-folder"


class LostReason(Answer):
    """One of the reasons, and words for people."""

    code: LostBecause
    detail: str


class LostFile(Answer):
    """A candidate. ``file``: the version to take: the newest that was there at the time that was asked for. ``point``: the
    restore point to take it from. ``now``: what its machine has instead by the newest restore point, if anything."""

    file: FoundFile
    point: HoldingPoint
    now: FoundFile | None
    reasons: list[LostReason]


class LostFiles(Answer):
    """Likeliest first. ``complete``: false if there are more files of such a name than were weighed."""

    machine: str
    machine_name: str
    items: list[LostFile]
    complete: bool
    unsearched: int


class Format(StrEnum):
    """``raw``: one regular file as it is. Tar holds everything, zip what most people's programs open; symbolic links are
    stored as links, never followed. The last member of each archive is a report, ``LANFREE-REPORT-….txt``: what could not
    be read is named there, and an archive without it is not whole."""

    RAW = "raw"
    ZIP = "zip"
    TAR = "tar"
    TAR_ZST = "tar.zst"


class PathReference(Model):
    """A file or folder: by ``path``, or exactly by ``path_id``."""

    path: PathText | None = None
    path_id: PathId | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if not self.path and not self.path_id:
            raise ValueError("say path or path_id")
        return self

    @property
    def wanted(self) -> bytes:
        """Raises as ``guest_path``."""
        return guest_path(self.path, self.path_id)


class DownloadRequest(Model):
    """Files and folders of one restore point. ``session``: a mount session of the caller's, where keys are needed.
    ``full_paths``: keep the guest's whole path in the archive, not only the last name."""

    point: Annotated[str, Field(min_length=1, max_length=128)]
    paths: Annotated[list[PathReference], Field(min_length=1, max_length=MOST_PATHS)]
    format: Format = Format.ZIP
    session: Annotated[str | None, Field(max_length=64)] = None
    full_paths: bool = False

    @model_validator(mode="after")
    def _one_file_raw(self) -> Self:
        if self.format is Format.RAW and len(self.paths) != 1:
            raise ValueError("only one file can be sent raw")
        return self


class DownloadLink(Answer):
    """``url``: good once, until ``expires_at``, for the same user; below the API's own address."""

    url: str
    expires_at: datetime
    name: str


class ToDirectory(Model):
    """A directory of the proxy, below one of ``[web] restore_directories``; it is made if it is not there."""

    kind: Literal["directory"]
    directory: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]
    existing: Existing = Existing.REFUSE
    owner: Annotated[bool, Field(description="Give files to the guest's users and groups, by number.")] = False


class ToGuest(Model):
    """A directory of a running machine, through its guest agent. ``overwrite``: replace files that are not the same."""

    kind: Literal["guest"]
    machine: Annotated[str, Field(min_length=1, max_length=128, description="Identity or name.")]
    directory: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    overwrite: bool = False


class FileRestoreRequest(Model):
    """Keys that volumes need are those that are kept for the machine: none is ever part of a task."""

    paths: Annotated[list[PathReference], Field(min_length=1, max_length=MOST_PATHS)]
    to: Annotated[ToDirectory | ToGuest, Field(discriminator="kind")]
    full_paths: bool = False


class SearchQuery(Model):
    """As ``lanfree files find``. ``until`` is not included; ``deleted``: only what its machine has no more."""

    q: str = ""
    kind: Kind = Kind.AUTO
    machines: list[str] = Field(default_factory=list)
    point: str | None = None
    types: list[FileType] = Field(default_factory=list)
    min_size: int | None = None
    max_size: int | None = None
    since: Moment | None = None
    until: Moment | None = None
    deleted: bool = False
    all_versions: bool = False


class TaskReference(Answer):
    """The task that does what was asked for: ``/api/v1/tasks/{id}``."""

    id: str
