"""Writing a restore to a file in a shared directory. A new file is sparse from the start; an old one must be empty, or
its content be confirmed to go.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

from proxy.errors import RestoreRefused, WriteFailed
from proxy.transport.guard import check_write
from proxy.transport.iscsi import RestoreToken
from proxy.transport.raw import Resource, SharedFiles
from proxy.transport.signatures import refuse_signatures
from proxy.units import MiB

PUNCH_HOLE_KEEP_SIZE = 0x03
"""<linux/falloc.h>: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class FileTarget(Resource):
    """A ``BlockTarget`` over the file that the token names. Raises ``RestoreRefused``; then nothing was written.

    A file that this target made is removed again if it is closed before the first ``flush``.
    """

    def __init__(self, files: SharedFiles, token: RestoreToken) -> None:
        self.identity = token.device
        self.size = token.size
        path = files.inside(token.device)
        if path is None:
            raise RestoreRefused(
                token.device,
                "it is not below a shared directory",
                hint="add its directory to shared_directories of [raw]",
            )
        self._made: Path | None = None
        self._fd = self._open(path)
        try:
            self._prepare(token)
        except OSError as error:
            self.close()
            raise RestoreRefused(self.identity, str(error.strerror)) from error
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, data: memoryview) -> None:
        """All of it or ``WriteFailed``."""
        flat = data.cast("B")
        check_write(self.identity, self.size, offset, len(flat), closed=self._fd < 0)
        done = 0
        while done < len(flat):
            try:
                done += os.pwritev(self._fd, [flat[done:]], offset + done)
            except OSError as error:
                raise WriteFailed(self.identity, offset + done, len(flat) - done, str(error.strerror)) from error

    def zero(self, offset: int, length: int) -> None:
        """A hole, where the file system has them."""
        check_write(self.identity, self.size, offset, length, closed=self._fd < 0)
        if length and _libc.fallocate(self._fd, PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
            if ctypes.get_errno() not in {errno.EOPNOTSUPP, errno.ENOSYS}:
                raise WriteFailed(self.identity, offset, length, os.strerror(ctypes.get_errno()))
            for at in range(offset, offset + length, MiB):
                self.write(at, memoryview(bytes(min(MiB, offset + length - at))))

    def flush(self) -> None:
        """Everything, and the file's name if it is new, is on stable storage."""
        check_write(self.identity, self.size, 0, 0, closed=self._fd < 0)
        try:
            os.fsync(self._fd)
            if self._made is not None:
                _sync_directory(self._made.parent)
        except OSError as error:
            raise WriteFailed(self.identity, 0, self.size, f"flush: {error.strerror}") from error
        self._made = None

    def close(self) -> None:
        """Close the file. Does not flush."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        made, self._made = self._made, None
        if made is not None:
            made.unlink(missing_ok=True)

    def _open(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return os.open(path, flags)
            except FileNotFoundError:
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                self._made = path
                return fd
        except OSError as error:
            raise RestoreRefused(self.identity, str(error.strerror)) from error

    def _prepare(self, token: RestoreToken) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise RestoreRefused(
                self.identity, "it is not a regular file", hint="restore to a LUN by target and number"
            )
        if status.st_size and not token.overwrite:
            refuse_signatures(self.identity, lambda at, length: os.pread(self._fd, length, at), status.st_size)
        os.ftruncate(self._fd, token.size)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
