"""Writing a restore to a file in a shared directory. A new file is sparse from the start; an old one must be empty, or
its content be confirmed to go.

Opening only looks, because a restore opens all its places before it writes to the first one: a new file is made, and an
old one gets its new size, when the first byte is written, zeroed or flushed.
"""

import ctypes
import errno
import os
import stat
import threading
from pathlib import Path

from proxy.closing import Closeable
from proxy.errors import ReadFailed, RestoreRefused, WriteFailed
from proxy.extents import Kind
from proxy.transport.guard import check_write
from proxy.transport.iscsi import RestoreToken
from proxy.transport.raw import SharedFiles, file_runs
from proxy.transport.signatures import refuse_signatures
from proxy.units import KiB, MiB

PUNCH_HOLE_KEEP_SIZE = 0x03
"""<linux/falloc.h>: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE."""

FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

WRITE_STEP = 256 * KiB
"""One write to the file. Into a new file, Linux takes pages as large as the write for its cache: those of 1 MiB are fresh
memory each time, and 1.4 GiB took up to 2.9 s of system time instead of 0.6 s (kernel 6.18, ext4). Smaller ones cost calls."""

HOLE = 4 * KiB
"""The smallest run of zeroes that is left out of a new file: the usual block of file systems, and so what a sparse disk
image may have had as its smallest hole. A chunk is much larger."""

_ZEROES = bytes(MiB)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class FileTarget(Closeable):
    """A ``BlockTarget`` over the file that the token names. Raises ``RestoreRefused``; nothing was changed then.

    A file that this target made is removed again if it is closed before the first ``flush``.
    """

    def __init__(self, files: SharedFiles, token: RestoreToken) -> None:
        path = files.inside(token.device)
        if path is None:
            raise RestoreRefused(
                token.device,
                "it is not below a shared directory",
                hint="add its directory to shared_directories of [raw]",
            )
        self._path = path
        self.identity = str(path)  # links resolved: one file is one device, whatever name the restore gave it
        self.size = token.size
        self._closed = False
        self._begun = False
        self._made = False
        self._empty = False
        # The kernel lets one thread at a time write to a file, and the others spin; here they sleep, and a core decompresses.
        self._one = threading.Lock()
        self._first = threading.Lock()  # first writes may come from several threads at once
        self._fd = self._look()
        try:
            if self._fd >= 0:
                self._inspect(token)
        except (OSError, ReadFailed) as error:
            self.close()
            why = error.message if isinstance(error, ReadFailed) else str(error.strerror)
            raise RestoreRefused(self.identity, why) from error
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, data: memoryview) -> None:
        """All of it or ``WriteFailed``."""
        flat = data.cast("B")
        check_write(self.identity, self.size, offset, len(flat), closed=self._closed)
        if not flat:
            return
        self._begin()
        position = 0
        for start, end in data_runs(flat, offset) if self._empty else [(0, len(flat))]:
            self.zero(offset + position, start - position)
            for at in range(start, end, WRITE_STEP):
                self._write_all(offset + at, flat[at : min(at + WRITE_STEP, end)])
            position = end
        self.zero(offset + position, len(flat) - position)

    def zero(self, offset: int, length: int) -> None:
        """A hole, where the file system has them."""
        check_write(self.identity, self.size, offset, length, closed=self._closed)
        if not length:
            return
        self._begin()
        if _libc.fallocate(self._fd, PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
            if ctypes.get_errno() not in {errno.EOPNOTSUPP, errno.ENOSYS}:
                raise WriteFailed(self.identity, offset, length, os.strerror(ctypes.get_errno()))
            for at in range(offset, offset + length, MiB):
                self._write_all(at, memoryview(_ZEROES)[: min(MiB, offset + length - at)])

    def flush(self) -> None:
        """Everything, the size and the name of a new file among it, is on stable storage."""
        check_write(self.identity, self.size, 0, 0, closed=self._closed)
        self._begin()
        try:
            os.fsync(self._fd)
            if self._made:
                _sync_directory(self._path.parent)
        except OSError as error:
            raise WriteFailed(self.identity, 0, self.size, f"flush: {error.strerror}") from error
        self._made = False

    def close(self) -> None:
        """Close the file. Does not flush."""
        self._closed = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        made, self._made = self._made, False
        if made:
            self._path.unlink(missing_ok=True)

    def _look(self) -> int:
        """A descriptor of the file, -1 if it is still to be made and can be."""
        directory = self._path.parent
        try:
            return os.open(self._path, FLAGS)
        except FileNotFoundError as error:
            if not directory.is_dir():
                raise RestoreRefused(self.identity, f"there is no directory {directory}") from error
            if not os.access(directory, os.W_OK | os.X_OK):
                raise RestoreRefused(self.identity, f"no file can be made in {directory}") from error
            return -1
        except OSError as error:
            raise RestoreRefused(self.identity, str(error.strerror)) from error

    def _inspect(self, token: RestoreToken) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise RestoreRefused(
                self.identity, "it is not a regular file", hint="restore to a LUN by target and number"
            )
        if token.overwrite or not status.st_size:
            return
        refuse_signatures(self.identity, lambda at, length: os.pread(self._fd, length, at), status.st_size)
        position = first_data(self._fd, status.st_size, self.identity)
        if position is not None:
            hint = "name an empty place; if what is there may go, say --overwrite"
            raise RestoreRefused(self.identity, f"it carries data of unknown kind at byte {position}", hint=hint)

    def _write_all(self, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            try:
                with self._one:
                    done += os.pwritev(self._fd, [data[done:]], offset + done)
            except OSError as error:
                raise WriteFailed(self.identity, offset + done, len(data) - done, str(error.strerror)) from error

    def _begin(self) -> None:
        """Before the first change: make the file if it is new, give it its size. Raises ``WriteFailed``."""
        with self._first:
            if self._begun:
                return
            try:
                if self._fd < 0:
                    # Exclusively: a file that somebody made since it was looked for was never looked at.
                    self._fd = os.open(self._path, FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
                    self._made = self._empty = True
                os.ftruncate(self._fd, self.size)
            except OSError as error:
                raise WriteFailed(self.identity, 0, self.size, str(error.strerror)) from error
            self._begun = True


def data_runs(data: memoryview, offset: int) -> list[tuple[int, int]]:
    """Start and end in ``data`` of what is not whole blocks of zeroes; it is meant for ``offset`` of the file.

    ::

        block     |-------|-------|-------|-------|
        given         |ddd|0000000|0000dd0|00000|
        runs          |ddd|       |0000dd0|               the end of what is given counts as the end of a block
    """
    empty = _empty_blocks(data, -offset % HOLE)
    runs: list[tuple[int, int]] = []
    position = 0
    for start, end in empty:
        if start > position:
            runs.append((position, start))
        position = end
    if position < len(data):
        runs.append((position, len(data)))
    return runs


def _empty_blocks(data: memoryview, first: int) -> list[tuple[int, int]]:
    """Start and end of the blocks that are all zero; ``first``: where the first whole block begins. Dense data costs one
    look at the first word of each block."""
    blocks = len(data[first:]) // HOLE
    words = data[first : first + blocks * HOLE].cast("Q")[:: HOLE // 8].tolist()
    starts = [first + number * HOLE for number, word in enumerate(words) if not word]
    tail = first + blocks * HOLE
    if tail < len(data):
        starts.append(tail)
    zeroes = _ZEROES[:HOLE]
    return [(at, min(at + HOLE, len(data))) for at in starts if zeroes.startswith(data[at : at + HOLE])]


def first_data(fd: int, size: int, identity: str) -> int | None:
    """Position of the first byte that is not zero. Reads what is allocated up to there, 1 MiB at a time."""
    for run in file_runs(fd, size, identity):
        if run.kind is Kind.ZERO:
            continue
        for at in range(run.start, run.end, MiB):
            piece = os.pread(fd, min(MiB, run.end - at), at)
            if piece != _ZEROES[: len(piece)]:  # one memcmp, where any() would look at byte after byte
                return at + len(piece) - len(piece.lstrip(b"\0"))
    return None


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
