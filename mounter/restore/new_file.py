"""A file that has no name in its directory until it is whole."""

import errno
import os
import secrets
from contextlib import suppress

from mounter.restore.sparse import data_in, may_have_holes
from mounter.targets import Item
from proxy.closing import Closeable

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

NO_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.ENOENT}
)
"""What file systems without hard links, or with no more of them to give, answer to link(); ENOENT: no /proc is here."""


def partial_name() -> bytes:
    """A name for what is not finished; nobody guesses it."""
    return b".lanfree-%s.part" % secrets.token_hex(8).encode()


class NewFile(Closeable):
    """Open for writing (``descriptor``), readable for its owner only. ``close`` without ``publish`` removes it.

    Without a name even a crash leaves nothing behind. File systems that cannot do so (NFS, FAT) get a partial name.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._partial: bytes | None = None
        try:
            self.descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
            partial = partial_name()
            self.descriptor = os.open(partial, _NEW, 0o600, dir_fd=folder)
            self._partial = partial

    def fill(self, item: Item) -> int:
        """Write the content, with holes where the guest's file may have some. Bytes written."""
        holes = may_have_holes(item.entry.size, item.entry.allocated)
        offset = written = 0
        for piece in item.pieces():
            for start, stop in data_in(piece, offset) if holes else ((0, len(piece)),):
                self._write(memoryview(piece)[start:stop], offset + start)
                written += stop - start
            offset += len(piece)
        os.ftruncate(self.descriptor, item.entry.size)
        return written

    def publish(self, name: bytes, *, replace: bool) -> None:
        """Give it its name, in one step. ``FileExistsError`` when that is taken and nothing shall be replaced."""
        if replace:
            if self._partial is None:
                partial = partial_name()
                self._link(partial)
                self._partial = partial
            os.rename(self._partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._partial = None
            return
        try:
            self._link(name)
        except OSError as error:
            if self._partial is None or error.errno not in NO_LINKS:
                raise
            # Two steps where the file system has no links: somebody who takes the name just now loses that file.
            if status(self._folder, name) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(self._partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._partial = None

    def close(self) -> None:
        if self.descriptor < 0:
            return
        os.close(self.descriptor)
        self.descriptor = -1
        if self._partial is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._partial, dir_fd=self._folder)

    def _link(self, name: bytes) -> None:
        if self._partial is None:
            os.link(b"/proc/self/fd/%d" % self.descriptor, name, dst_dir_fd=self._folder)
        else:
            os.link(self._partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)

    def _write(self, data: memoryview, offset: int) -> None:
        while data:
            done = os.pwrite(self.descriptor, data, offset)
            data, offset = data[done:], offset + done


def status(folder: int, name: bytes) -> os.stat_result | None:
    """Of an entry of an open directory itself, ``None`` if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
