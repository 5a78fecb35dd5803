"""Back up a small disk again and again, and kill each run at a random moment: root, cache, kills, seed. Prints JSON.

One process loads everything and forks for each run, so that a run costs milliseconds. Half of the runs are killed from
outside after a random time; the others kill themselves at a random one of the system calls that change files, a write
among them in its middle. SIGKILL in either case: nothing of the process's own runs afterwards.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from proxy import repository as repositories
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
CHUNKS = 40
CHANGED = 17  # a pack of 64 KiB holds fifteen: each run puts two

# System calls of a run that change files: some sixty.
CALLS = 64

# Points that are kept; older ones are deleted, by runs that are killed as well.
KEPT = 6


def disk(seed: int, number: int) -> bytes:
    """The disk as backup ``number`` finds it."""
    data = bytearray(random.Random(seed).randbytes(CHUNKS * CHUNK))
    chooser = random.Random(seed * 1_000_003 + number)
    for _ in range(CHANGED if number else 0):
        place = chooser.randrange(CHUNKS) * CHUNK
        data[place : place + CHUNK] = chooser.randbytes(CHUNK)
    return bytes(data)


def number_of(point: RestorePoint) -> int:
    """Which backup it is."""
    return int(point.run.removeprefix("run-"))


def back_up(repository: Repository, seed: int, number: int) -> RestorePoint:
    """Everything is written on top of the newest point, and only what changed is stored."""
    data = memoryview(disk(seed, number))
    before = repository.points("m")
    with repository.image_writer("vda", len(data), before[-1].images[0] if before else None) as writer:
        writer.write(0, data)
        image = writer.seal()
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return repository.seal(
        RestorePoint(
            "", "m", "m", "h", f"run-{number}", moment, Level.FULL, Consistency.CRASH, (image,),
            MachineConfiguration("none", ""),
        )
    )  # fmt: skip


def run(root: Path, cache: Path, seed: int) -> None:
    """What is killed: open, back up, delete what is too old."""
    with repositories.open(repositories.PosixStore(root), cache=cache, secret=SECRET) as repository:
        points = repository.points("m")
        back_up(repository, seed, number_of(points[-1]) + 1 if points else 0)
        for point in points[: -KEPT + 1]:
            repository.delete(point.id)


class SelfKiller:
    """Wraps the system calls that change files, and kills the process at the ``at``-th; a write is half done by then."""

    NAMES = ("write", "fsync", "link", "unlink", "rename", "mkdir", "posix_fallocate", "ftruncate")

    def __init__(self, at: int) -> None:
        self.left = at
        for name in self.NAMES:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                if name == "write":
                    call(words[0], memoryview(words[1])[: len(words[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)

        return counted


def fork(root: Path, cache: Path, seed: int, die_at: int | None) -> int:
    """Process id of a child that runs once."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if die_at is not None:
                SelfKiller(die_at)
            run(root, cache, seed)
            code = 0
        finally:
            os._exit(code)
    return child


def measured(root: Path, cache: Path, seed: int) -> float:
    """Seconds that a run takes if nobody kills it: the middle of five."""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        if os.waitstatus_to_exitcode(os.waitpid(fork(root, cache, seed, None), 0)[1]) != 0:
            raise SystemExit("a run that nobody killed failed")
        took.append(time.perf_counter() - begin)
    return sorted(took)[2]


def main(root: str, cache: str, kills: str, seed: str) -> None:
    chooser = random.Random(int(seed))
    where, local = Path(root), Path(cache)
    typical = measured(where, local, int(seed))
    outcomes = {"killed": 0, "finished": 0, "failed": 0}
    for number in range(int(kills)):
        inside = number % 2 == 0
        child = fork(where, local, int(seed), chooser.randrange(CALLS) if inside else None)
        if not inside:
            time.sleep(chooser.uniform(0, 1.1 * typical))
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        outcomes["killed" if code == -signal.SIGKILL else "failed" if code else "finished"] += 1
    print(json.dumps({"seconds of a run": typical, **outcomes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
