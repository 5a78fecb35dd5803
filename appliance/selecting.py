"""Which machines a job means, over all sites, and where they are: resolved when it is asked, so that a machine made yesterday
is in tonight's run and nobody edits the job.

::

    sight = look(services)                       asks every site once; good for any number of jobs
    selected = sight.choose(policy.select)       pure: machines by rule, excluded ones, idle rules, silent sites
    facts = facts_of(services)                   from the configuration and what was seen of the SAN; asks nobody
    where = facts.of(chosen.machine)             host, places of its disks, fabrics that show them

A site that does not answer hides nobody else's machines. It is named, because nobody knows what it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.jobs.policy import Selection
from proxy.errors import ConfigurationError, LanfreeError
from proxy.machine_rules import Candidate, Rule, fits, matches
from proxy.model import DeviceAddress, FileAddress, Location, LunAddress, MachineId, VirtualMachine, VmdkAddress
from proxy.places import place_of, places_of

if TYPE_CHECKING:
    from appliance.config import Target
    from appliance.wiring import Services
    from proxy.restore import RestoreRequest


@dataclass(frozen=True, slots=True)
class Chosen:
    """``rule``: the first one that it fits, as its job says it. ``exclude_disks``: keys of disks to leave out."""

    machine: VirtualMachine
    rule: str
    exclude_disks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selected:
    """``excluded``: fits an include rule, and the exclude rule ``rule``. ``idle``: for people: rules that fit nothing now.
    ``silent``: host or site -> why nobody knows what it has."""

    machines: tuple[Chosen, ...]
    excluded: tuple[Chosen, ...]
    idle: tuple[str, ...]
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sight:
    """What all sites showed at one time, by name. ``without_tags``: vCenter -> why its tags could not be read."""

    candidates: tuple[Candidate, ...]
    silent: Mapping[str, str] = field(default_factory=dict)
    without_tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def machines(self) -> tuple[VirtualMachine, ...]:
        """All but the hypervisors' own helpers."""
        return tuple(candidate.machine for candidate in self.candidates if not candidate.helper)

    def choose(self, selection: Selection) -> Selected:
        """Pure. Machines of a vCenter whose tags could not be read are not chosen by a job that asks for tags: half a selection
        is not made; the vCenter counts as silent. Raises ``ConfigurationError`` for a rule that is none."""
        include, exclude = _parsed(selection.include), _parsed(selection.exclude)
        disks = [_disk_rule(text) for text in selection.exclude_disks]
        blind = self.without_tags if any(rule.tag for rule in (*include.values(), *exclude.values())) else {}
        chosen: list[Chosen] = []
        excluded: list[Chosen] = []
        used: set[str] = set()
        for one in self.candidates:
            if one.helper or one.site in blind:
                continue
            by = [text for text, rule in include.items() if fits(one, rule)]
            against = [text for text, rule in exclude.items() if fits(one, rule)]
            used.update(by, against)
            if by and against:
                excluded.append(Chosen(one.machine, against[0]))
            elif by:
                chosen.append(Chosen(one.machine, by[0], _left_out(one.machine, disks, used)))
        unread = {site: f"its tags could not be read: {why}" for site, why in blind.items()}
        idle = [self._idle(text, rule) for text, rule in (*include.items(), *exclude.items()) if text not in used]
        idle += [f"no disk of a chosen machine fits {rule.text!r}" for rule in disks if rule.text not in used]
        return Selected(tuple(chosen), tuple(excluded), tuple(idle), {**self.silent, **unread})

    def _idle(self, text: str, rule: Rule) -> str:
        why = ""
        if rule.foreign and not any(candidate.site for candidate in self.candidates):
            why = f": only machines of vCenters have a {rule.foreign}"
        elif self.silent:
            why = f" ({', '.join(sorted(self.silent))} did not answer)"
        return f"no machine fits {text or 'the rule for every machine'!r}{why}"


def look(services: "Services") -> Sight:
    """Ask every site. Never raises for one that does not answer, also where none does. Raises ``ConfigurationError`` where none
    is configured."""
    hypervisor = services.hypervisor
    try:
        machines = hypervisor.machines()
        silent = dict(hypervisor.unreachable())
    except ConfigurationError:
        raise
    except LanfreeError as error:
        return Sight((), dict(hypervisor.unreachable()) or {hypervisor.name: error.message})
    if services.vcenters is None:
        return _sight({machine.id: Candidate(machine) for machine in machines}, silent, {})
    known, unanswered, without_tags = services.vcenters.candidates()
    candidates: dict[MachineId, Candidate] = {}
    for machine in machines:
        one = known.get(machine.id) or Candidate(machine, site=_vcenter_of(machine))
        # It was listed, and its vCenter fell silent before it told where: no rule could be held against it.
        if one.site not in unanswered:
            candidates[machine.id] = one
    return _sight(candidates, {**silent, **unanswered}, without_tags)


def _sight(
    candidates: Mapping[MachineId, Candidate], silent: Mapping[str, str], without_tags: Mapping[str, str]
) -> Sight:
    ordered = sorted(candidates.values(), key=lambda one: (one.machine.name, one.machine.id))
    return Sight(tuple(ordered), silent, without_tags)


def _vcenter_of(machine: VirtualMachine) -> str:
    return next((d.location.site for d in machine.disks if isinstance(d.location, VmdkAddress)), "")


def _parsed(texts: Sequence[str]) -> dict[str, Rule]:
    return {text: Rule.parse(text) for text in texts}


@dataclass(frozen=True, slots=True)
class _DiskRule:
    text: str
    machine: str
    disk: str


def _disk_rule(text: str) -> _DiskRule:
    machine, colon, disk = text.partition(":")  # the first one: keys of disks hold colons themselves (scsi0:1)
    if not (colon and machine and disk):
        raise ConfigurationError(
            f"exclude_disks {text!r}", "not of the form MACHINE:DISK", hint="for example 'db-*:vdc', or '*:scsi0:2'"
        )
    return _DiskRule(text, machine, disk)


def _left_out(machine: VirtualMachine, rules: Sequence[_DiskRule], used: set[str]) -> frozenset[str]:
    keys: set[str] = set()
    for rule in rules:
        if matches(machine.name, rule.machine):
            fitting = {disk.key for disk in machine.disks if matches(disk.key, rule.disk)}
            keys |= fitting
            if fitting:
                used.add(rule.text)
    return frozenset(keys)


def check(selection: Selection) -> None:
    """Raises ``ConfigurationError`` for a rule that could never be one: asked when a job is written, not at 3 am."""
    Sight(()).choose(selection)


@dataclass(frozen=True, slots=True)
class Where:
    """``host``: where it is now; ``places``: datastores and LUNs of its disks, named as the meters name them
    (``proxy.places``); ``paths``: fabrics over which they can be read without the host."""

    host: str
    places: tuple[str, ...]
    paths: frozenset[str]


class Facts:
    """Where machines are, by configuration and by what was seen of the SAN when it was last looked at; asks nobody.

    A path is the iqn of a ``[[san.target]]``, or ``dir:`` and a directory that hosts and proxies share. A LUN that is known by
    its name alone (VMFS, Fibre Channel) has paths once a target that shows it was looked at from here.
    """

    def __init__(
        self, targets: Sequence["Target"], shared: Sequence[Path] = (), seen: Mapping[str, set[str]] | None = None
    ) -> None:
        self._shared = tuple(shared)
        self._directories = [(directory, path_of_directory(directory)) for directory in self._shared]
        self._seen = seen or {}
        self._showing: dict[str, set[str]] = {}
        for target in targets:
            if target.access == "backup":
                for shown in (target.iqn, *target.presents):
                    self._showing.setdefault(shown, set()).add(target.iqn)

    def of(self, machine: VirtualMachine) -> Where:
        """Of all its disks, also of those that no snapshot holds: what they lie on is busy with it."""
        paths: set[str] = set()
        for disk in machine.disks:
            if disk.excluded is None and disk.location is not None:
                paths |= self._paths(disk.location)
        return Where(machine.host, places_of(machine, self._shared), frozenset(paths))

    def _paths(self, location: Location) -> set[str]:
        match location:
            case LunAddress():
                return self._showing.get(location.target, set()) | self._seen.get(location.name or "", set())
            case DeviceAddress():
                return self._seen.get(location.name or "", set())
            case VmdkAddress():
                return {path for name in location.devices for path in self._seen.get(name, ())}
            case FileAddress():
                return {path for directory, path in self._directories if Path(location.path).is_relative_to(directory)}
            case _:
                return set()


def path_of_directory(directory: Path) -> str:
    """The path that stands for a shared directory."""
    return f"dir:{directory}"


def places_to_write(services: "Services", request: "RestoreRequest") -> tuple[str, ...]:
    """Names of the places that a restore writes to, as limits and meters know them; of LUNs as the fabric was seen."""
    shared = services.settings.raw.shared_directories
    host = request.machine.host
    found: set[str] = set()
    for place in request.machine.disks.values():
        if place.datastore:
            found.add(place.datastore)
        elif place.path:
            found.add(place_of(FileAddress(place.path), host, shared))
        else:
            found.add(place_of(LunAddress(place.target, place.lun), host, shared))
    return tuple(sorted(found))


def targets_of(request: "RestoreRequest") -> tuple[str, ...]:
    """Names of the devices and files that a restore writes to and that are there before it."""
    places = request.machine.disks.values()
    return tuple(sorted({str(place) for place in places if place.path or not place.datastore}))


def facts_of(services: "Services") -> Facts:
    """As configured, with what this process saw of the SAN so far."""
    settings = services.settings
    seen: dict[str, set[str]] = {}
    for name, target in services.fabric.seen() if settings.san.target else ():
        if target.access == "backup":
            seen.setdefault(name, set()).add(target.iqn)
    return Facts(settings.san.target, settings.raw.shared_directories, seen)
