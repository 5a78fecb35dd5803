"""A restore point mounted at a directory of this machine, over FUSE, so that any program can read it like a disk.

::

    keeper (this process) ──> Export: nbdkit, a process a disk ──> repository
        │                        ▲ NBD
        ├──> worker: libguestfs ─┴─ appliance (QEMU: the kernel that parses the guest's file systems)
        │       └ FUSE ──> this machine's kernel ──> place ──> backup and antivirus programs
        └──> watcher: unmounts when keeper and worker were killed

Whichever process dies, the place is unmounted within seconds: the worker does it when the keeper or the appliance is gone,
the keeper when the worker or a server is gone, the watcher when both are. Always read-only.
"""

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from mounter.export import Export, ImageToExport, module_path
from mounter.fuse import place as fuse_place
from mounter.fuse.layout import Layout
from mounter.ports import GuestFilesystem, OperatingSystem, Volume
from mounter.session import OpensFilesystem
from proxy.closing import Closeable
from proxy.command import spawn, stop
from proxy.errors import LanfreeError, MountFailed

# An antivirus scan or a backup runs once a night and asks all the time while it runs.
IDLE = timedelta(hours=1)

OPENER = "mounter.fuse.server:open_filesystem"

_KEEPER_LOCK = "keeper.lock"


class MakesOpener(Protocol):
    """Gives what opens a file system in another process with another opener (``mounter.remote.libguestfs``)."""

    def __call__(self, *, opener: str, more: Mapping[str, object]) -> OpensFilesystem: ...


@dataclass(frozen=True, slots=True)
class MountOptions:
    """``others``: other users than ours are let in, as far as the guest's own modes let their numbers. ``idle``: how long
    nobody has to ask for anything until it is unmounted; zero: for ever."""

    layout: Layout = Layout.TREE
    others: bool = False
    idle: timedelta = IDLE


class Mounted(Closeable):
    """Mounted until ``close``, the end of this process, or ``ended`` tells a reason, whichever comes first.

    Raises ``MountFailed`` when the place is not an empty directory or nothing can be shown there, and what the repository
    raised when it could not give the right bytes; then nothing is left behind.
    """

    def __init__(
        self,
        images: Sequence[ImageToExport],
        place: Path,
        libguestfs: MakesOpener,
        options: MountOptions | None = None,
        directory: Path | None = None,
    ) -> None:
        self.place = fuse_place.check(place)
        self.options = options or MountOptions()
        self._watcher: Popen[bytes] | None = None
        self._filesystem: GuestFilesystem | None = None
        self._lock = -1
        # Two that open at once would both find the place free, and the one that fails would unmount the other.
        self._claim = fuse_place.claim(self.place)
        try:
            self._export = Export(images, directory)
        except BaseException:
            os.close(self._claim)
            raise
        try:
            self._lock = os.open(self._export.directory / _KEEPER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._watcher = self._start_watcher()
            self._open(libguestfs)
        except BaseException as error:  # nothing may be left mounted or running, also on an interrupt
            problems = self._export.problems()
            self.close()
            if isinstance(error, MountFailed) and problems:
                raise problems[0] from error
            raise

    def _open(self, libguestfs: MakesOpener) -> None:
        more = {
            "place": str(self.place),
            "layout": self.options.layout.value,
            "others": self.options.others,
            "idle": self.options.idle.total_seconds(),
        }
        opened = libguestfs(opener=OPENER, more=more)(self._export.served, self._export.directory)
        self._filesystem = opened
        self.volumes: tuple[Volume, ...] = tuple(opened.volumes())
        self.operating_systems: tuple[OperatingSystem, ...] = tuple(opened.operating_systems())

    def problems(self) -> Sequence[LanfreeError]:
        """What the repository could not give until now; a program saw an I/O error for each."""
        return self._export.problems()

    def ended(self) -> str | None:
        """Why it is no longer mounted (or must not be), ``None`` while all is well. Cheap, to be asked every second; what is
        left of a mount that has ended is for ``close``."""
        server = self._export.ended()
        if server is not None:
            return server.message
        if fuse_place.connection(self.place) is None:
            told = self._export.directory / fuse_place.ENDED
            return told.read_text(encoding="utf-8") if told.exists() else "it was unmounted"
        if self._worker_is_gone():
            return "the process that served it ended"
        if self._watcher is not None and self._watcher.poll() is not None:
            self._watcher = self._start_watcher()
        return None

    def close(self) -> None:
        """Unmount, whoever uses it, and end all processes. Safe to call twice."""
        try:
            if self._filesystem is not None:
                self._filesystem.close()
        finally:
            # The worker does this while it can; a server that is gone leaves a place where every access fails.
            fuse_place.unmount_now(self.place)
            if self._watcher is not None:
                stop(self._watcher)
            self._export.close()
            for held in (self._lock, self._claim):
                if held >= 0:
                    os.close(held)
            self._lock = self._claim = -1

    def _worker_is_gone(self) -> bool:
        """It locks a file as long as it lives; asking it would mean to wait for it."""
        return not fuse_place.is_locked(self._export.directory / fuse_place.LOCK)

    def _start_watcher(self) -> Popen[bytes]:
        lock = self._export.directory / _KEEPER_LOCK
        argv = [sys.executable, "-m", "mounter.fuse.watch", str(self.place), str(lock)]
        return spawn(argv, env={"PYTHONPATH": module_path()})
