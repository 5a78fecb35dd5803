"""Objects as files in a directory, local or NFS.

An object is written to a temporary file in the same file system, synced, given its name by ``link`` (fails if the name
exists, and is atomic on NFS too) or ``rename``, and then its directory is synced: a power cut leaves the whole object or
none. Temporary files that a crash left are removed when the store is opened, once they are ``ORPHAN_SECONDS`` old.

A name can be seen before its directory is synced, and whoever put it may be killed in between. Nobody must build upon what
a power cut can still take: a listing syncs the directories that changed lately before it tells what is in them, and so does
a put that finds its name taken.

On NFS
------
- Mount ``hard`` (the default). A ``soft`` mount reports an error for a write that the server may still carry out, and for
  one that it lost; nothing above can tell which.
- ``link`` and ``rename`` are atomic on the server, but their answer can get lost and the client asks again: the second
  ``link`` then says that the name exists, although the first one made it. ``_link`` looks whether the name is its own file.
- Attributes and directories are cached (``acregmax``, ``acdirmax``: a minute by default). A listing can miss what another
  proxy put within that minute, an age can be too large by as much. What collection decides by ages and listings waits far
  longer than that (hours); that a machine's last restore point is not deleted does not (``Ledger.delete``). ``open`` always
  asks the server (close-to-open), so an object that is named is found.
- ``fsync`` sends COMMIT, and returns when the server has it on stable storage; an export with ``async`` breaks that promise
  and must not be used.
- Ages are taken from the file server alone: the object's time of change against that of a file made now.
- The immutable attribute does not travel over NFS: the helper (``retainer``) has to run on the file server.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    LanfreeError,
    ObjectRetained,
    RepositoryFull,
    RepositoryUnavailable,
)
from proxy.repository.scratch import forget
from proxy.repository.stores.immutable import Retainer, is_immutable
from proxy.repository.stores.names import LONGEST_RETENTION, check_name, check_size, is_retained
from proxy.units import KiB, MiB

TEMPORARY = ".tmp"

# No put takes a day. Shorter could take a file from a slow writer on another proxy, longer only wastes space.
ORPHAN_SECONDS = 24 * 3600.0

# Every file system has written its directories out by itself long before; shorter trusts in clocks of a second's grain, longer
# costs a listing syncs that change nothing.
UNSETTLED_SECONDS = 600.0

_FULL = (errno.ENOSPC, errno.EDQUOT)

# Where no file can be made, what is there must be readable all the same: a restore from a full or write-protected copy.
_NO_FILES = (*_FULL, errno.EROFS)

# Storage may hold anything under an object's name: a pipe must not be waited for, a link must not lead out.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class PosixStore:
    """Objects under ``root``, which must exist: an unmounted file system must not look like an empty repository.

    ``retainer``: the privileged helper that makes files immutable (``ImmutabilityClient``), without which ``can_retain`` is
    false. ``retain_for``: what ``is_retained`` names is retained for so long from the moment it is put.
    """

    can_retain: bool

    def __init__(self, root: Path, *, retainer: Retainer | None = None, retain_for: timedelta | None = None) -> None:
        self.root = root
        self.can_retain = retainer is not None
        self._retainer = retainer
        self._retain_for = retain_for
        self._temporary = root / TEMPORARY
        self._directories: set[Path] = set()
        if retain_for is not None and retainer is None:
            raise ConfigurationError("retention", "keeping objects for a time needs the immutability helper")
        if not root.is_dir():
            raise RepositoryUnavailable(str(root), "there is no such directory")
        with self._translated():
            self._inode = root.stat().st_ino
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
                    self._link(scratch, path)
                else:
                    self._replace(scratch, path, name)
                _sync_directory(path.parent)
            finally:
                scratch.unlink(missing_ok=True)
        if self._retainer is not None and self._retain_for is not None and is_retained(name):
            try:
                self._keep(self._retainer, name, self._retain_for)
            except LanfreeError:
                # An object that was promised to be kept and is not must not pass for one. One that replaced another stays:
                # it is whole, and without it there would be neither.
                if new:
                    with suppress(LanfreeError):  # it may be kept after all, and only the answer was lost
                        self.delete(name)
                raise
            except FileNotFoundError:
                raise RepositoryUnavailable(str(self.root), f"object {name} vanished as soon as it was put") from None

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._translated(name):
            file = os.open(self.root / check_name(name), _READ)
            try:
                there = os.fstat(file)
                if not stat.S_ISREG(there.st_mode):
                    raise IntegrityError(f"object {name}", "is not a file")
                wanted = max(there.st_size - offset, 0) if length is None else length
                if length is None:
                    check_size(name, wanted)
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
        if folder:
            check_name(folder)
        self._check_root()
        with self._translated():
            for name in self._walk(folder, self._unsettled(), top=True):
                if name.startswith(prefix):
                    yield name
        self._check_root()  # it may have been unmounted while we looked, which must not pass for a short listing

    def delete(self, name: str) -> None:
        path = self.root / check_name(name)
        with suppress(FileNotFoundError), self._translated(name):
            try:
                path.unlink()
            except PermissionError as error:
                self._release(path, name, error)
                path.unlink()
            _sync_directory(path.parent)

    def age(self, name: str) -> float:
        with self._translated(name):
            changed = (self.root / check_name(name)).stat().st_mtime
            return max(self._now() - changed, 0.0)

    def retain(self, name: str, until: datetime) -> None:
        path = self.root / check_name(name)
        if self._retainer is None:
            raise ConfigurationError("retention", f"{self.root} has no immutability helper")
        remaining = until - datetime.now(UTC)
        if remaining > LONGEST_RETENTION:
            raise ConfigurationError(
                "retention", f"{until:%Y-%m-%d} is further away than {LONGEST_RETENTION.days} days"
            )
        with self._translated(name):
            if path.stat().st_nlink > 1:
                self._drop_twins(path)
        if remaining > timedelta(0):
            self._keep(self._retainer, name, remaining)

    def local_path(self, name: str) -> Path | None:
        """The object's file: it never changes once it has its name, so it may be mapped."""
        return self.root / check_name(name)

    def _link(self, scratch: Path, path: Path) -> None:
        try:
            _link(scratch, path)
        except FileExistsError:
            _sync_directory(path.parent)
            raise

    def _replace(self, scratch: Path, path: Path, name: str) -> None:
        try:
            scratch.rename(path)
        except PermissionError as error:
            self._release(path, name, error)
            scratch.rename(path)

    def _release(self, path: Path, name: str, refused: PermissionError) -> None:
        """Ask that an immutable file be let go. Raises ``ObjectRetained``, or ``refused`` if that is not the reason."""
        if not is_immutable(path):
            raise refused
        if self._retainer is None:
            raise ObjectRetained(name, why="it has the immutable attribute, and no helper is configured")
        with self._seen(name):
            self._retainer.release(name)

    def _keep(self, retainer: Retainer, name: str, duration: timedelta) -> None:
        with self._seen(name):
            retainer.retain(name, duration)

    @contextmanager
    def _seen(self, name: str) -> Iterator[None]:
        """Around a question to the helper: that it misses what is there means that it looks elsewhere."""
        try:
            yield
        except FileNotFoundError:
            if not os.path.lexists(self.root / name):
                raise
            raise RepositoryUnavailable(
                str(self.root),
                f"the immutability helper does not see object {name}",
                hint="the helper's --root must be this very directory",
            ) from None

    def _drop_twins(self, path: Path) -> None:
        """A power cut between ``link`` and ``unlink`` leaves the object's temporary name, which would be retained too."""
        for twin in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if twin.samefile(path):
                    twin.unlink()

    def _check_root(self) -> None:
        """Whether what was opened is still there. Inodes stay the same when a file system is mounted anew, device numbers
        (NFS) do not; a mount point without its file system has another inode, and no directory of ours in it."""
        try:
            same = self.root.stat().st_ino == self._inode and self._temporary.is_dir()
        except OSError:
            raise RepositoryUnavailable(str(self.root), "the directory is gone") from None
        if not same:
            raise RepositoryUnavailable(
                str(self.root), f"another file system is there now, or none ({TEMPORARY} is gone)"
            )

    def _walk(self, folder: str, settled: float, *, top: bool = False) -> Iterator[str]:
        """Names below, in the order of whole names ('-' sorts before '/', so directories are compared with their slash).
        Directories that changed after ``settled`` are synced first. Links, pipes and devices are nobody's objects."""
        base = f"{folder}/" if folder else ""
        try:
            with os.scandir(self.root / folder) as entries:
                there = [(e.name, e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False)) for e in entries]
            children = sorted(name + ("/" if folders else "") for name, folders, files in there if folders or files)
            if (self.root / folder).stat().st_mtime > settled:
                _sync_directory(self.root / folder)
        except (FileNotFoundError, NotADirectoryError):
            if not top:  # the store never removes a directory: it was there a moment ago
                raise RepositoryUnavailable(str(self.root), f"the directory {folder} vanished") from None
            return  # nothing was ever put there
        for child in children:
            if child.startswith("."):
                continue
            if child.endswith("/"):
                yield from self._walk(base + child[:-1], settled)
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

    def _unsettled(self) -> float:
        """Directories that changed since then are synced by a listing; where the time cannot be told, all are."""
        now = self._now_if_told()
        return 0.0 if now is None else now - UNSETTLED_SECONDS

    def _now_if_told(self) -> float | None:
        """``None`` where no file can be made to ask the file server's clock."""
        try:
            return self._now()
        except OSError as error:
            if error.errno not in _NO_FILES:
                raise
            return None

    def _now(self) -> float:
        """The file server's time: that of a file that was just made."""
        mark = self._temporary / secrets.token_hex(16)
        mark.touch(mode=0o600)
        try:
            return mark.stat().st_mtime
        finally:
            mark.unlink()

    def _sweep(self) -> None:
        """Remove old temporary files."""
        now = self._now_if_told()
        if now is None:
            return
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > ORPHAN_SECONDS:
                    path.unlink()

    @contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        """Errors of the operating system as those of ``proxy.errors``; names that exist or (where one is asked for) do not
        exist pass, unless the whole file system is gone."""
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            self._check_root()
            if name:
                raise
            raise RepositoryUnavailable(str(self.root), f"{error.filename} is gone") from None
        except OSError as error:
            if error.errno in _FULL:
                raise RepositoryFull(str(self.root)) from None
            if name and error.errno == errno.ELOOP:
                raise IntegrityError(f"object {name}", "is not a file") from None
            if name and error.errno == errno.EIO:
                raise IntegrityError(f"object {name}", "the storage cannot read it") from None
            raise RepositoryUnavailable(str(self.root), error.strerror or str(error)) from None


# Bytes a write: for larger ones Linux clears fresh huge pages, and takes twice the time (measured: 32 MiB against 128 KiB).
_WRITE = 128 * KiB

# Bytes of a mapped file that is written whose pages are kept.
_KEPT = 8 * MiB


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data).cast("B")
        since = 0
        while rest:
            done = os.write(file, rest[:_WRITE])
            rest, since = rest[done:], since + done
            if since >= _KEPT:
                forget(rest)
                since = 0
        os.fsync(file)
    finally:
        os.close(file)


def _link(scratch: Path, path: Path) -> None:
    try:
        os.link(scratch, path)
    except FileExistsError:
        # NFS: the answer to a link that was made got lost, and the client asked again.
        if not path.samefile(scratch):
            raise
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
