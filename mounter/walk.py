"""Every file of every volume of one restore point, in the guest's own terms, for the catalog."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mounter.ports import FileEntry, FileType, Volume
from proxy.errors import MountEnded, MountFailed


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file as the guest names it. ``volume``: the volume's ``id``; the rest as ``FileEntry``."""

    volume: str
    path: bytes
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    link_target: bytes | None = None


class Walkable(Protocol):
    """What a walk needs: a ``MountSession`` or a ``GuestFilesystem``."""

    def volumes(self) -> Sequence[Volume]: ...
    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]: ...


class TreeWalk:
    """Iterate to get batches of ``FileRecord``; bounded memory. A volume that cannot be read does not stop the others.

    ``volumes`` is brought up to date on the way: after the last batch it tells for each volume what stopped it
    (``problem``); files that were seen before the problem have been given out. Raises ``MountEnded`` when the session is
    over, and what the repository raises.
    """

    def __init__(self, source: Walkable) -> None:
        self._source = source
        self.volumes: list[Volume] = list(source.volumes())

    def __iter__(self) -> Iterator[Sequence[FileRecord]]:
        for number, volume in enumerate(self.volumes):
            if volume.problem is not None:
                continue
            try:
                for batch in self._source.walk(volume):
                    yield [record_of(volume, entry) for entry in batch]
            except MountEnded:
                raise
            except MountFailed as error:
                self.volumes[number] = replace(volume, problem=error.message)


def record_of(volume: Volume, e: FileEntry) -> FileRecord:
    """An entry as the guest names it."""
    path = volume.guest_path(e.path)
    return FileRecord(
        volume.id, path, e.type, e.size, e.mode, e.uid, e.gid, e.mtime_ns, e.ctime_ns, e.inode, e.link_target
    )
