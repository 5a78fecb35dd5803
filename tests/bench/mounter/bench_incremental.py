"""Index runs, night after night: bytes read and time taken, incremental against everything.

    python tests/bench/mounter/bench_incremental.py [FILES [SHARE]]

An ext4 machine of FILES files (50000) in directories of 100. Nights: a SHARE of the files (0.01) is written in neighbouring
directories; the same, a tenth of them anywhere; a file's data is written in place, which touches no metadata. What changed
is known to the chunk (256 KiB, 1024 inodes), so files that are written here and there make a whole chunk each be read.
Printed: bytes of metadata read of what all of it takes, entries listed, seconds of the whole run, in which
a session is opened each time.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.config import load
from appliance.indexing import index
from appliance.wiring import Services
from proxy.model import ReasonCode
from proxy.units import MiB, format_size
from tests.integration.appliance.point_maker import PointMaker


def main(files: int, share: float) -> None:
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as name:
        directory = Path(name)
        configuration = directory / "lanfree.toml"
        configuration.write_text(
            f"[state]\ndirectory = '{name}/state'\n[repository]\npath = '{name}/repository'\nunencrypted = true\n"
        )
        disk = _disk(directory, files)
        chance = random.Random(1)
        with Services(load(configuration)) as services:
            services.make_repository()
            maker = PointMaker(services.repository)
            print(f"{files} files, {share:.1%} written a night")
            print(
                f"{'night':>5} {'how':>18} {'metadata read':>14} {'of':>10} {'share':>7} {'listed':>8} {'seconds':>8}"
            )
            for night in range(len(_NIGHTS)):
                write = _NIGHTS[night]
                if write is not None:
                    write(disk, files, int(files * share), chance)
                point = maker.make("bench", {"vda": disk})
                started = time.perf_counter()
                report = index(services, point.id)
                seconds = time.perf_counter() - started
                how = next(r.code for r in report.reasons if r.code.value.startswith("index-"))
                assert (how is ReasonCode.INDEX_FULL) == (night == 0), report.reasons
                read, whole = report.metadata_read, report.metadata_total
                sizes = f"{format_size(read):>14} {format_size(whole):>10} {read / whole:>7.1%}"
                print(f"{night:>5} {how.value:>18} {sizes} {report.entries:>8} {seconds:>8.2f}")


def _disk(directory: Path, files: int) -> Path:
    source, disk = directory / "source", directory / "vda.img"
    for number in range(files):
        if number % 100 == 0:
            (source / f"d{number // 100}").mkdir(parents=True)
        (source / f"d{number // 100}" / f"file-{number}.conf").touch()
    with disk.open("wb") as file:
        file.truncate(max(256 * MiB, files * 2048))
    argv = ["mkfs.ext4", "-q", "-N", str(2 * files), "-d", str(source), str(disk)]
    subprocess.run(argv, check=True)
    subprocess.run(["rm", "-rf", str(source)], check=True)
    return disk


def _near(disk: Path, files: int, count: int, chance: random.Random) -> None:
    start = chance.randrange(files - count)
    _touched(disk, range(start, start + count))


def _scattered(disk: Path, files: int, count: int, chance: random.Random) -> None:
    start = chance.randrange(files - count)
    _touched(disk, [chance.randrange(files) if n % 10 == 0 else start + n for n in range(count)])


def _touched(disk: Path, numbers: Sequence[int]) -> None:
    script = [f"sif /d{n // 100}/file-{n}.conf mtime @{1_700_000_000 + n}" for n in numbers]
    script += [f"write /dev/null /d{n // 100}/new-{time.monotonic_ns()}-{n}" for n in numbers[:20]]
    _debugfs(disk, script)


def _in_place(disk: Path, _files: int, _count: int, _chance: random.Random) -> None:
    with disk.open("r+b") as file:  # behind the metadata of the last group: nobody's blocks, as good as a file's
        file.seek(-4 * MiB, 2)
        file.write(b"x" * MiB)


def _debugfs(disk: Path, script: list[str]) -> None:
    commands = disk.with_suffix(".debugfs")
    commands.write_text("\n".join(script) + "\n")
    subprocess.run(["debugfs", "-w", "-f", str(commands), str(disk)], check=True, capture_output=True)


_NIGHTS: tuple[Callable[[Path, int, int, random.Random], None] | None, ...] = (None, _near, _scattered, _in_place)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000, float(sys.argv[2]) if len(sys.argv) > 2 else 0.01)
