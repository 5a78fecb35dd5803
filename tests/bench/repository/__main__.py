"""The repository's speed beside everybody else's, in one run: ``make bench``, or

    python -m tests.bench.repository [--data MIB] [--rounds N] [--clear] [--only PEER,…] [--directory DIR]

Works in memory (``/dev/shm``, if it has the room): it is the tools that are measured, and not how long a disk takes to make
durable what we, the C program, restic, borg, benji and qemu-img sync, and kopia, zstd and virtnbdbackup do not. What that costs
us and the C program is shown by pairs of the two on a real directory.

Builds a disk (``image.py``), serves it over NBD, and runs the same work by us, by a C program (``backup.c``) and by other tools
(``peers.py``; ``peers.sh`` installs them beforehand), in pairs (``contest.py``). Then the parts whose cost must stay linear
(``curves.py``) and the lookup (``lookup_scale.py``). Figures are printed beside their goals and not asserted: on a busy machine
they are what they are.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from proxy.errors import ToolFailed
from proxy.units import GiB, MiB
from tests.bench.repository import comparator, curves, lookup_scale, table
from tests.bench.repository.contenders import COARSE, FINE, Comparator, Ours
from tests.bench.repository.contest import C, Contest
from tests.bench.repository.fixed import fixed_costs
from tests.bench.repository.fresh import MEMORY
from tests.bench.repository.image import Image, build
from tests.bench.repository.measure import Command, Figures, median, prepare
from tests.bench.repository.memory import large_disk
from tests.bench.repository.peers import Peer, installed
from tests.bench.repository.servers import served

LIMIT = 600.0
"""Seconds that everything may take."""

RESERVE = 120.0
"""Of these, for what comes after the contest."""

ROOM = 7
"""Bytes that a byte of data takes at most: both versions of the disk, two stores of half of it, and what two restored."""


def tools() -> Path:
    """Where peers are installed and the comparator is compiled to."""
    return Path(os.environ.get("LANFREE_BENCH_CACHE", Path.home() / ".cache/lanfree/bench"))


def run(directory: Path, given: argparse.Namespace) -> None:
    """The whole run in ``directory``."""
    begin = time.monotonic()
    image = build(directory, given.data * MiB)
    _told(begin, f"disk of {image.size / GiB:.2f} GiB with {image.data() / GiB:.2f} GiB of data")
    peers, missing = _peers(image, directory, given.only)
    with ExitStack() as held:
        uris = {
            version: held.enter_context(served(directory / f"{version}.sock", "file", path))
            for version, path in (("v1", image.v1), ("v2", image.v2))
        }
        changes = directory / "changes.json"
        data = image.data()
        ours = Ours(directory / "ours", uris, changes, data=data, clear=given.clear)
        held.callback(ours.end)
        c = _comparator(directory, uris, image, missing)
        if c is not None:
            held.callback(c.end)
        fixed = fixed_costs(tools(), directory / "small", peers, comparator=c is not None)
        left = LIMIT - RESERVE - (time.monotonic() - begin)
        results = Contest(ours, c, peers, data, fixed, given.rounds, left, lambda line: _told(begin, line)).run()
        verified = ours.run("verify")
        beside = [(ours.run("full"), ours.run("parts")) for _ in range(results.rounds)]
        durable = _durable(uris, data, results.rounds) if c is not None and directory.is_relative_to(MEMORY) else []
        large_chunks = Ours(directory / "coarse", uris, changes, data=data, chunk=COARSE, clear=given.clear)
        held.callback(large_chunks.end)
        coarse = [large_chunks.run("full") for _ in range(results.rounds)]
        large_chunks.end()
        fine = Ours(directory / "fine", uris, changes, data=data, chunk=FINE, clear=given.clear)
        held.callback(fine.end)
        fine.run("full")
        thin = fine.run("known").stored
    large = large_disk(directory)
    for line in table.show(results, fixed, missing):
        print(line)
    print(table.verified(verified, median(f.stored for f in results.ours["full"])))
    print(table.parts(beside))
    print(table.coarse(results, coarse))
    print(*table.durable(durable), sep="\n")
    print(table.stored(median(f.stored for f in results.ours["known"]), thin))
    for line in table.memory(results, large):
        print(line)
    _told(begin, "the contest is over")
    scales(directory, given)
    taken = time.monotonic() - begin
    late = "" if taken < LIMIT else f", more than {LIMIT:.0f}"
    print(f"\n{taken:.0f} s in all{late}; load of the last quarter of an hour {os.getloadavg()[2]:.1f}")


def scales(directory: Path, given: argparse.Namespace) -> None:
    """Lookup and curves, each in a process of its own."""
    jobs = (
        (lookup_scale, ("--chunks", str(given.lookup))),
        (curves, ("--points", given.points, "--gib", given.gib)),
    )
    for module, options in jobs:
        words = [sys.executable, "-m", module.__name__, *options, "--directory", directory, "--json"]
        print(*module.show(json.loads(prepare(Command(words)))), sep="\n", flush=True)


def _peers(image: Image, directory: Path, only: str) -> tuple[list[Peer], dict[str, str]]:
    peers, missing = installed(tools(), image, directory)
    wanted = [peer for peer in peers if not only or peer.name in only.split(",")]
    for peer in wanted:
        print(f"  {peer.name} {peer.version()}: {peer.how}")
    for name, why in missing.items():
        print(f"  {name} is MISSING: {why}")
    return wanted, missing


def _comparator(directory: Path, uris: Mapping[str, str], image: Image, missing: dict[str, str]) -> Comparator | None:
    try:
        program = comparator.build(tools())
        return Comparator(program, directory / "comparator", uris, image.changes(), image.data())
    except ToolFailed as error:
        missing[C] = error.message
        print(f"  {C} is MISSING: {error.message}")
        return None


def _durable(uris: Mapping[str, str], data: int, rounds: int) -> list[tuple[Figures, Figures]]:
    """The full backup by us and by the C program in a directory of this machine's disk, synced by both."""
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as scratch:
        ours = Ours(Path(scratch) / "ours", uris, Path(), data=data)
        c = Comparator(comparator.build(tools()), Path(scratch) / "comparator", uris, (), data)
        return [(ours.run("full"), c.run("full")) for _ in range(rounds)]


def _place(data: int) -> Path | None:
    """Memory, if it is enough for so many MiB of data; else the directory for temporary files."""
    free = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    if free >= ROOM * data * MiB:
        return MEMORY
    print(f"{MEMORY} has no {ROOM * data} MiB: on disk, where its speed is measured too")
    return None


def _told(begin: float, line: str) -> None:
    print(f"[{time.monotonic() - begin:5.0f} s] {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=1024, help="MiB of data on the disk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lookup", type=int, default=10_000_000, help="chunks of the synthetic lookup")
    parser.add_argument("--points", default="10,40,160", help="restore points of the curves")
    parser.add_argument("--gib", default="16,64", help="disks of the curves, in GiB that they stand for")
    parser.add_argument("--clear", action="store_true", help="our repository without encryption")
    parser.add_argument("--only", default="", help="names of peers, with commas between")
    parser.add_argument("--directory", type=Path, help="where to work; kept if given")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the gibibytes in memory go, too, when it is told to end
    place = None if given.directory else _place(given.data)
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-", dir=place) as scratch:
        directory = given.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        run(directory, given)


if __name__ == "__main__":
    main()
