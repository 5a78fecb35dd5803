"""Counters of the hypervisor in memory: they only grow, as real ones do, and a reader takes differences."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.meters import together
from proxy.ports import HostLoad, Load, PlaceLoad

Requests = tuple[int, float]
"""How many, and the seconds that they took in all."""

_NONE: tuple[Requests, Requests] = ((0, 0.0), (0, 0.0))


@dataclass(slots=True)
class MemoryCounters:
    """What a test does to the site. ``steady``: places that show a load of their own, as long as it is set."""

    steady: dict[str, PlaceLoad] = field(default_factory=dict)
    hosts: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    places: dict[str, tuple[Requests, Requests]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, host: str, *, busy: float = 0.0, received: int = 0, sent: int = 0) -> None:
        """Seconds of processor time, bytes."""
        with self.lock:
            before = self.hosts.get(host, (0.0, 0, 0))
            self.hosts[host] = (before[0] + busy, before[1] + received, before[2] + sent)

    def requests(self, place: str, *, reads: Requests = (0, 0.0), writes: Requests = (0, 0.0)) -> None:
        """What the guests asked of a place."""
        with self.lock:
            before = self.places.get(place, _NONE)
            self.places[place] = (
                (before[0][0] + reads[0], before[0][1] + reads[1]),
                (before[1][0] + writes[0], before[1][1] + writes[1]),
            )


class MemoryMeters:
    """The ``Meters`` port over ``MemoryCounters``."""

    def __init__(self, counters: MemoryCounters, silent: Callable[[], Collection[str]] = tuple) -> None:
        self._counters = counters
        self._silent = silent
        self._hosts: Mapping[str, tuple[float, int, int]] = dict(counters.hosts)
        self._places: Mapping[str, tuple[Requests, Requests]] = dict(counters.places)
        self._at = time.monotonic()

    def read(self) -> Load:
        """See the port."""
        counters, now = self._counters, time.monotonic()
        seconds, self._at = max(now - self._at, 1e-6), now
        with counters.lock:
            hosts, places = dict(counters.hosts), dict(counters.places)
            steady = dict(counters.steady)
        silent = sorted(self._silent())
        before_hosts, self._hosts = self._hosts, hosts
        before_places, self._places = self._places, places
        seen = [(name, _place(before_places.get(name, _NONE), after, seconds)) for name, after in places.items()]
        return Load(
            at=datetime.now(UTC),
            seconds=seconds,
            hosts={
                name: _host(before_hosts.get(name, (0.0, 0, 0)), after, seconds)
                for name, after in hosts.items()
                if name not in silent
            },
            places=together([*seen, *steady.items()]),
            silent=dict.fromkeys(silent, "silent"),
        )


def _host(before: tuple[float, int, int], after: tuple[float, int, int], seconds: float) -> HostLoad:
    return HostLoad(
        cpu=min(1.0, (after[0] - before[0]) / seconds),
        received=(after[1] - before[1]) / seconds,
        sent=(after[2] - before[2]) / seconds,
    )


def _place(before: tuple[Requests, Requests], after: tuple[Requests, Requests], seconds: float) -> PlaceLoad:
    reads, writes = after[0][0] - before[0][0], after[1][0] - before[1][0]
    return PlaceLoad(
        reads=reads / seconds,
        writes=writes / seconds,
        read_latency=(after[0][1] - before[0][1]) / reads if reads else None,
        write_latency=(after[1][1] - before[1][1]) / writes if writes else None,
    )
