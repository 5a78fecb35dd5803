"""How long a machine's backup will take, and what that is based on. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from catalog.jobs.values import TaskKind
from proxy.model import MachineId, VirtualMachine
from proxy.units import MiB, format_size

SAMPLES = 7
"""Newest runs of the same kind that count: a week of nights. More would remember machines as they were; fewer let one bad
night decide."""

RATE = 80.0 * MiB
"""Bytes a second where nothing was measured: a bit less than a Gigabit network carries. Too low spreads a first night over
too many hours, too high promises what does not come; one night later it is measured."""

OVERHEAD = 45.0
"""Seconds a run takes beside its bytes: snapshot, attachment, seal, release. Also the least that is assumed of any."""

CHANGED = 0.05
"""Share of a machine's bytes that an incremental reads where nothing was measured."""

UNKNOWN_SIZE = 40 * 1024 * MiB
"""Bytes that are assumed of a machine whose disks nobody can measure now (it is off, and its host tells no sizes): a usual
server's system disk. Nothing at all would plan it as the shortest of the night."""

Durations = Mapping[tuple[MachineId, TaskKind, bool], Sequence[float]]
"""As ``catalog.jobs.tasks.Tasks.durations`` gives them."""


class Basis(StrEnum):
    """``MEASURED``: this machine's own runs of the same kind. ``HOST``: its size, at the pace of its host's other machines.
    ``ASSUMED``: nothing was measured there yet."""

    MEASURED = "measured"
    HOST = "host"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Estimate:
    """``seconds`` > 0. ``detail``: what it is based on, for people."""

    seconds: float
    basis: Basis
    detail: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a host's measured machines: bytes of their disks for each second of a run (whatever part was read of them)."""

    rate: float
    machines: int


class Estimates:
    """What was measured, ready to be asked for many machines. ``machines``: all that the sites show."""

    def __init__(self, durations: Durations, machines: Iterable[VirtualMachine]) -> None:
        self._durations = durations
        totals: dict[tuple[str, bool], tuple[int, float, int]] = {}
        for machine in machines:
            for full in (False, True):
                samples = durations.get((machine.id, TaskKind.BACKUP, full), ())
                if samples and size_of(machine):
                    size, seconds, count = totals.get((machine.host, full), (0, 0.0, 0))
                    measured = max(median(samples[-SAMPLES:]), 1.0)
                    totals[machine.host, full] = (size + size_of(machine), seconds + measured, count + 1)
        self._paces = {key: Pace(size / seconds, count) for key, (size, seconds, count) in totals.items()}

    def of(self, machine: VirtualMachine, *, full: bool) -> Estimate:
        """For a backup that reads everything, or what changed."""
        samples = self._durations.get((machine.id, TaskKind.BACKUP, full), ())
        return estimate(samples, size_of(machine), self._paces.get((machine.host, full)), full=full)


def size_of(machine: VirtualMachine) -> int:
    """Bytes of its disks that a backup holds."""
    return sum(disk.size for disk in machine.disks if disk.excluded is None)


def estimate(samples: Sequence[float], size: int, pace: Pace | None = None, *, full: bool = False) -> Estimate:
    """``samples``: seconds of earlier runs of the same kind, oldest first. ``size``: bytes of the machine's disks (0: not
    known). ``pace``: of runs of the same kind on its host."""
    recent = samples[-SAMPLES:]
    if recent:
        runs = "its last run" if len(recent) == 1 else f"median of its last {len(recent)} runs"
        return Estimate(max(median(recent), 1.0), Basis.MEASURED, runs)
    if pace and size:
        others = "another machine" if pace.machines == 1 else f"{pace.machines} others"
        return Estimate(
            max(size / pace.rate, OVERHEAD), Basis.HOST, f"{format_size(size)} as fast as {others} of its host"
        )
    known = size or UNKNOWN_SIZE
    read = format_size(known) if full else f"{CHANGED:.0%} of {format_size(known)}"
    seconds = OVERHEAD + known * (1.0 if full else CHANGED) / RATE
    guess = "nothing is measured yet" if size else "size not known: assumed"
    return Estimate(seconds, Basis.ASSUMED, f"{read} at {format_size(int(RATE))}/s; {guess}")
