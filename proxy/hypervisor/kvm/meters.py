"""Counters of libvirt hosts: the nodes' processors, and how the guests' disks and network interfaces do.

libvirt has no counters of arrays nor of a host's own network interfaces. Used in their place are QEMU's: for each disk the
requests and the time that they took, from the guest's request to its answer (``virConnectGetAllDomainStats``, block group), and
for each guest's interface its bytes (interface group: what machines send to each other on the host counts, too, and what the
host sends for itself does not). A place where no guest runs is not measured.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.errors import HostUnreachable, LanfreeError
from proxy.hypervisor.kvm.answers import Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.inventory import domain, shown_disk
from proxy.meters import together
from proxy.model import MachineId
from proxy.places import place_of
from proxy.ports import HostLoad, Load, PlaceLoad

# Of libvirt's stable interface (libvirt-domain.h, libvirt-host.h); tests/integration compares them with the library's.
STATS_INTERFACE = 1 << 4
STATS_BLOCK = 1 << 5
DOMAINS_ACTIVE = 1 << 0
# A guest whose emulator hangs is left out, instead of all others waiting for it.
DOMAINS_NOWAIT = 1 << 29
ALL_CPUS = -1

# Seconds after which it is looked again where a machine's disks lie, though nothing that the counters show of them changed: a
# disk can be moved from one LUN to another.
PLACES_FOR = 300.0

# Seconds for a host's counters. libvirt waits without end for an emulator whose array begins to hang in that very moment: the
# question is left to wait then, and the host counts as silent until it is answered.
PATIENCE = 5.0
_HANGS = "its counters are not told: an emulator hangs, as when an array does"

_COUNTERS = ("rd.reqs", "rd.times", "wr.reqs", "wr.times")

Stats = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Disk:
    """Where a disk of a machine lies, and whether its writes go there: not while an overlay takes them."""

    place: str
    writes: bool


@dataclass(slots=True)
class _Seen:
    """Places of a machine's disks by key; good as long as the counters show the same disks and paths."""

    signature: tuple[str, ...]
    until: float
    disks: Mapping[str, _Disk]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A host's counters at one moment. ``places`` by machine and disk key."""

    at: float
    cpu: Mapping[str, int]
    machines: Mapping[MachineId, Stats]
    places: Mapping[MachineId, Mapping[str, _Disk]]


@dataclass(slots=True)
class _Known:
    """What is kept of one host."""

    sample: _Sample | None = None
    waiting: threading.Thread | None = None
    seen: dict[MachineId, _Seen] = field(default_factory=dict)


class KvmMeters:
    """The ``Meters`` port over libvirt. ``shared``: directories that all hosts have under the same path."""

    def __init__(self, hosts: Hosts, shared: Sequence[Path] = ()) -> None:
        self._hosts = hosts
        self._shared = tuple(shared)
        self._known: dict[str, _Known] = {}

    def read(self) -> Load:
        """See the port. A place of several hosts' guests is shown once."""
        try:
            samples, silent = self._hosts.ask(self._asked)
        except HostUnreachable as error:
            return Load(datetime.now(UTC), silent=dict.fromkeys(self._hosts.names, error.message))
        silent = {**silent, **{name: one for name, one in samples.items() if isinstance(one, str)}}
        hosts: dict[str, HostLoad] = {}
        seen: list[tuple[str, PlaceLoad]] = []
        longest = 0.0
        for name, after in samples.items():
            if isinstance(after, str):
                continue
            known = self._known[name]
            before, known.sample = known.sample, after
            if before is None or after.at <= before.at:
                continue
            seconds = after.at - before.at
            longest = max(longest, seconds)
            hosts[name] = _host(before, after, seconds)
            seen += _disks(before, after, seconds)
        return Load(datetime.now(UTC), longest, hosts, together(seen), silent)

    def _asked(self, host: Host) -> _Sample | str:
        """A sample, or why there is none within ``PATIENCE``. Runs in a thread of its own for each host."""
        known = self._known.setdefault(host.name, _Known())
        if known.waiting is not None and known.waiting.is_alive():
            return _HANGS
        answers: list[_Sample | str | LanfreeError] = []

        def ask() -> None:
            try:
                answers.append(self._sampled(host, known))
            except LanfreeError as error:
                answers.append(error)

        # A daemon: a process that ends does not wait for an array.
        known.waiting = threading.Thread(target=ask, name=f"meters-{host.name}", daemon=True)
        known.waiting.start()
        known.waiting.join(PATIENCE)
        if not answers:
            return _HANGS
        if isinstance(answers[0], LanfreeError):
            raise answers[0]
        return answers[0]

    def _sampled(self, host: Host, known: _Known) -> _Sample | str:
        """A sample, or why the host refuses one."""
        try:
            cpu = host.call("read processor counters", lambda c: dict(c.getCPUStats(ALL_CPUS, 0)))
            machines = self._machines(host, known)
            at = time.monotonic()
            places = {machine: self._places(host, known, machine, stats) for machine, stats in machines.items()}
        except Refused as error:
            return error.message
        known.seen = {machine: seen for machine, seen in known.seen.items() if machine in machines}
        return _Sample(at, cpu, machines, places)

    def _machines(self, host: Host, known: _Known) -> dict[MachineId, Stats]:
        """Counters of those that can tell. One whose emulator hangs, since its array does, would hold up the others' answer for
        as long: it is left out, which says nothing of its place."""
        before = known.sample.machines if known.sample is not None else ()
        stuck = {machine for machine in before if not _responsive(host, machine)}

        def ask(connection: Any) -> list[Any]:
            wanted, flags = STATS_BLOCK | STATS_INTERFACE, DOMAINS_NOWAIT
            if not stuck:
                return list(connection.getAllDomainStats(wanted, DOMAINS_ACTIVE | flags))
            domains = [d for d in connection.listAllDomains(DOMAINS_ACTIVE) if d.UUIDString().lower() not in stuck]
            return list(connection.domainListGetStats(domains, wanted, flags)) if domains else []

        found = host.call("read machines' counters", ask)
        return {one.UUIDString().lower(): dict(stats) for one, stats in found if stats}

    def _places(self, host: Host, known: _Known, machine: MachineId, stats: Stats) -> Mapping[str, _Disk]:
        signature = tuple(f"{key}={stats.get(f'block.{n}.path', '')}" for n, key in _blocks(stats))
        now = time.monotonic()
        seen = known.seen.get(machine)
        if seen is None or seen.signature != signature or seen.until < now:
            seen = known.seen[machine] = _Seen(signature, now + PLACES_FOR, self._looked(host, machine))
        return seen.disks

    def _looked(self, host: Host, machine: MachineId) -> Mapping[str, _Disk]:
        try:
            definition = domain(Domain(host, machine).xml())
        except Refused as error:
            if error.refusal is Refusal.NO_DOMAIN:  # it went away since it was counted
                return {}
            raise
        shown = [shown_disk(disk, host.owned, 0) for disk in definition.disks]
        places = {disk.key: (place_of(disk.location, host.name, self._shared), disk.overlay is None) for disk in shown}
        return {key: _Disk(place, writes) for key, (place, writes) in places.items() if place}


def _responsive(host: Host, machine: MachineId) -> bool:
    try:
        return Domain(host, machine).responsive()
    except Refused:
        return True  # it is gone, and keeps nobody waiting


def _host(before: _Sample, after: _Sample, seconds: float) -> HostLoad:
    spent = {word: after.cpu[word] - before.cpu.get(word, 0) for word in after.cpu}
    total, idle = sum(spent.values()), spent.get("idle", 0) + spent.get("iowait", 0)
    sent = received = 0
    for machine, stats in after.machines.items():
        old = before.machines.get(machine, {})
        for n in range(int(stats.get("net.count", 0))):
            # What a guest received, its host received for it.
            received += _grown(old, stats, f"net.{n}.rx.bytes")
            sent += _grown(old, stats, f"net.{n}.tx.bytes")
    cpu = min(1.0, max(0.0, (total - idle) / total)) if total > 0 else None
    return HostLoad(cpu, received / seconds, sent / seconds, network="guests")


def _disks(before: _Sample, after: _Sample, seconds: float) -> list[tuple[str, PlaceLoad]]:
    seen = []
    for machine, stats in after.machines.items():
        old = before.machines.get(machine)
        if old is None:
            continue
        numbers = {key: n for n, key in _blocks(old)}
        for n, key in _blocks(stats):
            disk = after.places[machine].get(key)
            if disk is not None and numbers.get(key) == n and not _began_anew(old, stats, n):
                seen.append((disk.place, _disk(old, stats, n, seconds, writes=disk.writes)))
    return seen


def _disk(old: Stats, new: Stats, number: int, seconds: float, *, writes: bool) -> PlaceLoad:
    block = f"block.{number}."
    reads, read_time = _grown(old, new, f"{block}rd.reqs"), _grown(old, new, f"{block}rd.times")
    written = _grown(old, new, f"{block}wr.reqs") if writes else 0
    write_time = _grown(old, new, f"{block}wr.times")
    return PlaceLoad(
        reads=reads / seconds,
        writes=written / seconds,
        read_latency=read_time / reads / 1e9 if reads else None,
        write_latency=write_time / written / 1e9 if written else None,
    )


def _began_anew(old: Stats, new: Stats, number: int) -> bool:
    """Whether the machine was started since: its counters were smaller then."""
    return any(int(new.get(f"block.{number}.{c}", 0)) < int(old.get(f"block.{number}.{c}", 0)) for c in _COUNTERS)


def _blocks(stats: Stats) -> list[tuple[int, str]]:
    """Numbers and keys of the disks in the counters of one machine."""
    return [
        (n, str(stats[f"block.{n}.name"]))
        for n in range(int(stats.get("block.count", 0)))
        if f"block.{n}.name" in stats
    ]


def _grown(old: Stats, new: Stats, counter: str) -> int:
    """By how much; 0 where it began anew."""
    if counter not in old or counter not in new:
        return 0
    return max(0, int(new[counter]) - int(old[counter]))
