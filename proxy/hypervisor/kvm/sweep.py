"""Finding what dead runs left behind. Only what carries our name and a run that is not live is touched.

What is looked at: overlays in chains, pull jobs, files in the overlay directories that no chain names, checkpoints,
guests that may still be frozen, and the records of runs.
"""

from collections.abc import Collection
from urllib.parse import unquote

from proxy.errors import LanfreeError
from proxy.hypervisor.kvm import checkpoints, overlays, pull
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.hosts import Hosts, rank, state_of
from proxy.hypervisor.kvm.inventory import ChainLink, domain
from proxy.hypervisor.kvm.quiesce import GuestAgent
from proxy.hypervisor.kvm.records import Records
from proxy.hypervisor.kvm.release import Releaser
from proxy.model import Location, LunAddress, MachineId, NbdAddress, PowerState, Reason, ReasonCode, RunId

# A guest that a dead run left frozen is thawed at once if its agent answers; a sweep does not wait longer for it.
THAW_PATIENCE = 5.0


class Sweeper:
    """Undoes leftovers on a site. One leftover that resists does not keep the others."""

    def __init__(self, hosts: Hosts, records: Records, releaser: Releaser) -> None:
        self._hosts = hosts
        self._records = records
        self._releaser = releaser

    def sweep(self, live: Collection[RunId]) -> list[Reason]:
        """See ``Hypervisor.sweep``. What resisted is told as a reason, too."""
        # Files are listed first: a run that starts just now has noted itself before its overlay appears.
        files, silent = self._hosts.ask(_our_files)
        answers, _ = self._hosts.ask(lambda host: host.domains())
        reasons = self._thaw(live)
        places: dict[MachineId, list[Domain]] = {}
        for found in answers.values():
            for place in found:
                places.setdefault(place.machine, []).append(place)
        for machine, known in places.items():
            reasons += self._machine(machine, known, live)
        reasons += self._records_of_dead(places, live)
        if not silent:  # a silent host may have a machine that needs a file in a shared directory
            reasons += self._strays(files, places, live)
        return reasons

    def _machine(self, machine: MachineId, known: list[Domain], live: Collection[RunId]) -> list[Reason]:
        reasons = []
        try:
            for run in sorted(_runs_of(known) - set(live)):
                self._releaser.undo_disks(machine, run, [])
                self._records.forget(run)
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"snapshot of run {run} on machine {machine}"))
            now = min(known, key=lambda place: rank(state_of(place)))
            if state_of(now).power is PowerState.RUNNING:
                reasons += checkpoints.prune(now)
        except LanfreeError as error:
            reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, machine {machine}: {error.message}"))
        return reasons

    def _records_of_dead(self, places: Collection[MachineId], live: Collection[RunId]) -> list[Reason]:
        """Records of machines that vanished with their overlays (transient ones), and of runs that came to nothing."""
        reasons = []
        for run in set(self._records.runs()) - set(live):
            try:
                record = self._records.load(run)
                gone = record is not None and record.machine not in places
                if record is not None and gone and self._releaser.undo_disks(record.machine, run, []):
                    detail = f"overlays of the vanished machine {record.machine}, run {run}"
                    reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, detail))
                self._records.forget(run)
            except LanfreeError as error:
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, run {run}: {error.message}"))
        return reasons

    def _strays(
        self, files: dict[str, set[str]], places: dict[MachineId, list[Domain]], live: Collection[RunId]
    ) -> list[Reason]:
        """Overlays that no chain names: made and never used, or merged and not yet deleted."""
        reasons = []
        try:
            chains = [link for known in places.values() for place in known for link in _links(place)]
            used = {link.path for link in chains}
            bases = {_place(link.layer.location) for link in chains if link.layer is not None}
            kept = {*live, *self._records.runs()}
            for name, found in files.items():
                host = self._hosts.named(name)
                if host is not None:
                    strays = [f for f in sorted(found) if overlays.run_of(f) not in kept]
                    reasons += _delete_strays(host, strays, used, bases)
        except LanfreeError as error:
            reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"not yet, files: {error.message}"))
        return reasons

    def _thaw(self, live: Collection[RunId]) -> list[Reason]:
        """Guests that a run froze and never saw thawed. Live runs take care of their own."""
        reasons = []
        for machine in self._records.maybe_frozen():
            try:
                busy = {r.machine for run in live if (r := self._records.load(run)) is not None}
                if machine not in busy and GuestAgent(self._hosts.find(machine), self._records).thaw(THAW_PATIENCE):
                    reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"guest {machine} seen thawed"))
            except LanfreeError as error:
                reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, f"guest {machine} may be frozen: {error.message}"))
        return reasons


def _overlays(place: Domain) -> list[overlays.Found]:
    """Ours, in what runs and in what is defined."""
    return [*overlays.found_in(domain(place.xml())), *overlays.found_in(domain(place.xml(inactive=True)))]


def _runs_of(known: list[Domain]) -> set[RunId]:
    runs = {found.run for place in known for found in _overlays(place)}
    jobs = [pull.running_job(place) for place in known]
    return runs | {job[0] for job in jobs if job is not None and job[0] is not None}


def _links(place: Domain) -> list[ChainLink]:
    """Every image in what runs and in what is defined."""
    texts = (place.xml(), place.xml(inactive=True))
    return [link for text in texts for disk in domain(text).disks for link in disk.chain]


def _our_files(host: Host) -> set[str]:
    """Names of overlays of any run in the host's overlay directory."""
    names = Directory(host, host.settings.overlay_directory).names()
    return {name for name in names if overlays.run_of(name) is not None}


def _delete_strays(
    host: Host, strays: Collection[str], used: Collection[str | None], bases: Collection[str]
) -> list[Reason]:
    """One whose base no machine uses may be all that is left of a machine that vanished: that is for a person."""
    directory = Directory(host, host.settings.overlay_directory)
    present = directory.names()  # hosts can share the directory
    reasons = []
    for name in strays:
        if name not in present or f"{directory.path}/{name}" in used:
            continue
        below = directory.backing(name)
        if below is not None and _base(below) not in bases:
            detail = f"kept {name} on {host.name}: no machine uses its base {below}"
        else:
            directory.delete(name)
            detail = f"file {name} on {host.name}"
        reasons.append(Reason(ReasonCode.LEFTOVER_REMOVED, detail))
    return reasons


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
