"""One process of the collection stress test: role, root, cache, seconds, seed. Prints a line for every step that was done.

``writer``: makes restore points of a few machines, with chunks that many share, in one process or (every fourth time) with
a break between image and manifest, reads some back, and reports each that was sealed. ``deleter``: removes points but
the newest of each machine. ``collector``: collects without waiting for anything but leases. ``reader``: restores points.
"""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from blake3 import blake3

from proxy import repository as repositories
from proxy.errors import ChangesUnknown, DeleteRefused, IntegrityError, LanfreeError, LeaseLost, RestorePointNotFound
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository
from proxy.repository.collection.collect import collect
from proxy.repository.leases import Leases

SECRET = repositories.KeyFile(bytes(range(32)))
CHUNK = 4096
POOL = 400
CHUNKS = 96

# Leases of killed processes must expire while the test runs. Renewal is as often as the machine's load demands.
RENEW, EXPIRY = 0.4, 3.0


def chunk(number: int) -> bytes:
    """The pool's chunk of this number: half of it noise, so that it does not vanish in compression."""
    return random.Random(number).randbytes(CHUNK // 2) * 2


def open_repository(root: str, cache: str) -> Repository:
    opened = repositories.open(repositories.PosixStore(Path(root)), cache=Path(cache), secret=SECRET)
    opened.use_leases(Leases(opened.store, opened.sealer, renew=RENEW, expiry=EXPIRY))
    return opened


def disk(chooser: random.Random) -> bytes:
    """Runs of pool chunks: what one machine has, another has too, in other places."""
    parts: list[bytes] = []
    while len(parts) < CHUNKS:
        first, count = chooser.randrange(POOL), chooser.randrange(1, 16)
        parts += [chunk((first + n) % POOL) for n in range(count)]
    fresh = [chunk(chooser.randrange(10**6, 10**9)) for _ in range(4)]
    return b"".join([*parts[: CHUNKS - 4], *fresh])


def back_up(repository: Repository, machine: str, data: bytes, chooser: random.Random) -> RestorePoint:
    points = repository.points(machine)
    parent = points[-1].images[0] if points and chooser.random() < 0.7 else None
    run = f"{time.time_ns()}-{chooser.randrange(10**6)}"
    with repository.image_writer("vda", len(data), parent) as writer:
        for start in range(0, len(data), 8 * CHUNK):
            writer.write(start, memoryview(data)[start : start + 8 * CHUNK])
            time.sleep(chooser.random() * 0.004)
        image = writer.seal()
    return repository.seal(restore_point(machine, run, image, data))


def restore_point(machine: str, run: str, image: ImageInfo, data: bytes) -> RestorePoint:
    """The digest of the disk is kept beside it, so that anybody can check what he restores."""
    return RestorePoint(
        id="",
        machine=machine,
        machine_name=machine,
        host="h",
        run=run,
        created_at=datetime.now(UTC),
        level=Level.FULL,
        consistency=Consistency.CRASH,
        images=(replace(image, source=blake3(data).hexdigest()),),
        configuration=MachineConfiguration("none", ""),
    )


def is_right(repository: Repository, point: RestorePoint) -> bool:
    with repository.open_image(point, "vda") as image:
        out = bytearray(image.size)
        image.read_into(0, memoryview(out))
    return blake3(out).hexdigest() == point.images[0].source


def writer(root: str, cache: str, chooser: random.Random) -> str:
    with open_repository(root, cache) as repository:
        for _ in range(chooser.randrange(1, 6)):
            machine = f"m{chooser.randrange(6)}"
            try:
                point = back_up(repository, machine, disk(chooser), chooser)
            except (ChangesUnknown, LeaseLost) as error:
                print(f"gave-up {type(error).__name__}", flush=True)
                continue
            print(f"sealed {point.machine} {point.id}", flush=True)
    return ""


def deleter(root: str, cache: str, chooser: random.Random) -> str:
    with open_repository(root, cache) as repository:
        points = repository.points()
        if len(points) < 12:
            return ""
        victim = chooser.choice(points)
        try:
            repository.delete(victim.id)
        except (DeleteRefused, RestorePointNotFound):
            return ""
    return f"deleted {victim.machine} {victim.id}"


def collector(root: str, cache: str, chooser: random.Random) -> str:
    with open_repository(root, cache) as repository:
        report = collect(
            repository, grace=0, settle=0, young=chooser.choice([0, 0, 2.0]), courtesy=False, patience=0, threshold=0.2
        )
    if report.missing:
        raise SystemExit(f"missing: {report.missing}")
    return f"collected {len(report.deleted)} {len(report.compacted)} {len(report.kept)} {len(report.waiting)}"


def reader(root: str, cache: str, chooser: random.Random) -> str:
    with open_repository(root, cache) as repository:
        points = repository.points()
        if not points:
            return ""
        point = chooser.choice(points)
        with repository.leases.held("restore", point.id):
            # Only what is there under the lease is promised to stay.
            if point.id not in [p.id for p in repository.points(point.machine)]:
                return ""
            try:
                right = is_right(repository, point)
            except IntegrityError:
                if point.id not in [p.id for p in repository.points(point.machine)]:
                    return ""  # its index was deleted before it was opened
                raise
            if not right:
                raise SystemExit(f"wrong bytes in {point.id}")
    return "read"


ROLES: dict[str, Callable[[str, str, random.Random], str]] = {
    "writer": writer,
    "deleter": deleter,
    "collector": collector,
    "reader": reader,
}


def main(role: str, root: str, cache: str, seconds: str, seed: str) -> None:
    chooser = random.Random(seed)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            done = ROLES[role](root, cache, chooser)
        except LanfreeError as error:
            print(f"failed {type(error).__name__} {error.message}", flush=True)
            raise
        if done:
            print(done, flush=True)
        time.sleep(chooser.random() * (0.02 if role == "writer" else 0.1))


if __name__ == "__main__":
    main(*sys.argv[1:])
