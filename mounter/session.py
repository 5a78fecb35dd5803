"""A mount session: one restore point opened read-only for its files, for a limited time. Not a kernel mount.

::

    open_session ──> Export (one NBD socket a disk) ──> GuestFilesystem (its appliance reads the sockets) ──> browse, read
         └ deadline: everything is closed by itself, calls under way end with MountEnded
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

from mounter.export import Export, ImageToExport, Served
from mounter.ports import FileEntry, GuestFilesystem, OperatingSystem, Volume, shown
from proxy.closing import Closeable
from proxy.errors import GuestFileNotFound, LanfreeError, MountEnded, MountFailed
from proxy.model import Reason
from proxy.ports import Clock

# A person who browses pauses to think; an appliance left behind holds half a GiB of memory. Raise it for long exports.
LIFETIME = timedelta(hours=1)

_T = TypeVar("_T")


class OpensFilesystem(Protocol):
    """Opens the served disks of one machine together, read-only (``mounter.libguestfs.open_filesystem``)."""

    def __call__(self, served: Sequence[Served], directory: Path) -> GuestFilesystem:
        """``directory``: private, of this session; what is put there goes with it. Raises ``MountFailed``."""
        ...


@runtime_checkable
class TellsOpener(Protocol):
    """A filesystem that was chosen among readers (``mounter.choose``)."""

    opened_by: Reason


class MountSession(Closeable):
    """Browse and read one restore point. Methods may be called from many threads; ``close`` twice and at any time.

    Guest paths (``b"/data/journal"``, ``b"C:/Users"``) are resolved to the volume that the guest mounts there. When the
    repository could not give the right bytes, the error is its own (``IntegrityError``), not what the guest's file system
    made of it. ``opened_by``: who reads the file systems and why, ``None`` where there was no choice.
    """

    def __init__(
        self,
        images: Sequence[ImageToExport],
        open_filesystem: OpensFilesystem,
        *,
        clock: Clock,
        lifetime: timedelta = LIFETIME,
        directory: Path | None = None,
    ) -> None:
        self.expires_at: datetime = clock.now() + lifetime
        self._expired = False
        with ExitStack() as undo:  # nothing may outlive a session that never was
            self._export = undo.enter_context(Export(images, directory))
            served, private = self._export.served, self._export.directory
            self._filesystem = undo.enter_context(self._explained(lambda: open_filesystem(served, private)))
            opened = self._filesystem
            self.opened_by: Reason | None = opened.opened_by if isinstance(opened, TellsOpener) else None
            self._volumes = tuple(self._told(volume) for volume in self._filesystem.volumes())
            undo.pop_all()
        self._timer = threading.Timer(lifetime.total_seconds(), self._expire)
        self._timer.daemon = True
        self._timer.start()

    @property
    def expired(self) -> bool:
        """Whether it reached its deadline; then ``MountEnded`` is no fault of anybody."""
        return self._expired

    def volumes(self) -> Sequence[Volume]:
        """As ``GuestFilesystem.volumes``; what the repository could not give is told with a volume's problem."""
        return self._volumes

    def operating_systems(self) -> Sequence[OperatingSystem]:
        """As ``GuestFilesystem.operating_systems``."""
        return self._explained(self._filesystem.operating_systems)

    def list_directory(self, path: bytes) -> Sequence[FileEntry]:
        """Entries of a directory given by its guest path. Their ``path`` is within the volume."""
        volume, inner = self.locate(path)
        return self._explained(lambda: self._filesystem.list_directory(volume, inner))

    def entry(self, path: bytes) -> FileEntry:
        """One entry by its guest path. Raises ``GuestFileNotFound``."""
        volume, inner = self.locate(path)
        return self._explained(lambda: self._filesystem.entry(volume, inner))

    def read(self, path: bytes, offset: int = 0) -> Iterator[bytes]:
        """A regular file's bytes by its guest path, from ``offset`` to its end, piece by piece."""
        volume, inner = self.locate(path)
        return self._stream(lambda: self._filesystem.read(volume, inner, offset))

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Extended attributes of one entry by its guest path, as ``GuestFilesystem.xattrs``."""
        volume, inner = self.locate(path)
        return self._explained(lambda: self._filesystem.xattrs(volume, inner))

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        """As ``GuestFilesystem.walk``."""
        return self._stream(lambda: self._filesystem.walk(volume))

    def locate(self, path: bytes) -> tuple[Volume, bytes]:
        """The volume that the guest has at ``path``, and the path within it. Raises ``GuestFileNotFound``,
        and ``MountFailed`` when that volume cannot be opened.

        The longest mount point wins, as in the guest: what lies under a mount point in the volume below is hidden.
        """
        best: tuple[int, Volume, bytes] | None = None
        for volume in self.volumes():
            prefix = volume.guest_path(b"/").rstrip(b"/")
            fits = path == prefix or path.startswith(prefix + b"/")
            if fits and (best is None or len(prefix) > best[0]):
                best = (len(prefix), volume, path[len(prefix) :] or b"/")
        if best is None:
            raise GuestFileNotFound(shown(path), "no volume of this restore point is there")
        if best[1].problem is not None:
            raise MountFailed(f"volume {best[1].device}", best[1].problem)
        return best[1], best[2]

    def close(self) -> None:
        """End the appliance and the servers; remove everything that the session had on this proxy."""
        self._timer.cancel()
        self._filesystem.close()
        self._export.close()

    def _expire(self) -> None:
        self._expired = True
        self.close()

    def _told(self, volume: Volume) -> Volume:
        below = self._export.problems() if volume.problem is not None else ()
        return replace(volume, problem=f"{volume.problem} ({below[-1].message})") if below else volume

    def _explained(self, call: Callable[[], _T]) -> _T:
        """Run one call; when it fails, say what lies below: the deadline, or the repository's own error."""
        before = len(self._export.problems())
        try:
            return call()
        except LanfreeError as error:
            raise self._cause(error, before) from error

    def _stream(self, call: Callable[[], Iterator[_T]]) -> Iterator[_T]:
        pieces = self._explained(call)
        end = object()
        while (piece := self._explained(lambda: next(pieces, end))) is not end:
            yield cast(_T, piece)

    def _cause(self, error: LanfreeError, before: int) -> LanfreeError:
        """``before``: how many problems the readers had when the call began; later ones are what made it fail."""
        if self._expired:
            return MountEnded("it reached its deadline")
        if not isinstance(error, MountFailed):
            return error
        new = self._export.problems()[before:]
        if new:
            return new[0]
        ended = self._export.ended()
        return MountEnded(ended.message) if ended is not None else error
