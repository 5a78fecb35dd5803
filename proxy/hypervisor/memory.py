"""A hypervisor that lives in memory: what the use cases are tested with, and the first thing to read about the port.

Machines are dictionaries of byte arrays, a snapshot is a copy of them, change tracking is a set of block numbers for
each mark. A frozen disk's only layer is ``FileAddress("memory:<run>/<key>")``; ``disk_bytes`` gives what lies there.
It is held to the same contract as the real driver (``tests/contract/test_hypervisor.py``).

What a test can do beside the port: ``write`` as the guest would, ``set_state``, ``migrate``, ``lose_tracking``,
let hosts fall ``silent``, and make the N-th call fail with ``fail``.
"""

import json
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.errors import (
    ChangesUnknown,
    HostUnreachable,
    MachineBusy,
    MachineNotFound,
    RestoreRefused,
    SnapshotBroken,
    SnapshotFailed,
    SnapshotInUse,
)
from proxy.extents import Extent, aligned
from proxy.hypervisor.memory_guest import Guest, quiesced
from proxy.hypervisor.memory_meters import MemoryCounters, MemoryMeters
from proxy.model import (
    ChangeId,
    Disk,
    FileAddress,
    Format,
    FrozenDisk,
    Layer,
    Location,
    MachineConfiguration,
    MachineId,
    PowerState,
    Reason,
    ReasonCode,
    RunId,
    Snapshot,
    SnapshotRequest,
    Tracking,
    VirtualMachine,
)
from proxy.ports import NewMachine
from proxy.units import KiB

__all__ = ["BLOCK", "Guest", "MemoryHypervisor"]

BLOCK = 4 * KiB
"""Granularity of the change tracking: small, so that a test sees when too much is read. QEMU's default is 64 KiB."""

PREFIX = "memory:"


@dataclass(slots=True)
class _MemoryDisk:
    data: bytearray
    tracking: Tracking
    excluded: Reason | None = None
    below: tuple[Location, ...] = ()
    marks: dict[ChangeId, set[int]] = field(default_factory=dict)


@dataclass(slots=True)
class _MemoryMachine:
    id: MachineId
    name: str
    host: str
    state: PowerState
    guest: Guest
    disks: dict[str, _MemoryDisk]
    starts: int = 0


@dataclass(slots=True)
class _Held:
    """A snapshot as the hypervisor holds it. ``marks``: as they were when the disks were frozen."""

    snapshot: Snapshot
    frozen: dict[str, bytearray]
    marks: dict[str, dict[ChangeId, set[int]]]
    starts: int


class MemoryHypervisor:
    """One site in memory. ``calls`` records every port call by name, which is what ``fail`` counts."""

    def __init__(self, hosts: Sequence[str] = ("h1", "h2"), *, name: str = "memory") -> None:
        self.name = name
        self.hosts = tuple(hosts)
        self.counters = MemoryCounters()
        self.silent: set[str] = set()
        self.calls: list[str] = []
        self.readers: set[MachineId] = set()
        self._machines: dict[MachineId, _MemoryMachine] = {}
        self._held: dict[RunId, _Held] = {}
        self._faults: list[tuple[int, str | None, BaseException, bool]] = []
        self._lock = threading.RLock()

    def add(
        self,
        name: str,
        disks: Mapping[str, bytes],
        *,
        identity: MachineId | None = None,
        state: PowerState = PowerState.RUNNING,
        guest: Guest = Guest.CONFIRMS,
        tracking: Tracking = Tracking.HYPERVISOR,
        excluded: Mapping[str, Reason] | None = None,
        below: Mapping[str, tuple[Location, ...]] | None = None,
    ) -> MachineId:
        """Make a machine on the first host. ``tracking``, for all its disks: ``HYPERVISOR``, ``NONE``, or ``LAYER`` (only
        the newest sealed mark holds; what changed since is asked of a transport)."""
        machine = identity or str(uuid.uuid4())
        why, images = excluded or {}, below or {}
        made = {k: _MemoryDisk(bytearray(d), tracking, why.get(k), images.get(k, ())) for k, d in disks.items()}
        self._machines[machine] = _MemoryMachine(machine, name, self.hosts[0], state, guest, made)
        return machine

    def write(self, machine: MachineId, key: str, offset: int, data: bytes, *, tracked: bool = True) -> None:
        """A write of the guest: it lands on the live disk, never on a frozen one. Not ``tracked``: the change tracking has the
        kind of error that the audit is there for."""
        with self._lock:
            disk = self._machine(machine).disks[key]
            disk.data[offset : offset + len(data)] = data
            blocks = range(offset // BLOCK, -(-(offset + len(data)) // BLOCK))
            for changed in disk.marks.values() if tracked else ():
                changed.update(blocks)

    def live_bytes(self, machine: MachineId, key: str) -> bytes:
        """What the guest would read now."""
        return bytes(self._machine(machine).disks[key].data)

    def set_state(self, machine: MachineId, state: PowerState) -> None:
        """Start, stop, pause or suspend."""
        one = self._machine(machine)
        if state is PowerState.RUNNING and one.state in (PowerState.OFF, PowerState.SUSPENDED):
            one.starts += 1
        one.state = state

    def set_guest(self, machine: MachineId, guest: Guest) -> None:
        """How the guest behaves from now on."""
        self._machine(machine).guest = guest

    def resize(self, machine: MachineId, key: str, size: int) -> None:
        """Grow or shrink a disk; its tracking is lost, as with QEMU."""
        disk = self._machine(machine).disks[key]
        disk.data = disk.data[:size] + bytearray(max(0, size - len(disk.data)))
        disk.marks.clear()

    def migrate(self, machine: MachineId, host: str) -> None:
        """Live migration; snapshots and marks go along."""
        self._machine(machine).host = host

    def lose_tracking(self, machine: MachineId) -> None:
        """As if QEMU was killed: no mark is usable any more."""
        for disk in self._machine(machine).disks.values():
            disk.marks.clear()

    def remove(self, machine: MachineId) -> None:
        """Undefine it."""
        del self._machines[machine]

    def fail(self, number: int, error: BaseException, *, call: str | None = None, after: bool = False) -> None:
        """Let the ``number``-th (1 = next) port call fail, counting only ``call`` if given; ``after``: its work is done."""
        earlier = sum(1 for c in self.calls if call in (None, c))
        self._faults.append((earlier + number, call, error, after))

    @property
    def leftovers(self) -> tuple[RunId, ...]:
        """Runs whose snapshots still exist."""
        return tuple(self._held)

    def disk_bytes(self, path: str) -> bytes:
        """What lies at ``memory:<run>/<key>``. Raises ``FileNotFoundError`` once the snapshot is released."""
        run, _, key = path.removeprefix(PREFIX).rpartition("/")
        with self._lock:
            held = self._held.get(run)
            if not path.startswith(PREFIX) or held is None or key not in held.frozen:
                raise FileNotFoundError(path)
            return bytes(held.frozen[key])

    def machines(self) -> Sequence[VirtualMachine]:
        """See the port."""
        with self._call("machines"):
            if self.silent >= set(self.hosts):
                raise HostUnreachable(", ".join(self.hosts), "silent")
            return [self._shown(m) for m in self._machines.values() if m.host not in self.silent]

    def unreachable(self) -> Mapping[str, str]:
        """See the port."""
        return dict.fromkeys(sorted(self.silent), "silent")

    def machine(self, machine: MachineId) -> VirtualMachine:
        """See the port."""
        with self._call("machine"):
            return self._shown(self._machine(machine))

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """Kind ``memory-json``: name, and size of each disk."""
        with self._call("configuration"):
            one = self._machine(machine)
            text = json.dumps({"id": one.id, "name": one.name, "disks": {k: len(d.data) for k, d in one.disks.items()}})
            return MachineConfiguration("memory-json", text, nvram=b"nvram of " + one.name.encode())

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """See the port."""
        with self._call("snapshot"):
            one = self._machine(request.machine)
            if request.run in self._held:
                return self._held[request.run].snapshot
            self._refuse(one, request)
            consistency, reason = quiesced(one.name, one.state, one.guest, request.quiesce)
            frozen: dict[str, bytearray] = {}
            marks: dict[str, dict[ChangeId, set[int]]] = {}
            for key in request.disks:
                disk = one.disks[key]
                frozen[key] = disk.data if one.state is PowerState.OFF else bytearray(disk.data)
                marks[key] = {mark: set(blocks) for mark, blocks in disk.marks.items()}
                if disk.tracking is not Tracking.NONE:
                    disk.marks[f"mark-{request.run}"] = set()
            snapshot = Snapshot(
                run=request.run,
                machine=one.id,
                machine_name=one.name,
                host=one.host,
                method="off" if one.state is PowerState.OFF else "overlay",
                created_at=datetime.now(UTC),
                disks=tuple(_frozen_disk(one, request, key) for key in request.disks),
                consistency=consistency,
                reasons=(reason,),
            )
            self._held[request.run] = _Held(snapshot, frozen, marks, one.starts)
            return snapshot

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """See the port."""
        with self._call("changed"):
            held = self._held.get(snapshot.run)
            blocks = held.marks.get(disk.key, {}).get(since) if held else None
            if blocks is None:
                raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST, f"no mark {since}")
            return aligned((Extent(b * BLOCK, BLOCK) for b in sorted(blocks)), BLOCK, disk.size)

    def confirm(self, snapshot: Snapshot) -> None:
        """See the port."""
        with self._call("confirm"):
            one = self._machine(snapshot.machine)
            held = self._held.get(snapshot.run)
            if held is None:
                raise SnapshotBroken(one.name, "it is gone")
            if snapshot.method == "off" and (one.state is not PowerState.OFF or held.starts != one.starts):
                raise SnapshotBroken(one.name, "the machine was started")

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """See the port."""
        with self._call("release"):
            if snapshot.run not in self._held:
                return []
            if snapshot.machine in self.readers:
                raise SnapshotInUse(snapshot.machine_name)
            one = self._machines.get(snapshot.machine)
            if one is not None:
                _settle_marks(one, snapshot, sealed)
            del self._held[snapshot.run]
            moved = one is not None and one.host != snapshot.host
            return [Reason(ReasonCode.MIGRATED, f"from {snapshot.host}")] if moved else []

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """See the port. Marks stay: whether the dead run sealed its restore point is not known here."""
        with self._call("sweep"):
            found = list(self._held)
            alive = set(live())
            gone = []
            for run in found:
                if run not in alive and run not in live():
                    self._held.pop(run, None)
                    gone.append(run)
            return [Reason(ReasonCode.LEFTOVER_REMOVED, f"snapshot of run {run}") for run in gone]

    def meters(self) -> MemoryMeters:
        """See the port: what was done to ``counters``."""
        return MemoryMeters(self.counters, lambda: self.silent)

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """See the port."""
        with self._call("check_define"):
            self._definable(configuration, new)

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> VirtualMachine:
        """See the port. The disks have the saved sizes and read as zero; ``disk_source`` may fill them."""
        with self._call("define"):
            identity, sizes = self._definable(configuration, new)
            places = {k: p.path or f"{p.target}/{p.lun}" for k, p in new.disks.items()}
            disks = {
                k: _MemoryDisk(bytearray(self.disk_source(places[k], size)), Tracking.HYPERVISOR)
                for k, size in sizes.items()
                if k in places
            }
            made = _MemoryMachine(identity, new.name, new.host, PowerState.OFF, Guest.CONFIRMS, disks)
            self._machines[identity] = made
            return self._shown(made)

    def _definable(self, configuration: MachineConfiguration, new: NewMachine) -> tuple[MachineId, Mapping[str, int]]:
        """Identity and disk sizes of the machine to be. Raises ``RestoreRefused``."""
        if configuration.kind != "memory-json":
            raise RestoreRefused(new.name, f"kind {configuration.kind} is not memory-json")
        if new.host not in self.hosts:
            raise RestoreRefused(new.name, f"no host {new.host} is configured")
        saved = json.loads(configuration.text)
        identity = new.identity or saved["id"]
        silent = sorted(self.silent - new.without_hosts)
        if silent and identity == saved["id"]:
            raise RestoreRefused(new.name, f"it may run on {', '.join(silent)}, silent")
        for other in self._machines.values():
            if other.id == identity and other.state is not PowerState.OFF:
                raise RestoreRefused(new.name, f"identity {identity} is taken by a machine that is not off")
            if other.name == new.name and other.id != identity:
                raise RestoreRefused(new.name, "the name is taken by another machine")
        return identity, saved["disks"]

    disk_source: Callable[[str, int], bytes] = staticmethod(lambda _place, size: bytes(size))
    """Where ``define`` finds a restored disk's bytes: a test sets it to what its transport wrote."""

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        """Count the call, fail it where a fault says so, one caller at a time."""
        with self._lock:
            self.calls.append(name)
            self._strike(name, after=False)
            yield
            self._strike(name, after=True)

    def _strike(self, name: str, *, after: bool) -> None:
        for fault in list(self._faults):
            number, call, error, late = fault
            if late is after and call in (None, name) and sum(1 for c in self.calls if call in (None, c)) == number:
                self._faults.remove(fault)
                raise error

    def _machine(self, machine: MachineId) -> _MemoryMachine:
        one = self._machines.get(machine)
        if one is None:
            raise MachineNotFound(machine)
        return one

    def _refuse(self, one: _MemoryMachine, request: SnapshotRequest) -> None:
        if one.host in self.silent:
            raise HostUnreachable(one.host, "silent")
        for run, held in self._held.items():
            if held.snapshot.machine == one.id:
                raise MachineBusy(one.name, f"run {run}")
        for key in request.disks:
            if key not in one.disks or one.disks[key].excluded is not None:
                raise SnapshotFailed(one.name, f"disk {key} cannot be frozen")

    def _shown(self, one: _MemoryMachine) -> VirtualMachine:
        disks = tuple(
            Disk(k, len(d.data), Format.RAW, FileAddress(f"{PREFIX}live/{one.id}/{k}"), d.excluded, d.below)
            for k, d in one.disks.items()
        )
        return VirtualMachine(one.id, one.name, one.host, one.state, disks, agent=one.guest is not Guest.NO_AGENT)


def _frozen_disk(one: _MemoryMachine, request: SnapshotRequest, key: str) -> FrozenDisk:
    disk, run, tracking = one.disks[key], request.run, one.disks[key].tracking
    if tracking is Tracking.LAYER and request.since.get(key) not in disk.marks:
        tracking = Tracking.NONE
    return FrozenDisk(
        key=key,
        size=len(disk.data),
        layers=(Layer(FileAddress(f"{PREFIX}{run}/{key}"), Format.RAW),),
        tracking=tracking,
        change_id=None if disk.tracking is Tracking.NONE else f"mark-{run}",
        overlay=None if one.state is PowerState.OFF else f"lanfree-{run}-{key}",
    )


def _settle_marks(one: _MemoryMachine, snapshot: Snapshot, sealed: bool) -> None:
    mark = f"mark-{snapshot.run}"
    for frozen in snapshot.disks:
        disk = one.disks[frozen.key]
        if not sealed:
            disk.marks.pop(mark, None)
        elif mark in disk.marks:
            disk.marks = {mark: disk.marks[mark]}
