"""Change tracking of qcow2 disks: libvirt checkpoints, which are persistent dirty bitmaps in the images.

A run's checkpoint is made *before* its snapshot: what it records is then a superset of what is written after the
snapshot, whatever happens between the two. All bitmaps go on recording, so the bitmap named ``since`` tells everything
that changed from its own beginning until now; when the image is reopened read-only below the overlay it is written into
the image, where the proxy reads it.

A bitmap is used only when libvirt found it sound in the live images at this very snapshot. What is broken (emulator
killed) is removed, what libvirt forgot (migration does not carry checkpoints) is told to it again. Nothing here fails a
snapshot: without tracking everything is read, and only what differs is stored.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from proxy.hypervisor.kvm.answers import Refusal, Refused
from proxy.hypervisor.kvm.connection import Domain
from proxy.hypervisor.kvm.inventory import DiskXml, DomainXml
from proxy.model import ChangeId, Format, Reason, ReasonCode, RunId, SnapshotRequest, Tracking

PREFIX = "lanfree-"

# Runs that died left a checkpoint each; nobody knows whether they sealed. More than this many cost memory and write
# speed in the guest, so the sweep drops those in the middle: the oldest is surely sealed, the newest may be.
KEEP = 4


@dataclass(slots=True)
class TrackingPlan:
    """``keys``: disks that can be tracked; ``sound``: those whose old bitmap tells all changes since its mark.

    ``started``: this run's checkpoint exists. ``reasons``: what was wrong or mended.
    """

    run: RunId
    keys: list[str] = field(default_factory=list)
    sound: dict[str, ChangeId] = field(default_factory=dict)
    first: set[str] = field(default_factory=set)
    started: bool = False
    reasons: list[Reason] = field(default_factory=list)

    def tracking(self, key: str) -> Tracking:
        """Whether the frozen image can be asked what changed."""
        return Tracking.IMAGE if self.started and (key in self.sound or key in self.first) else Tracking.NONE

    def change_id(self, key: str) -> ChangeId | None:
        """The mark that this run sets."""
        return name_of(self.run) if self.started and key in self.keys else None


def name_of(run: RunId) -> ChangeId:
    """The run's checkpoint."""
    return f"{PREFIX}{run}"


def trackable(disk: DiskXml) -> bool:
    """Bitmaps need qcow2. With a foreign overlay above its base, the changes lie in two images: not read by us."""
    return len(disk.chain) == 1 and disk.layers(0) != () and disk.layers(0)[0].format is Format.QCOW2


def prove(place: Domain, machine: DomainXml, request: SnapshotRequest) -> TrackingPlan:
    """Which disks can be tracked, and which old bitmaps hold. Mends what it can; raises nothing of libvirt's."""
    plan = TrackingPlan(request.run)
    plan.keys = [d.key for d in machine.disks if d.key in request.disks and trackable(d)]
    since = {key: mark for key, mark in request.since.items() if key in plan.keys}
    plan.first = set(plan.keys) - set(since)
    if not plan.keys:
        return plan
    try:
        sound = _proven(place, since, plan)
    except Refused as error:
        plan.reasons.append(Reason(ReasonCode.TRACKING_LOST, error.why))
        return plan
    plan.sound = {key: mark for key, mark in since.items() if mark in sound}
    return plan


def begin(place: Domain, machine: DomainXml, plan: TrackingPlan) -> None:
    """Start this run's bitmaps. Raises nothing of libvirt's: without them the next backup reads everything."""
    name = name_of(plan.run)
    if not plan.keys:
        return
    try:
        if name not in place.checkpoints():
            place.create_checkpoint(checkpoint_xml(name, plan.keys, machine.targets))
        plan.started = True
    except Refused as error:
        plan.reasons.append(Reason(ReasonCode.NO_TRACKING, f"no checkpoint: {error.why}"))


def checkpoint_xml(name: str, tracked: Collection[str], keys: Sequence[str], *, known: bool = False) -> str:
    """``<domaincheckpoint>`` with bitmaps on the tracked disks. ``known``: to redefine bitmaps that are in the images."""
    parts = []
    for key in keys:
        if key in tracked:
            bitmap = f" bitmap={quoteattr(name)}" if known else ""
            parts.append(f"<disk name={quoteattr(key)} checkpoint='bitmap'{bitmap}/>")
        elif not known:
            parts.append(f"<disk name={quoteattr(key)} checkpoint='no'/>")
    # libvirt wants a time when it is told of an old checkpoint; it uses it for nothing.
    time = "<creationTime>1</creationTime>" if known else ""
    return f"<domaincheckpoint><name>{name}</name>{time}<disks>{''.join(parts)}</disks></domaincheckpoint>"


def retire(place: Domain, keep: ChangeId | None, drop: Collection[ChangeId] | None = None) -> list[Reason]:
    """Delete checkpoints of ours: those in ``drop``, or all but ``keep``. What could not be deleted is told, not raised."""
    reasons = []
    for name in _ours(place):
        if name == keep or (drop is not None and name not in drop):
            continue
        try:
            place.delete_checkpoint(name)
        except Refused as error:
            if error.refusal is not Refusal.NOT_RUNNING:  # a machine that is off keeps them until its next backup
                reasons.append(Reason(ReasonCode.TRACKING_INCONSISTENT, f"checkpoint {name} stays: {error.why}"))
    return reasons


def prune(place: Domain, idle: Callable[[], bool]) -> list[Reason]:
    """Drop checkpoints in the middle when dead runs left too many. ``idle``: whether no live run has the machine."""
    names = _ours(place)
    surplus = names[1 : len(names) - KEEP + 1] if len(names) > KEEP else []
    if not surplus or not idle():
        return []
    return [*retire(place, None, surplus), Reason(ReasonCode.LEFTOVER_REMOVED, f"{len(surplus)} checkpoints")]


def _ours(place: Domain) -> list[ChangeId]:
    """Our checkpoints that libvirt knows, oldest first as far as names tell (run ids sort by time)."""
    try:
        return sorted(name for name in place.checkpoints() if name.startswith(PREFIX))
    except Refused:
        return []


def _proven(place: Domain, since: Mapping[str, ChangeId], plan: TrackingPlan) -> set[ChangeId]:
    """Which of the marks in ``since`` are sound in the live images. Broken ones of ours are removed."""
    sound: set[ChangeId] = set()
    known = place.checkpoints()
    ours = {name: xml for name, xml in known.items() if name.startswith(PREFIX)}
    for name in sorted(set(since.values()) - set(known)):
        keys = [key for key, mark in since.items() if mark == name]
        if _redefined(place, checkpoint_xml(name, keys, keys, known=True)) is None:
            sound.add(name)
            plan.reasons.append(Reason(ReasonCode.TRACKING_REPAIRED, f"libvirt had forgotten checkpoint {name}"))
        else:
            plan.reasons.append(Reason(ReasonCode.TRACKING_LOST, f"no sound bitmap {name}"))
    for name, xml in sorted(ours.items()):
        why = _redefined(place, xml)
        if why is None:
            sound.add(name)
            continue
        if name in since.values():
            plan.reasons.append(Reason(ReasonCode.TRACKING_INCONSISTENT, why))
        _remove_broken(place, name)
        plan.reasons.append(Reason(ReasonCode.TRACKING_REPAIRED, f"broken checkpoint {name} removed"))
    return sound


def _redefined(place: Domain, xml: str) -> str | None:
    """Let libvirt look at a checkpoint's bitmaps; why they are not sound, or ``None``."""
    try:
        place.redefine_checkpoint(xml)
    except Refused as error:
        return error.why
    return None


def _remove_broken(place: Domain, name: ChangeId) -> None:
    try:
        place.delete_checkpoint(name)
    except Refused:
        with suppress(Refused):
            place.delete_checkpoint(name, metadata_only=True)
