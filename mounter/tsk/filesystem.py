"""The port over The Sleuth Kit: all volumes of a machine, read where they lie. Runs in the worker process, sandboxed."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mounter.ports import FileEntry, FileType, OperatingSystem, Volume, shown
from mounter.sandbox import Limits, enter
from mounter.tsk.image import Disk, connect
from mounter.tsk.machine import Machine
from mounter.tsk.native import NONSENSE, Damaged, Native, sensible
from proxy.closing import Closeable
from proxy.errors import FastPathRefused, GuestFileNotFound, MountEnded, MountFailed

# Entries of a walk in one frame to the session.
BATCH = 1_000

# Directories whose names are kept for looking up paths: an average one has some hundred, 60 bytes each.
_LISTED = 256

_log = logging.getLogger(__name__)


def open_filesystem(argument: Mapping[str, Any]) -> "TskFilesystem":
    """For the worker: ``sockets`` (NBD, in the machine's order of disks); ``limits`` of the sandbox, ``sandboxed`` (false
    only where a test looks into this process). Raises ``FastPathRefused``, ``MountFailed``."""
    disks = [connect(str(s)) for s in argument["sockets"]]
    try:
        if argument.get("sandboxed", True):
            entered = enter(Limits(**argument.get("limits", {})))
            if not entered.confined:
                raise FastPathRefused("no-sandbox", "; ".join(entered.missing))
            for missing in entered.missing:
                _log.warning("sandbox: %s", missing)
        return TskFilesystem(disks)
    except BaseException:
        for disk in disks:
            disk.close()
        raise


class TskFilesystem(Closeable):
    """``natives``: by volume id, what reads the volumes without a problem. ``disks`` are closed with it."""

    def __init__(self, disks: Sequence[Disk]) -> None:
        self.disks = tuple(disks)
        machine = Machine(disks)
        self._volumes = machine.volumes
        self._systems = machine.systems
        self.natives: Mapping[str, Native] = machine.natives
        self._names: OrderedDict[tuple[str, int], dict[bytes, int]] = OrderedDict()
        self._closed = False

    def volumes(self) -> Sequence[Volume]:
        return self._volumes

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._systems

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        native = self._native(volume)
        batch: list[FileEntry] = []
        below: list[tuple[bytes, int]] = [(b"", native.root)]
        seen = {native.root}
        while below:
            inside, inode = below.pop()
            found: list[tuple[bytes, int]] = []
            for name, child in self._listed(native, inode, inside):
                entry = _entry(native, child, inside + b"/" + name)
                batch.append(entry)
                if entry.type is FileType.DIRECTORY and child not in seen:  # a loop of damaged directories must end
                    seen.add(child)
                    found.append((entry.path, child))
                if len(batch) >= BATCH:
                    yield batch
                    self._check()
                    batch = []
            below += reversed(found)  # in the order of the disk, which is mostly that of their making: reads go forward
        if batch:
            yield batch

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        native, inode = self._located(volume, path)
        if _entry(native, inode, path).type is not FileType.DIRECTORY:
            raise GuestFileNotFound(shown(path), "is not a directory")
        inside = path.rstrip(b"/")
        names = sorted(self._listed(native, inode, path))
        return [_entry(native, child, inside + b"/" + name) for name, child in names]

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        native, inode = self._located(volume, path)
        return _entry(native, inode, path.rstrip(b"/") or b"/")

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        native, inode = self._located(volume, path)
        if _entry(native, inode, path).type is not FileType.FILE:
            raise GuestFileNotFound(shown(path), "is not a regular file")
        return self._pieces(native, inode, offset)

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        native, inode = self._located(volume, path)
        with sensible(shown(path)):
            return native.xattrs(inode)

    def close(self) -> None:
        self._closed = True
        for disk in self.disks:
            disk.close()

    def _pieces(self, native: Native, inode: int, offset: int) -> Iterator[bytes]:
        for piece in native.pieces(inode, offset):
            self._check()
            yield piece

    def _listed(self, native: Native, inode: int, path: bytes) -> Sequence[tuple[bytes, int]]:
        with sensible(shown(path or b"/")):
            # No kernel gives these out: they are damage, or somebody's trap for who makes paths of names.
            return [
                (name, child)
                for name, child in native.names(inode)
                if name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name
            ]

    def _native(self, volume: Volume) -> Native:
        self._check()
        native = self.natives.get(volume.id)
        if native is None:
            raise MountFailed(f"volume {volume.device}", volume.problem or "there is no such volume")
        return native

    def _located(self, volume: Volume, path: bytes) -> tuple[Native, int]:
        native = self._native(volume)
        inode = native.root
        for part in _parts(path):
            inode = self._child(volume, native, inode, part, path)
        return native, inode

    def _child(self, volume: Volume, native: Native, inode: int, name: bytes, path: bytes) -> int:
        key = volume.id, inode
        names = self._names.get(key)
        if names is None:
            try:
                if _entry(native, inode, path).type is not FileType.DIRECTORY:
                    raise GuestFileNotFound(shown(path), "a part of it is not a directory")
                with sensible(shown(path)):
                    names = dict(native.names(inode))
            except Damaged as error:
                raise GuestFileNotFound(shown(path), error.message) from None
            self._names[key] = names
            if len(self._names) > _LISTED:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(key)
        found = names.get(name)
        if found is None:
            raise GuestFileNotFound(shown(path))
        return found

    def _check(self) -> None:
        if self._closed:
            raise MountEnded("it was closed")


def _entry(native: Native, inode: int, path: bytes) -> FileEntry:
    """A name whose inode is damaged is there all the same."""
    try:
        return native.entry(inode, path)
    except (Damaged, *NONSENSE):
        return FileEntry(path, FileType.OTHER, 0, 0, 0, 0, 0, 0, 0)


def _parts(path: bytes) -> list[bytes]:
    """Of an absolute path that stays where it seems to be."""
    parts = [part for part in path.split(b"/") if part]
    if not path.startswith(b"/") or b"\0" in path or b"." in parts or b".." in parts:
        raise GuestFileNotFound(shown(path), "is not an absolute path without '.' and '..'")
    return parts
