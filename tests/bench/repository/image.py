"""The disk that everybody backs up: an ext4 file system with a real file tree in it, and how it looks a day later.

    v1.raw        files of this system, files that do not compress, free space: half holes, half zeroes that were written
    v2.raw        the same with 5 % of the data changed, in pieces of 256 KiB at random places
    changes.json  where: [[offset, length], …], sorted
    hints.json    the same as "rbd diff" prints it

The seed fixes what is taken from the tree and what changes; the tree is that of the machine.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy import command
from proxy.units import KiB, MiB, align_down, align_up

SEED = 20261122
TREES = ("/etc", "/usr/bin", "/usr/lib", "/usr/share", "/usr/sbin", "/usr/include")

# Disk for one byte of data: guests are half empty more often than not, but zeroes must not make up for slow work.
ROOM = 1.6

# A fifth is what cannot be compressed further: pictures, archives, encrypted files.
INCOMPRESSIBLE = 0.2

# A tree of system files alone would be tiny files and a few huge libraries; larger ones would crowd the others out.
LARGEST = 32 * MiB

CHANGED = 0.05
PIECE = 256 * KiB
BLOCK = 4 * KiB


@dataclass(frozen=True, slots=True)
class Image:
    """The files of one test disk; sizes in bytes."""

    directory: Path

    @property
    def v1(self) -> Path:
        return self.directory / "v1.raw"

    @property
    def v2(self) -> Path:
        return self.directory / "v2.raw"

    @property
    def hints(self) -> Path:
        return self.directory / "hints.json"

    @property
    def size(self) -> int:
        return self.v1.stat().st_size

    def changes(self) -> list[tuple[int, int]]:
        """Offset and length of what differs."""
        return [(start, length) for start, length in json.loads((self.directory / "changes.json").read_text())]

    def data(self) -> int:
        """Bytes of blocks that are not zero, in v1."""
        return int(json.loads((self.directory / "facts.json").read_text())["data"])


def build(directory: Path, data: int) -> Image:
    """Make the disk with about ``data`` bytes in it, or take the one that is there."""
    image = Image(directory)
    if (directory / "facts.json").exists():
        return image
    chooser = random.Random(SEED)
    stage = directory / "stage"
    _gather(stage, data, chooser)
    size = align_up(int(data * ROOM), MiB)
    command.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", stage, image.v1, f"{size // KiB}k"], timeout=300)
    shutil.rmtree(stage)
    runs = list(_runs(image.v1))
    _write_zeroes(image.v1, runs)
    command.run(["cp", "--sparse=auto", image.v1, image.v2], timeout=300)
    changes = _change(image.v2, runs, chooser)
    (directory / "changes.json").write_text(json.dumps(changes))
    image.hints.write_text(json.dumps([{"offset": o, "length": n, "exists": "true"} for o, n in changes]))
    os.sync()
    (directory / "facts.json").write_text(json.dumps({"data": sum(end - start for start, end in runs)}))
    return image


def _gather(stage: Path, data: int, chooser: random.Random) -> None:
    """Fill ``stage`` with files of this system, and with noise."""
    stage.mkdir(parents=True)
    left = int(data * (1 - INCOMPRESSIBLE))
    for source in _files(chooser):
        size = source.stat().st_size
        if size > min(left, LARGEST):
            continue
        target = stage / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        left -= align_up(size, BLOCK)
        if left < MiB:
            break
    left = int(data * INCOMPRESSIBLE)
    number = 0
    while left > 0:
        size = min(left, chooser.randrange(MiB, 16 * MiB))
        (stage / f"noise-{number}").write_bytes(chooser.randbytes(size))
        left -= size
        number += 1


def _files(chooser: random.Random) -> Iterator[Path]:
    """Regular files of the system's trees, directory by directory, the directories in a random order."""
    folders = sorted(folder for tree in TREES for folder, _, _ in os.walk(tree))
    chooser.shuffle(folders)
    for folder in folders:
        for path in sorted(Path(folder).iterdir()):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path


def _runs(path: Path) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data."""
    with path.open("rb") as file:
        size, end = path.stat().st_size, 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole up to the end
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, end


def _write_zeroes(path: Path, runs: list[tuple[int, int]]) -> None:
    """Every second MiB of the holes becomes zeroes that are stored, as free space is once it was used."""
    zeroes = bytes(MiB)
    with path.open("r+b") as file:
        for (_, low), (high, _) in zip(runs, [*runs[1:], (path.stat().st_size, 0)], strict=True):
            for at in range(align_up(low, MiB), align_down(high, MiB), 2 * MiB):
                file.seek(at)
                file.write(zeroes)


def _change(path: Path, runs: list[tuple[int, int]], chooser: random.Random) -> list[tuple[int, int]]:
    """Change pieces at random places of the data: moved by a block, with a new block at the end, so that they compress as
    before and no chunk of them stays."""
    places = [start for low, high in runs for start in range(low, high - PIECE, BLOCK)]
    total = sum(high - low for low, high in runs)
    chosen = sorted(chooser.sample(places, int(total * CHANGED) // PIECE))
    with path.open("r+b") as file:
        for place in chosen:
            file.seek(place)
            old = file.read(PIECE)
            file.seek(place)
            file.write(old[BLOCK:] + chooser.randbytes(BLOCK))
    return [(place, PIECE) for place in chosen]
