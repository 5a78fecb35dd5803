"""What thirty restore points of one machine cost the catalog, and how long an index run takes.

    python tests/bench/catalog/bench_growth.py [--files 200000] [--points 30] [--change 0.01] [--directory /var/tmp]

Every night one file in a hundred changes, some of them being new ones in place of others. Rows are counted in all tables.
Goals: the rows of all restore points at most 1.6 times those of one; a run over 200,000 unchanged files under 5 s.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import text

from catalog.carry import Carry
from catalog.unit_of_work import Catalog
from mounter.ports import FileType, Volume
from mounter.walk import FileRecord
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.units import format_size

GOAL_ROWS, GOAL_SECONDS = 1.6, 5.0

IN_A_DIRECTORY = 20
BATCH = 1000
# Of the files that change in a night, this share goes and others come.
RENAMED = 0.2
VOLUME = Volume("root", "/dev/sda1", "ext4", "", "", 1 << 30, "/")
TABLES = (
    "machines restore_points images volumes point_volumes network_volumes paths directories names files versions runs"
)


class Machine:
    """The files of one machine, night by night; the same each time."""

    def __init__(self, files: int, change: float) -> None:
        self._chance = random.Random(7)
        self._change = change
        self.files = {self._path(i): self._record(self._path(i), 1) for i in range(files)}
        self._next = files

    def night(self) -> tuple[list[FileRecord], list[bytes]]:
        """One night's changes: what is listed, and what is gone."""
        changed = self._chance.sample(sorted(self.files), round(self._change * len(self.files)))
        gone = changed[: round(RENAMED * len(changed))]
        for path in gone:
            del self.files[path]
        listed = [self._record(path, self._chance.randrange(2, 10**9)) for path in changed[len(gone) :]]
        for _ in gone:
            listed.append(self._record(self._path(self._next), 1))
            self._next += 1
        self.files.update({record.path: record for record in listed})
        return listed, gone

    def walk(self) -> Iterator[Sequence[FileRecord]]:
        """All of it, in batches, as a walk gives it."""
        return batches(list(self.files.values()))

    def _path(self, number: int) -> bytes:
        place = number // IN_A_DIRECTORY
        return b"/srv/share%d/project%d/report-%d.dat" % (place % 97, place, number)

    def _record(self, path: bytes, size: int) -> FileRecord:
        return FileRecord("root", path, FileType.FILE, size, 0o644, 1000, 1000, 10**18 + size, 10**18, 12)


def batches(records: Sequence[FileRecord]) -> Iterator[Sequence[FileRecord]]:
    """As a walk gives them."""
    for start in range(0, len(records), BATCH):
        yield records[start : start + BATCH]


def point(number: int) -> RestorePoint:
    """A restore point of that night."""
    image = ImageInfo("vda", 1 << 30, "i", "d", "san", "naa.1", 1, 1, 1)
    taken = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    configuration = MachineConfiguration("libvirt-xml", "<domain/>")
    facts = (
        f"p{number}",
        "m1",
        "server",
        "h1",
        "r",
        taken,
        Level.FULL,
        Consistency.FILESYSTEM,
        (image,),
        configuration,
    )
    return RestorePoint(*facts, ())


class Took:
    """Seconds that something took: by the clock, and of one processor, which a busy machine does not stretch."""

    def __init__(self, what: Callable[[], object]) -> None:
        began, used = time.perf_counter(), time.process_time()
        what()
        self.clock, self.processor = time.perf_counter() - began, time.process_time() - used

    def __str__(self) -> str:
        return f"{self.clock:.2f} s ({self.processor:.2f} s of a processor)"


def mean(runs: Sequence[Took]) -> str:
    """Of several."""
    clock, processor = (sum(getattr(run, name) for run in runs) / len(runs) for name in ("clock", "processor"))
    return f"mean {clock:.2f} s ({processor:.2f} s of a processor), slowest {max(run.clock for run in runs):.2f} s"


def indexed(catalog: Catalog, number: int, walk: Iterator[Sequence[FileRecord]], carry: Carry | None = None) -> Took:
    """Index a restore point, with all that Python does for each file."""
    with catalog.transaction() as unit:
        unit.restore_points.add(point(number))
    return Took(lambda: catalog.index(f"p{number}", walk, [VOLUME], carry=carry))


def remove(catalog: Catalog, number: int) -> None:
    """Delete a restore point."""
    with catalog.transaction() as unit:
        unit.restore_points.remove(f"p{number}")


def rows(catalog: Catalog) -> int:
    """Rows of all tables."""
    with catalog._engine.connect() as connection:
        return sum(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in TABLES.split())


def size(catalog: Catalog, path: Path) -> int:
    """Bytes of the database's file, with all that was written in it."""
    catalog._engine.dispose()  # the last connection moves the log into the file
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))


def main() -> None:
    """Index, measure, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--change", type=float, default=0.01)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="lanfree-bench-") as directory:
        path = Path(directory) / "catalog.db"
        with Catalog(f"sqlite:///{path}") as catalog:
            measure(catalog, path, Machine(options.files, options.change), options.points)


def measure(catalog: Catalog, path: Path, machine: Machine, points: int) -> None:
    """One machine's life."""
    print(f"first restore point, {len(machine.files)} files: {indexed(catalog, 0, machine.walk())}", flush=True)
    one, one_size = rows(catalog), size(catalog, path)
    walked, carried = [], []
    for number in range(1, points):
        listed, gone = machine.night()
        # Every other night all is walked, in between what did not change is taken over.
        if number % 2:
            walked.append(indexed(catalog, number, machine.walk()))
        else:
            carry = Carry(f"p{number - 1}", frozenset({"root"}), lambda gone=gone: [("root", p) for p in gone])  # type: ignore[misc]
            carried.append(indexed(catalog, number, batches(listed), carry))
    everything, everything_size = rows(catalog), size(catalog, path)
    ratio = everything / one
    print(
        f"rows: one restore point {one}, {points} of them {everything}: {ratio:.2f} times (goal: at most {GOAL_ROWS})"
    )
    print(f"size: one restore point {format_size(one_size)}, {points} of them {format_size(everything_size)}")
    print(f"a run that lists all {len(machine.files)} files, 1 in 100 changed: {mean(walked)}")
    print(f"a run that lists what changed and takes over the rest: {mean(carried)}")
    unchanged = indexed(catalog, points, machine.walk())
    print(f"a run that lists {len(machine.files)} unchanged files: {unchanged} (goal: under {GOAL_SECONDS:.0f} s)")
    nothing = indexed(catalog, points + 1, iter(()), Carry(f"p{points}", frozenset({"root"})))
    print(f"a run that takes over everything: {nothing}")
    for name, number in (("oldest", 0), ("a middle", points // 2), ("newest", points + 1)):
        print(f"deleting the {name} restore point: {Took(partial(remove, catalog, number))}")


if __name__ == "__main__":
    main()
