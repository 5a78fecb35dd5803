"""How fast an exported restore point is read, against the repository's own restore speed.

    python tests/bench/mounter/bench_export.py [--size-mib 512] [--rounds 3]

One image: system files, an eighth random bytes, a quarter holes; in a repository on the local file system, encrypted, chunks
of 256 KiB. Within a round, one after the other in random order, from the page cache:

    restore null       the copy loop of restores, to nowhere
    restore file       the same to a sparse file
    nbdcopy null       ``nbdcopy URI null:``
    nbdcopy file       ``nbdcopy URI FILE``
    nbdcopy slow       one connection, one request at a time: what a simple client gets
    nbdcopy cow        ``nbdcopy URI null:`` of a copy-on-write export
    qemu-img file      ``qemu-img convert`` to a raw file
    far …              the same from a store that needs 20 ms for each answer, as one over the network does

Printed: MiB/s of data (holes do not count), and the ratio to the restore to the same kind of place. Only ratios within a
round count. Figures are printed and not judged: one run on a busy machine proves nothing.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mounter.export import CopyOnWrite, Export, ImageToExport
from proxy import repository as repositories
from proxy.command import run
from proxy.extents import Kind, total
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.ports import ImageReader
from proxy.repository import PosixStore, Repository
from proxy.transfer import copy
from proxy.units import MiB

SECRET = repositories.KeyFile(bytes(range(32)))
TREES = ("/usr/lib", "/usr/bin")
LATENCY = 0.02


def open_image(argument: Mapping[str, Any]) -> ImageReader:
    """For nbdkit."""
    repository = _opened(Path(argument["repository"]), far=argument["far"])
    return repository.open_image(repository.points()[-1], "vda")


class FarStore(PosixStore):
    """Answers late, and has no local files."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """After a while."""
        time.sleep(LATENCY)
        return super().get(name, offset, length)

    def local_path(self, name: str) -> None:
        """None."""


def _opened(place: Path, *, far: bool = False) -> Repository:
    return repositories.open(FarStore(place) if far else PosixStore(place), secret=SECRET)


class Nowhere:
    """Takes everything."""

    def write(self, offset: int, data: memoryview) -> None:
        """Nothing."""

    def zero(self, offset: int, length: int) -> None:
        """Nothing."""


class SparseFile:
    """What restores write to, without what makes it safe."""

    def __init__(self, path: Path, size: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.truncate(self._file, size)

    def write(self, offset: int, data: memoryview) -> None:
        """All of it."""
        os.pwrite(self._file, data, offset)

    def zero(self, offset: int, length: int) -> None:
        """It is."""

    def close(self) -> None:
        """Once."""
        os.close(self._file)


def content(size: int) -> Iterator[bytes]:
    """Pieces of 4 MiB: files, random bytes, holes."""
    files = sorted(p for tree in TREES for p in Path(tree).rglob("*") if p.is_file() and not p.is_symlink())
    random.Random(1).shuffle(files)
    names, kinds, rest = iter(files), random.Random(2), b""
    for _ in range(size // (4 * MiB)):
        kind = kinds.random()
        if kind < 0.25:
            yield b""
        elif kind < 0.375:
            yield os.urandom(4 * MiB)
        else:
            while len(rest) < 4 * MiB:
                rest += next(names).read_bytes()
            piece, rest = rest[: 4 * MiB], rest[4 * MiB :]
            yield piece


def store(place: Path, size: int) -> None:
    """A repository with one restore point."""
    place.mkdir()
    with repositories.create(PosixStore(place), secret=SECRET) as repository:
        with repository.image_writer("vda", size, None) as writer:
            for number, piece in enumerate(content(size)):
                if piece:
                    writer.write(number * 4 * MiB, memoryview(piece))
            image = writer.seal()
        facts = ("", "m1", "bench", "h1", "r1", datetime.now(UTC), Level.FULL, Consistency.CRASH, (image,))
        repository.seal(RestorePoint(*facts, configuration=MachineConfiguration("libvirt-xml", "<domain/>")))


def contenders(place: Path, out: Path, uri: str, cow: str, far: str) -> dict[str, Callable[[], object]]:
    """Name -> what reads the whole image once."""

    def restore(sink: Any, *, far: bool = False) -> None:
        with _opened(place, far=far) as repository, repository.open_image(repository.points()[-1], "vda") as image:
            image.will_read(image.map())
            copy(image, sink, image.extents(), disk="vda", granularity=image.granularity)

    def tool(*words: str) -> Callable[[], object]:
        return lambda: run(words, timeout=600)

    def to_file() -> None:
        with _opened(place) as repository:
            file = SparseFile(out, repository.points()[-1].images[0].size)
        restore(file)
        file.close()

    slow = ("--connections=1", "--requests=1", "--threads=1")
    return {
        "restore null": lambda: restore(Nowhere()),
        "restore file": to_file,
        "nbdcopy null": tool("nbdcopy", uri, "null:"),
        "nbdcopy file": tool("nbdcopy", uri, str(out)),
        "nbdcopy slow": tool("nbdcopy", *slow, uri, "null:"),
        "nbdcopy cow": tool("nbdcopy", cow, "null:"),
        "far restore null": lambda: restore(Nowhere(), far=True),
        "far nbdcopy null": tool("nbdcopy", far, "null:"),
        "far nbdcopy slow": tool("nbdcopy", *slow, far, "null:"),
        "qemu-img file": tool("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, str(out)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-", dir="/var/tmp") as work:
        place = Path(work) / "repository"
        store(place, given.size_mib * MiB)
        with _opened(place) as repository, repository.open_image(repository.points()[-1], "vda") as image:
            data = total(image.extents(), Kind.DATA)
        near, away = (
            [ImageToExport("vda", "bench_export:open_image", {"repository": str(place), "far": far})]
            for far in (False, True)
        )
        spent: dict[str, list[float]] = {}
        with (
            Export(near) as export,
            Export(near, cow=CopyOnWrite(Path(work), 64 * MiB)) as writable,
            Export(away) as distant,
        ):
            uris = [each.served[0].uri for each in (export, writable, distant)]
            measured = contenders(place, Path(work) / "out.raw", *uris)
            for _ in range(given.rounds):
                for name in random.sample(list(measured), len(measured)):
                    begin = time.perf_counter()
                    measured[name]()
                    spent.setdefault(name, []).append(time.perf_counter() - begin)
    _print(data, spent)


def _print(data: int, spent: Mapping[str, list[float]]) -> None:
    print(f"{data / MiB:.0f} MiB of data; median of {len(next(iter(spent.values())))} rounds")
    for name in sorted(spent):
        like = "far restore null" if "far" in name else "restore file" if "file" in name else "restore null"
        base = spent[like]
        ratio = statistics.median(b / own for b, own in zip(base, spent[name], strict=True))
        print(
            f"{name:16}  {data / MiB / statistics.median(spent[name]):7.0f} MiB/s  {ratio:5.2f} of the restore's speed"
        )


if __name__ == "__main__":
    main()
