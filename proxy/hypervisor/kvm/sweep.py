"""Finding what dead runs left behind. Only what carries our name and a run that is not live is touched.

What is looked at: overlays in chains, pull jobs, files in the overlay directories that no chain names, checkpoints,
guests that may still be frozen, and the records of runs.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

from proxy.errors import FormatError, LanfreeError, MachineNotFound
from proxy.hypervisor.kvm import checkpoints, overlays, pull
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory, Image
from proxy.hypervisor.kvm.hosts import Hosts, rank, state_of
from proxy.hypervisor.kvm.inventory import ChainLink, domain
from proxy.hypervisor.kvm.ownership import is_rolling, run_in
from proxy.hypervisor.kvm.quiesce import GuestAgent
from proxy.hypervisor.kvm.records import Records, RunRecord
from proxy.hypervisor.kvm.release import OFF, Releaser
from proxy.hypervisor.kvm.rolling import Rolling, align
from proxy.model import FileAddress, Location, LunAddress, MachineId, NbdAddress, PowerState, Reason, ReasonCode, RunId

# A guest that a dead run left frozen is thawed at once if its agent answers; a sweep does not wait longer for it.
THAW_PATIENCE = 5.0


Live = Callable[[], Collection[RunId]]
"""Gives the runs that somebody works on now."""


@dataclass(slots=True)
class _Found:
    """What may be left over: found before it is asked whose it is, so that nothing in it is younger than the answer.

    ``files``: names in overlay directories by host; ``runs``: whose overlays and jobs a machine carries, those of rolling
    overlays that are at rest and may stay left out; ``resting``: those at rest that may not; ``users``: who names an overlay;
    ``frozen``: marks.
    """

    files: dict[str, set[str]]
    places: dict[MachineId, list[Domain]]
    silent: Mapping[str, str]
    recorded: list[RunId]
    frozen: list[MachineId]
    runs: dict[MachineId, set[RunId]] = field(default_factory=dict)
    resting: set[RunId] = field(default_factory=set)
    users: dict[str, set[MachineId]] = field(default_factory=dict)
    unread: dict[MachineId, str] = field(default_factory=dict)


class Sweeper:
    """Undoes leftovers on a site. One leftover that resists does not keep the others."""

    def __init__(self, hosts: Hosts, records: Records, rolls: Rolling, releaser: Releaser) -> None:
        self._hosts = hosts
        self._records = records
        self._rolling = rolls
        self._releaser = releaser

    def sweep(self, live: Live) -> list[Reason]:
        """See ``Hypervisor.sweep``. What resisted is told as a reason, too."""
        found = self._find()
        now = set(live())
        self._await_begun(found, now)
        reasons = self._thaw(found, live)
        resisting: set[RunId] = set()
        for machine in found.places:
            dead = sorted(found.runs.get(machine, set()) - now)
            reasons += self._machine(found, machine, dead, live, resisting)
        reasons += [_not_yet(f"machine {machine}", why) for machine, why in found.unread.items()]
        for run in found.recorded:
            if run not in now and run not in resisting:
                reasons += self._record(run, found, live)
        if not found.silent:  # a silent host may have a machine that needs a file in a shared directory
            reasons += self._strays(found, live)
        return reasons

    def _find(self) -> _Found:
        files, no_files = self._hosts.ask(_our_files)
        answers, no_machines = self._hosts.ask(lambda host: host.domains())
        places: dict[MachineId, list[Domain]] = {}
        for domains in answers.values():
            for place in domains:
                places.setdefault(place.machine, []).append(place)
        silent = {**no_files, **no_machines}
        found = _Found(files, places, silent, self._records.runs(), self._records.maybe_frozen())
        for machine, known in places.items():
            try:
                found.runs[machine] = self._runs_of(known, found)
            except LanfreeError as error:
                found.unread[machine] = error.message
        for path, users in found.users.items():
            for machine in users if len(users) > 1 else ():  # a definition was copied: whose writes are they?
                found.runs.pop(machine, None)
                found.unread[machine] = f"its overlay {path} is named by {len(users)} machines"
        return found

    def _runs_of(self, known: list[Domain], found: _Found) -> set[RunId]:
        runs = set()
        for place in known:
            for overlay in _overlays(place):
                found.users.setdefault(overlay.path, set()).add(place.machine)
                rests = self._rolling.at_rest(overlay)
                if not (rests and self._rolling.on(place)):
                    runs.add(overlay.run)
                    found.resting |= {overlay.run} if rests else set()
        jobs = [pull.running_job(place) for place in known]
        return runs | {job[0] for job in jobs if job is not None and job[0] is not None}

    def _await_begun(self, found: _Found, now: Collection[RunId]) -> None:
        """Snapshots that dead runs announced and nobody knows to be there: libvirt may still be making them, and what it makes
        is not in the chain yet."""
        for run in found.recorded:
            with suppress(FormatError):  # told where its record is looked at
                record = self._records.load(run) if run not in now else None
                if record is not None and record.snapshot is None and record.machine not in found.unread:
                    self._look_again(found, record)

    def _look_again(self, found: _Found, record: RunRecord) -> None:
        places = found.places.get(record.machine, [])
        try:
            for place in places:
                place.settle()
            if record.run in self._runs_of(places, found):
                found.runs[record.machine].add(record.run)
        except LanfreeError as error:
            found.runs.pop(record.machine, None)
            found.unread[record.machine] = error.message

    def _machine(
        self, found: _Found, machine: MachineId, dead: list[RunId], live: Live, resisting: set[RunId]
    ) -> list[Reason]:
        """Overlays and jobs of dead runs on one machine, definitions that leave overlays out, surplus checkpoints."""
        reasons = []
        known = sorted(found.places[machine], key=lambda place: rank(state_of(place)))
        try:
            for run in dead:
                # The overlay of a run that ended long ago may be what a live one reads.
                if run in live() or (run in found.resting and not self._idle(machine, live)):
                    continue
                resisting.add(run)
                recorded = run in self._records.runs()
                merged = self._releaser.end_dead(machine, run)
                resisting.remove(run)
                if recorded or merged:  # else it ended by itself after it was found
                    reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"snapshot of run {run} on machine {machine}"))
            now = known[0]
            if self._idle(machine, live) and align(known):
                reasons.append(Reason(ReasonCode.TRACKING_REPAIRED, f"definition of {machine} named no overlay"))
            if state_of(now).power is PowerState.RUNNING:
                reasons += checkpoints.prune(now, partial(self._idle, machine, live))
        except LanfreeError as error:
            resisting.update(dead)
            reasons.append(_not_yet(f"machine {machine}", error.message))
        return reasons

    def _record(self, run: RunId, found: _Found, live: Live) -> list[Reason]:
        """The record of a dead run goes when nothing of the run is left: it alone tells how to bring home the overlays of
        a machine that vanished with its emulator (a transient one), or that is on a host which is silent now."""
        try:
            record = self._records.load(run)
            if record is None or run in live() or record.machine in found.unread:
                return []
            seen = found.runs.get(record.machine)
            nothing = record.snapshot is not None and record.snapshot.method == OFF
            # What no chain shows: a merge into the base that has not ended, files that are merged or scratch.
            hidden = record.sealed or record.ending or record.pull
            if not nothing and (hidden or seen is None or run in seen or found.silent):
                merged = self._releaser.end_dead(record.machine, run)
            else:
                merged = []
                self._records.forget(run)
        except LanfreeError as error:
            return [_not_yet(f"run {run}", error.message)]
        detail = f"overlays of machine {record.machine}, run {run}"
        return [Reason(ReasonCode.LEFTOVER_REMOVED, detail)] if merged else []

    def _strays(self, found: _Found, live: Live) -> list[Reason]:
        """Overlays that no chain names and no run has any more: made and never used, or what somebody took out of a chain."""
        reasons = []
        try:
            chains = [link for known in found.places.values() for place in known for link in _links(place)]
            used = {link.path for link in chains} | self._frozen()
            bases = {_place(link.location) for link in chains if link.location is not None}
            for name, files in found.files.items():
                host = self._hosts.named(name)
                if host is not None:
                    reasons += _delete_strays(host, files, used, bases, self._kept(live))
        except LanfreeError as error:
            reasons.append(_not_yet("files", error.message))
        return reasons

    def _frozen(self) -> set[str]:
        """Files that runs with a record froze. They merge them and delete them, and in between no chain names them."""
        records = (self._records.load(run) for run in self._records.runs())
        disks = (disk for record in records if record and record.snapshot for disk in record.snapshot.disks)
        places = (layer.location for disk in disks for layer in disk.layers)
        return {where.path for where in places if isinstance(where, FileAddress)}

    def _kept(self, live: Live) -> Live:
        """Runs whose files stay: somebody works on them, or their record is still needed."""
        return lambda: {*live(), *self._records.runs()}

    def _thaw(self, found: _Found, live: Live) -> list[Reason]:
        """Guests that a run froze and never saw thawed. Live runs take care of their own."""
        reasons = []
        for machine in found.frozen:
            try:
                agent, idle = GuestAgent(self._hosts.find(machine), self._records), partial(self._idle, machine, live)
                if agent.thaw(THAW_PATIENCE, idle):
                    reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"guest {machine} seen thawed"))
                elif idle():
                    reasons.append(_not_yet(f"guest {machine}", "its agent does not answer, and it may be frozen"))
            except MachineNotFound:
                self._records.note_thaw(machine)  # every host answered, and none knows it any more
            except LanfreeError as error:
                reasons.append(_not_yet(f"guest {machine}, which may be frozen", error.message))
        return reasons

    def _idle(self, machine: MachineId, live: Live) -> bool:
        """Whether no live run has this machine. A run notes its machine before it touches it."""
        records = (self._records.load(run) for run in live())
        return all(record is None or record.machine != machine for record in records)


def _not_yet(what: str, why: str) -> Reason:
    return Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, {what}: {why}")


def _overlays(place: Domain) -> list[overlays.Found]:
    """Ours, in what runs and in what is defined."""
    return [*overlays.found_on(place), *overlays.found_on(place, inactive=True)]


def _links(place: Domain) -> list[ChainLink]:
    """Every image in what runs and in what is defined."""
    texts = (place.xml(), place.xml(inactive=True))
    return [link for text in texts for disk in domain(text).disks for link in disk.chain]


def _our_files(host: Host) -> set[str]:
    """Names of overlays of any run in the host's overlay directory."""
    names = Directory(host, host.settings.overlay_directory).names()
    return {name for name in names if run_in(name) is not None}


def _delete_strays(
    host: Host, files: Collection[str], used: Collection[str | None], bases: Collection[str], kept: Live
) -> list[Reason]:
    """One whose base no machine uses may be all that is left of a machine that vanished: that is for a person. So is one
    that holds data, and a rolling one: what it holds may be nowhere else, and who knew that it was merged has no record."""
    directory = Directory(host, host.settings.overlay_directory)
    present = directory.images(lambda name: run_in(name) is not None)  # hosts can share the directory
    reasons = []
    for name in sorted(files):
        if name not in present or f"{directory.path}/{name}" in used or run_in(name) in kept():
            continue
        below = _lowest(directory.path, name, present)
        if below is not None and _base(below) not in bases:
            detail = f"kept {name} on {host.name}: no machine uses its base {below}"
        elif is_rolling(name) or not present[name].empty:
            detail = (
                f"kept {name} on {host.name}: writes of a machine on {below} may be in it, and no definition names it"
            )
        else:
            directory.delete(name)
            detail = f"file {name} on {host.name}"
        reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, detail))
    return reasons


def _lowest(directory: str, name: str, images: Mapping[str, Image]) -> str | None:
    """What the lowest overlay of a stack of ours rests on."""
    below = images[name].backing
    for _ in images:
        above, _, file = (below or "").rpartition("/")
        if above != directory or file not in images:
            break
        below = images[file].backing
    return below


def _place(where: Location) -> str:
    """A word for a location that the header of an image can be compared with."""
    if isinstance(where, LunAddress):
        return f"{where.target}/{where.lun}"
    return "" if isinstance(where, NbdAddress) else where.path


def _base(named: str) -> str:
    """The same word from what an image names as its base: a path, or ``iscsi://[user@]portal/target/lun``."""
    if not named.startswith("iscsi://"):
        return named
    return unquote(named.removeprefix("iscsi://").partition("/")[2])
