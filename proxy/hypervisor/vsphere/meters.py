"""vCenter's own counters of hosts and datastores: ``PerformanceManager``, the real-time interval of 20 s.

======================================  ======================================================
``cpu.usage.average``                   busy share of the host's processors, in 1/100 of a percent
``net.received.average``                KiB/s over all of the host's interfaces
``net.transmitted.average``             the same, sent
``datastore.totalReadLatency.average``  ms a read request, as seen by the host's machines; one a datastore
``datastore.totalWriteLatency.average`` the same for writes
``datastore.numberReadAveraged``        read requests/s, by which the latencies of several hosts are weighed
``datastore.numberWriteAveraged``       the same for writes
======================================  ======================================================

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.PerformanceManager.html. Hosts make these samples
anyway and keep an hour of them; vCenter fetches them from there. Mapped LUNs (RDM) have no datastore of their own and are not
measured.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxy.errors import HostUnreachable
from proxy.hypervisor.vsphere import collector
from proxy.hypervisor.vsphere.collector import Found
from proxy.hypervisor.vsphere.connection import Vcenter, vim
from proxy.hypervisor.vsphere.faults import Refused, moid
from proxy.meters import together
from proxy.model import VmdkAddress
from proxy.places import place_of
from proxy.ports import HostLoad, Load, PlaceLoad
from proxy.units import KiB

INTERVAL = 20
"""Seconds of one sample; a real-time counter has no other."""

# Samples that one read averages at most: who asks less often than every two minutes wants to know how it is, not how it was.
SAMPLES = 6

# Hosts a query: the answer for one is some 20 KiB of XML with 30 datastores.
PAGE = 50

# Seconds after which hosts and datastores are listed again.
LISTED_FOR = 300.0

CPU, RECEIVED, SENT = "cpu.usage.average", "net.received.average", "net.transmitted.average"
READ_LATENCY, WRITE_LATENCY = "datastore.totalReadLatency.average", "datastore.totalWriteLatency.average"
READS, WRITES = "datastore.numberReadAveraged.average", "datastore.numberWriteAveraged.average"
OF_HOST, OF_PLACES = (CPU, RECEIVED, SENT), (READ_LATENCY, WRITE_LATENCY, READS, WRITES)


@dataclass(frozen=True, slots=True)
class _Listed:
    """``hosts``: connected ones, by id; ``places``: an instance of the datastore counters -> name of the place."""

    until: float
    hosts: Mapping[str, Found]
    silent: Mapping[str, str]
    places: Mapping[str, str]


class VsphereMeters:
    """The ``Meters`` port over one vCenter."""

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self._counters: Mapping[int, str] = {}
        self._listed: _Listed | None = None
        self._read_at: float | None = None

    def read(self) -> Load:
        """See the port. Whole samples: the newest that there are since the last call, and ``SAMPLES`` at most."""
        now = time.monotonic()
        passed = INTERVAL if self._read_at is None else now - self._read_at
        samples = min(SAMPLES, max(1, round(passed / INTERVAL)))
        try:
            load = self._loads(samples)
        except (Refused, HostUnreachable) as error:
            self._listed = None  # perhaps a host is gone: list them again
            return Load(datetime.now(UTC), silent={self._vcenter.name: error.message})
        self._read_at = now
        return load

    def _loads(self, samples: int) -> Load:
        listed = self._inventory()
        hosts: dict[str, HostLoad] = {}
        seen: list[tuple[str, PlaceLoad]] = []
        for entity in self._asked(listed, samples):
            values = _values(entity, self._counters)
            hosts[str(listed.hosts[moid(entity.entity)].get("name"))] = _host(values)
            seen += _places(values, listed.places)
        return Load(datetime.now(UTC), float(samples * INTERVAL), hosts, together(seen), listed.silent)

    def _asked(self, listed: _Listed, samples: int) -> Iterable[Any]:
        manager = self._vcenter.content.perfManager
        if not self._counters:
            self._counters = _numbers(manager.perfCounter)
        # "" is the whole host, "*" every datastore by itself.
        wanted = [
            vim.PerformanceManager.MetricId(counterId=number, instance="*" if name in OF_PLACES else "")
            for number, name in self._counters.items()
        ]
        hosts = list(listed.hosts.values())
        for start in range(0, len(hosts), PAGE):
            specs = [
                vim.PerformanceManager.QuerySpec(
                    entity=host.object, metricId=wanted, intervalId=INTERVAL, maxSample=samples, format="normal"
                )
                for host in hosts[start : start + PAGE]
            ]
            yield from (one for one in manager.QueryPerf(specs) or () if moid(one.entity) in listed.hosts)

    def _inventory(self) -> _Listed:
        if self._listed is None or self._listed.until < time.monotonic():
            found = collector.find(self._vcenter, vim.HostSystem, ("name", "runtime.connectionState"))
            stores = collector.find(self._vcenter, vim.Datastore, ("name", "summary.url", "info"))
            answering = [one for one in found if str(one.get("runtime.connectionState")) == "connected"]
            self._listed = _Listed(
                until=time.monotonic() + LISTED_FOR,
                hosts={one.id: one for one in answering},
                silent={
                    str(one.get("name")): "vCenter shows it as disconnected" for one in found if one not in answering
                },
                places=_instances(stores, self._vcenter.name),
            )
        return self._listed


def _numbers(counters: Sequence[Any]) -> dict[int, str]:
    """Number -> name of the counters above. They differ from one vCenter to the next."""
    named = {int(c.key): f"{c.groupInfo.key}.{c.nameInfo.key}.{c.rollupType}" for c in counters}
    return {number: name for number, name in named.items() if name in OF_HOST or name in OF_PLACES}


def _instances(stores: Iterable[Found], site: str) -> dict[str, str]:
    """A datastore's counters go by the last part of its URL (``ds:///vmfs/volumes/UUID/``); for VMFS that is the volume's."""
    named = {}
    for store in stores:
        place = place_of(VmdkAddress(str(store.get("name")), "", site=site))
        volume = getattr(store.get("info"), "vmfs", None)
        url = str(store.get("summary.url") or "").rstrip("/").rpartition("/")[2]
        for instance in {url, str(getattr(volume, "uuid", "") or "")} - {""}:
            named[instance] = place
    return named


_Values = Mapping[tuple[str, str], float]
"""Counter and instance -> mean over the samples."""


def _values(entity: Any, counters: Mapping[int, str]) -> _Values:
    found = {}
    for series in entity.value or ():
        known = [int(v) for v in series.value or () if int(v) >= 0]  # -1: there is none for this sample
        name = counters.get(int(series.id.counterId))
        if known and name is not None:
            found[name, str(series.id.instance or "")] = sum(known) / len(known)
    return found


def _host(values: _Values) -> HostLoad:
    cpu, received, sent = (values.get((name, "")) for name in OF_HOST)
    return HostLoad(
        cpu=None if cpu is None else min(1.0, cpu / 10_000),
        received=None if received is None else received * KiB,
        sent=None if sent is None else sent * KiB,
    )


def _places(values: _Values, places: Mapping[str, str]) -> list[tuple[str, PlaceLoad]]:
    seen = []
    for instance, place in places.items():
        reads, writes = values.get((READS, instance)), values.get((WRITES, instance))
        if reads is None and writes is None:
            continue
        read_latency, write_latency = values.get((READ_LATENCY, instance)), values.get((WRITE_LATENCY, instance))
        load = PlaceLoad(
            reads=reads or 0.0,
            writes=writes or 0.0,
            read_latency=read_latency / 1000 if reads and read_latency is not None else None,
            write_latency=write_latency / 1000 if writes and write_latency is not None else None,
        )
        seen.append((place, load))
    return seen
