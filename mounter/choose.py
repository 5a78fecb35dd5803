"""Who reads a guest's file systems: The Sleuth Kit where it is sure to say what the appliance would, else the appliance.

The choice is made anew for each session, by trying: the disks are looked at in some 100 ms, and a machine that has one
volume of another kind (LVM, encryption, a journal to replay, …) is refused as a whole. Which reader it was, and why the
other was not, is kept with the session.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mounter import sandbox
from mounter.export import Served
from mounter.keys import Key
from mounter.ports import FileEntry, GuestFilesystem, OperatingSystem, Volume
from mounter.remote import MEMORY_MIB, RemoteFilesystem, libguestfs
from mounter.session import OpensFilesystem
from proxy.closing import Closeable
from proxy.errors import FastPathRefused, MountFailed
from proxy.model import Reason, ReasonCode

# Superblocks, a root directory and fstab over NBD: some 100 ms, of which most is Python's start. Longer is a disk in
# distress, which the appliance has more patience for.
OPEN_SECONDS = 60.0

OPENER = "mounter.tsk.filesystem:open_filesystem"


class Chosen(Closeable):
    """A ``GuestFilesystem`` that knows ``opened_by``: who reads it, and why."""

    def __init__(self, filesystem: GuestFilesystem, opened_by: Reason) -> None:
        self.opened_by = opened_by
        self._filesystem = filesystem

    def volumes(self) -> Sequence[Volume]:
        return self._filesystem.volumes()

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._filesystem.operating_systems()

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        return self._filesystem.walk(volume)

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        return self._filesystem.list_directory(volume, path)

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        return self._filesystem.entry(volume, path)

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        return self._filesystem.read(volume, path, offset)

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        return self._filesystem.xattrs(volume, path)

    def close(self) -> None:
        self._filesystem.close()


def best(
    *, accelerate: bool, fast: bool = True, keys: Sequence[Key] = (), memory_mib: int = MEMORY_MIB
) -> OpensFilesystem:
    """Opens sessions directly where that can be, else in an appliance. ``fast`` false: always in an appliance. With ``keys``
    too: they are for encrypted volumes. The filesystem that it gives is a ``Chosen``."""
    appliance = libguestfs(accelerate=accelerate, keys=keys, memory_mib=memory_mib)

    def open_filesystem(served: Sequence[Served], directory: Path) -> Chosen:
        why = _unwanted(fast, keys)
        if not why:
            try:
                return Chosen(directly(served, directory), Reason(ReasonCode.FILES_READ_DIRECTLY))
            except FastPathRefused as refused:
                why = f"{refused.reason}: {refused.message}"
            except MountFailed as error:  # it crashed, hung or could not read: the appliance may know better
                why = f"failed: {error.message}"
        return Chosen(appliance(served, directory), Reason(ReasonCode.FILES_READ_BY_APPLIANCE, why))

    return open_filesystem


def directly(served: Sequence[Served], directory: Path) -> GuestFilesystem:
    """Without an appliance, or ``FastPathRefused``."""
    argument = {"sockets": [str(s.socket) for s in served]}
    return RemoteFilesystem(OPENER, argument, directory, open_seconds=OPEN_SECONDS)


@dataclass(frozen=True, slots=True)
class Available:
    """Whether disks can be read directly on this proxy. ``detail``: what is missing, also of the sandbox."""

    works: bool
    detail: str


def available() -> Available:
    """Without opening anything."""
    if importlib.util.find_spec("pytsk3") is None:
        return Available(False, "the module pytsk3 is not installed")
    told = sandbox.available()
    if not told.confined:
        return Available(False, "no sandbox: " + "; ".join(told.missing))
    return Available(True, "; ".join(told.missing))


def _unwanted(fast: bool, keys: Sequence[Key]) -> str:
    if not fast:
        return "asked for"
    if keys:
        return "keys were given"
    return ""
