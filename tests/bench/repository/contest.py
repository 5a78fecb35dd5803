"""The contest: pairs of runs, ours and another's of the same work, one right after the other.

Only the ratio within a pair counts: the machine, its caches and whoever else works on it are the same for both. Who goes first
alternates from round to round. Where a goal was set all rounds are run, for the rest the first is enough.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.bench.repository import fresh
from tests.bench.repository.contenders import Comparator, Ours
from tests.bench.repository.measure import Command, Figures, measure
from tests.bench.repository.peers import Peer

OURS = "Lanfree"
C = "C, 2 threads"
VIRTNBDBACKUP = "virtnbdbackup"
JOBS = ("full", "restore", "known", "scan")
C_JOBS = ("full", "known", "scan")

GOALS: dict[tuple[str, str], float] = {
    ("full", C): 0.92,
    ("full", "restic"): 4.3,
    ("full", "borg"): 2.5,
    ("full", "benji"): 2.3,
    ("full", "qemu-img -W -m16"): 1.9,
    ("full", VIRTNBDBACKUP): 2.4,
    ("known", "benji"): 8.4,
    ("scan", "borg"): 2.7,
    ("scan", "restic"): 5.0,
    ("restore", "restic"): 2.0,
    ("restore", "borg"): 3.2,
    ("restore", "zstd"): 1.0,
}
"""How many times faster than the other we want to be, wall clock."""

BY_WORK = (C, VIRTNBDBACKUP)
"""Judged without what a process takes for an empty disk: the C program opens no repository, and virtnbdbackup waits a second
for the server that it starts. All others are judged as whole processes."""

Fixed = Mapping[tuple[str, str], float]
"""Seconds of a work and contender on a disk with next to nothing on it (``fixed.py``)."""

# A round's pairs with the C program: it is nearest to us, and ratios near one need more of them.
C_PAIRS = 3

# Of the first round's time, that of the pairs for which a goal was set.
SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Pair:
    """The same work by both, in one round; ``fixed``: seconds that it takes ours and theirs with nothing to do."""

    ours: Figures
    theirs: Figures
    fixed: tuple[float, float]

    @property
    def speed(self) -> float:
        """How many times faster we are: whole processes, their starting up included."""
        return self.theirs.wall / self.ours.wall

    @property
    def work(self) -> float:
        """The same for what grows with the disk: the ratio on disks so large that starting up does not matter."""
        own, theirs = self.fixed
        return (self.theirs.wall - theirs) / (self.ours.wall - own)

    @property
    def cpu(self) -> float:
        """How many times less CPU we need."""
        return self.theirs.cpu / self.ours.cpu


@dataclass(slots=True)
class Results:
    """Pairs by work and contender; all our own figures by work."""

    pairs: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)
    ours: dict[str, list[Figures]] = field(default_factory=dict)
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Contest:
    """Everybody who takes part; ``data``: bytes on the disk. ``rounds`` at most, and fewer if the next one would not end within
    ``seconds``."""

    ours: Ours
    comparator: Comparator | None
    peers: list[Peer]
    data: int
    fixed: Fixed
    rounds: int
    seconds: float
    tell: Callable[[str], None]

    def run(self) -> Results:
        """All rounds."""
        results = Results()
        begin = time.monotonic()
        longest = 0.0
        for number in range(self.rounds):
            started = time.monotonic()
            if started + longest - begin > self.seconds:
                self.tell(f"no time for round {number + 1}")
                break
            self.tell(f"round {number + 1}")
            if self.comparator is not None:
                self._comparator(results, number, self.comparator)
            for peer in self.peers:
                self._peer(results, number, peer)
            for job in JOBS:
                if job not in results.ours:
                    results.ours[job] = [self.ours.run(job)]
            results.rounds = number + 1
            # The first one does more than those that follow.
            longest = (time.monotonic() - started) * (SHARE if number == 0 else 1.0)
        return results

    def _comparator(self, results: Results, number: int, comparator: Comparator) -> None:
        for pair in range(C_PAIRS):
            for job in C_JOBS:
                self._pair(results, number + pair, job, C, partial(comparator.run, job))

    def _peer(self, results: Results, number: int, peer: Peer) -> None:
        """All work of one peer in a fresh store, which then goes: all stores at once would not fit into memory."""
        peer.begin()
        for job in JOBS:
            asked = getattr(peer, job)()
            if asked is None or (number and (job, peer.name) not in GOALS and not self._needed_later(job, peer.name)):
                continue
            self._pair(results, number, job, peer.name, partial(self._measured, peer, job, asked))
            peer.discard()
        peer.end()

    def _measured(self, peer: Peer, job: str, asked: Command) -> Figures:
        fresh.provide(peer.home, fresh.needed(job, self.data))
        return measure(asked, peer.store)

    def _pair(self, results: Results, number: int, job: str, name: str, theirs: Callable[[], Figures]) -> None:
        if number % 2:
            other = theirs()
            own = self.ours.run(job)
        else:
            own = self.ours.run(job)
            other = theirs()
        pair = Pair(own, other, (self.fixed[job, OURS], self.fixed[job, name]))
        results.pairs.setdefault((job, name), []).append(pair)
        results.ours.setdefault(job, []).append(pair.ours)
        self.tell(f"{job:8} {name:18} {pair.theirs.wall:6.2f} s, ours {pair.ours.wall:5.2f} s")

    def _needed_later(self, job: str, name: str) -> bool:
        """A full backup without a goal that other work with one builds upon."""
        return job == "full" and any((later, name) in GOALS for later in JOBS)
