"""Objects as files in a directory, local or NFS.

An object is written to a temporary file in the same file system, synced, given its name by ``link`` (fails if the name
exists, and is atomic on NFS too) or ``rename``, and then its directory is synced: a power cut leaves the whole object or
none. Temporary files that a crash left are removed when the store is opened, once they are ``ORPHAN_SECONDS`` old.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxy.errors import FormatError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.repository.names import check_name

TEMPORARY = ".tmp"

# No put takes a day. Shorter could take a file from a slow writer on another proxy, longer only wastes space.
ORPHAN_SECONDS = 24 * 3600.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


class PosixStore:
    """Objects under ``root``, which must exist: an unmounted file system must not look like an empty repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / TEMPORARY
        self._directories: set[Path] = set()
        if not root.is_dir():
            raise RepositoryUnavailable(str(root), "there is no such directory")
        with self._translated():
            self._temporary.mkdir(mode=0o700, exist_ok=True)
            self._sweep()

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        path = self.root / check_name(name)
        scratch = self._temporary / secrets.token_hex(16)
        with self._translated():
            try:
                _write_synced(scratch, data)
                self._directory(path.parent)
                if new:
                    _link(scratch, path)
                else:
                    scratch.rename(path)
                _sync_directory(path.parent)
            finally:
                scratch.unlink(missing_ok=True)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._translated(name):
            file = os.open(self.root / check_name(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                wanted = max(os.fstat(file).st_size - offset, 0) if length is None else length
                data = os.pread(file, wanted, offset)
                if len(data) < wanted:
                    data = _rest(file, data, wanted, offset)
            finally:
                os.close(file)
        if len(data) != wanted:
            raise FormatError(name, f"is too short: {wanted} bytes at {offset} were asked for, {len(data)} are there")
        return data

    def size(self, name: str) -> int:
        with self._translated(name):
            return (self.root / check_name(name)).stat().st_size

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        with self._translated():
            if not self.root.is_dir():
                raise RepositoryUnavailable(str(self.root), "the directory is gone")
            found = [name for name in self._walk(folder) if name.startswith(prefix)]
        return iter(found)

    def delete(self, name: str) -> None:
        path = self.root / check_name(name)
        with self._translated(), suppress(FileNotFoundError):
            path.unlink()
            _sync_directory(path.parent)

    def local_path(self, name: str) -> Path | None:
        """The object's file: it never changes once it has its name, so it may be mapped."""
        return self.root / check_name(name)

    def _walk(self, folder: str) -> Iterator[str]:
        """Names below, in the order of whole names ('-' sorts before '/', so directories are compared with their slash)."""
        base = f"{folder}/" if folder else ""
        try:
            with os.scandir(self.root / folder) as entries:
                children = sorted(e.name + ("/" if e.is_dir(follow_symlinks=False) else "") for e in entries)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing was ever put there; a root that vanished was excluded by the caller
        for child in children:
            if child.startswith("."):
                continue
            if child.endswith("/"):
                yield from self._walk(base + child[:-1])
            else:
                yield base + child

    def _directory(self, path: Path) -> None:
        """Make a directory durable. One that is there already may have been made by somebody who has not synced it yet, so
        each process syncs each once."""
        if path in self._directories:
            return
        path.mkdir(parents=True, exist_ok=True)
        for folder in (path, *path.parents):
            if folder == self.root:
                break
            _sync_directory(folder.parent)
        self._directories.add(path)

    def _sweep(self) -> None:
        """Remove old temporary files. "Now" is the file server's: the time of a file that was just made."""
        mark = self._temporary / secrets.token_hex(16)
        mark.touch()
        try:
            now = mark.stat().st_mtime
        finally:
            mark.unlink()
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > ORPHAN_SECONDS:
                    path.unlink()

    @contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        """Errors of the operating system as those of ``proxy.errors``; names that exist or do not exist pass."""
        try:
            yield
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError as error:
            if error.errno in _FULL:
                raise RepositoryFull(str(self.root)) from None
            if name and error.errno == errno.EIO:
                raise IntegrityError(f"object {name}", "the storage cannot read it") from None
            raise RepositoryUnavailable(str(self.root), error.strerror or str(error)) from None


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _link(scratch: Path, path: Path) -> None:
    try:
        os.link(scratch, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A file system without hard links: the names are random but for manifests, whose writers hold their machine.
        if path.exists():
            raise FileExistsError(str(path)) from None
        scratch.rename(path)


def _sync_directory(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _rest(file: int, data: bytes, wanted: int, offset: int) -> bytes:
    """The kernel may give less than asked for (at most 2 GiB at once); an empty answer is the file's end."""
    parts = [data]
    got = len(data)
    while got < wanted:
        part = os.pread(file, wanted - got, offset + got)
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)
