"""How fast our SAN read path is against qemu-img bench and nbdcopy over qemu-nbd, on the same LUN, in paired rounds.

    python tests/bench/bench_san.py [--size-mib 256] [--rounds 5] [--sweep]

Starts a tgtd of its own on loopback (no CHAP, so that the peers need no secret) with one dense LUN. All readers read the
whole LUN from the page cache; within a round they run one after the other, so only ratios within a round count. Prints
MB/s (10^6), CPU of the reader, and the median of the ratios to each peer. The goal is 0.8 of the best peer; it is printed
and not judged, since one run on a busy machine proves nothing. About ten seconds as it is; SAN.md's table took 512 MiB
and 9 rounds. Needs root, for tgtd.
"""

import argparse
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy import command
from proxy.transport.iscsi import Limits, Login, Lun
from proxy.units import GiB, KiB, MiB
from tests.integration.transport.tgt_array import HOSTS, INITIATOR, Array

GOAL = 0.8
LUN = 1
COPY_THREADS = 4
COPY_READ = MiB
SWEEP = ((64, 16), (64, 32), (128, 16), (128, 32), (256, 8), (256, 32), (512, 8), (512, 16), (1024, 4), (1024, 8))
"""KiB a request, requests outstanding: tried with --sweep, beside the default."""


@contextmanager
def array(directory: Path, size: int) -> Iterator[str]:
    """A tgtd with one dense LUN; gives its portal."""
    image = directory / "dense.img"
    with image.open("wb") as f:
        for _ in range(size // MiB):
            f.write(os.urandom(MiB))
    made = Array()
    try:
        made.start()
        made.target(1, HOSTS)
        made.lun(1, LUN, image, "bench")
        yield made.portals[0]
    finally:
        made.stop()


def ours(portal: str, size: int, threads: int, read: int, limits: Limits) -> Callable[[], None]:
    """Our reader as the copy loop uses it: threads that take the next piece each, into a buffer of their own."""

    def once() -> None:
        lun = Lun(Login(HOSTS, INITIATOR), [portal], LUN, limits)
        pieces = iter(range(0, size, read))
        lock = threading.Lock()
        failed: list[BaseException] = []

        def work() -> None:
            buffer = memoryview(bytearray(read))
            try:
                while True:
                    with lock:
                        offset = next(pieces, None)
                    if offset is None:
                        return
                    lun.read_into(offset, buffer)
            except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
                failed.append(error)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        lun.close()
        if failed:
            raise failed[0]

    return once


def qemu_img(portal: str, size: int, request: int) -> Callable[[], None]:
    """qemu-img bench reads by default; -U (force-share) keeps it from asking for more than reading."""
    url = f"iscsi://{portal}/{HOSTS}/{LUN}"
    argv = ["qemu-img", "bench", "-U", "-f", "raw", "-t", "none", "-d", "16", "-s", str(request)]
    return lambda: void(command.run([*argv, "-c", str(size // request), url], timeout=300))


def qemu_img_range(portal: str, lun: int, offset: int, size: int, request: int) -> Callable[[], None]:
    """As ``qemu_img``, over a part of a LUN."""
    url = f"iscsi://{portal}/{HOSTS}/{lun}"
    argv = ["qemu-img", "bench", "-U", "-f", "raw", "-t", "none", "-d", "16", "-s", str(request), "-o", str(offset)]
    return lambda: void(command.run([*argv, "-c", str(size // request), url], timeout=300))


@contextmanager
def nbd(portal: str, directory: Path) -> Iterator[Callable[[], None]]:
    """nbdcopy from qemu-nbd to nowhere."""
    path = directory / "nbd.sock"
    url = f"iscsi://{portal}/{HOSTS}/{LUN}"
    server = command.spawn(["qemu-nbd", "-r", "-f", "raw", "-t", "-e", "8", "--cache=none", "-k", str(path), url])
    try:
        end = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > end:
                raise TimeoutError("qemu-nbd does not listen")
            time.sleep(0.05)
        yield lambda: void(command.run(["nbdcopy", f"nbd+unix:///?socket={path}", "null:"], timeout=300))
    finally:
        command.stop(server)


def void(_: object) -> None:
    """Drop a result."""


@dataclass(frozen=True)
class Run:
    """One reading of the whole LUN: MB/s, and CPU seconds of the reader (not of the array, nor of qemu-nbd)."""

    speed: float
    cpu: float


def timed(read: Callable[[], None], size: int) -> Run:
    """Run once."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    read()
    took = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))
    return Run(size / 1e6 / took, cpu)


def main() -> None:
    """Run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="also try other request sizes and depths of ours")
    options = parser.parse_args()
    size = options.size_mib * MiB
    with (
        tempfile.TemporaryDirectory(prefix="lanfree-bench-") as name,
        array(Path(name), size) as portal,
        nbd(portal, Path(name)) as nbdcopy,
    ):
        mine = {
            "ours 4 x 1 MiB": ours(portal, size, COPY_THREADS, COPY_READ, Limits()),
            "ours 2 x 4 MiB": ours(portal, size, 2, 4 * MiB, Limits()),
        }
        for request, depth in SWEEP if options.sweep else ():
            limits = Limits(request_size=request * KiB, depth=depth)
            mine[f"ours {request}K x {depth}"] = ours(portal, size, COPY_THREADS, COPY_READ, limits)
        peers = {
            "qemu-img 256K": qemu_img(portal, size, 256 * KiB),
            "qemu-img 512K": qemu_img(portal, size, 512 * KiB),
            "nbdcopy": nbdcopy,
        }
        report(measure({**mine, **peers}, size, options.rounds), list(mine), list(peers), size)


def measure(readers: dict[str, Callable[[], None]], size: int, rounds: int) -> dict[str, list[Run]]:
    """Runs per reader and round; every round in another order, after one round that does not count."""
    runs: dict[str, list[Run]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name in random.sample(list(readers), len(readers)):
            run = timed(readers[name], size)
            if number:
                runs[name].append(run)
    return runs


def report(runs: dict[str, list[Run]], mine: list[str], peers: list[str], size: int) -> None:
    """Print medians, and the median of the ratios within each round, to each peer."""
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {size // MiB} MiB\n")
    sys.stdout.write(f"{'':18} {'MB/s':>7} {'CPU s/GiB':>9} " + " ".join(f"{'to ' + p:>16}" for p in peers) + "\n")
    ratios = {name: [ratio(runs[name], runs[peer]) for peer in peers] for name in runs}
    for name, values in runs.items():
        speed = statistics.median(v.speed for v in values)
        cpu = statistics.median(v.cpu for v in values) * GiB / size
        sys.stdout.write(f"{name:18} {speed:7.0f} {cpu:9.2f} " + " ".join(f"{r:16.2f}" for r in ratios[name]) + "\n")
    goal = min(ratios[mine[0]])
    sys.stdout.write(f"{mine[0]} reaches {goal:.2f} of the best peer (goal {GOAL})\n")


def ratio(ours: list[Run], theirs: list[Run]) -> float:
    """Median over the rounds."""
    return statistics.median(a.speed / b.speed for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
