"""Volumes that are written between two restore points, and what changed in them, for tests of incremental indexing."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mounter.layout.model import Changes, Tree

PIECE = 16 * 1024
"""Changes are told in whole pieces, as an image's chunks do."""


@dataclass
class FileBytes:
    """A volume in a file."""

    path: Path
    count: int = 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def pread(self, offset: int, length: int) -> bytes:
        self.count += length
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def changes(before: Path, now: Path) -> Changes:
    """What differs between two images of one size."""
    old, new = (np.fromfile(path, dtype=np.uint8).reshape(-1, PIECE) for path in (before, now))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], (old != new).any(axis=1), [False]]).astype(np.int8)))
    pairs = edges.reshape(-1, 2).astype(np.int64) * PIECE
    return Changes(pairs[:, 0].copy(), pairs[:, 1].copy())


def listing(tree: Tree) -> dict[bytes, tuple[int, object]]:
    """Every path with its inode and record."""
    out: dict[bytes, tuple[int, object]] = {}
    waiting = [(b"", tree.root)]
    while waiting:
        path, directory = waiting.pop()
        for name, child in tree.children[directory].items():
            out[path + b"/" + name] = (child, tree.nodes[child])
            if child in tree.children:
                waiting.append((path + b"/" + name, child))
    return out


def without(paths: dict[bytes, tuple[int, object]], gone: list[bytes]) -> dict[bytes, tuple[int, object]]:
    """As a catalog takes entries away, each with all below it."""
    tops = set(gone)

    def kept(path: bytes) -> bool:
        parts = path.split(b"/")
        return not any(b"/".join(parts[: n + 1]) in tops for n in range(1, len(parts)))

    return {path: fact for path, fact in paths.items() if kept(path)}


class Scribbler:
    """Random operations on a directory tree. Subclasses know how a real file system is told to do them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.directories = ["/"]
        self.files: list[str] = []
        self._number = 0

    def name(self) -> str:
        self._number += 1
        return f"n{self._number}" + "x" * self.random.randrange(0, 60)

    def below(self, directory: str) -> str:
        return f"{directory.rstrip('/')}/{self.name()}"

    def somewhere(self) -> str:
        return self.below(self.random.choice(self.directories))

    def round(self, count: int) -> None:
        for _ in range(count):
            self.random.choice(self.operations())()

    def operations(self) -> list[Callable[[], None]]:
        raise NotImplementedError


class MountedScribbler(Scribbler):
    """Through a mounted file system at ``top``."""

    def __init__(self, seed: int, top: Path) -> None:
        super().__init__(seed)
        self.top = top

    def at(self, path: str) -> Path:
        return self.top / path.lstrip("/")

    def operations(self) -> list[Callable[[], None]]:
        common = [self.make, self.make, self.make, self.write, self.directory, self.remove, self.rename]
        return [*common, self.link, self.symlink, self.touch, self.move_directory, self.remove_directory, self.crowd]

    def make(self) -> None:
        path = self.somewhere()
        self.at(path).write_bytes(self.random.randbytes(self.random.choice([0, 10, 5000, 100_000])))
        self.files.append(path)

    def write(self) -> None:
        if self.files:
            with self.at(self.random.choice(self.files)).open("ab") as file:
                file.write(self.random.randbytes(self.random.choice([1, 9000])))

    def touch(self) -> None:
        if self.files:
            moment = self.random.randrange(10**9, 2 * 10**9)
            os.utime(self.at(self.random.choice(self.files)), (moment, moment))

    def crowd(self) -> None:
        for _ in range(40):
            self.make()

    def directory(self) -> None:
        path = self.somewhere()
        self.at(path).mkdir()
        self.directories.append(path)

    def remove(self) -> None:
        for path in self.random.sample(self.files, min(len(self.files), self.random.choice([1, 1, 5]))):
            self.files.remove(path)
            self.at(path).unlink()

    def rename(self) -> None:
        if self.files:
            path = self.random.choice(self.files)
            new = self.somewhere()
            self.files.remove(path)
            self.at(path).rename(self.at(new))
            self.files.append(new)

    def link(self) -> None:
        if self.files:
            new = self.somewhere()
            self.at(new).hardlink_to(self.at(self.random.choice(self.files)))
            self.files.append(new)

    def symlink(self) -> None:
        path = self.somewhere()
        self.at(path).symlink_to("t" * self.random.choice([3, 59, 60, 61, 200]))

    def move_directory(self) -> None:
        moved = self.random.choice(self.directories)
        into = self.random.choice(self.directories)
        if moved != "/" and not f"{into}/".startswith(f"{moved}/"):
            new = self.below(into)
            self.at(moved).rename(self.at(new))
            self._renamed(moved, new)

    def remove_directory(self) -> None:
        path = self.random.choice(self.directories)
        if path != "/" and self.random.random() < 0.4:
            shutil.rmtree(self.at(path))
            self.directories = [d for d in self.directories if not f"{d}/".startswith(f"{path}/")]
            self.files = [f for f in self.files if not f.startswith(f"{path}/")]

    def _renamed(self, old: str, new: str) -> None:
        def moved(path: str) -> str:
            return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path

        self.directories = [moved(path) for path in self.directories]
        self.files = [moved(path) for path in self.files]


class DebugfsScribbler(Scribbler):
    """Through ``debugfs -w``: ext file systems without a kernel."""

    def __init__(self, seed: int, image: Path, content: Path) -> None:
        super().__init__(seed)
        self.image = image
        self.script: list[str] = []
        self.content = content

    def round(self, count: int) -> None:
        super().round(count)
        commands = self.image.with_suffix(".debugfs")
        commands.write_text("\n".join(self.script) + "\n")
        self.script = []
        subprocess.run(["debugfs", "-w", "-f", str(commands), str(self.image)], check=True, capture_output=True)

    def operations(self) -> list[Callable[[], None]]:
        common = [self.make, self.make, self.make, self.directory, self.remove, self.rename, self.symlink]
        return [*common, self.link, self.touch, self.move_directory, self.crowd, self.remove_directory, self.fields]

    def make(self) -> None:
        path = self.somewhere()
        self.script.append(f"write {self.content} {path}")
        self.files.append(path)

    def crowd(self) -> None:
        for _ in range(30):
            self.make()

    def directory(self) -> None:
        path = self.somewhere()
        self.script.append(f"mkdir {path}")
        self.directories.append(path)

    def remove(self) -> None:
        for path in self.random.sample(self.files, min(len(self.files), self.random.choice([1, 1, 5]))):
            self.files.remove(path)
            self.script.append(f"rm {path}")

    def rename(self) -> None:
        if self.files:
            path = self.random.choice(self.files)
            new = self.somewhere()
            self.files.remove(path)
            self.files.append(new)
            self.script += [f"ln {path} {new}", f"unlink {path}"]

    def link(self) -> None:
        if self.files:
            path = self.files.pop(self.random.randrange(len(self.files)))  # never removed: debugfs counts no links
            new = self.somewhere()
            self.script += [f"ln {path} {new}", f"sif {path} links_count 2"]

    def symlink(self) -> None:
        path = self.somewhere()
        self.script.append(f"symlink {path} {'t' * self.random.choice([3, 59, 60, 61, 200])}")

    def touch(self) -> None:
        if self.files:
            self.script.append(f"sif {self.random.choice(self.files)} mtime @{self.random.randrange(10**9, 2 * 10**9)}")

    def fields(self) -> None:
        path = self.random.choice(self.files + self.directories)
        self.script += [
            f"sif {path} atime @{self.random.randrange(10**9, 2 * 10**9)}",
            f"sif {path} uid {self._number}",
        ]

    def move_directory(self) -> None:
        moved = self.random.choice(self.directories)
        into = self.random.choice(self.directories)
        if moved != "/" and not f"{into}/".startswith(f"{moved}/"):
            new = self.below(into)
            self.script += [f"ln {moved} {new}", f"unlink {moved}"]
            self.directories = [
                new + d[len(moved) :] if f"{d}/".startswith(f"{moved}/") else d for d in self.directories
            ]
            self.files = [new + f[len(moved) :] if f.startswith(f"{moved}/") else f for f in self.files]

    def remove_directory(self) -> None:
        path = self.random.choice(self.directories)
        inside = [d for d in [*self.directories, *self.files] if d.startswith(f"{path}/")]
        if path != "/" and not inside:
            self.script.append(f"rmdir {path}")
            self.directories.remove(path)
