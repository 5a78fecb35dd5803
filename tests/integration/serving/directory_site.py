"""A hypervisor site that several processes share: the memory hypervisor, one file a machine, under locks that die with their
holders. A process can be killed in the middle of any call: the file is the old one or the new one.

What a limit was for is written down as it happens: ``Ledger`` tells how many machines of a host, or disks of a place, were
frozen at any instant.
"""

import fcntl
import json
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.errors import HostUnreachable, MachineNotFound, RestoreRefused
from proxy.extents import Extent
from proxy.hypervisor.memory import Guest, MemoryHypervisor
from proxy.meters import Unmetered
from proxy.model import (
    ChangeId,
    FrozenDisk,
    LunAddress,
    MachineConfiguration,
    MachineId,
    PowerState,
    Reason,
    RunId,
    Snapshot,
    SnapshotRequest,
    Tracking,
    VirtualMachine,
)
from proxy.ports import Meters, NewMachine

PLACE = "iqn.2026-11.org.example:{}"
"""Target of the LUN on which a place's disks lie, one a place."""


class DirectorySite:
    """One site in ``directory``, with these hosts unless it was made with others. Beside the port: ``add``, and per machine
    whatever ``MemoryHypervisor`` can do (``touch``)."""

    name = "directory"

    def __init__(self, directory: Path, hosts: Sequence[str] = ("h1", "h2")) -> None:
        self.directory = directory
        known = directory / "hosts"
        self.hosts = tuple(json.loads(known.read_text())) if known.exists() else tuple(hosts)
        for name in ("machines", "runs"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(self.hosts))
        self.ledger = Ledger(directory / "events")

    def add(
        self, name: str, disks: Mapping[str, bytes], *, host: str = "", place: str = "array", **more: Any
    ) -> MachineId:
        """A machine; all its disks lie on one LUN of the place."""
        site = MemoryHypervisor(self.hosts)
        machine = site.add(name, disks, **more)
        site.migrate(machine, host or self.hosts[0])
        _write(self._file(machine), {"site": _state(site), "place": place})
        return machine

    @contextmanager
    def touch(self, machine: MachineId) -> Iterator[MemoryHypervisor]:
        """The machine's own hypervisor, to do with it what the port does not."""
        with self._opened(machine) as (site, _):
            yield site

    def remove(self, machine: MachineId) -> None:
        """Undefine it."""
        self._file(machine).unlink()

    def open_in_ledger(self) -> list[str]:
        """What began to hold keys and did not let go."""
        return self.ledger.held()

    @property
    def leftovers(self) -> tuple[RunId, ...]:
        """Runs whose snapshots still exist."""
        return tuple(run for machine in self._ids() for run in self._peek(machine, answers=True)[0].leftovers)

    def disk_bytes(self, path: str) -> bytes:
        """See ``MemoryHypervisor.disk_bytes``."""
        run = path.removeprefix("memory:").rpartition("/")[0]
        machine = (self.directory / "runs" / run).read_text()
        return self._peek(machine)[0].disk_bytes(path)

    def machines(self) -> Sequence[VirtualMachine]:
        """See the port."""
        silent = self._silent()
        if silent >= set(self.hosts):
            raise HostUnreachable(", ".join(self.hosts), "silent")
        shown = [self._shown(*self._peek(machine, answers=True)) for machine in self._ids()]
        return [machine for machine in shown if machine.host not in silent]

    def unreachable(self) -> Mapping[str, str]:
        """See the port."""
        return dict.fromkeys(sorted(self._silent()), "silent")

    def silence(self, hosts: Collection[str]) -> None:
        """From now on these do not answer, to any process."""
        (self.directory / "silent").write_text(json.dumps(sorted(hosts)))

    def machine(self, machine: MachineId) -> VirtualMachine:
        """See the port."""
        return self._shown(*self._peek(machine))

    def configuration(self, machine: MachineId) -> MachineConfiguration:
        """See the port."""
        return self._peek(machine)[0].configuration(machine)

    def snapshot(self, request: SnapshotRequest) -> Snapshot:
        """See the port."""
        with self._opened(request.machine) as (site, place):
            (self.directory / "runs" / request.run).write_text(request.machine)
            known = request.run in site.leftovers
            if not known:
                host = site.machine(request.machine).host
                self.ledger.begin(request.run, (f"machine:{request.machine}", f"host:{host}", f"place:{place}"))
            try:
                return site.snapshot(request)
            except BaseException:
                if not known:
                    self.ledger.end(request.run)
                raise

    def changed(self, snapshot: Snapshot, disk: FrozenDisk, since: ChangeId) -> Sequence[Extent]:
        """See the port."""
        return self._peek(snapshot.machine)[0].changed(snapshot, disk, since)

    def confirm(self, snapshot: Snapshot) -> None:
        """See the port."""
        self._peek(snapshot.machine)[0].confirm(snapshot)

    def release(self, snapshot: Snapshot, *, sealed: bool) -> Sequence[Reason]:
        """See the port."""
        with self._opened(snapshot.machine) as (site, _):
            there = snapshot.run in site.leftovers
            reasons = site.release(snapshot, sealed=sealed)
            if there:
                self.ledger.end(snapshot.run)
            return reasons

    def sweep(self, live: Callable[[], Collection[RunId]]) -> Sequence[Reason]:
        """See the port."""
        found: list[Reason] = []
        held = {machine: self._peek(machine, answers=True)[0].leftovers for machine in self._ids()}
        # Who lives is asked while nothing is locked: the answer may need to look here.
        alive = set(live())
        for machine, runs in held.items():
            gone = [run for run in runs if run not in alive and run not in live()]
            if not gone:
                continue
            with self._opened(machine) as (site, _):
                before = site.leftovers
                kept = [run for run in before if run not in gone]
                found += site.sweep(lambda kept=kept: kept)  # type: ignore[misc]
                for run in set(gone) & set(before):
                    self.ledger.end(run)
        return found

    def check_define(self, configuration: MachineConfiguration, new: NewMachine) -> None:
        """See the port."""
        self._free(new)
        self._template(configuration, new).check_define(configuration, new)

    def define(self, configuration: MachineConfiguration, new: NewMachine) -> VirtualMachine:
        """See the port."""
        self._free(new)
        site = self._template(configuration, new)
        made = site.define(configuration, new)
        for other in site.machines():
            if other.id != made.id:
                site.remove(other.id)
        _write(self._file(made.id), {"site": _state(site), "place": "array"})
        return made

    def meters(self) -> Meters:
        """Nothing is measured here."""
        return Unmetered()

    def _free(self, new: NewMachine) -> None:
        for machine in self._ids():
            if self._peek(machine)[0].machine(machine).name == new.name and machine != new.identity:
                other = self._peek(machine)[0].machine(machine)
                if other.state is not PowerState.OFF or new.identity is not None:
                    raise RestoreRefused(new.name, "the name is taken by another machine")

    def _template(self, configuration: MachineConfiguration, new: NewMachine) -> MemoryHypervisor:
        """The hypervisor of the machine that would be replaced, or an empty one."""
        identity = new.identity
        if identity is None and configuration.kind == "memory-json":
            identity = json.loads(configuration.text)["id"]
        if identity is not None and self._file(identity).exists():
            return self._peek(identity)[0]
        return MemoryHypervisor(self.hosts)

    def _shown(self, site: MemoryHypervisor, place: str) -> VirtualMachine:
        (machine,) = site.machines()
        lun = LunAddress(PLACE.format(place), 1)
        return replace(machine, disks=tuple(replace(disk, location=lun) for disk in machine.disks))

    def _silent(self) -> set[str]:
        try:
            return set(json.loads((self.directory / "silent").read_text()))
        except FileNotFoundError:
            return set()

    def _ids(self) -> list[MachineId]:
        return sorted(file.stem for file in (self.directory / "machines").glob("*.pickle"))

    def _file(self, machine: MachineId) -> Path:
        return self.directory / "machines" / f"{machine}.pickle"

    def _peek(self, machine: MachineId, *, answers: bool = False) -> tuple[MemoryHypervisor, str]:
        """As it is now; nothing that is done to it stays. ``answers``: also when its host is silent."""
        try:
            known = pickle.loads(self._file(machine).read_bytes())
        except FileNotFoundError:
            raise MachineNotFound(machine) from None
        site = MemoryHypervisor(self.hosts)
        site.__dict__.update(known["site"])
        if not answers and site.machine(machine).host in self._silent():
            raise HostUnreachable(site.machine(machine).host, "silent")
        return site, known["place"]

    @contextmanager
    def _opened(self, machine: MachineId) -> Iterator[tuple[MemoryHypervisor, str]]:
        if not self._file(machine).exists():
            raise MachineNotFound(machine)
        with _locked(self._file(machine).with_suffix(".lock")):
            site, place = self._peek(machine)
            yield site, place
            _write(self._file(machine), {"site": _state(site), "place": place})


@dataclass(frozen=True, slots=True)
class Ledger:
    """When something began to hold keys, and when it let go, in the order in which it happened."""

    file: Path

    def begin(self, what: str, keys: Sequence[str]) -> None:
        """Before it holds them."""
        self._write({"what": what, "keys": list(keys)})

    def end(self, what: str) -> None:
        """After it let go."""
        self._write({"what": what})

    def most(self) -> Counter[str]:
        """How many held each key at the instant at which most did."""
        held: dict[str, list[str]] = {}
        now: Counter[str] = Counter()
        most: Counter[str] = Counter()
        for event in self.events():
            if "keys" in event:
                if event["what"] in held:
                    continue  # its process was killed in between, and it was begun again
                held[event["what"]] = event["keys"]
                now.update(event["keys"])
                most |= now
            else:
                now.subtract(held.pop(event["what"], []))
        return most

    def held(self) -> list[str]:
        """What still holds keys."""
        held: dict[str, object] = {}
        for event in self.events():
            if "keys" in event:
                held[event["what"]] = event
            else:
                held.pop(event["what"], None)
        return list(held)

    def events(self) -> list[dict[str, Any]]:
        """All of them."""
        try:
            return [json.loads(line) for line in self.file.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _write(self, event: Mapping[str, object]) -> None:
        with self.file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps({"at": time.time(), "pid": os.getpid(), **event}) + "\n")


def _state(site: MemoryHypervisor) -> dict[str, Any]:
    """All of it but locks and what has them, and the calls, which only grow."""
    return {**{name: value for name, value in site.__dict__.items() if name not in ("_lock", "counters")}, "calls": []}


def _write(file: Path, value: object) -> None:
    """At once or not at all."""
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(pickle.dumps(value))
    fresh.replace(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


__all__ = ["DirectorySite", "Guest", "Ledger", "Tracking"]
