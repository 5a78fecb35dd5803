"""The directory that a FUSE mount covers, seen from outside: whether it is mounted, and how to end that.

Nothing here touches what is mounted: a server that hangs would hang whoever asks it.
"""

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from proxy.command import run
from proxy.errors import MountBusy, MountFailed, ToolFailed

# What the kernel's list of mounts calls ours (``/proc/mounts``, ``findmnt -t fuse.lanfree``).
SUBTYPE = "lanfree"

# fusermount only asks the kernel; it never waits for the server.
_SECONDS = 20.0

_MOUNTS = Path("/proc/self/mountinfo")
_ABORT = "/sys/fs/fuse/connections/{}/abort"

LOCK = "fuse.lock"
"""In the export's directory; locked as long as the serving process lives."""

ENDED = "fuse.ended"
"""Beside it: why the mount was ended from there, one line."""


def connection(place: Path, mounts: Path = _MOUNTS) -> int | None:
    """The kernel's number of the FUSE connection of ours that is mounted at ``place``, ``None`` if there is none.

    proc(5), mountinfo: ``36 35 0:41 / /mnt/x ro,nosuid - fuse.lanfree lanfree ro,…``; spaces in names are octal escapes. Of
    several mounts on one place, the last one is what people see.
    """
    wanted, found = os.fspath(place), None
    for line in mounts.read_bytes().decode(errors="surrogateescape").splitlines():
        words = line.split(" ")
        kind = words[words.index("-") + 1]
        if re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), words[4]) == wanted:
            found = int(words[2].partition(":")[2]) if kind == f"fuse.{SUBTYPE}" else None
    return found


def unmount(place: Path) -> None:
    """End the mount if nobody uses it; none at all is fine. Raises ``MountBusy``."""
    if connection(place) is None:
        return
    try:
        run([_program(), "-u", place], timeout=_SECONDS)
    except ToolFailed as error:
        if connection(place) is not None:
            raise MountBusy(str(place), error.message) from None


def unmount_now(place: Path) -> None:
    """Take the mount away whoever uses it: their next access fails. Raises ``MountFailed`` when the kernel refuses."""
    number = connection(place)
    if number is None:
        return
    with suppress(OSError):  # where the control file system is not mounted, or we are not root: then lazily alone
        Path(_ABORT.format(number)).write_text("1", encoding="ascii")
    try:
        run([_program(), "-u", "-z", place], timeout=_SECONDS)
    except ToolFailed as error:
        if connection(place) is not None:
            raise MountFailed(str(place), error.message) from None


def check(place: Path) -> Path:
    """The place as the kernel names it. Raises ``MountFailed`` unless it is an empty directory with nothing on it."""
    try:
        resolved = place.resolve(strict=True)
        if connection(resolved) is not None:
            raise MountFailed(
                str(place), "a restore point is mounted there already", hint="'lanfree mounts' tells which"
            )
        if any(resolved.iterdir()):
            raise MountFailed(
                str(place), "it is not empty", hint="name an empty directory; what is in it would be hidden"
            )
    except OSError as error:
        raise MountFailed(str(place), error.strerror or str(error), hint="name an empty directory") from None
    return resolved


def _program() -> str:
    return "fusermount3" if shutil.which("fusermount3") else "fusermount"


def is_locked(path: Path) -> bool:
    """Whether somebody who lives holds the lock of this file; nobody does when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def claim(place: Path) -> int:
    """Hold a directory that is going to be covered, by its own lock, until the descriptor is closed. Raises ``MountFailed``
    when another mount is about to begin or to end there."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise MountFailed(str(place), "another mount is being opened or ended there") from None
    return descriptor
