"""One disk of a backup: through which transport, what of it is read and why, and what the audit of that finds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

from proxy import change_audit
from proxy.backup_plan import LAN, BackupPorts, BackupRequest, Plan
from proxy.errors import ChangesUnknown, RunFailed, TransportError, TransportRefused
from proxy.extents import Extent, Kind, aligned, intersect, normal, subtract, total
from proxy.model import (
    ChangeId,
    FrozenDisk,
    ImageInfo,
    Level,
    Reason,
    ReasonCode,
    Snapshot,
    Tracking,
)
from proxy.ports import BlockSource, Hypervisor, ImageRepository, ImageWriter, Transport
from proxy.stages import StageTimes
from proxy.transfer import Pace, Sink, copy

_LOST = frozenset(
    {
        ReasonCode.TRACKING_LOST,
        ReasonCode.TRACKING_INCONSISTENT,
        ReasonCode.TRACKING_NOT_READABLE,
        ReasonCode.NO_TRACKING,
    }
)


@dataclass(frozen=True, slots=True)
class CopiedDisk:
    """A sealed image, and where the time went. ``over_host``: bytes that a hypervisor's host sent (LAN), all that was read
    for the audit of the change tracking among them."""

    image: ImageInfo
    stages: StageTimes
    over_host: int = 0


def copy_disk(
    ports: BackupPorts, request: BackupRequest, plan: Plan, snapshot: Snapshot, disk: FrozenDisk
) -> CopiedDisk:
    """Read it into an image, and seal that. Raises ``TransportError``, and what the repository raises."""
    with ports.interlock.reading(request.machine), _opened(_usable(ports.transports, plan), disk) as (source, chosen):
        parent = plan.parent.image(disk.key) if plan.parent else None
        choice = _what_to_read(ports.hypervisor, snapshot, disk, source, parent, full=request.full)
        if ports.tracking_required and choice.reason.code in _LOST:
            raise RunFailed(
                f"the change tracking of {snapshot.machine_name} was lost ({choice.reason.code.value}: {choice.reason.detail})",
                hint="'lanfree backup --full' reads everything once; or set backup.tracking_lost to 'continue'",
            )
        writer, choice = _image_writer(ports.repository, disk, source.size, parent, choice)
        with writer:
            copied = _copy_choice(_Work(ports, disk, source, writer, _pace(ports, plan, disk)), plan, choice)
            image, stages = _sealed(writer, copied.stages)
        image = replace(
            image,
            transport=chosen.mode,
            source=source.identity,
            bytes_read=copied.bytes_read,
            change_id=disk.change_id,
            level=copied.level,
            reasons=(*copied.reasons, *chosen.reasons),
        )
        return CopiedDisk(image, stages, copied.bytes_taken if chosen.mode == LAN else 0)


def _pace(ports: BackupPorts, plan: Plan, disk: FrozenDisk) -> Pace | None:
    known = next((each for each in plan.disks if each.key == disk.key), None)
    return ports.pace(plan.machine, known) if ports.pace is not None and known is not None else None


def _sealed(writer: ImageWriter, stages: StageTimes) -> tuple[ImageInfo, StageTimes]:
    """Seal, and add what that took."""
    begin, waited = perf_counter(), writer.store_seconds
    image = writer.seal()
    seconds, store = perf_counter() - begin, writer.store_seconds - waited
    return image, stages + StageTimes(seconds=seconds, proxy=max(0.0, seconds - store), repository=store)


@dataclass(frozen=True, slots=True)
class _Choice:
    """``extents``: changed areas, or ``None`` for the whole disk; and why."""

    extents: Sequence[Extent] | None
    level: Level
    reason: Reason


@dataclass(frozen=True, slots=True)
class _Work:
    """A disk that is being copied: from where, and into which image."""

    ports: BackupPorts
    disk: FrozenDisk
    source: BlockSource
    writer: ImageWriter
    pace: Pace | None = None

    def bring(self, extents: Sequence[Extent], sink: Sink | None = None) -> tuple[int, StageTimes]:
        """Bytes that were read, and where the time went."""
        waited = self.writer.store_seconds
        copied = copy(
            self.source,
            sink or self.writer,
            extents,
            disk=self.disk.key,
            workers=self.ports.workers,
            segment=self.ports.segment,
            granularity=self.writer.granularity,
            progress=self.ports.progress,
            cancelled=self.ports.cancelled,
            pace=self.pace,
        )
        return copied.bytes_read, StageTimes.of(copied, store=self.writer.store_seconds - waited)


@dataclass(frozen=True, slots=True)
class _Copied:
    """``bytes_read``: without what was read only to audit the change tracking; ``bytes_taken``: with it."""

    bytes_read: int
    bytes_taken: int
    stages: StageTimes
    level: Level
    reasons: tuple[Reason, ...]


def _copy_choice(work: _Work, plan: Plan, choice: _Choice) -> _Copied:
    """Read what was chosen, and of what is said to be unchanged a sample: if that lies, the rest of the disk too."""
    repository, key, granularity = work.ports.repository, work.disk.key, work.writer.granularity
    everything = aligned(work.source.extents(), granularity, work.source.size)
    if choice.extents is None or plan.parent is None:
        read, stages = work.bring(everything)
        return _Copied(read, read, stages, choice.level, (choice.reason,))
    # A chunk that changed in one byte is read whole.
    changed = intersect(everything, aligned(choice.extents, granularity, work.source.size))
    unchanged = [each for each in subtract(everything, changed) if each.kind is Kind.DATA]
    sample = change_audit.choose(unchanged, granularity, work.ports.audit_sample)
    if not sample.chunks:
        read, stages = work.bring(changed)
        return _Copied(read, read, stages, choice.level, (choice.reason,))
    extents = normal([*changed, *sample.extents])
    with repository.open_image(plan.parent, key) as parent:
        sink = change_audit.AuditedSink(work.writer, parent, sample)
        read, stages = work.bring(extents, sink)
    if not sink.wrong:
        passed = change_audit.passed(key, sample)
        return _Copied(read - total(sample.extents), read, stages, choice.level, (choice.reason, passed))
    why = change_audit.failed(key, sample, sink.wrong)
    rest, more = work.bring(subtract(everything, extents))
    return _Copied(read + rest, read + rest, stages + more, Level.FULL, (why,))


def _what_to_read(
    hypervisor: Hypervisor,
    snapshot: Snapshot,
    disk: FrozenDisk,
    source: BlockSource,
    parent: ImageInfo | None,
    *,
    full: bool,
) -> _Choice:
    """Full or incremental, with the reason. Whenever in doubt everything is read: then only what differs is stored."""
    try:
        since = _mark_to_start_from(disk, source, parent, full=full)
        if disk.tracking is Tracking.HYPERVISOR:
            changed = hypervisor.changed(snapshot, disk, since)
        else:
            changed = source.changed(since)
    except ChangesUnknown as error:
        return _Choice(None, Level.FULL, _reason(disk, error))
    return _Choice(changed, Level.INCREMENTAL, Reason(_CHANGES_FROM[disk.tracking], disk.key))


def _mark_to_start_from(disk: FrozenDisk, source: BlockSource, parent: ImageInfo | None, *, full: bool) -> ChangeId:
    """The parent's change id, if it can be built on. Raises ``ChangesUnknown`` with the reason to read everything."""
    if parent is None:
        raise ChangesUnknown(disk.key, ReasonCode.FIRST_BACKUP)
    if full:
        raise ChangesUnknown(disk.key, ReasonCode.FULL_REQUESTED)
    if parent.size != source.size:
        raise ChangesUnknown(disk.key, ReasonCode.DISK_RESIZED, f"was {parent.size} bytes, is {source.size}")
    if parent.source != source.identity:
        raise ChangesUnknown(disk.key, ReasonCode.DISK_MOVED, f"was on {parent.source}, is on {source.identity}")
    if disk.tracking is Tracking.NONE:  # had the parent set a mark, the snapshot's reasons say what became of it
        raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST if parent.change_id else ReasonCode.NO_TRACKING)
    if parent.change_id is None:
        raise ChangesUnknown(disk.key, ReasonCode.TRACKING_LOST, "the last restore point set no mark")
    return parent.change_id


def _image_writer(
    repository: ImageRepository, disk: FrozenDisk, size: int, parent: ImageInfo | None, choice: _Choice
) -> tuple[ImageWriter, _Choice]:
    """A writer on top of the parent's image; without it, and reading everything, when the parent cannot be built on."""
    if parent is not None and parent.size == size:
        try:
            return repository.image_writer(disk.key, size, parent), choice
        except ChangesUnknown as error:
            choice = _Choice(None, Level.FULL, _reason(disk, error))
    return repository.image_writer(disk.key, size, None), choice


def _reason(disk: FrozenDisk, error: ChangesUnknown) -> Reason:
    return Reason(ReasonCode(error.reason), f"{disk.key}: {error.detail}" if error.detail else disk.key)


_CHANGES_FROM = {
    Tracking.IMAGE: ReasonCode.CHANGES_FROM_BITMAP,
    Tracking.LAYER: ReasonCode.CHANGES_FROM_OVERLAY,
    Tracking.HYPERVISOR: ReasonCode.CHANGES_FROM_HYPERVISOR,
}


@dataclass(frozen=True, slots=True)
class _Chosen:
    mode: str
    reasons: tuple[Reason, ...]


def _usable(transports: Sequence[Transport], plan: Plan) -> Sequence[Transport]:
    """All in their order; once the hypervisor itself has to hand the machine out, its LAN alone: what broke is not tried again
    where the frozen disk would allow it."""
    return [transport for transport in transports if transport.mode == LAN] if plan.pull else transports


@contextmanager
def _opened(transports: Sequence[Transport], disk: FrozenDisk) -> Iterator[tuple[BlockSource, _Chosen]]:
    """The first transport that can, with the refusals of those before it as the reason."""
    refusals: list[str] = []
    for transport in transports:
        try:
            source = transport.open(disk)
        except TransportError as error:
            refusals.append(str(error))
            continue
        code = ReasonCode.TRANSPORT_FALLBACK if refusals else ReasonCode.TRANSPORT_PREFERRED
        with source:
            yield source, _Chosen(transport.mode, (Reason(code, "; ".join(refusals) or transport.mode),))
        return
    raise TransportRefused("any", disk.key, "no transport left", "; ".join(refusals))
