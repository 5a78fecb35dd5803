"""What a run cost: bytes, where its time went, and how its host and its places did before, during and after it. Pure.

What a task records under ``measures``; every key may be missing (an older run, nobody measured)::

    bytes_read, bytes_new, bytes_stored     of all disks
    over_host                               bytes that a hypervisor's host had to send (LAN); over the SAN none
    frozen_seconds                          how long the guest's file systems stood still, at most
    level, consistency, transports          as in the restore point
    stages                                  seconds: see proxy.stages; bottleneck: source, proxy, repository or pace
    disks                                   the same by disk
    impact                                  host, network, samples, cpu, received, sent, places (see ``impact``)
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.backup import BackupResult
from proxy.ports import HostLoad, Load, PlaceLoad
from proxy.stages import StageTimes


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look at the counters says of one machine's host and places."""

    host: HostLoad | None = None
    places: Mapping[str, PlaceLoad] = field(default_factory=dict)


def sample(load: Load, host: str, places: Sequence[str]) -> Sample:
    """The part of a load that is about this host and these places."""
    return Sample(load.hosts.get(host), {place: load.places[place] for place in places if place in load.places})


def of_backup(result: BackupResult) -> dict[str, object]:
    """Of a sealed restore point, without its impact."""
    point = result.point
    whole = sum(result.stages.values(), StageTimes())
    return {
        "bytes_read": sum(image.bytes_read for image in point.images),
        "bytes_new": sum(image.bytes_new for image in point.images),
        "bytes_stored": sum(image.bytes_stored for image in point.images),
        "over_host": result.over_host,
        "frozen_seconds": round(point.frozen_seconds, 3),
        "level": point.level.value,
        "consistency": point.consistency.value,
        "transports": sorted({image.transport for image in point.images}),
        "stages": whole.as_json(),
        "disks": {key: stages.as_json() for key, stages in result.stages.items()},
    }


def impact(
    host: str, places: Sequence[str], before: Sequence[Sample], during: Sequence[Sample], after: Sequence[Sample]
) -> dict[str, object]:
    """Medians over the samples of each time, ``None`` where nothing was measured: ``cpu`` as a share, ``received`` and ``sent``
    in bytes/s, and for each place ``read_latency`` and ``write_latency`` in seconds. Empty when no sample says anything."""
    times = {"before": before, "during": during, "after": after}
    if not any(one.host is not None or one.places for samples in times.values() for one in samples):
        return {}
    counted = next((one.host.network for samples in times.values() for one in samples if one.host is not None), "")
    return {
        "host": host,
        "network": counted,
        "samples": {when: len(samples) for when, samples in times.items()},
        **{name: _of_host(times, name) for name in ("cpu", "received", "sent")},
        "places": {
            place: {name: _of_place(times, place, name) for name in ("read_latency", "write_latency")}
            for place in places
        },
    }


_Times = Mapping[str, Sequence[Sample]]


def _of_host(times: _Times, name: str) -> dict[str, float | None]:
    return {
        when: _median([getattr(one.host, name) for one in samples if one.host is not None])
        for when, samples in times.items()
    }


def _of_place(times: _Times, place: str, name: str) -> dict[str, float | None]:
    return {
        when: _median([getattr(one.places[place], name) for one in samples if place in one.places])
        for when, samples in times.items()
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 6) if known else None
