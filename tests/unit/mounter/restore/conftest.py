"""A guest in memory with everything that a file can have, and ways to make it hostile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FileType, Volume
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.errors import LanfreeError


class Guest:
    """Volumes by mount point, made as they are first named; ``root`` is the one at ``/``."""

    def __init__(self) -> None:
        self.volumes: dict[str | None, MemoryVolume] = {}
        self.root = self.volume("/")

    def volume(self, mountpoint: str | None, *, kind: str = "ext4", problem: str | None = None) -> MemoryVolume:
        """A file system of the guest."""
        number = len(self.volumes)
        facts = Volume(f"v{number}", f"/dev/vg/{number}", kind, "", f"u{number}", 1 << 30, mountpoint, problem)
        return self.volumes.setdefault(mountpoint, MemoryVolume(facts))

    def put(self, path: bytes, kind: FileType, volume: MemoryVolume | None = None, **facts: object) -> FileEntry:
        """An entry of any kind; directories above it are made. ``content``: of a file; ``xattrs``."""
        where = volume or self.root
        content, xattrs = facts.pop("content", b""), facts.pop("xattrs", {})
        assert isinstance(content, bytes)
        assert isinstance(xattrs, dict)
        where.add_directory(path.rpartition(b"/")[0])
        base = FileEntry(path, kind, len(content), 0o644, 0, 0, 0, 0, 1000 + len(where.entries))
        where.entries[path] = replace(base, **facts)  # type: ignore[arg-type]  # facts of FileEntry by name
        if kind is FileType.FILE:
            where.contents[path] = content
        where.xattrs[path] = xattrs
        return where.entries[path]

    def file(self, path: bytes, content: bytes, volume: MemoryVolume | None = None, **facts: object) -> FileEntry:
        """A regular file."""
        return self.put(path, FileType.FILE, volume, content=content, **facts)

    def session(self) -> MountSession:
        """All of it, opened."""
        filesystem = MemoryFilesystem(list(self.volumes.values()))
        return MountSession([], lambda _served, _directory: filesystem, clock=SystemClock())


class Failing:
    """A session in which some paths fail: when they are opened, or after so many pieces."""

    def __init__(self, below: MountSession, failures: Mapping[bytes, tuple[int, LanfreeError]]) -> None:
        self._below = below
        self._failures = failures
        self.read_paths: list[bytes] = []

    def volumes(self) -> Sequence[Volume]:
        """As below."""
        return self._below.volumes()

    def locate(self, path: bytes) -> tuple[Volume, bytes]:
        """As below."""
        return self._below.locate(path)

    def entry(self, path: bytes) -> FileEntry:
        """As below."""
        return self._below.entry(path)

    def list_directory(self, path: bytes) -> Sequence[FileEntry]:
        """Fails where it is told to."""
        if path in self._failures and self._below.entry(path).type is FileType.DIRECTORY:
            raise self._failures[path][1]
        return self._below.list_directory(path)

    def read(self, path: bytes) -> Iterator[bytes]:
        """Fails after so many pieces."""
        self.read_paths.append(path)
        pieces, error = self._failures.get(path, (1 << 60, None))
        for number, piece in enumerate(self._below.read(path)):
            if number == pieces and error is not None:
                raise error
            yield piece

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """As below."""
        return self._below.xattrs(path)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def failing() -> Callable[[MountSession, Mapping[bytes, tuple[int, LanfreeError]]], Failing]:
    return Failing
