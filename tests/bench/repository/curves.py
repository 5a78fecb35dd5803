"""How cost grows with restore points and disk sizes: one more point, listing, verifying, pruning and collecting them.

    python -m tests.bench.repository.curves [--points 10,40,160] [--gib 16,64] [--directory DIR]

Real repositories, scaled down: chunks of 4 KiB instead of 256, so that a disk that stands for 64 GiB has the 256 Ki references
of one, in an index as large, over a sixty-fourth of the data. A full backup comes first, then incrementals of ``CHANGED``
chunks. Pruning deletes every second point; collecting then looks at all that is left, dooms and deletes.

Each figure is also given per unit of what the work must touch: while that stays, the cost is linear. 1,000 points of 1 TiB
are ``--points 1000 --gib 1024``, given the disk for 128 GiB of indexes; what they must touch is printed for every row.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy import repository as repositories
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository.collection.collect import collect
from proxy.repository.repository import Repository
from proxy.units import GiB, KiB, MiB
from tests.bench.repository.measure import size_of

CHUNK = 4 * KiB
SCALE = repositories.DEFAULT_CHUNK // CHUNK
CHANGED = 64
"""Chunks an incremental brings: 16 MiB of a real disk, a small pack."""

UNIQUE = 16 * KiB
"""Chunks of the full backup that differ; the disk repeats them, which its index does not notice."""

SECRET = repositories.KeyFile(bytes(range(32)))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Machine:
    """One machine with one disk, and a repository in which only it is backed up."""

    def __init__(self, home: Path, gib: int) -> None:
        self.home = home
        self.size = gib * GiB // SCALE
        self._random = random.Random(gib)
        self._last: ImageInfo | None = None
        self._points = 0
        (home / "objects").mkdir(parents=True)
        store = repositories.PosixStore(home / "objects")
        self._repository = repositories.create(store, secret=SECRET, chunk_size=CHUNK, cache=home / "cache")

    @property
    def chunks(self) -> int:
        """References in an index."""
        return self.size // CHUNK

    def back_up(self) -> float:
        """One more point; seconds."""
        begin = time.perf_counter()
        with self._repository.image_writer("vda", self.size, self._last) as writer:
            for offset, data in self._changes():
                writer.write(offset, memoryview(data))
            self._last = writer.seal()
        made = BEGIN + timedelta(hours=self._points)
        self._repository.seal(
            RestorePoint(
                "",
                "m",
                "bench",
                "h",
                str(self._points),
                made,
                Level.INCREMENTAL,
                Consistency.CRASH,
                (self._last,),
                MachineConfiguration("none", ""),
            )
        )
        self._points += 1
        return time.perf_counter() - begin

    def copy(self, home: Path) -> None:
        """The repository as it is now, under ``home``; objects never change, so links are as good as copies."""
        shutil.copytree(self.home / "cache", home / "cache")
        shutil.copytree(self.home / "objects", home / "objects", copy_function=lambda a, b: Path(b).hardlink_to(a))

    def close(self) -> None:
        self._repository.close()

    def _changes(self) -> Iterator[tuple[int, bytes]]:
        if self._last is None:
            content = self._random.randbytes(UNIQUE * CHUNK)
            for offset in range(0, self.size, MiB):
                start = offset % len(content)
                yield offset, content[start : start + min(MiB, self.size - offset)]
            return
        for number in self._random.sample(range(self.chunks), CHANGED):
            yield number * CHUNK, self._random.randbytes(CHUNK)


def opened(home: Path) -> Repository:
    """The repository, with whatever cache is there."""
    return repositories.open(repositories.PosixStore(home / "objects"), secret=SECRET, cache=home / "cache")


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def look(machine: Machine, scratch: Path, points: int) -> dict[str, float]:
    """All costs of a copy of the repository as it stands."""
    machine.copy(scratch)
    figures: dict[str, float] = {"points": points, "references": points * machine.chunks}
    figures["packs_mib"] = size_of(scratch / "objects" / "packs") / MiB
    figures["indexes_mib"] = size_of(scratch / "objects" / "indexes") / MiB
    with opened(scratch) as repository:
        figures["list_s"] = seconds(repository.points)
        figures["again_s"] = seconds(repository.points)
        found: list[object] = []
        figures["verify_s"] = seconds(lambda: found.extend(repositories.verify(repository)))
        victims = [point.id for point in repository.points()][::2]
        begin = time.perf_counter()
        for victim in victims:
            repository.delete(victim)
        figures["delete_s"] = (time.perf_counter() - begin) / len(victims)
        figures["mark_s"] = seconds(lambda: collect(repository, dry_run=True, young=0.0))
        begin = time.perf_counter()
        report = collect(repository, grace=0.0, settle=0.0, young=0.0, patience=1.0)
        figures["collect_s"] = time.perf_counter() - begin
        figures["freed_mib"] = report.freed / MiB
        if found or report.missing or report.points != points - len(victims):
            raise SystemExit(f"damage {found}, missing {report.missing}, {report.points} points")
    shutil.rmtree(scratch)
    return figures


def measure(directory: Path, sizes: Sequence[int], levels: Sequence[int]) -> Iterator[dict[str, float]]:
    """A row for every size and number of points."""
    for gib in sizes:
        machine = Machine(directory / f"{gib}", gib)
        took: list[float] = []
        for points in sorted(levels):
            while len(took) < points:
                took.append(machine.back_up())
            figures = look(machine, directory / "copy", points)
            figures.update(gib=gib, full_s=took[0], backup_s=statistics.median(took[1:][-10:]))
            yield figures
        machine.close()
        shutil.rmtree(machine.home)


HEAD = (
    f"{'GiB':>6}{'points':>8}{'refs M':>8}{'indexes':>9} | {'backup ms':>10}{'ms/index MiB':>13} | {'list ms/pt':>11} | "
    f"{'verify s':>9}{'µs/ref':>8} | {'delete ms':>10} | {'mark s':>7}{'ns/ref':>8} | {'collect s':>10}"
)


def show(rows: Sequence[dict[str, float]]) -> Iterator[str]:
    """The curves as a table."""
    yield "\ncost of more restore points and larger disks (as many references as disks of that size have)"
    yield HEAD
    for r in rows:
        refs, index = r["references"], r["indexes_mib"] / r["points"]
        yield (
            f"{r['gib']:6.0f}{r['points']:8.0f}{refs / 1e6:8.2f}{r['indexes_mib']:5.0f} MiB | "
            f"{r['backup_s'] * 1e3:10.1f}{r['backup_s'] * 1e3 / index:13.2f} | {r['list_s'] * 1e3 / r['points']:11.2f} | "
            f"{r['verify_s']:9.2f}{r['verify_s'] / refs * 1e6:8.2f} | {r['delete_s'] * 1e3:10.1f} | "
            f"{r['mark_s']:7.2f}{r['mark_s'] / refs * 2e9:8.0f} | {r['collect_s']:10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="10,40,160", help="numbers, with commas between")
    parser.add_argument("--gib", default="16,64", help="disks, in GiB that they stand for")
    parser.add_argument("--directory", type=Path, help="where to work")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sizes, levels = ([int(each) for each in text.split(",")] for text in (given.gib, given.points))
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-", dir=given.directory) as scratch:
        rows = list(measure(Path(scratch), sizes, levels))
    if given.json:
        json.dump(rows, sys.stdout)
        return
    print(*show(rows), sep="\n")


if __name__ == "__main__":
    main()
