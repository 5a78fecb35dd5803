"""What a run cost the hosts and their datastores, out of what its tasks measured (``appliance.jobs.measures.impact``): medians
over the tasks of each. Whatever does not look as it should counts as not measured."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.telling.text import number

if TYPE_CHECKING:
    from appliance.telling.report import Item

WHEN = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Times:
    """One figure before, during and after; ``None`` where nobody measured."""

    before: float | None
    during: float | None
    after: float | None

    @property
    def rise(self) -> float:
        """How much more it was meanwhile; what is not known counts as nothing."""
        return 0.0 if self.before is None or self.during is None else self.during - self.before


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a host: ``cpu`` as a share, ``over`` in bytes that it had to send. Of a place: ``read`` and ``write``, seconds that a
    guest's request took. ``tasks``: so many measured."""

    name: str
    tasks: int
    cpu: Times | None = None
    over: int = 0
    read: Times | None = None
    write: Times | None = None


def hosts(items: Iterable["Item"]) -> tuple[Cost, ...]:
    """Those whose CPU rose most first."""
    seen: dict[str, list[Mapping[str, object]]] = {}
    over: dict[str, int] = {}
    for item in items:
        impact = _part(item.task.measures, "impact")
        host = impact.get("host")
        if isinstance(host, str):
            seen.setdefault(host, []).append(impact)
            over[host] = over.get(host, 0) + (item.over_host or 0)
    found = [Cost(host, len(all_), cpu=_times(all_, "cpu"), over=over[host]) for host, all_ in seen.items()]
    return tuple(sorted(found, key=lambda cost: (-cost.cpu.rise if cost.cpu else 0.0, cost.name)))


def places(items: Iterable["Item"]) -> tuple[Cost, ...]:
    """Those that were read slowest meanwhile first."""
    seen: dict[str, list[Mapping[str, object]]] = {}
    for item in items:
        of_places = _part(_part(item.task.measures, "impact"), "places")
        for name in of_places:
            seen.setdefault(name, []).append(_part(of_places, name))
    found = [
        Cost(name, len(all_), read=_times(all_, "read_latency"), write=_times(all_, "write_latency"))
        for name, all_ in seen.items()
    ]
    return tuple(sorted(found, key=lambda cost: (-((cost.read.during if cost.read else None) or 0.0), cost.name)))


def _times(all_: Sequence[Mapping[str, object]], name: str) -> Times:
    return Times(*(_median(number(_part(each, name), when) for each in all_) for when in WHEN))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _part(facts: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}
