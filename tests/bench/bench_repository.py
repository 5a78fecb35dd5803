"""What the repository costs beside the sum of its parts, and beside qemu-img and zstd, in one run on one image.

    python tests/bench/bench_repository.py [--size MIB] [--rounds N] [--directory DIR] [--chunk KIB]

The image is built here: bytes of a real file tree (tar of /usr), zero runs, incompressible bytes; a second version differs
in 5 % of its data in scattered pieces of 192 KiB. Every measurement is a process of its own, so that CPU and peak memory
are its own; only ratios from one run count, the machine and its caches are what they are; on a busy machine those of CPU.
A full backup makes its packs durable as it goes; the peers sync nothing.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard
from blake3 import blake3

from proxy import repository as repositories
from proxy.extents import Extent, aligned, normal
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.transfer import copy
from proxy.units import KiB, MiB

BLOCK = 16 * MiB
CHANGE = 192 * KiB


class FileDisk:
    """A raw file as source and as target."""

    can_report_extents = False

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.identity = str(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        if size is not None:
            os.ftruncate(self._file, size)
        self.size = os.fstat(self._file).st_size

    def extents(self) -> list[Extent]:
        return [Extent(0, self.size)]

    def changed(self, since: str) -> list[Extent]:
        raise NotImplementedError(since)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if os.preadv(self._file, [buffer], offset) != len(buffer):
            raise OSError("short read")

    def write(self, offset: int, data: memoryview) -> None:
        os.pwrite(self._file, data, offset)

    def zero(self, offset: int, length: int) -> None:
        """A new file has holes already."""

    def flush(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build(directory: Path, size: int) -> None:
    """``v1.raw`` and ``v2.raw``, and what differs as ``changes.json``. The same seed gives the same places."""
    chooser = random.Random(7)
    tree = subprocess.Popen(["tar", "-cf", "-", "/usr"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert tree.stdout is not None
    data: list[int] = []
    with (directory / "v1.raw").open("wb") as file:
        for start in range(0, size, BLOCK):
            kind = chooser.random()
            if kind < 0.25:
                continue
            data.append(start)
            block = tree.stdout.read(BLOCK) if kind < 0.85 else os.urandom(BLOCK)
            file.seek(start)
            file.write(block)
        file.truncate(size)
    tree.kill()
    tree.wait()
    tree.stdout.close()
    shutil.copyfile(directory / "v1.raw", directory / "v2.raw")
    changes: list[int] = []
    with (directory / "v2.raw").open("r+b") as file:
        for _ in range(int(len(data) * BLOCK * 0.05) // CHANGE):
            place = chooser.choice(data) + chooser.randrange(0, BLOCK - CHANGE, 4 * KiB)
            file.seek(place)
            old = file.read(CHANGE)
            file.seek(place)
            file.write(old[4 * KiB :] + os.urandom(4 * KiB))  # as compressible as before, and other chunks
            changes.append(place)
        os.fsync(file.fileno())
    (directory / "changes.json").write_text(json.dumps(sorted(changes)))


def chunks(path: Path, size: int) -> Iterator[memoryview]:
    """All chunks of a file that are not zero, in one reused buffer."""
    zeroes = bytes(size)
    buffer = memoryview(bytearray(MiB))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            for start in range(0, count, size):
                chunk = buffer[start : min(start + size, count)]
                if not zeroes.startswith(chunk):
                    yield chunk


class Work:
    """Each public method is one measurement; it returns seconds or nothing (then it is timed as a whole)."""

    def __init__(self, directory: Path, chunk: int) -> None:
        self.directory = directory
        self.chunk = chunk
        self.v1, self.v2 = directory / "v1.raw", directory / "v2.raw"
        self.store = directory / "repository"

    def _open(self) -> repositories.Repository:
        return repositories.open(repositories.PosixStore(self.store), cache=self.directory / "cache")

    def _backup(self, path: Path, run: str, *, parent: bool, known: bool) -> None:
        with self._open() as repository, FileDisk(path) as source:
            last = repository.points()[-1].images[0] if parent else None
            extents = source.extents()
            if known:
                places = json.loads((self.directory / "changes.json").read_text())
                extents = aligned(normal(Extent(p, CHANGE) for p in places), self.chunk, source.size)
            with repository.image_writer("vda", source.size, last) as writer:
                copy(source, writer, extents, disk="vda")
                image = writer.seal()
            configuration = MachineConfiguration("none", "")
            now = datetime.now(UTC)
            point = RestorePoint(
                "", "m", "bench", "h", run, now, Level.FULL, Consistency.CRASH, (image,), configuration
            )
            repository.seal(point)
            (self.directory / "stored").write_text(str(image.bytes_stored))

    def full(self) -> None:
        self._backup(self.v1, "full", parent=False, known=False)

    def incremental(self) -> None:
        self._backup(self.v2, "incremental", parent=True, known=True)

    def scan(self) -> None:
        self._backup(self.v2, "scan", parent=True, known=False)

    def restore(self) -> None:
        with self._open() as repository:
            point = repository.points()[-1]
            with repository.open_image(point, "vda") as image, FileDisk(self._fresh("out.raw"), image.size) as target:
                copy(image, target, image.extents(), disk="vda")  # no sync, as the peers do none

    def verify(self) -> None:
        with self._open() as repository:
            assert list(repositories.verify(repository)) == []

    def read(self) -> None:
        buffer = bytearray(MiB)
        with self.v1.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def blake3(self) -> None:
        for chunk in chunks(self.v1, self.chunk):
            blake3(chunk, key=bytes(32)).digest()

    def zstd(self) -> None:
        compressor = zstandard.ZstdCompressor(level=1)
        for chunk in chunks(self.v1, self.chunk):
            compressor.compress(chunk)

    def unzstd(self) -> None:
        """Seconds of decompression alone."""
        subprocess.run(["zstd", "-q", "-d", "-f", self.directory / "v1.zst", "-o", self._fresh("out.raw")], check=True)

    def write(self) -> None:
        """As many bytes as a full backup stores."""
        with self._fresh("out.raw").open("wb", buffering=0) as file:
            piece = os.urandom(32 * MiB)
            for _ in range(int((self.directory / "stored-full").read_text()) // len(piece)):
                file.write(piece)
                os.fsync(file.fileno())

    def zstd_t2(self) -> None:
        subprocess.run(["zstd", "-q", "-1", "-T2", "-f", self.v1, "-o", self.directory / "v1.zst"], check=True)

    def qemu_img(self) -> None:
        out = self._fresh("out.qcow2")
        options = ["-O", "qcow2", "-c", "-o", "compression_type=zstd"]
        subprocess.run(["qemu-img", "convert", "-f", "raw", *options, self.v1, out], check=True)

    def qemu_img_w(self) -> None:
        out = self._fresh("out.qcow2")
        options = ["-W", "-m", "16", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
        subprocess.run(["qemu-img", "convert", "-f", "raw", *options, self.v1, out], check=True)

    def qemu_img_back(self) -> None:
        source, out = self.directory / "out.qcow2", self._fresh("out.raw")
        subprocess.run(["qemu-img", "convert", "-W", "-m", "16", "-O", "raw", source, out], check=True)

    def _fresh(self, name: str) -> Path:
        (self.directory / name).unlink(missing_ok=True)
        return self.directory / name


ORDER = ("read", "blake3", "zstd", "full", "incremental", "restore", "verify", "write")
PEERS = {"qemu-img": ("qemu_img", "qemu_img_w", "qemu_img_back"), "zstd": ("zstd_t2", "unzstd")}


def one(directory: Path, chunk: int, what: str) -> None:
    """Do one measurement in this process and print it."""
    job: Callable[[], None] = getattr(Work(directory, chunk), what)
    begin = time.perf_counter()
    job()
    wall = time.perf_counter() - begin
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    # VmHWM begins anew with exec; ru_maxrss would begin with the size of the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0])
    print(json.dumps({"wall": wall, "cpu": cpu, "rss": peak / KiB}))


def measure(directory: Path, chunk: int, what: str) -> dict[str, float]:
    """Run one measurement in a process of its own, and afterwards wait until its dirty pages are written."""
    words = [sys.executable, __file__, "--directory", str(directory), "--chunk", str(chunk // KiB), "--one", what]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    os.sync()
    result: dict[str, float] = json.loads(done.stdout)
    return result


def one_round(directory: Path, chunk: int) -> dict[str, dict[str, float]]:
    """Everything once, one after the other. Each backup begins with a repository in the state that it names."""
    results: dict[str, dict[str, float]] = {}

    def fresh() -> None:
        for name in ("repository", "cache"):
            shutil.rmtree(directory / name, ignore_errors=True)
        (directory / "repository").mkdir()
        store = repositories.PosixStore(directory / "repository")
        repositories.create(store, chunk_size=chunk, cache=directory / "cache").close()

    fresh()
    for what in ORDER:
        results[what] = measure(directory, chunk, what)
        if what in ("full", "incremental"):
            stored = (directory / "stored").read_text()
            results[what]["stored"] = int(stored) / MiB
            (directory / f"stored-{what}").write_text(stored)
    fresh()
    measure(directory, chunk, "full")
    results["scan"] = measure(directory, chunk, "scan")
    for tool, works in PEERS.items():
        for what in works if shutil.which(tool) else ():
            results[what] = measure(directory, chunk, what)
    return results


def show(rounds: list[dict[str, dict[str, float]]], data: int) -> None:
    """Medians, and ratios within the rounds."""
    names = list(rounds[0])
    median = {name: {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]} for name in names}
    print(f"{'work':14} {'wall s':>7} {'CPU s':>7} {'RSS MiB':>8} {'stored MiB':>10}")
    for name, row in median.items():
        print(f"{name:14} {row['wall']:7.2f} {row['cpu']:7.2f} {row['rss']:8.0f} {row.get('stored', 0):10.0f}")

    def ratio(text: str, pick: Callable[[dict[str, dict[str, float]]], float]) -> None:
        print(f"{statistics.median(pick(r) for r in rounds):6.2f}  {text}")

    parts = ("read", "blake3", "zstd", "write")
    print(f"\nmedian of {len(rounds)} rounds; {data} MiB of data")
    ratio(
        "full wall / sum of its parts one after the other (0.5 = two cores used wholly)",
        lambda r: r["full"]["wall"] / sum(r[p]["wall"] for p in parts),
    )
    ratio(
        "full CPU / CPU of its parts (1.0 = no overhead)", lambda r: r["full"]["cpu"] / sum(r[p]["cpu"] for p in parts)
    )
    for peer, ours in (("qemu_img", "full"), ("zstd_t2", "full"), ("qemu_img_back", "restore"), ("unzstd", "restore")):
        if peer in names:
            ratio(
                f"{peer} CPU / {ours} CPU (above 1: we need less)",
                lambda r, peer=peer, ours=ours: r[peer]["cpu"] / r[ours]["cpu"],  # type: ignore[misc]
            )
    ratio("incremental wall / full wall", lambda r: r["incremental"]["wall"] / r["full"]["wall"])
    ratio("scan-all incremental wall / full wall", lambda r: r["scan"]["wall"] / r["full"]["wall"])
    for peer, ours in (
        ("qemu_img", "full"),
        ("qemu_img_w", "full"),
        ("zstd_t2", "full"),
        ("qemu_img_back", "restore"),
        ("unzstd", "restore"),
    ):
        if peer in names:
            ratio(
                f"{peer} wall / {ours} wall (above 1: we are faster)",
                lambda r, peer=peer, ours=ours: r[peer]["wall"] / r[ours]["wall"],
            )  # type: ignore[misc]
    missing = [tool for tool in PEERS if not shutil.which(tool)]
    if missing:
        print(f"missing peers: {', '.join(missing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=256, help="KiB")
    parser.add_argument("--directory", type=Path, help="where to work; kept if given")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.directory, given.chunk * KiB, given.one)
        return
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as scratch:
        directory = given.directory or Path(scratch)
        if not (directory / "changes.json").exists():
            build(directory, given.size * MiB)
        data = sum(len(c) for c in chunks(directory / "v1.raw", given.chunk * KiB)) // MiB
        show([one_round(directory, given.chunk * KiB) for _ in range(given.rounds)], data)


if __name__ == "__main__":
    main()
