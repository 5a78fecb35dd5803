"""How fast the names of a machine's files are listed: directly, and through an appliance, on ext4 and on NTFS.

    python tests/bench/mounter/bench_index.py [--files 200000] [--rounds 3] [--appliance]

Makes an ext4 and an NTFS image of so many small files (1,000 directories; a minute or two, needs root for ntfs-3g), serves
each as a restore point's image is served, and walks it with batches of entries arriving in this process, as the index
does. Prints seconds of opening and of walking, and the processor time of all processes together (session, worker,
NBD server), which a busy machine disturbs least; the images are in the page cache. The goal is 5 s
for 200,000 files on the fast path; it is printed and not judged. ``--appliance``: also through libguestfs (minutes under
software emulation), with the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mounter.choose import directly
from mounter.export import Export, ImageToExport
from mounter.remote import libguestfs
from mounter.session import OpensFilesystem
from proxy.units import MiB

GOAL = 5.0
DIRECTORIES = 1_000
HERE = Path(__file__).parents[2] / "integration" / "mounter"


def run(*words: str | Path) -> None:
    subprocess.run(
        [str(w) for w in words], check=True, timeout=900, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def fill(root: Path, files: int) -> None:
    """Directories of equal size, two levels deep; files of 0 to 1.4 KB."""
    each = files // DIRECTORIES
    for number in range(DIRECTORIES):
        directory = root / f"group {number % 50:02d}" / f"directory {number:04d}"
        directory.mkdir(parents=True)
        for i in range(each):
            (directory / f"a file of ordinary name {i:05d}.txt").write_bytes(b"x" * (i % 200 * 7))


def ext4(at: Path, files: int) -> Path:
    image, root = at / "ext4.img", at / "root"
    fill(root, files)
    image.touch()
    os.truncate(image, (64 + files // 120) * MiB)
    run("mke2fs", "-q", "-t", "ext4", "-N", str(files + files // 4), "-d", root, image)
    run("rm", "-rf", root)
    return image


def ntfs(at: Path, files: int) -> Path:
    image, mount = at / "ntfs.img", at / "mount"
    image.touch()
    os.truncate(image, (64 + files // 120) * MiB)
    run("mkntfs", "-q", "-F", "-Q", image)
    mount.mkdir()
    run("ntfs-3g", "-o", "big_writes,noatime", image, mount)
    try:
        fill(mount, files)
    finally:
        run("umount", mount)
    return image


def cpu() -> float:
    """Seconds of processor time of this process and of those that it has running."""
    children = psutil.Process().children(recursive=True)
    used = [p.cpu_times() for p in (psutil.Process(), *children)]
    return sum(u.user + u.system for u in used)


def walked(image: Path, opens: OpensFilesystem) -> tuple[int, float, float, float]:
    """Entries, seconds to open, seconds to walk, processor time of all processes (server included) while walking."""
    with Export([ImageToExport("vda", "openers:file_image", {"path": str(image)})]) as export:
        start = time.perf_counter()
        with opens(export.served, export.directory) as filesystem:
            opened, before = time.perf_counter(), cpu()
            count = sum(len(batch) for volume in filesystem.volumes() for batch in filesystem.walk(volume))
            return count, opened - start, time.perf_counter() - opened, cpu() - before


def measured(name: str, image: Path, opens: OpensFilesystem, rounds: int) -> float:
    runs = [walked(image, opens) for _ in range(rounds)]
    opening, walking = (statistics.median(r[i] for r in runs) for i in (1, 2))
    best, used = min(r[2] for r in runs), min(r[3] for r in runs)
    print(f"{name:22} {runs[0][0]:>8} {opening:>8.2f} {walking:>8.2f} {best:>8.2f} {used:>8.2f}", flush=True)
    return walking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--appliance", action="store_true")
    chosen = parser.parse_args()
    sys.path.insert(0, str(HERE))
    makers: dict[str, Callable[[Path, int], Path]] = {"ext4": ext4, "ntfs": ntfs}
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as directory:
        print(
            f"{'':22} {'entries':>8} {'open s':>8} {'walk s':>8} {'best s':>8} {'cpu s':>8}   (median of {chosen.rounds})"
        )
        for kind, make in makers.items():
            image = make(Path(directory), chosen.files)
            direct = measured(f"{kind} directly", image, directly, chosen.rounds)
            print(f"{'':22} goal {GOAL:g} s for 200,000: {direct * 200_000 / chosen.files:.2f} s")
            if chosen.appliance:
                appliance = measured(f"{kind} in an appliance", image, libguestfs(accelerate=False), 1)
                print(f"{'':22} ratio {appliance / direct:.1f}")
            image.unlink()


if __name__ == "__main__":
    main()
