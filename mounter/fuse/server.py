"""Runs in the worker process (``worker.py``): libguestfs serves a directory of this machine over FUSE.

::

    main thread      answers the session, which asks little: open, volumes, close
    FUSE thread      guestfs_mount_local_run: waits in the kernel for requests until the place is unmounted
    watching thread  unmounts when nothing was asked for long, when the appliance is gone, or a request hangs

While the FUSE thread runs, it holds the library's handle: any other call would wait for it, and so would all of Python. So
nothing here calls the library before that thread has ended.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mounter.fuse.layout import Layout, Place, directories, places
from mounter.fuse.place import ENDED, LOCK, SUBTYPE, connection, unmount, unmount_now
from mounter.libguestfs import LibguestfsFilesystem
from mounter.libguestfs import open_filesystem as open_appliance
from mounter.ports import FileEntry, OperatingSystem, Volume
from proxy.closing import Closeable
from proxy.errors import MountBusy, MountFailed

# Nothing of the guest may act on this machine: no set-user-id programs, no device files, no programs at all.
OPTIONS = ("ro", "nosuid", "nodev", "noexec", f"fsname={SUBTYPE}", f"subtype={SUBTYPE}")

# Others are let in only as far as the guest's own modes let them, numbers compared with numbers.
OTHERS = ("allow_other", "default_permissions")

# Seconds of what the library remembers of directories. Nothing changes in a restore point; memory is all that it costs.
REMEMBERED = 600

# One request of the kernel is at most 128 KiB of a file or a directory. Longer than this it is no slow disk but a hang.
STALLED = 300.0

# Seconds between looks.
LOOK = 1.0

# After the unmount the FUSE thread ends at once, unless it is in the middle of a request.
END_SECONDS = 3.0


def open_filesystem(argument: Mapping[str, Any]) -> "ServedFilesystem":
    """For the worker: as ``mounter.libguestfs.open_filesystem``, and ``place`` (an empty directory), ``layout``,
    ``others`` (whether other users are let in), ``idle`` (seconds, 0: never)."""
    lock = os.open(Path(argument["directory"]) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    inner = open_appliance(argument)
    try:
        return ServedFilesystem(inner, argument)
    except BaseException:
        inner.close()
        raise


class ServedFilesystem(Closeable):
    """What the session sees of it: volumes with their place (or why there is none), and ``close``, which unmounts."""

    def __init__(self, inner: LibguestfsFilesystem, argument: Mapping[str, Any]) -> None:
        self._inner = inner
        self._place = Path(argument["place"])
        self._ended = Path(argument["directory"]) / ENDED
        self._idle = float(argument["idle"])
        self._thread_id = 0
        self._systems = inner.operating_systems()
        self._volumes = self._arrange(inner.volumes(), Layout(argument["layout"]))
        self._appliance = int(inner.handle.get_pid())
        try:
            options = ",".join((*OPTIONS, *(OTHERS if argument["others"] else ())))
            inner.handle.mount_local(str(self._place), readonly=True, options=options, cachetimeout=REMEMBERED)
        except RuntimeError as error:
            raise MountFailed(str(self._place), str(error), hint="is /dev/fuse there, and fuse3 installed?") from None
        self._fuse = threading.Thread(target=self._serve, name="fuse", daemon=True)
        self._fuse.start()
        threading.Thread(target=self._watch, name="fuse-watch", daemon=True).start()

    def volumes(self) -> Sequence[Volume]:
        """``mountpoint`` is the path within the mounted directory; ``None``: the volume is not shown there."""
        return self._volumes

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._systems

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        raise self._elsewhere()

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        raise self._elsewhere()

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        raise self._elsewhere()

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        raise self._elsewhere()

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        raise self._elsewhere()

    def close(self) -> None:
        """Unmount whoever uses it. The library is left only when its thread is: else the appliance is killed."""
        self._end("it was closed", force=True)
        self._fuse.join(END_SECONDS)
        if self._fuse.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self._appliance, signal.SIGKILL)
            return
        self._inner.close()

    def _arrange(self, volumes: Sequence[Volume], layout: Layout) -> tuple[Volume, ...]:
        """Mount each volume at its place. One that cannot be is told, and the others go on."""
        handle = self._inner.handle
        wanted = places(volumes, layout)
        mounted: list[str] = list(handle.mountpoints().values())
        handle.umount_all()
        for place in {*mounted, *(f"/v{number}" for number in range(len(volumes)))}:
            with suppress(RuntimeError):  # of a volume that could not be mounted there is one, or not
                handle.rmmountpoint(place)
        if not any(place.path == "/" for place in wanted):
            for directory in directories([place.path for place in wanted]):
                handle.mkmountpoint(directory)
        shown: dict[str, str] = {}
        problems: dict[str, str] = {}
        for each in wanted:
            problem = self._mount(each)
            if problem is None:
                shown[each.volume.id] = each.path
            else:
                problems[each.volume.id] = problem
        if not shown:
            raise MountFailed("the restore point", "; ".join(problems.values()) or "no volume of it can be read")
        return tuple(replace(v, mountpoint=shown.get(v.id), problem=v.problem or problems.get(v.id)) for v in volumes)

    def _mount(self, place: Place) -> str | None:
        try:
            self._inner.mount_at(place.volume, place.path)
        except MountFailed as error:
            return error.message
        return None

    def _elsewhere(self) -> MountFailed:
        return MountFailed("files", f"they are in {self._place}")

    def _serve(self) -> None:
        self._thread_id = threading.get_native_id()
        with suppress(RuntimeError):  # how it ended is seen by whoever looks at the place
            self._inner.handle.mount_local_run()

    def _watch(self) -> None:
        """Until the FUSE thread ends. Only its life signs are looked at."""
        before, since = -1, time.monotonic()
        while self._fuse.is_alive():
            time.sleep(LOOK)
            now, waits = self._life_signs()
            if now != before:
                before, since = now, time.monotonic()
            quiet = time.monotonic() - since
            if not _runs(self._appliance):
                self._end("its appliance ended", force=True)
            elif waits is False and quiet > STALLED:
                self._end(f"a request took longer than {STALLED:g} s", force=True)
            elif (
                self._idle
                and waits is not False
                and quiet > self._idle
                and not self._end("nobody used it", force=False)
            ):
                since = time.monotonic()  # a program that has a file open there may go on reading

    def _life_signs(self) -> tuple[int, bool | None]:
        """How often the FUSE thread has waited for something, and whether it now waits for a request (``None``: the kernel
        does not tell)."""
        task = Path(f"/proc/self/task/{self._thread_id}")
        try:
            words = (task / "status").read_text(encoding="ascii", errors="replace").split()
            where = (task / "wchan").read_text(encoding="ascii", errors="replace")
        except OSError:
            return -1, None
        count = int(words[words.index("voluntary_ctxt_switches:") + 1])
        return count, "fuse" in where if where not in ("", "0") else None

    def _end(self, why: str, *, force: bool) -> bool:
        """Whether it is unmounted."""
        if connection(self._place) is None:
            return True
        try:
            if force:
                self._note(why)
                unmount_now(self._place)
            else:
                unmount(self._place)
                self._note(why)
        except (MountBusy, MountFailed):
            return False
        return True

    def _note(self, why: str) -> None:
        with suppress(OSError):  # the session's directory is gone with the session
            self._ended.write_text(why, encoding="utf-8")


def _runs(process: int) -> bool:
    """Whether our child runs; one that has ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
