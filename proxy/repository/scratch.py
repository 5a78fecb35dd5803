"""Memory that is mapped: unnamed files in the cache directory, where indexes are made and where those that are sealed lie in
the clear; and what packs are filled in, which no file backs."""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy.errors import FormatError, RepositoryFull, RepositoryUnavailable


class FileMap(mmap.mmap):
    """A mapped file: what its pages hold is in the file too, so that they may leave the process (``forget``)."""


class Scratch:
    """An unnamed file in the cache directory. A full file system is told as an error: a mapped hole would end the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with self._translated():
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # closed by close()

    def map(self, room: int) -> FileMap:
        with self._translated():
            self._file.truncate(room)
            return FileMap(self._file.fileno(), room)

    def reserve(self, start: int, length: int) -> None:
        if length:
            with self._translated():
                os.posix_fallocate(self._file.fileno(), start, length)

    def write(self, data: bytes | memoryview) -> None:
        with self._translated():
            self._file.write(data)

    def mapped(self, what: str) -> memoryview:
        with self._translated():
            self._file.flush()
            return mapped(what, self._file.fileno())

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RepositoryFull(f"the cache directory {self._directory}") from None
            raise RepositoryUnavailable(f"cache {self._directory}", error.strerror or str(error)) from None


def anonymous(size: int) -> mmap.mmap:
    """Memory of ``size`` bytes, all zero, that no file backs. It is taken from the system as it is filled: a bytearray touches
    all of it at once, and holds the GIL (18 ms for a pack, measured)."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def forget(view: memoryview) -> None:
    """Let the pages of a mapped file that were looked at leave this process: the kernel's cache keeps them, so nothing is
    lost, and an index is 128 MiB a TiB. Other memory is left alone."""
    if isinstance(view.obj, FileMap):
        view.obj.madvise(mmap.MADV_DONTNEED)


def mapped(what: str, file: int) -> memoryview:
    """A whole file, read only. Raises ``FormatError`` for an empty one."""
    try:
        return memoryview(FileMap(file, 0, access=mmap.ACCESS_READ))
    except ValueError:
        raise FormatError(what, "is empty") from None
