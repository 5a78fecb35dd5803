"""How fast very many small files are restored, and that memory stays where it is.

    python tests/bench/mounter/bench_restore.py [--files 1000000] [--on-disk 50000]

The guest's side costs nothing here (its entries are made up): what is measured is the traversal and the targets. Each line is
a process of its own; printed: entries a second, and how far the process's peak memory (RSS) lay above what it had before.

    tar, zip           to nowhere
    tar.zst            to nowhere, compressed
    tar, linked        every file has a second name elsewhere: half of all have to be remembered
    directory          to a directory of this host (fewer files)
    directory again    the same again: everything is there already
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).parents[3]))

from mounter.restore.directory import DirectoryTarget
from mounter.restore.sink import PlainSink, Sink, Writable, ZstdSink
from mounter.restore.tar import TarTarget
from mounter.restore.tree import restore_files
from mounter.restore.zip import ZipTarget
from mounter.targets import FileTarget
from tests.unit.mounter.restore.many_files import ManyFiles

IN_A_DIRECTORY = 1000


def nowhere(kind: Callable[[Writable, str], Sink] = PlainSink) -> Sink:
    """The file goes with its process."""
    stream: BinaryIO = Path(os.devnull).open("wb")  # noqa: SIM115  it is the process that ends it
    return kind(stream, os.devnull)


def measured(name: str, make: Callable[[], FileTarget], files: int, linked: bool) -> None:
    """In a process of its own, since a peak never goes down."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    session = ManyFiles(max(2, files // IN_A_DIRECTORY), IN_A_DIRECTORY, linked=linked)
    with make() as target:
        report = restore_files(session, [b"/"], target)
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    entries = sum(report.entries.values())
    print(f"{name:16} {entries:9,} entries  {entries / seconds:9,.0f}/s  memory +{grown / 1024:.0f} MiB", flush=True)


def main() -> None:
    """Every target once."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--files", type=int, default=1_000_000)
    asked.add_argument("--on-disk", type=int, default=50_000)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        to = Path(place) / "to"
        lines: list[tuple[str, Callable[[], FileTarget], int, bool]] = [
            ("tar", lambda: TarTarget(nowhere()), options.files, False),
            ("tar, linked", lambda: TarTarget(nowhere()), options.files, True),
            ("tar.zst", lambda: TarTarget(nowhere(ZstdSink)), options.files, False),
            ("zip", lambda: ZipTarget(nowhere()), options.files, False),
            ("directory", lambda: DirectoryTarget(to), options.on_disk, False),
            ("directory again", lambda: DirectoryTarget(to), options.on_disk, False),
        ]
        for line in lines:
            process = get_context("fork").Process(target=measured, args=line)
            process.start()
            process.join()


if __name__ == "__main__":
    main()
