"""How fast our SAN read path is against qemu-img bench and nbdcopy over qemu-nbd, on the same LUN, in paired rounds.

    python tests/bench/bench_san.py [--size-mib 512] [--rounds 5]

Starts a tgtd of its own on loopback (no CHAP, so that the peers need no secret) with one dense LUN. All readers read the
whole LUN from the page cache; within a round they run one after the other, so only ratios of one round count.
Prints a table of MB/s (10^6) and of ratios to the round's best peer. The goal is a median of at least 0.8.
"""

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy import command
from proxy.transport.iscsi import Limits, Login, Lun
from proxy.units import KiB, MiB

TARGET = "iqn.2026-11.bench.array:plain"
INITIATOR = "iqn.2026-11.org.lanfree:bench"
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        portal = f"127.0.0.1:{probe.getsockname()[1]}"
    control = str(22000 + os.getpid() % 10000)
    Path("/var/run/tgtd").mkdir(exist_ok=True)
    server = command.spawn(["tgtd", "-f", "-C", control, "--iscsi", f"portal={portal}"])
    admin = ["tgtadm", "-C", control, "--lld", "iscsi", "--mode"]
    try:
        end = time.monotonic() + 10
        while command.run([*admin, "sys", "--op", "show"], timeout=5, check=False).code != 0:
            if time.monotonic() > end:
                raise TimeoutError("tgtd does not answer")
            time.sleep(0.05)
        command.run([*admin, "target", "--op", "new", "--tid", "1", "-T", TARGET], timeout=5)
        command.run([*admin, "target", "--op", "bind", "--tid", "1", "-I", "ALL"], timeout=5)
        unit = ["logicalunit", "--op", "new", "--tid", "1", "--lun", str(LUN), "-b", str(image)]
        command.run([*admin, *unit], timeout=5)
        yield portal
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        for left in Path("/var/run/tgtd").glob(f"socket.{control}*"):
            left.unlink()


def ours(portal: str, size: int, threads: int, read: int, limits: Limits) -> Callable[[], None]:
    """Our reader as the copy loop uses it: threads that take the next piece each, into a buffer of their own."""

    def once() -> None:
        lun = Lun(Login(TARGET, INITIATOR), [portal], LUN, limits)
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
    url = f"iscsi://{portal}/{TARGET}/{LUN}"
    argv = ["qemu-img", "bench", "-U", "-f", "raw", "-t", "none", "-d", "16", "-s", str(request)]
    return lambda: void(command.run([*argv, "-c", str(size // request), url], timeout=300))


@contextmanager
def nbd(portal: str, directory: Path) -> Iterator[Callable[[], None]]:
    """nbdcopy from qemu-nbd to nowhere."""
    path = directory / "nbd.sock"
    url = f"iscsi://{portal}/{TARGET}/{LUN}"
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


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    """Run the rounds, print the tables; exit code 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=512)
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
            "qemu-img 256K x 16": qemu_img(portal, size, 256 * KiB),
            "qemu-img 1M x 16": qemu_img(portal, size, MiB),
            "nbdcopy qemu-nbd": nbdcopy,
        }
        return report(measure({**mine, **peers}, size, options.rounds), mine, peers)


def measure(readers: dict[str, Callable[[], None]], size: int, rounds: int) -> dict[str, list[float]]:
    """MB/s per reader and round; every round starts with another reader, after one round that does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            speed = size / 1e6 / seconds(readers[name])
            if number:
                speeds[name].append(speed)
    return speeds


def report(speeds: dict[str, list[float]], mine: dict[str, object], peers: dict[str, object]) -> int:
    """Print medians and the ratio of each of ours to the best peer of the same round."""
    best = [max(values) for values in zip(*(speeds[name] for name in peers), strict=True)]
    for name, values in speeds.items():
        ratio = statistics.median(v / b for v, b in zip(values, best, strict=True))
        rounds = " ".join(f"{v:6.0f}" for v in values)
        sys.stdout.write(f"{name:22} {statistics.median(values):7.0f} MB/s  {ratio:5.2f} of the best peer   {rounds}\n")
    goal = statistics.median(v / b for v, b in zip(speeds[next(iter(mine))], best, strict=True))
    sys.stdout.write(f"copy loop's pattern: {goal:.2f} of the best peer (goal 0.80)\n")
    return 0 if goal >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
