"""What all readers of hosts' counters share: several of them as one, and one that knows nothing. See ``ports.Meters``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from proxy.ports import Load, Meters, PlaceLoad


class Unmetered:
    """The ``Meters`` port for a site that has no counters."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    def read(self) -> Load:
        """Nothing was measured."""
        return Load(self._now())


class SeveralMeters:
    """The ``Meters`` port over those of several sites, read one after the other."""

    def __init__(self, meters: Sequence[Meters]) -> None:
        self._meters = tuple(meters)

    def read(self) -> Load:
        """See the port."""
        loads = [meters.read() for meters in self._meters]
        return Load(
            at=max((load.at for load in loads), default=datetime.now(UTC)),
            seconds=max((load.seconds for load in loads), default=0.0),
            hosts={name: host for load in loads for name, host in load.hosts.items()},
            places=together((place, seen) for load in loads for place, seen in load.places.items()),
            silent={name: why for load in loads for name, why in load.silent.items()},
        )


def together(seen: Iterable[tuple[str, PlaceLoad]]) -> Mapping[str, PlaceLoad]:
    """Each place once: requests of all who see it added up, latencies averaged over the requests."""
    sums: dict[str, PlaceLoad] = {}
    for place, load in seen:
        before = sums.get(place)
        sums[place] = load if before is None else _added(before, load)
    return sums


def _added(one: PlaceLoad, other: PlaceLoad) -> PlaceLoad:
    return PlaceLoad(
        reads=one.reads + other.reads,
        writes=one.writes + other.writes,
        read_latency=_mean(((one.reads, one.read_latency), (other.reads, other.read_latency))),
        write_latency=_mean(((one.writes, one.write_latency), (other.writes, other.write_latency))),
    )


def _mean(weighted: Iterable[tuple[float, float | None]]) -> float | None:
    """``None`` without a single value. A value whose weight rounds to nothing counts only where there is no other."""
    known = [(weight, value) for weight, value in weighted if value is not None]
    weight = sum(weight for weight, _ in known)
    if not known:
        return None
    if weight <= 0:
        return max(value for _, value in known)
    return sum(weight * value for weight, value in known) / weight
