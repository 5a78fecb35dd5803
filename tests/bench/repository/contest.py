"""The contest: pairs of runs, ours and another's of the same work, one right after the other.

Only the ratio within a pair counts: the machine, its caches and whoever else works on it are the same for both. Who goes first
alternates from round to round. Where a goal was set all rounds are run, for the rest the first is enough.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.bench.repository.contenders import Comparator, Ours
from tests.bench.repository.measure import Figures, measure
from tests.bench.repository.peers import Peer, VirtNbdBackup

C = "C, 2 threads"
JOBS = ("full", "restore", "known", "scan")

GOALS: dict[tuple[str, str], float] = {
    ("full", C): 0.92,
    ("full", "restic"): 4.3,
    ("full", "borg"): 2.5,
    ("full", "benji"): 2.3,
    ("full", "qemu-img -W -m16"): 1.9,
    ("full", "virtnbdbackup"): 2.4,
    ("known", "benji"): 8.4,
    ("scan", "borg"): 2.7,
    ("scan", "restic"): 5.0,
    ("restore", "restic"): 2.0,
    ("restore", "borg"): 3.2,
    ("restore", "zstd"): 1.0,
}
"""How many times faster than the other we want to be, wall clock."""


# Of the first round's time, that of the pairs for which a goal was set.
SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Pair:
    """The same work by both, in one round. ``idle``: seconds of theirs that are not its work."""

    ours: Figures
    theirs: Figures
    idle: float = 0.0

    @property
    def speed(self) -> float:
        """How many times faster we are: whole processes, their starting up included."""
        return (self.theirs.wall - self.idle) / self.ours.wall

    @property
    def work(self) -> float:
        """The same without starting up, where both tell."""
        return (self.theirs.work - self.idle) / self.ours.work

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
    """Everybody who takes part. ``rounds`` at most, and fewer if the next one would not end within ``seconds``."""

    ours: Ours
    comparator: Comparator | None
    peers: list[Peer]
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
            for peer in self.peers:
                peer.begin()
            for job in JOBS:
                self._job(results, number, job)
            results.rounds = number + 1
            # The first one does more than those that follow.
            longest = (time.monotonic() - started) * (SHARE if number == 0 else 1.0)
        return results

    def _job(self, results: Results, number: int, job: str) -> None:
        """The same work against everybody who does it."""
        for name, theirs in self._contenders(job):
            if number and (job, name) not in GOALS and not self._needed_later(job, name):
                continue
            self._pair(results, number, job, name, theirs)
            for peer in self.peers:
                peer.discard()
        if job not in results.ours:
            results.ours[job] = [self.ours.run(job)]

    def _pair(self, results: Results, number: int, job: str, name: str, theirs: Callable[[], Figures]) -> None:
        if number % 2:
            other = theirs()
            own = self.ours.run(job)
        else:
            own = self.ours.run(job)
            other = theirs()
        pair = Pair(own, other, self._idle(name))
        results.pairs.setdefault((job, name), []).append(pair)
        results.ours.setdefault(job, []).append(pair.ours)
        self.tell(f"round {number + 1}: {job:8} {name:18} {pair.theirs.wall:6.2f} s, ours {pair.ours.wall:5.2f} s")

    def _contenders(self, job: str) -> Iterator[tuple[str, Callable[[], Figures]]]:
        if job == "full" and self.comparator is not None:
            yield C, self.comparator.run
        for peer in self.peers:
            asked = getattr(peer, job)()
            if asked is not None:
                yield peer.name, partial(measure, asked, peer.store)

    def _needed_later(self, job: str, name: str) -> bool:
        """A full backup without a goal that other work with one builds upon."""
        return job == "full" and any((later, name) in GOALS for later in JOBS)

    def _idle(self, name: str) -> float:
        peer = next((peer for peer in self.peers if peer.name == name), None)
        return measure(peer.empty()).wall if isinstance(peer, VirtNbdBackup) else 0.0
