"""The file index of one restore point: what is known from the one before it is taken over, the rest is listed again.

::

    memory of the last run ──┐
    images: base and now ────┴─> IncrementalWalk ──> Catalog.index(carry) ──> memory for the next run
    mount session ──────────────────┘
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from appliance.wiring import Services
from mounter.index import memory as index_memory
from mounter.index.incremental import IncrementalWalk, Raw, VolumeMemory
from mounter.index.memory import Memory
from mounter.layout.model import Changes, Doubt
from mounter.ports import Volume, VolumeState
from mounter.session import MountSession
from mounter.tsk.image import Disk
from mounter.tsk.partitions import device_name, table_of
from mounter.volumes import network as network_volumes
from mounter.volumes.network import NetworkVolume
from mounter.walk import FileRecord
from proxy.errors import Cancelled, CarryRefused, LanfreeError, MountEnded
from proxy.extents import Extent
from proxy.model import Consistency, ImageInfo, Reason, ReasonCode, RestorePoint, RestorePointId
from proxy.repository.compare import differing

if TYPE_CHECKING:
    from catalog.carry import Carry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IndexReport:
    """How an index run went. ``entries``: files that were listed; all others are as in the restore point before.

    ``problems``: volumes that could not be read, with the reason. ``reasons``: for each volume how much of it was listed and
    why; and whether what was quiesced turns out dirty. ``metadata_read``: bytes read of volumes with a known layout, of
    ``metadata_total`` that listing all of them takes. ``not_protected``: storage that the guest has over its network.
    """

    point: RestorePointId
    entries: int
    problems: tuple[str, ...]
    reasons: tuple[Reason, ...] = ()
    metadata_read: int = 0
    metadata_total: int = 0
    not_protected: tuple[NetworkVolume, ...] = ()


def index(services: Services, name: RestorePointId) -> IndexReport:
    """Record a restore point's files in the catalog. Raises ``MountFailed``, ``RestorePointNotFound``, ``CatalogFailed``."""
    point = services.repository.point(name)
    with services.catalog.transaction() as unit:
        unit.restore_points.add(point)
    try:
        return _recorded(services, point, direct=True)
    except _DirectReaderFailed:
        # The appliance's kernel is more patient with damage, and a volume that ends our reader must not go unlisted.
        return _recorded(services, point, direct=False)


class _DirectReaderFailed(Exception):  # see the error tree
    """It opened the disks and ended in the middle: a volume is damaged, or more than it can take."""


def _recorded(services: Services, point: RestorePoint, *, direct: bool) -> IndexReport:
    with services.mount(point, direct=direct) as session:
        try:
            return _listed(services, point, session)
        except MountEnded as error:
            by = session.opened_by
            if direct and by is not None and by.code is ReasonCode.FILES_READ_DIRECTLY and not session.expired:
                raise _DirectReaderFailed from error
            raise


def _listed(services: Services, point: RestorePoint, session: MountSession) -> IndexReport:
    network = network_volumes.find(session)
    base = _base(services, point)
    try:
        return _indexed(services, point, session, network, base)
    except CarryRefused:
        # Somebody indexed another point meanwhile, or a volume is not what the catalog has: nothing is taken over.
        return _indexed(services, point, session, network, Doubt.REFUSED)


@dataclass(frozen=True, slots=True)
class _Base:
    """The newest indexed restore point, and what is remembered of it."""

    point: RestorePoint
    volumes: Mapping[str, VolumeMemory]


def _indexed(
    services: Services,
    point: RestorePoint,
    session: MountSession,
    network: Sequence[NetworkVolume],
    base: "_Base | Doubt",
) -> IndexReport:
    reasons = [session.opened_by] if session.opened_by is not None else []
    with _raw(services, point, None if isinstance(base, Doubt) else base.point) as raw:
        walk = IncrementalWalk(session, raw, base if isinstance(base, Doubt) else base.volumes)

        def batches() -> Iterator[Sequence[FileRecord]]:
            yield from _until_cancelled(services, point, walk)
            reasons.extend(walk.reasons)
            reasons.extend(_dirty(point, walk.volumes))

        carry = _carry(base, walk)
        entries = services.catalog.index(
            point.id, batches(), walk.volumes, carry=carry, network=network, reasons=reasons
        )  # fmt: skip
    problems = [f"{v.device} ({v.type}): {v.problem}" for v in walk.volumes if v.problem]
    problems += _remember(services, point, walk.memory)
    read = walk.bytes_read, walk.bytes_full
    return IndexReport(point.id, entries, tuple(problems), tuple(reasons), *read, tuple(network))


def _carry(base: _Base | Doubt, walk: IncrementalWalk) -> "Carry | None":
    from catalog.carry import Carry  # noqa: PLC0415  # see Services.catalog

    if isinstance(base, Doubt) or not walk.carried:
        return None
    return Carry(base.point.id, walk.carried, lambda: walk.gone)


def _base(services: Services, point: RestorePoint) -> _Base | Doubt:
    """What files can be taken over from: the catalog's newest point, if this machine's memory is of exactly that."""
    with services.catalog.transaction(write=False) as unit:
        newest = unit.files.newest_indexed(point.machine)
    if newest is None or newest == point.id:
        return Doubt.NO_MEMORY
    memory = index_memory.load(_place(services, point))
    if memory is None or memory.point != newest:
        return Doubt.NO_MEMORY
    try:
        base = services.repository.point(newest)
    except LanfreeError:  # deleted, or its manifest cannot be read
        return Doubt.NO_MEMORY
    if base.created_at >= point.created_at or memory.images != _digests(base):
        return Doubt.NO_MEMORY
    return _Base(base, memory.volumes)


def _remember(services: Services, point: RestorePoint, volumes: dict[str, VolumeMemory]) -> list[str]:
    """For the next run. Returns what went wrong: the index is good without."""
    path = _place(services, point)
    if not volumes:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return []
    try:
        index_memory.save(path, Memory(point.id, _digests(point), volumes))
    except (OSError, OverflowError) as error:
        return [f"the next index run lists everything: what this one learned could not be kept ({error})"]
    return []


def _place(services: Services, point: RestorePoint) -> Path:
    return services.settings.state.directory / "index-maps" / f"{quote(point.machine, safe='')}.zst"


def _digests(point: RestorePoint) -> dict[str, str]:
    return {image.key: image.digest for image in point.images}


@contextmanager
def _raw(services: Services, point: RestorePoint, base: RestorePoint | None) -> Iterator[dict[str, Raw]]:
    """Every volume that lies in one partition, or in a disk without any, by the device name that sessions give it."""
    with ExitStack() as opened:
        found: dict[str, Raw] = {}
        for number, image in enumerate(point.images):
            changed = _changed(services, point, base, image)
            # Without reading ahead: what changed lies here and there, and the image keeps whole chunks by itself.
            disk = opened.enter_context(Disk(services.repository.open_image(point, image.key), ahead=1))
            try:
                table = table_of(disk, device_name(number))
            except LanfreeError:
                continue  # such a disk is the appliance's business alone
            for partition in table.partitions:
                region = partition.region
                changes = None if changed is None else Changes.of(changed, region.offset, region.size)
                place = f"{image.key}:{region.offset}+{region.size}"
                found[partition.device] = Raw(region, place, _counter(disk), changes)
        yield found


def _counter(disk: Disk) -> Callable[[], int]:
    return lambda: disk.bytes_read


def _changed(
    services: Services, point: RestorePoint, base: RestorePoint | None, image: ImageInfo
) -> Sequence[Extent] | None:
    """What may differ in a disk since the base point, ``None`` where that has no such disk."""
    before = base.image(image.key) if base is not None else None
    if base is None or before is None or before.size != image.size:
        return None
    if before.index == image.index:
        return ()
    with ExitStack() as held:
        try:
            old = held.enter_context(services.repository.open_image(base, image.key))
        except LanfreeError:  # damaged, or deleted by now: the new point is none the worse, it is listed as a whole
            return None
        return differing(old, held.enter_context(services.repository.open_image(point, image.key)))


def _dirty(point: RestorePoint, volumes: Iterable[Volume]) -> Iterator[Reason]:
    """What the image says against a consistency that was claimed."""
    if point.consistency is Consistency.CRASH:
        return
    for v in volumes:
        if v.state is VolumeState.DIRTY:
            where = f"{v.device} ({v.mountpoint})" if v.mountpoint else v.device
            yield Reason(ReasonCode.QUIESCED_BUT_DIRTY, f"{where}: {v.state_detail}")


def _until_cancelled(services: Services, point: RestorePoint, batches: Iterable[T]) -> Iterator[T]:
    for batch in batches:
        if services.cancelled.is_set():
            raise Cancelled(f"indexing {point.id}")
        yield batch
