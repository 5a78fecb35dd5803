"""Why a restore point is as big as it is: which files, directories and other things its changed chunks are due to."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from appliance.auditing import audit
from appliance.wiring import Services
from mounter.index.attribution import Cause, Place, by_index, causes
from mounter.layout.owners import Part
from mounter.ports import FileType, Volume
from mounter.tsk.image import Disk
from mounter.tsk.partitions import Partition, device_name, table_of
from mounter.tsk.recognise import recognise
from proxy.errors import FastPathRefused, LanfreeError
from proxy.extents import Extent, Kind, total
from proxy.model import ImageInfo, RestorePoint, RestorePointId
from proxy.ports import ImageReader
from proxy.repository.compare import differing
from proxy.units import GiB

# Two images of so much are read and compared block by block in some minutes. Beyond it a changed chunk counts by all that
# lies in it: less exact, but only file system tables are read.
COMPARED = 16 * GiB


@dataclass(frozen=True, slots=True)
class WhyBig:
    """``changed``: bytes of all chunks that are not as in ``base`` (``None``: there is none, all data counts); the
    ``causes`` add up to it. ``exact``: changed blocks within the chunks were told apart. ``notes``: what limits the answer."""

    point: RestorePointId
    base: RestorePointId | None
    changed: int
    exact: bool
    causes: tuple[Cause, ...]
    notes: tuple[str, ...] = ()

    def part(self, part: Part) -> int:
        """Bytes of one kind."""
        return sum(cause.bytes for cause in self.causes if cause.part is part)


def why_big(
    services: Services, name: RestorePointId, *, compare: bool = True, compared: int = COMPARED, who: str | None = None
) -> WhyBig:
    """``compare``: tell changed blocks apart within chunks, which reads them, of images in which no more than ``compared``
    bytes changed. ``who``: see ``audit``. Raises ``RestorePointNotFound``, ``IntegrityError``, ``AuditFailed``."""
    point = services.repository.point(name)
    audit(services, "browse", point, who=who, why_big=True)
    base = _before(services, point)
    guest = _mountpoints(services, point)
    notes: list[str] = []
    found: list[Cause] = []
    changed = 0
    exact = compare and base is not None
    with services.repository.reading(f"restore point {point.id}"):
        for number, image in enumerate(point.images):
            with ExitStack() as opened:
                now = opened.enter_context(services.repository.open_image(point, image.key))
                old = _image_before(services, base, image, opened)
                extents = _changed(old, now)
                size = total(extents)
                changed += size
                exact = exact and size <= compared
                places = list(_places(now, number, guest, notes))
                found += causes(device_name(number), old if exact else None, now, extents, places)
    found = list(_by_catalog(services, base, point, found, notes))
    found.sort(key=lambda cause: (-cause.bytes, cause.path))
    return WhyBig(point.id, base.id if base else None, changed, exact, tuple(found), tuple(dict.fromkeys(notes)))


def _before(services: Services, point: RestorePoint) -> RestorePoint | None:
    """The restore point that this one was made on top of, or the machine's last one before it."""
    older = [p for p in services.repository.points(point.machine) if p.created_at < point.created_at]
    return next((p for p in older if p.id == point.parent), older[-1] if older else None)


def _image_before(
    services: Services, base: RestorePoint | None, image: ImageInfo, opened: ExitStack
) -> ImageReader | None:
    if base is None or base.image(image.key) is None:
        return None
    return opened.enter_context(services.repository.open_image(base, image.key))


def _changed(old: ImageReader | None, now: ImageReader) -> Sequence[Extent]:
    return differing(old, now) if old is not None else [e for e in now.extents() if e.kind is Kind.DATA]


def _places(now: ImageReader, number: int, guest: dict[str, str | None], notes: list[str]) -> Iterator[Place]:
    """What the disk is divided into. The image stays open for who opened it."""
    disk = Disk(now)
    device = device_name(number)
    try:
        partitions: Sequence[Partition] = table_of(disk, device).partitions
    except LanfreeError as error:
        notes.append(f"{device} is told as a whole: {error.message}")
        return
    for partition in partitions:
        name, region = partition.device, partition.region
        kind, why = _kind(partition)
        if why:
            notes.append(f"{name}: {why}")
        volume = Volume(name, name, kind, "", "", region.size, guest.get(name))
        yield Place(region.offset, volume, region)


def _kind(partition: Partition) -> tuple[str, str]:
    """Type of what a partition holds, as blkid names it, and what is to be said of it."""
    try:
        return recognise(partition.region).type, ""
    except FastPathRefused as refused:
        return refused.reason, f"{refused.reason}: its blocks cannot be told apart"
    except LanfreeError as error:
        return "", error.message


def _mountpoints(services: Services, point: RestorePoint) -> dict[str, str | None]:
    """Device -> where the guest mounts it, as far as the catalog knows."""
    try:
        with services.catalog.transaction(write=False) as unit:
            return {v.device: v.mountpoint for v in unit.files.volumes(point.id)}
    except LanfreeError:
        return {}


def _by_catalog(
    services: Services, base: RestorePoint | None, point: RestorePoint, found: Sequence[Cause], notes: list[str]
) -> Iterator[Cause]:
    """Where blocks tell nothing (XFS, btrfs, LVM, …), the difference of the file index does, for volumes that no block map
    was read of."""
    mapped = {cause.device for cause in found if cause.part not in (Part.OTHER, Part.UNPARTITIONED)}
    unknown = [c for c in found if c.part is Part.OTHER and c.device not in mapped]
    yield from (c for c in found if c not in unknown)
    if not unknown:
        return
    whole = Cause(Part.OTHER, b"", unknown[0].device, sum(c.bytes for c in unknown))
    whole = replace(whole, device=", ".join(dict.fromkeys(c.device for c in unknown)))
    changes = _index_difference(services, base, point, mapped)
    if changes is None:
        notes.append(f"{whole.device}: not told, since the files of both restore points are not recorded")
        yield from unknown
        return
    notes.append(f"{whole.device}: told by the difference of the recorded files, not by their blocks")
    yield from by_index(whole, changes)


def _index_difference(
    services: Services, base: RestorePoint | None, point: RestorePoint, mapped: set[str]
) -> list[tuple[bytes, int]] | None:
    """Path and size of files that are new or written, on volumes without a block map; ``None`` when that is not known."""
    if base is None:
        return None
    try:
        with services.catalog.transaction(write=False) as unit:
            wanted = {v.id for v in unit.files.volumes(point.id) if v.device not in mapped}
            return [
                (change.after.path, change.after.size)
                for change in unit.files.changes.between(base.id, point.id)
                if change.after is not None
                and change.after.type == FileType.FILE
                and change.after.volume in wanted
                and (change.before is None or {"size", "mtime_ns"} & set(change.facts))
            ]
    except LanfreeError:
        return None
