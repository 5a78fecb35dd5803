"""A ``GuestFilesystem`` from values in memory: the shipped fake, held to the same contract as the real one."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from mounter import wire
from mounter.ports import FileEntry, FileType, OperatingSystem, Volume, shown
from proxy.closing import Closeable
from proxy.errors import GuestFileNotFound, MountEnded, MountFailed

# Small, so that tests with a few files already see several batches and pieces.
BATCH = 3
PIECE = 1000


@dataclass(slots=True)
class MemoryVolume:
    """A volume, its entries by path (parents included, the root not needed) and the bytes of its regular files."""

    volume: Volume
    entries: dict[bytes, FileEntry] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    xattrs: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    _inodes: Iterator[int] = field(default_factory=lambda: count(100))

    def add_file(self, path: bytes, content: bytes, *, mtime_ns: int = 0, mode: int = 0o644) -> None:
        """A regular file; directories above it are made."""
        self._add(FileEntry(path, FileType.FILE, len(content), mode, 0, 0, mtime_ns, mtime_ns, self._inode()))
        self.contents[path] = content

    def add_link(self, path: bytes, target: bytes) -> None:
        """A symbolic link; directories above it are made."""
        self._add(FileEntry(path, FileType.SYMLINK, len(target), 0o777, 0, 0, 0, 0, self._inode(), target))

    def add_directory(self, path: bytes) -> None:
        """A directory and those above it, as far as they are not there."""
        if path not in (b"", b"/") and path not in self.entries:
            self._add(FileEntry(path, FileType.DIRECTORY, 0, 0o755, 0, 0, 0, 0, self._inode()))

    def _add(self, entry: FileEntry) -> None:
        self.add_directory(entry.path.rpartition(b"/")[0])
        self.entries[entry.path] = entry

    def _inode(self) -> int:
        return next(self._inodes)


class MemoryFilesystem(Closeable):
    """The port over ``MemoryVolume`` values. ``close`` ends it as the port says."""

    def __init__(self, volumes: Sequence[MemoryVolume], systems: Sequence[OperatingSystem] = ()) -> None:
        self._volumes = {v.volume.id: v for v in volumes}
        self._systems = tuple(systems)
        self._closed = threading.Event()

    def volumes(self) -> Sequence[Volume]:
        return [v.volume for v in self._volumes.values()]

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._systems

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        entries = sorted(self._opened(volume).entries.values(), key=lambda e: e.path)
        for start in range(0, len(entries), BATCH):
            self._opened(volume)
            yield entries[start : start + BATCH]

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        if self.entry(volume, path).type is not FileType.DIRECTORY:
            raise GuestFileNotFound(shown(path), "is not a directory")
        parent = path.rstrip(b"/")
        inside = [e for e in self._opened(volume).entries.values() if e.path.rpartition(b"/")[0] == parent]
        return sorted(inside, key=lambda e: e.name)

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        opened = self._opened(volume)
        if path == b"/":
            return FileEntry(b"/", FileType.DIRECTORY, 0, 0o755, 0, 0, 0, 0, 2)
        found = opened.entries.get(path.rstrip(b"/"))
        if found is None or not path.startswith(b"/"):
            raise GuestFileNotFound(shown(path))
        return found

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        if self.entry(volume, path).type is not FileType.FILE:
            raise GuestFileNotFound(shown(path), "is not a regular file")
        return self._pieces(volume, path, offset)

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        self.entry(volume, path)
        return dict(self._opened(volume).xattrs.get(path, {}))

    def close(self) -> None:
        self._closed.set()

    def _pieces(self, volume: Volume, path: bytes, offset: int) -> Iterator[bytes]:
        content = self._opened(volume).contents[path]
        for start in range(offset, len(content), PIECE):
            self._opened(volume)
            yield content[start : start + PIECE]

    def _opened(self, volume: Volume) -> MemoryVolume:
        if self._closed.is_set():
            raise MountEnded("it was closed")
        if volume.id not in self._volumes:
            raise MountFailed(f"volume {volume.device}", "there is no such volume")
        if volume.problem is not None:
            raise MountFailed(f"volume {volume.device}", volume.problem)
        return self._volumes[volume.id]


def open_filesystem(argument: Mapping[str, Any]) -> MemoryFilesystem:
    """For a worker process: ``volumes``: a list of ``{"volume": {…}, "files": {path: content}, "links": {path: target}}``
    with names and contents as ``wire.text_of`` makes them."""
    volumes: list[MemoryVolume] = []
    for given in argument["volumes"]:
        made = MemoryVolume(wire.volume_from_wire(given["volume"]))
        for path, content in given["files"].items():
            made.add_file(wire.bytes_of(path), wire.bytes_of(content))
        for path, target in given["links"].items():
            made.add_link(wire.bytes_of(path), wire.bytes_of(target))
        volumes.append(made)
    return MemoryFilesystem(volumes, [wire.system_from_wire(s) for s in argument.get("systems", [])])
