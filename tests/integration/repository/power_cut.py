"""A file layer that loses power: records what a program does to files under a root, and builds what a disk may hold afterwards.

What POSIX promises, and no more:

- bytes written before an ``fsync`` of their file are there; later ones are lost, whole, or torn: cut off, or zeroes in their
  place (the size was written and the data were not);
- an entry of a directory (a name made, linked, renamed or removed) is certain once the *directory* was synced after it.
  Before, any subset of the changes may have arrived, in any order, and of a rename one half without the other;
- a name that points to a directory which never arrived leads nowhere.

File systems promise more than that (ext4 orders, XFS logs renames whole); what holds here holds on all of them.
"""

import itertools
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

# What becomes of bytes that were written and not synced.
Fate = Literal["lost", "whole", "torn", "zeroes"]
FATES: tuple[Fate, ...] = ("lost", "whole", "torn", "zeroes")

# With so many unsynced names every subset is built; of more, as many at random. Temporary files count for nothing here: their
# directory is never synced, and whether one is left is thrown by dice.
ALL_SUBSETS = 6
SOME_SUBSETS = 24
TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Write:
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    """``folder``: its path relative to the root, or ``None`` for a file's ``inode``."""

    inode: int
    folder: str | None


@dataclass(frozen=True)
class Entry:
    """A name in a folder now points to ``inode``, or (``None``) to nothing."""

    folder: str
    name: str
    inode: int | None
    directory: bool = False


Step = Write | Sync | Entry


@dataclass
class Recording:
    """``steps`` in the order in which they took effect under ``root``."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _files: dict[int, tuple[int, str | None]] = field(default_factory=dict)
    _identities: dict[int, int] = field(default_factory=dict)

    def inside(self, path: Any) -> str | None:
        """The path relative to the root, ``None`` outside of it."""
        if not isinstance(path, str | os.PathLike):
            return None
        try:
            return str(Path(path).relative_to(self.root))
        except ValueError:
            return None

    def identity(self, inode: int, *, new: bool = False) -> int:
        """Our number for a file: the file system gives an inode's number away again when the file is gone."""
        if new or inode not in self._identities:
            self._identities[inode] = 1 + max(self._identities.values(), default=0)
        return self._identities[inode]

    def entry(self, path: str, inode: int | None, *, directory: bool = False) -> None:
        self.steps.append(Entry(str(Path(path).parent), Path(path).name, inode, directory))


@contextmanager
def recorded(root: Path) -> Iterator[Recording]:
    """While this lasts, every change under ``root`` that goes through the ``os`` module is recorded."""
    recording = Recording(root)
    real = {
        name: getattr(os, name) for name in ("open", "close", "write", "fsync", "link", "rename", "unlink", "mkdir")
    }
    files = recording._files

    def locked(name: str, wrapper: Callable[..., Any]) -> None:
        def call(*words: Any, **named: Any) -> Any:
            with recording._lock:
                return wrapper(*words, **named)

        patch.setattr(os, name, call)

    def open_(path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        inside = recording.inside(path)
        new = inside is not None and bool(flags & os.O_CREAT) and not os.path.lexists(path)
        file: int = real["open"](path, flags, mode, **named)
        if inside is not None:
            there = os.fstat(file)
            identity = recording.identity(there.st_ino, new=new)
            files[file] = (identity, inside if stat.S_ISDIR(there.st_mode) else None)
            if new:
                recording.entry(inside, identity)
        return file

    def close(file: int) -> None:
        files.pop(file, None)
        real["close"](file)

    def write(file: int, data: Any) -> int:
        if file not in files:
            return int(real["write"](file, data))
        offset = os.lseek(file, 0, os.SEEK_CUR)
        done = int(real["write"](file, data))
        recording.steps.append(Write(files[file][0], offset, bytes(memoryview(data)[:done])))
        return done

    def fsync(file: int) -> None:
        real["fsync"](file)
        if file in files:
            recording.steps.append(Sync(*files[file]))

    def link(source: Any, target: Any, **named: Any) -> None:
        real["link"](source, target, **named)
        if (inside := recording.inside(target)) is not None:
            recording.entry(inside, recording.identity(os.lstat(target).st_ino))

    def rename(source: Any, target: Any, **named: Any) -> None:
        real["rename"](source, target, **named)
        if (inside := recording.inside(target)) is not None:
            recording.entry(inside, recording.identity(os.lstat(target).st_ino))
        if (inside := recording.inside(source)) is not None:
            recording.entry(inside, None)

    def unlink(path: Any, **named: Any) -> None:
        real["unlink"](path, **named)
        if (inside := recording.inside(path)) is not None:
            recording.entry(inside, None)

    def mkdir(path: Any, mode: int = 0o777, **named: Any) -> None:
        real["mkdir"](path, mode, **named)
        if (inside := recording.inside(path)) is not None:
            recording.entry(inside, recording.identity(os.lstat(path).st_ino, new=True), directory=True)

    with pytest.MonkeyPatch.context() as patch:
        for name, wrapper in (("open", open_), ("close", close), ("write", write), ("fsync", fsync)):
            locked(name, wrapper)
        for name, wrapper in (("link", link), ("rename", rename), ("unlink", unlink), ("mkdir", mkdir)):
            locked(name, wrapper)
        yield recording


# Path -> bytes, ``None`` for a directory: what a disk holds.
Disk = dict[str, bytes | None]


def build(disk: Disk, root: Path) -> None:
    """Lay it out under ``root``, which is made."""
    root.mkdir()
    for path, data in disk.items():
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def disks(steps: list[Step], cut: int, dice: random.Random) -> Iterator[Disk]:
    """What the disk may hold when the power goes after ``cut`` steps, each once."""
    done = steps[:cut]
    unsynced = [number for number, step in enumerate(done) if isinstance(step, Entry) and not _certain(done, number)]
    temporary = {number for number in unsynced if _folder(done[number]) == TEMPORARY}
    contents = [_contents(done, fate) for fate in FATES]
    seen: set[int] = set()
    for arrived in _subsets([number for number in unsynced if number not in temporary], dice):
        missing = set(unsynced) - arrived - {number for number in temporary if dice.random() < 0.5}
        entries = [step for number, step in enumerate(done) if isinstance(step, Entry) and number not in missing]
        for held in contents:
            disk = _disk(entries, held)
            known = hash(tuple(disk.items()))
            if known not in seen:
                seen.add(known)
                yield disk


def whole(steps: list[Step]) -> Disk:
    """The disk after all steps, nothing lost."""
    return _disk([step for step in steps if isinstance(step, Entry)], _contents(steps, "whole"))


def _disk(entries: list[Entry], contents: dict[int, bytes]) -> Disk:
    folders: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        names = folders.setdefault(entry.folder, {})
        if entry.inode is None:
            names.pop(entry.name, None)
        else:
            names[entry.name] = entry
    disk: Disk = {}

    def walk(folder: str) -> None:
        for name, entry in sorted(folders.get(folder, {}).items()):
            path = str(Path(folder) / name)
            disk[path] = None if entry.directory else contents.get(entry.inode or 0, b"")
            if entry.directory:
                walk(path)

    walk(".")
    return disk


def _folder(step: Step) -> str:
    return step.folder if isinstance(step, Entry) else ""


def _certain(done: list[Step], number: int) -> bool:
    entry = done[number]
    assert isinstance(entry, Entry)
    return any(isinstance(step, Sync) and step.folder == entry.folder for step in done[number + 1 :])


def _subsets(numbers: list[int], dice: random.Random) -> Iterator[set[int]]:
    if len(numbers) <= ALL_SUBSETS:
        for size in range(len(numbers) + 1):
            yield from map(set, itertools.combinations(numbers, size))
        return
    yield set()
    yield set(numbers)
    for _ in range(SOME_SUBSETS):
        yield {number for number in numbers if dice.random() < 0.5}


def _contents(done: list[Step], fate: Fate) -> dict[int, bytes]:
    contents: dict[int, bytearray] = {}
    for number, step in enumerate(done):
        if not isinstance(step, Write):
            continue
        synced = any(isinstance(later, Sync) and later.inode == step.inode for later in done[number + 1 :])
        data = step.data
        if not synced:
            if fate == "lost":
                continue
            if fate == "torn":
                data = data[: len(data) // 2]
            if fate == "zeroes":
                data = bytes(len(data))
        there = contents.setdefault(step.inode, bytearray())
        there.extend(bytes(max(step.offset + len(data) - len(there), 0)))
        there[step.offset : step.offset + len(data)] = data
    return {inode: bytes(data) for inode, data in contents.items()}
