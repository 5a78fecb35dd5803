"""What everybody takes for a disk with next to nothing on it: starting up, opening and closing the repository.

On a disk of a tebibyte nobody sees that; in the contest, where an incremental of ours takes less than half a second, half of it
is nothing else. So the tables show both: whole processes, and what grows with the disk.
"""

from pathlib import Path

from proxy.units import MiB
from tests.bench.repository.comparator import build as compiled
from tests.bench.repository.contenders import Comparator, Ours
from tests.bench.repository.contest import C_JOBS, JOBS, OURS, C
from tests.bench.repository.image import build
from tests.bench.repository.measure import measure
from tests.bench.repository.peers import Peer
from tests.bench.repository.servers import served

SMALL = 4 * MiB
"""Data on the disk: its file system wants some room, and half a percent of the contest's disk does not show."""

TIMES = 2
"""The shorter one counts: first runs find nothing in any cache."""


def fixed_costs(tools: Path, directory: Path, peers: list[Peer], *, comparator: bool) -> dict[tuple[str, str], float]:
    """Seconds by work and contender."""
    directory.mkdir(exist_ok=True)
    image = build(directory, SMALL)
    costs: dict[tuple[str, str], float] = {}

    def note(job: str, name: str, seconds: float) -> None:
        costs[job, name] = min(seconds, costs.get((job, name), seconds))

    with served(directory / "v1.sock", "file", image.v1) as v1, served(directory / "v2.sock", "file", image.v2) as v2:
        uris = {"v1": v1, "v2": v2}
        ours = Ours(directory / "ours", uris, directory / "changes.json")
        c = Comparator(compiled(tools), directory / "comparator", uris, image.changes(), SMALL) if comparator else None
        for _ in range(TIMES):
            for job in JOBS:
                note(job, OURS, ours.run(job).wall)
            if c is not None:
                for job in C_JOBS:
                    note(job, C, c.run(job).wall)
            for one in peers:
                peer = type(one)(tools, image, directory)
                peer.begin()
                for job in JOBS:
                    asked = getattr(peer, job)()
                    if asked is not None:
                        note(job, peer.name, measure(asked).wall)
                        peer.discard()
                peer.end()
        ours.end()
    return costs
