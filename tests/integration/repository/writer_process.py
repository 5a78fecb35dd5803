"""Back up a disk again and again: root, cache, machine, seed, count. Prints a line for every sealed restore point.

The disk of backup ``n`` is ``disk(seed, n)``: half of it is shared by all machines, and each backup changes a part.
"""

import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy import repository as repositories
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
SHARED = 150
OWN = 150


def disk(seed: int, number: int) -> bytes:
    """300 chunks: shared ones, own ones, and a part that changed since the backup before."""
    shared = random.Random(0).randbytes(SHARED * CHUNK)
    own = bytearray(random.Random(seed).randbytes(OWN * CHUNK))
    for n in range(number):
        place = n * 7 % OWN * CHUNK
        own[place : place + CHUNK] = random.Random(seed * 1000 + n).randbytes(CHUNK)
    return shared + bytes(own)


def back_up(repository: Repository, machine: str, seed: int, number: int) -> RestorePoint:
    data = memoryview(disk(seed, number))
    before = repository.points(machine)
    with repository.image_writer("vda", len(data), before[-1].images[0] if before else None) as writer:
        for start in range(0, len(data), 8 * CHUNK):
            writer.write(start, data[start : start + 8 * CHUNK])
        image = writer.seal()
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return repository.seal(
        RestorePoint(
            id="",
            machine=machine,
            machine_name=machine,
            host="h",
            run=f"run-{number}",
            created_at=moment,
            level=Level.FULL,
            consistency=Consistency.CRASH,
            images=(image,),
            configuration=MachineConfiguration("none", ""),
        )
    )


def main(root: str, cache: str, machine: str, seed: str, count: str) -> None:
    with repositories.open(repositories.PosixStore(Path(root)), cache=Path(cache), secret=SECRET) as repository:
        first = len(repository.points(machine))
        for number in range(first, first + int(count)):
            print("ready", flush=True)
            back_up(repository, machine, int(seed), number)
            print(f"sealed {number}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
