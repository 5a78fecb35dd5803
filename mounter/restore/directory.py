"""Restored files in a directory of this host. Nothing outside of it is touched, whatever the guest calls its files.

Every step goes one name deeper from an open directory, without following links (``O_NOFOLLOW``): a path is never looked up
as a whole, so ``..``, links that were restored first, and directories that somebody exchanges meanwhile lead nowhere.

A file appears under its name when it is whole and has its attributes. That is what makes a restore resumable: what has the
right type, size and time was finished. Until then it has no name at all (``O_TMPFILE``) where the file system can do that.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mounter.ports import FileEntry, FileType, shown
from mounter.restore.attributes import Attributes, Place, apply
from mounter.restore.new_file import NO_LINKS, NewFile, partial_name, status
from mounter.restore.selection import harmless
from mounter.targets import Action, Item, Placed, Problem
from proxy.closing import Closeable
from proxy.errors import FileNotRestored, RestoreRefused, TargetFailed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ATTRIBUTES = Attributes()
"""The guest's owners, and nothing by which its programs run as somebody else."""

# After these no other file can be written either.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE}

_FORMATS = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
    FileType.CHARACTER_DEVICE: stat.S_IFCHR,
    FileType.FIFO: stat.S_IFIFO,
    FileType.SOCKET: stat.S_IFSOCK,
}

# FAT keeps times in steps of two seconds, in nanoseconds; nothing in use is coarser.
COARSEST = 2_000_000_000

# Names that are tried beside a taken one. Somebody who restores the same file a hundred times wants something else.
SECOND_NAMES = 100


class Existing(StrEnum):
    """What happens to a file whose name is taken. One that is the same already (type, size, time) is always left as it is,
    and directories are never replaced. ``NEWER``: replace what is older than the guest's; ``KEEP_BOTH``: the restored one
    gets a suffix."""

    REFUSE = "refuse"
    OVERWRITE = "overwrite"
    NEWER = "newer"
    KEEP_BOTH = "keep-both"


@dataclass(slots=True)
class _Open:
    """A directory of the target under way. ``folded``: names in it regardless of case, where the target ignores that."""

    path: bytes
    descriptor: int
    folded: dict[str, bytes] = field(default_factory=dict)


class DirectoryTarget(Closeable):
    """``FileTarget`` over a directory, which is made (for its owner only) if it is not there. Attributes of the root of a
    volume are given to it only then. ``specials``: devices, FIFOs and sockets are made. ``ignores_case``: as ``None``, found
    by trying. Raises ``RestoreRefused``."""

    def __init__(
        self,
        directory: Path,
        *,
        existing: Existing = Existing.REFUSE,
        attributes: Attributes = ATTRIBUTES,
        specials: bool = False,
        ignores_case: bool | None = None,
    ) -> None:
        self._directory = directory
        self._existing = existing
        self._attributes = attributes
        self._specials = specials
        try:
            self._made = not directory.exists()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RestoreRefused(str(directory), str(error.strerror), hint="name a directory") from None
        self._levels = [_Open(b"", root)]
        self._root = root
        found, self._rounding = _tried(root)
        self._ignores_case = found if ignores_case is None else ignores_case

    def directory(self, path: bytes, item: Item) -> Placed:
        if not path:
            self._levels.append(_Open(path, os.dup(self._root)))
            return Placed()
        level, name = self._level(path)
        with self._telling(path):
            self._not_folded(level, name, path)
            self._levels.append(_Open(path, self._made_directory(level, name, path)))
        return Placed()

    def leave_directory(self, path: bytes, item: Item) -> Placed:
        level = self._levels.pop()
        try:
            if not path and not self._made:
                return Placed(losses=("mode, owner and times of the target directory itself, which was there before",))
            return Placed(losses=apply(Place(level.descriptor), item, self._attributes))
        finally:
            os.close(level.descriptor)

    def file(self, path: bytes, item: Item) -> Placed:
        level, name = self._level(path)
        with self._telling(path):
            decided = self._decide(level, name, path, item.entry)
            if isinstance(decided, Placed):
                return decided
            with NewFile(level.descriptor) as new:
                written = new.fill(item)
                losses = apply(Place(new.descriptor), item, self._attributes)
                new.publish(decided, replace=self._replaces(decided, name))
        return Placed(Action.WRITTEN, losses, _elsewhere(path, decided), written)

    def symlink(self, path: bytes, item: Item) -> Placed:
        target = item.entry.link_target or b""
        level, _ = self._level(path)

        def make(name: bytes) -> tuple[str, ...]:
            os.symlink(target, name, dir_fd=level.descriptor)
            return apply(Place.link_in(level.descriptor, name), item, self._attributes)

        with self._telling(path):
            return self._make(path, item.entry, make)

    def hard_link(self, path: bytes, item: Item, existing: bytes) -> Placed:
        level, name = self._level(path)
        with self._telling(path), self._folder_of(existing) as (folder, first):

            def make(new: bytes) -> tuple[str, ...]:
                os.link(first, new, src_dir_fd=folder, dst_dir_fd=level.descriptor, follow_symlinks=False)
                return ()

            there = status(level.descriptor, name)
            if there is not None and os.path.samestat(there, os.stat(first, dir_fd=folder, follow_symlinks=False)):
                return Placed(Action.UNCHANGED)
            try:
                return self._make(path, item.entry, make, same=False)
            except OSError as error:
                if error.errno not in NO_LINKS or item.entry.type is not FileType.FILE:
                    raise
        copied = self.file(path, item)
        return Placed(copied.action, (*copied.losses, "hard link (made a copy)"), copied.path, copied.written)

    def special(self, path: bytes, item: Item) -> Placed:
        entry = item.entry
        if not self._specials:
            return Placed(Action.LEFT_OUT, (f"{entry.type.value} (not asked for)",))
        level, _ = self._level(path)

        def make(name: bytes) -> tuple[str, ...]:
            device = os.makedev(*entry.device) if "device" in entry.type else 0
            os.mknod(name, _FORMATS[entry.type] | 0o600, device, dir_fd=level.descriptor)
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=level.descriptor)
            try:
                return apply(Place.opened_as_path(handle), item, self._attributes)
            finally:
                os.close(handle)

        with self._telling(path):
            return self._make(path, entry, make)

    def finish(self) -> Sequence[Problem]:
        with self._telling(b""):
            if ctypes.CDLL(None, use_errno=True).syncfs(self._root) != 0:
                raise OSError(ctypes.get_errno(), "the file system could not be synced")
        return ()

    def close(self) -> None:
        while self._levels:
            os.close(self._levels.pop().descriptor)

    def _level(self, path: bytes) -> tuple[_Open, bytes]:
        """The open directory that an entry goes in, and its name there."""
        above, _, name = path.rpartition(b"/")
        if not harmless(path):  # checked before, by others: it is what everything here rests on
            raise FileNotRestored(shown(path), "its name would lead elsewhere")
        if self._levels[-1].path != above:
            raise FileNotRestored(shown(path), "the directory above it is not there")
        return self._levels[-1], name

    def _made_directory(self, level: _Open, name: bytes, path: bytes) -> int:
        """Descriptor of a directory, made or found, that we can write in."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=level.descriptor)
        there = status(level.descriptor, name)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            if self._existing is not Existing.OVERWRITE:
                raise FileNotRestored(shown(path), "something is there that is no directory", hint="ask to overwrite")
            os.unlink(name, dir_fd=level.descriptor)
            os.mkdir(name, 0o700, dir_fd=level.descriptor)
        descriptor = os.open(name, _DIRECTORY, dir_fd=level.descriptor)
        mode = os.fstat(descriptor).st_mode & 0o7777
        if mode & 0o700 != 0o700:  # of an earlier run, which had finished it
            with suppress(PermissionError):
                os.fchmod(descriptor, mode | 0o700)
        return descriptor

    def _decide(self, level: _Open, name: bytes, path: bytes, entry: FileEntry, *, same: bool = True) -> bytes | Placed:
        """The name to give to an entry, or what happens instead. ``same``: what is the same already need not be made."""
        self._not_folded(level, name, path)
        for number in range(SECOND_NAMES):
            candidate = name + b".restored-%d" % number if number else name
            there = status(level.descriptor, candidate)
            if there is None:
                return candidate
            if same and self._is_whole(level, candidate, there, entry):
                return Placed(Action.UNCHANGED, path=_elsewhere(path, candidate))
            if self._existing is not Existing.KEEP_BOTH:
                return self._decide_taken(name, path, there, entry)
        raise FileNotRestored(shown(path), "it and all names beside it exist")

    def _decide_taken(self, name: bytes, path: bytes, there: os.stat_result, entry: FileEntry) -> bytes | Placed:
        if stat.S_ISDIR(there.st_mode):
            raise FileNotRestored(shown(path), "a directory is there")
        match self._existing:
            case Existing.OVERWRITE:
                return name
            case Existing.NEWER:
                return name if there.st_mtime_ns < entry.mtime_ns else Placed(Action.KEPT)
        hint = "choose another directory, or what to do with files that exist (--existing)"
        raise FileNotRestored(shown(path), "it exists and is another", hint=hint)

    def _is_whole(self, level: _Open, name: bytes, there: os.stat_result, entry: FileEntry) -> bool:
        if stat.S_IFMT(there.st_mode) != _FORMATS.get(entry.type):
            return False
        if entry.type is FileType.SYMLINK:
            return os.readlink(name, dir_fd=level.descriptor) == entry.link_target
        if entry.type is not FileType.FILE:
            return there.st_rdev == (os.makedev(*entry.device) if "device" in entry.type else 0)
        return there.st_size == entry.size and abs(there.st_mtime_ns - entry.mtime_ns) <= self._rounding

    def _replaces(self, decided: bytes, name: bytes) -> bool:
        return decided == name and self._existing in (Existing.OVERWRITE, Existing.NEWER)

    def _make(
        self, path: bytes, entry: FileEntry, make: Callable[[bytes], tuple[str, ...]], *, same: bool = True
    ) -> Placed:
        """Something without content: made in its place, or beside it and renamed where it replaces something."""
        level, name = self._level(path)
        decided = self._decide(level, name, path, entry, same=same)
        if isinstance(decided, Placed):
            return decided
        if not self._replaces(decided, name):
            return Placed(Action.WRITTEN, make(decided), _elsewhere(path, decided))
        partial = partial_name()
        try:
            losses = make(partial)
            os.rename(partial, decided, src_dir_fd=level.descriptor, dst_dir_fd=level.descriptor)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=level.descriptor)
        return Placed(Action.WRITTEN, losses)

    def _not_folded(self, level: _Open, name: bytes, path: bytes) -> None:
        """Where case is ignored, the second of two names would silently replace the first, or be merged with it."""
        if not self._ignores_case:
            return
        first = level.folded.setdefault(name.decode(errors="surrogateescape").casefold(), name)
        if first != name:
            raise FileNotRestored(shown(path), f"the target cannot tell it from {shown(first)!r}: it ignores case")

    @contextmanager
    def _folder_of(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory of something that this target holds, opened name by name, and its name there."""
        if not harmless(path):
            raise FileNotRestored(shown(path), "its name would lead elsewhere")
        *above, name = path.split(b"/")
        folder = os.dup(self._root)
        try:
            for part in above:
                below = os.open(part, _DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder, name
        finally:
            os.close(folder)

    @contextmanager
    def _telling(self, path: bytes) -> Iterator[None]:
        """Failures of this host in the port's words."""
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            if error.errno in _FATAL:
                raise TargetFailed(str(self._directory), why) from error
            raise FileNotRestored(shown(path), why) from error
        except (ValueError, OverflowError) as error:  # names and numbers that no system call takes
            raise FileNotRestored(shown(path), str(error)) from error


def _elsewhere(path: bytes, name: bytes) -> bytes | None:
    """Where an entry went, if not under its own name."""
    above, slash, wanted = path.rpartition(b"/")
    return None if name == wanted else above + slash + name


def _tried(folder: int) -> tuple[bool, int]:
    """Whether names differ by case only, and by how many nanoseconds times may be rounded: found out with a file that is
    removed at once. A directory where none can be made will tell so soon enough."""
    probe = partial_name()
    moment = 1_000_000_001_123_456_789
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder))
    except OSError:
        return False, 0
    try:
        os.utime(probe, ns=(moment, moment), dir_fd=folder, follow_symlinks=False)
        kept = os.stat(probe, dir_fd=folder, follow_symlinks=False).st_mtime_ns
        return status(folder, probe.upper()) is not None, 0 if kept == moment else COARSEST
    finally:
        os.unlink(probe, dir_fd=folder)
