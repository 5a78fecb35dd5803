"""Files inside restore points: browse, search, compare, download, restore."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from api.auth.roles import Caller
from api.schemas.files import (
    Comparison,
    DownloadLink,
    DownloadRequest,
    FileGrowth,
    FileRestoreRequest,
    FileVersions,
    FoundFiles,
    Listing,
    LostFiles,
    SearchQuery,
    Volumes,
)
from mounter.ports import FileType
from proxy.errors import LanfreeError


class RangeRefused(LanfreeError):
    """The file does not have the bytes that were asked for. ``size``: what it has."""

    code = "range-refused"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes, and none where they were asked for", hint="ask without a range")
        self.size = size


class Pieces(Protocol):
    """Bytes on their way to whoever downloads. Made by a thread of their own, which waits when nobody takes them."""

    def read(self) -> bytes:
        """The next piece, of some 64 KiB to a MiB; waits for it. Empty at the end. Raises what ended it early: then what was
        sent is not whole, and the connection has to be broken off."""
        ...

    def close(self) -> None:
        """Nobody takes more. Returns at once; the thread ends and lets go of the session. Twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Download:
    """``name``: for the file, as text of any kind. ``size``: of the whole file in bytes, ``None`` for archives, whose size
    nobody knows before. ``start``, ``length``: the part of it that ``pieces`` holds. ``etag``: without quotes."""

    name: str
    media_type: str
    pieces: Pieces
    size: int | None = None
    start: int = 0
    length: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a file that is asked for: from ``start`` to ``end`` (included; ``None``: to the end); ``start`` ``None``:
    the last ``end`` bytes. ``if_etag``: only if that is the file's, else all of it."""

    start: int | None
    end: int | None
    if_etag: str | None = None


class Files(Protocol):
    """``point``: the id of a restore point, ``machine``: identity or name of a machine. What the caller does not reach is not
    there. Every call is recorded in the audit log before anything is read. ``session``: of ``Mounts``, the caller's own.

    All raise ``RestorePointNotFound``, ``MachineNotFound``, ``AuditFailed``; what needs recorded files ``FilesNotIndexed``;
    what opens the restore point ``MountFailed``, ``NotFound``.
    """

    def listing(
        self,
        caller: Caller,
        point: str,
        path: bytes,
        *,
        session: str | None = None,
        types: Sequence[FileType] = (),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Listing:
        """A directory: from the catalog where it is recorded and no session is named, else from the restore point itself,
        which takes seconds to open. Raises ``GuestFileNotFound``."""
        ...

    def volumes(self, caller: Caller, point: str, *, session: str | None = None) -> Volumes:
        """The file systems, from where ``listing`` takes its entries."""
        ...

    def search(self, caller: Caller, query: SearchQuery, *, limit: int = 100, cursor: str | None = None) -> FoundFiles:
        """Recorded files of all machines within reach. Raises ``SearchRefused``."""
        ...

    def versions(self, caller: Caller, machine: str, path: bytes) -> FileVersions:
        """Raises ``GuestFileNotFound`` when no recorded restore point has had it."""
        ...

    def compare(
        self, caller: Caller, before: str, after: str, path: bytes, *, limit: int = 100, cursor: str | None = None
    ) -> Comparison:
        """Two restore points of one machine, at and below ``path``. Raises ``SearchRefused`` for those of two machines."""
        ...

    def growth(
        self, caller: Caller, machine: str, path: bytes, *, first: str | None, last: str | None, limit: int = 20
    ) -> FileGrowth:
        """From one restore point (the oldest recorded one) to another (the newest)."""
        ...

    def lost(
        self, caller: Caller, machine: str, name: str, *, when: datetime | None = None, limit: int = 20
    ) -> LostFiles:
        """Files that may be what somebody misses. ``name``: part of the path, or a pattern. ``when``: it was still there and
        right then; without, lately."""
        ...

    def download(self, caller: Caller, request: DownloadRequest, span: Span | None = None) -> Download:
        """Begin to read. Raises ``GuestFileNotFound`` before anything is sent; ``RangeRefused`` for a span outside of the
        file; ``TooMany`` when too many go on."""
        ...

    def offer(self, caller: Caller, request: DownloadRequest) -> DownloadLink:
        """A link for a browser: good once, for a short time, for this caller."""
        ...

    def redeem(self, caller: Caller, token: str) -> Download:
        """The download that was offered. Raises ``NotFound`` for one that is used up, too old, or another's."""
        ...

    def restore(self, caller: Caller, point: str, request: FileRestoreRequest, *, key: str | None = None) -> str:
        """Ask for a restore to a directory of the proxy or into a guest; the id of the task. ``key``: of idempotency. Raises
        ``RestoreRefused`` where no such directory may be restored to."""
        ...
