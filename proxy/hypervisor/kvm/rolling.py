"""Rolling overlays: opt-in change tracking for raw disks, which have no place for a bitmap.

Between two backups the machine stays on one overlay. What the overlay holds is what changed::

    first run    vda -> base
      snapshot   vda -> k1 -> base           base is read whole; the mark is k1: it began at this very moment
      sealed     vda -> k1 -> base           k1 stays on
      failed     vda -> base                 k1 merged down and deleted, as if nothing had been

    next run     vda -> k1 -> base           since k1: exactly what k1 holds (``Tracking.LAYER``)
      snapshot   vda -> k2 -> k1 -> base     k1 stands still and is read over base; the new mark is k2
      sealed     vda -> k2 -> base           k1 committed into base, chain looked at, only then k1 deleted
      failed     vda -> k1 -> base           k2 merged down into k1, which again holds all that changed since k1

    switched off vda -> base                 the next sweep (every command's start) or release merges what is left

Why an incremental cannot be wrong: a mark is the name of an overlay file, never used twice, so it means one moment. Its
layer holds every write since, as long as what lies below shows the same bytes as then; nothing of ours changes those but
a commit, and a commit into what lies below takes its overlay out of the chain. So the rule is one line: the machine runs
on the overlay that the last restore point names, with only older ones of ours and one raw image below. Else everything
is read and the reason is told: somebody else's snapshot on top, an overlay taken away, a run that died after its seal.
Even an overlay whose file somebody exchanged tells right, as the bytes of the last restore point still lie below it. Only
who writes to the base, or empties the overlay into it, behind libvirt's back is not noticed; OPERATING.md tells not to.

What a name cannot tell, the run's record tells: a rolling overlay whose run has no record is *at rest*, and no sweep
takes it while the option is on. With a record it belongs to a run that lives, or died before its seal (merged down), or
after it (``RunRecord.sealed``: the merge into the base is gone on with).

A machine that is off is its chain: both layers are read, and the mark stays, since nobody writes. It starts from its
definition, which must name the overlay: libvirt writes it there with the snapshot, and ``align`` puts it there again
where somebody defined the machine anew. A machine without a definition (transient) never rolls.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from proxy.hypervisor.kvm import define
from proxy.hypervisor.kvm.answers import Refused
from proxy.hypervisor.kvm.connection import Domain, Host
from proxy.hypervisor.kvm.directory import Directory
from proxy.hypervisor.kvm.hosts import Hosts
from proxy.hypervisor.kvm.inventory import ChainLink, DiskXml, DomainXml, domain
from proxy.hypervisor.kvm.overlays import Found, Which
from proxy.hypervisor.kvm.ownership import Ownership, is_rolling, new_rolling_path
from proxy.hypervisor.kvm.records import Records
from proxy.model import (
    ChangeId,
    FileAddress,
    Format,
    Location,
    LunAddress,
    PowerState,
    Reason,
    ReasonCode,
    RunId,
    SnapshotRequest,
    Tracking,
)

# A snapshot may come between reading a chain and writing a definition; then the next look mends it. Each look after the
# first needs another snapshot in the same instant, so a few are as many as one likes.
ALIGNMENTS = 4


class Rolling:
    """Which machines roll, and which overlays are at rest. ``machines``: identities, or patterns of names (``db-*``)."""

    def __init__(self, machines: Collection[str], records: Records) -> None:
        self._machines = tuple(machines)
        self._records = records

    def asked(self, machine: DomainXml) -> bool:
        """Whether the option is on for the machine."""
        return any(machine.machine == each.lower() or fnmatchcase(machine.name, each) for each in self._machines)

    def on(self, place: Domain) -> bool:
        """Whether the machine's overlays may stay on. A transient machine would start without them."""
        return bool(self._machines) and self.asked(domain(place.xml())) and place.persistent()

    def at_rest(self, found: Found) -> bool:
        """Whether no run has the overlay: it is what a machine's disk consists of between two backups."""
        return found.rolling and found.run not in self._records.runs()


@dataclass(slots=True)
class RollingPlan:
    """``tops``: the overlay that a disk runs on until now; ``since``: the parent's marks; ``begun``: overlays that this run
    puts on to stay. All by disk. ``reasons``: why a disk that could roll is read whole, or does not roll."""

    tops: dict[str, str] = field(default_factory=dict)
    since: Mapping[str, ChangeId] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)

    def tracking(self, key: str) -> Tracking:
        """``LAYER`` when the overlay that is frozen now began at the parent's moment."""
        top = self.tops.get(key)
        return Tracking.LAYER if top is not None and self.since.get(key) == mark_of(top) else Tracking.NONE

    def change_id(self, key: str) -> ChangeId | None:
        """The mark that this run sets."""
        return mark_of(self.begun[key]) if key in self.begun else None

    def resting_mark(self, key: str) -> ChangeId | None:
        """The mark of a machine that is off: its overlay holds, and goes on to hold, all that changes from now on."""
        return mark_of(self.tops[key]) if key in self.tops else None


Chains = Mapping[str, tuple[Sequence[str], Location | None]]
"""Disk -> its rolling overlays, top first, and their base."""


def mark_of(path: str) -> ChangeId:
    """The change id that an overlay stands for: its name."""
    return path.rpartition("/")[2]


def look(machine: DomainXml, request: SnapshotRequest, owned: Ownership) -> RollingPlan:
    """What the machine's chains tell, before anything is made. Pure."""
    plan = RollingPlan(since=request.since)
    for key in request.disks:
        disk, mark = machine.disk(key), request.since.get(key, "")
        overlays = _resting(disk, owned) if disk is not None else None
        if overlays:
            plan.tops[key] = overlays[0]
        if is_rolling(mark) and plan.tracking(key) is Tracking.NONE:
            runs_on = mark_of(overlays[0]) if overlays else "no overlay that tells it"
            plan.reasons.append(Reason(ReasonCode.TRACKING_LOST, f"{key}: changed since {mark}, but runs on {runs_on}"))
    return plan


def begin(plan: RollingPlan, place: Domain, machine: DomainXml, request: SnapshotRequest) -> None:
    """Choose the overlays that stay on after this run: one for each raw disk with nothing in its chain but ours."""
    if not place.persistent():
        plan.reasons.append(Reason(ReasonCode.NO_TRACKING, "no rolling overlay: the machine is transient"))
        return
    for key in request.disks:
        disk = machine.disk(key)
        if disk is None or disk.layers(0)[-1:] == () or disk.layers(0)[-1].format is not Format.RAW:
            continue
        if _resting(disk, place.host.owned) is None:
            why = f"{key}: no rolling overlay: somebody else's image lies in its chain"
            plan.reasons.append(Reason(ReasonCode.NO_TRACKING, why))
        else:
            plan.begun[key] = new_rolling_path(place.host.settings, request.run, key)


def growth(plan: RollingPlan, place: Domain, sizes: Mapping[str, int]) -> int:
    """Bytes that rolling overlays may take until the next backup, at worst: each of this run's a whole disk, and what
    those in the directory have not taken yet. What is frozen now counts, too: should the run fail, the new one is merged
    down into it while both are there. A run that begins none must leave the others their room as well."""
    directory = Directory(place.host, place.host.settings.overlay_directory)
    return directory.growth(is_rolling) + sum(sizes.get(key, 0) for key in plan.begun)


def unseen(plan: RollingPlan, hosts: Hosts) -> list[Reason]:
    """Hosts whose own overlay directory does not have this run's overlays: the machine cannot migrate there. Of a silent
    host nobody knows, and so it is told."""
    if not plan.begun:
        return []
    directory, _, name = next(iter(plan.begun.values())).rpartition("/")

    def sees(host: Host) -> bool:
        own = Directory(host, host.settings.overlay_directory)
        try:
            return own.path == directory and name in own.names()
        except Refused:
            return False

    answers, silent = hosts.ask(sees)
    blind = sorted(host for host, seen in answers.items() if not seen)
    why = [f"the machine cannot migrate live to {', '.join(blind)}"] if blind else []
    why += [f"not asked, being silent: {', '.join(sorted(silent))}"] if silent else []
    return [Reason(ReasonCode.OVERLAY_NOT_SHARED, "; ".join(why))] if why else []


class Ending(Protocol):
    """How a run ends: which of the machine's overlays are merged. ``stays``: rolling overlays may stay on."""

    def __call__(self, run: RunId, *, stays: bool) -> Which: ...


def failed(run: RunId, *, stays: bool) -> Which:
    """The run's own overlays go down into what was there before it."""
    return lambda found: [each for each in found if each.run == run]


def unrecorded(run: RunId, *, stays: bool) -> Which:
    """Overlays of a run of which nothing is known go down, but for one at rest that is to stay on."""
    return lambda found: [each for each in found if each.run == run and not (each.rolling and stays)]


def sealed(run: RunId, *, stays: bool) -> Which:
    """What lies below the run's overlays is in a restore point and goes down into the base; so do they unless they are to
    stay on."""

    def which(found: Sequence[Found]) -> list[Found]:
        passed: set[str] = set()  # disks on which the run's overlay lies above what comes now
        out = []
        for each in found:
            if each.run == run:
                passed.add(each.key)
            if (each.run == run and not (each.rolling and stays)) or (
                each.rolling and each.run != run and each.key in passed
            ):
                out.append(each)
        return out

    return which


def align(known: Sequence[Domain]) -> bool:
    """Let every definition of the machine name the overlays that it runs on; whether one had to be mended.

    ``known``: the machine where it is now, then where else it is defined. What runs is the truth: a start from a definition
    that leaves an overlay out would show old bytes and change them beneath it. Only what has the same base is mended.
    """
    mended = False
    if not known or known[0].state().power not in (PowerState.RUNNING, PowerState.PAUSED):
        return mended
    for _ in range(ALIGNMENTS):
        chains = rolling_chains(domain(known[0].xml()), known[0].host.owned)
        wrong = [(place, text) for place in known if (text := _misaligned(place, chains)) is not None]
        if not wrong:
            break
        for place, text in wrong:
            place.host.define(text)
        mended = True
    return mended


def _resting(disk: DiskXml | None, owned: Ownership) -> list[str] | None:
    """Rolling overlays of the disk, top first; ``None`` unless there is nothing but those and one raw image below."""
    if disk is None or not disk.chain or disk.excluded is not None:
        return None
    *upper, base = disk.chain
    paths = [_rolling_path(link, owned) for link in upper]
    raw = base.layer is not None and base.layer.format is Format.RAW
    return [path for path in paths if path] if raw and all(paths) else None


def _rolling_path(link: ChainLink, owned: Ownership) -> str | None:
    return link.path if link.path and isinstance(link.location, FileAddress) and owned.rolls(link.path) else None


def rolling_chains(machine: DomainXml, owned: Ownership) -> Chains:
    """Those of a machine as it runs. Pure."""
    out = {}
    for disk in machine.disks:
        if paths := _resting(disk, owned):
            out[disk.key] = paths, disk.chain[-1].location
    return out


def _misaligned(place: Domain, chains: Chains) -> str | None:
    if not chains or not place.persistent():
        return None
    return aligned(place.xml(inactive=True, secrets=True), chains, place.host.owned)


def aligned(text: str, chains: Chains, owned: Ownership) -> str | None:
    """A definition with these chains, ``None`` when it has them already or means other disks. Pure."""
    machine, mended = domain(text), False
    for key, (paths, base) in chains.items():
        disk = machine.disk(key)
        have = _resting(disk, owned)
        if disk is None or have is None or have == list(paths) or not _same(disk.chain[-1].location, base):
            continue
        text, mended = define.without_overlays(text, have.__contains__), True
        for path in reversed(paths):
            text = define.with_overlay(text, key, path)
    return text if mended else None


def _same(one: Location | None, other: Location | None) -> bool:
    """Whether two definitions mean the same base. Hosts may reach one target through different portals."""
    if isinstance(one, LunAddress) and isinstance(other, LunAddress):
        return (one.target, one.lun) == (other.target, other.lun)
    return one is not None and one == other
