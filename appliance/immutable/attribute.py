"""Files beneath a root, opened so that no name leads elsewhere, and their immutable attribute.

The attribute is ``FS_IMMUTABLE_FL`` of ext4, XFS and btrfs (``chattr +i``): no write, truncation, rename, link or removal, not
even by root. See ioctl_iflags(2).
"""

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# <linux/fs.h>: _IOR('f', 1, long) and _IOW('f', 2, long) as x86 and ARM encode them; the kernel moves an int all the same.
_LONG = struct.calcsize("l")
FS_IOC_GETFLAGS = 0x80006601 | _LONG << 16
FS_IOC_SETFLAGS = 0x40006602 | _LONG << 16
FS_IMMUTABLE_FL = 0x10

# Object names as the repository makes them (proxy/repository/stores/names.py): no dot at the beginning of a word.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_LONGEST_NAME = 200

_NO_ATTRIBUTE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS)


class Refusal(Exception):
    """Not granted. ``code``: a word for the client; ``seconds``: how long the file is still kept, where that is why."""

    def __init__(self, code: str, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.seconds = seconds


@contextmanager
def opened(root: Path, name: str, owners: Collection[int]) -> Iterator[int]:
    """A read-only descriptor of the regular file ``name`` beneath ``root`` that belongs to one of ``owners``.

    Every step is opened by the descriptor of the one before, without following links and without leaving the file system.
    The file itself is first looked at without opening it, so that a pipe or device in its place does nothing.
    """
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise Refusal("name", "that is not the name of an object")
    handles: list[int] = []
    try:
        handles.append(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        device = os.fstat(handles[0]).st_dev
        *folders, last = name.split("/")
        for folder in folders:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            handles.append(os.open(folder, flags, dir_fd=handles[-1]))
        handles.append(os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handles[-1]))
        there = os.fstat(handles[-1])
        if not stat.S_ISREG(there.st_mode) or there.st_dev != device or there.st_uid not in owners:
            raise Refusal("denied", "that is not a file of the repository's owner in its file system")
        # Through /proc the very same file is opened, whatever has the name by now.
        handles.append(os.open(f"/proc/self/fd/{handles[-1]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        yield handles[-1]
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("missing", "there is no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refusal("denied", "symbolic links are not followed") from None
        raise
    finally:
        for handle in reversed(handles):
            os.close(handle)


def is_immutable(file: int) -> bool:
    """Raises ``Refusal`` on a file system without the attribute."""
    return bool(_flags(file) & FS_IMMUTABLE_FL)


def protect(file: int) -> None:
    """Set the attribute, durably. Raises ``Refusal``, and leaves the file as it was, if it could still be altered or taken
    away."""
    fresh = not is_immutable(file)
    _change(file, immutable=True)
    try:
        _refuse_second_names(file)
        _refuse_writers(file)
    except BaseException:
        if fresh:  # what was promised before stays kept, whatever becomes of this request
            _change(file, immutable=False)
        raise


def unprotect(file: int) -> None:
    """Clear the attribute, durably."""
    _change(file, immutable=False)


def _refuse_second_names(file: int) -> None:
    # Asked once the attribute is set: from then on no link can be made. A second name would be kept too, unasked.
    if os.fstat(file).st_nlink != 1:
        raise Refusal("busy", "the file has a second name")


def _refuse_writers(file: int) -> None:
    """Whoever opened the file for writing before the attribute was set could, on some file systems, still write. A read
    lease is granted only if there is nobody, mappings included (fcntl(2)); from here on nobody new comes."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        raise Refusal("busy", "the file is open for writing") from None
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _flags(file: int) -> int:
    try:
        return int(struct.unpack("i", fcntl.ioctl(file, FS_IOC_GETFLAGS, b"\0" * 8)[:4])[0])
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            raise Refusal("unsupported", "this file system has no immutable attribute") from None
        raise


def _change(file: int, *, immutable: bool) -> None:
    flags = _flags(file)
    wanted = flags | FS_IMMUTABLE_FL if immutable else flags & ~FS_IMMUTABLE_FL
    if wanted != flags:
        try:
            fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("i", wanted) + b"\0" * 4)
            os.fsync(file)  # otherwise it is durable seconds after it was confirmed
        except OSError as error:
            if error.errno in _NO_ATTRIBUTE:
                raise Refusal("unsupported", "this file system has no immutable attribute") from None
            raise
    if bool(_flags(file) & FS_IMMUTABLE_FL) != immutable:
        raise Refusal("unsupported", "this file system takes the immutable attribute and does not keep it")
