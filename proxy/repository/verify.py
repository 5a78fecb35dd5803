"""Verification: reads every chunk of the restore points once, and names whatever is not as it was stored.

1. every manifest and every index is read and compared with its digest;
2. every pack that a point needs is read as a whole: digest of header and chunks, footer, and every chunk decompressed
   and compared with its id, two packs at a time;
3. every reference of every image is compared with what its pack really holds. A chunk that is damaged there and whole
   somewhere else, because a later backup brought it again, is no damage: readers find it by its id.

Damaged places are recorded in the repository (``damaged.py``): the next backup stores anew what the disk still has. Records
of packs that turn out to be right are dropped.

Step 3 makes a damaged chunk known by all the machines, restore points, disks and offsets that need it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache

from proxy.errors import FormatError, IntegrityError
from proxy.model import ImageInfo, RestorePoint, RestorePointId
from proxy.repository import format as layout
from proxy.repository import packs
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.format import PACK_TRAILER, Entry
from proxy.repository.index import IndexView
from proxy.repository.repository import Repository

# Two packs are in memory (64 MiB at the default size): two cores decompress, and one request is always under way.
WORKERS = 2

# Footers kept while references are compared: an image that grew over years alternates between packs of many runs.
_FOOTERS = 256


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong, and who needs it. ``offset`` and ``length`` in bytes of the disk, ``None`` when a whole image
    (``disk`` given) or a whole restore point is concerned. ``object``: the stored object; ``why``: what was seen."""

    machine: str
    machine_name: str
    point: RestorePointId
    disk: str | None
    offset: int | None
    length: int | None
    object: str
    why: str


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """Bytes of packs that were read, and that shall be."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _PackVerdict:
    """``why``: trouble of the pack as a whole; ``bad``: offset in the pack -> trouble of one chunk."""

    why: str = ""
    bad: dict[int, str] = field(default_factory=dict)
    missing: bool = False


def verify(
    repository: Repository,
    point: RestorePointId | None = None,
    *,
    progress: Callable[[VerifyProgress], None] | None = None,
) -> Iterator[Damage]:
    """All damage of one restore point, or of all. Closing the generator ends the work. Restore points that are deleted
    meanwhile are left out; those that are made meanwhile are not looked at. Other errors than damage are raised."""
    found, broken = _manifests(repository, point)
    yield from broken
    images: list[tuple[RestorePoint, ImageInfo]] = []
    needed: set[bytes] = set()
    for each in found:
        for image in each.images:
            try:
                with closing(repository.open_view("index", image)) as view:
                    needed.update(view.pack(number) for number in range(1, view.pack_count + 1))
            except IntegrityError as error:
                if _still_there(repository, each):
                    yield _damage(each, image.key, image.index, error.message.removeprefix("index: "))
                continue
            images.append((each, image))
    repository.lookup.damaged.refresh()
    verdicts = _check_packs(repository, sorted(needed), progress)
    copies = _Copies(repository)
    for each, image in images:
        yield from _check_image(repository, each, image, verdicts, copies)


def _manifests(repository: Repository, wanted: RestorePointId | None) -> tuple[list[RestorePoint], list[Damage]]:
    """The restore points to look at, and what is wrong with manifests. All are read: a damaged one is named by others."""
    found: list[RestorePoint] = []
    broken: list[tuple[str, str]] = []
    owners: dict[str, RestorePoint] = {}
    for name in repository.manifests():
        folder, _, last = name.rpartition("/")
        concerned = wanted is None or last.startswith(wanted)
        try:
            point = owners[folder] = repository.read_manifest(name)
        except FileNotFoundError:
            continue
        except (FormatError, IntegrityError) as error:
            if concerned:
                broken.append((name, error.message))
            continue
        if concerned:
            found.append(point)
    return found, [_of_manifest(name, why, owners.get(name.rpartition("/")[0])) for name, why in broken]


def _of_manifest(name: str, why: str, sibling: RestorePoint | None) -> Damage:
    """The manifest cannot say whose it is; another one of the same machine can."""
    machine = ("", "") if sibling is None else (sibling.machine, sibling.machine_name)
    return Damage(*machine, name.rpartition("/")[2], None, None, None, name, why)


def _still_there(repository: Repository, point: RestorePoint) -> bool:
    return any(name.endswith(f"/{point.id}") for name in repository.manifests(point.machine))


def _damage(point: RestorePoint, disk: str, name: str, why: str) -> Damage:
    return Damage(point.machine, point.machine_name, point.id, disk, None, None, name, why)


def _check_packs(
    repository: Repository, needed: Sequence[bytes], progress: Callable[[VerifyProgress], None] | None
) -> dict[bytes, _PackVerdict]:
    """Verdicts of the packs that are not wholly right."""
    sizes = {pack: _size(repository, pack) for pack in needed}
    total, done = sum(sizes.values()), 0
    verdicts: dict[bytes, _PackVerdict] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        ahead: list[tuple[bytes, Future[_PackVerdict]]] = []
        try:
            for pack in (*needed, *[None] * WORKERS):
                if pack is not None:
                    ahead.append((pack, pool.submit(_check_pack, repository, pack)))
                if ahead and (pack is None or len(ahead) > WORKERS):
                    name, future = ahead.pop(0)
                    verdict = future.result()
                    if verdict != _PackVerdict():
                        verdicts[name] = verdict
                    _record(repository.lookup.damaged, name, verdict)
                    done += sizes[name]
                    if progress is not None:
                        progress(VerifyProgress(done, total))
        finally:
            pool.shutdown(cancel_futures=True)
    return verdicts


def _record(damaged: DamagedPlaces, pack: bytes, verdict: _PackVerdict) -> None:
    if verdict.missing:
        return  # the lookup sees that by itself, and a pack that comes back is as good as before
    if verdict == _PackVerdict():
        damaged.forget(pack)
    elif verdict.why:
        damaged.add(pack, None, verdict.why)
    else:
        damaged.add_chunks(pack, verdict.bad)


def _size(repository: Repository, pack: bytes) -> int:
    try:
        return repository.store.size(layout.pack_name(pack))
    except FileNotFoundError:
        return 0


def _check_pack(repository: Repository, pack: bytes) -> _PackVerdict:
    name = layout.pack_name(pack)
    settings, chunker = repository.settings, repository.chunker
    try:
        data = memoryview(repository.store.get(name))
    except FileNotFoundError:
        return _PackVerdict(f"object {name} is missing", missing=True)
    except IntegrityError as error:
        return _PackVerdict(error.message)
    try:
        offset = packs.parse_trailer(name, data[-PACK_TRAILER.size :], len(data)).offset
        entries = packs.check_footer(pack, data[offset:], len(data), settings, chunker)
    except FormatError as error:
        return _PackVerdict(error.message)
    bad = {e.offset: why for e in entries if (why := _check_entry(repository, data, e))}
    if not bad:
        try:
            packs.check_frame(pack, data, settings, chunker)
        except FormatError as error:
            return _PackVerdict(error.message)
    return _PackVerdict(bad=bad)


def _check_entry(repository: Repository, pack: memoryview, entry: Entry) -> str:
    """What is wrong with a chunk, or nothing."""
    stored = pack[entry.offset : entry.offset + entry.stored]
    try:
        repository.chunker.restore(entry.id, entry.codec, stored, entry.raw)
    except FormatError as error:
        return error.message
    return ""


class _Copies:
    """Whether chunks that are damaged in one place are whole in a sound one. Packs are listed once, a chunk is read once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[bytes, bool] = {}

    def has(self, chunk: bytes, raw: int) -> bool:
        if not self._known:
            self._repository.lookup.refresh()
        if chunk not in self._known:
            self._known[chunk] = self._repository.lookup.recover(chunk, raw, distrusted=False) is not None
        return self._known[chunk]


def _check_image(
    repository: Repository,
    point: RestorePoint,
    image: ImageInfo,
    verdicts: dict[bytes, _PackVerdict],
    copies: _Copies,
) -> Iterator[Damage]:
    """Compare every reference with its pack; neighbours with the same trouble are told together."""
    where = f"restore point {point.id}, disk {image.key}"
    try:
        view = repository.open_view(where, image)
    except IntegrityError as error:
        if _still_there(repository, point):
            yield _damage(point, image.key, image.index, error.message)
        return
    last: Damage | None = None
    with closing(view):
        for offset, length, name, why in _trouble(repository, view, verdicts, copies):
            if last is not None and (last.object, last.why, _end(last)) == (name, why, offset):
                last = replace(last, length=offset + length - (last.offset or 0))
                continue
            if last is not None:
                yield last
            last = replace(_damage(point, image.key, name, why), offset=offset, length=length)
    if last is not None:
        yield last


def _end(damage: Damage) -> int:
    return (damage.offset or 0) + (damage.length or 0)


def _trouble(
    repository: Repository, view: IndexView, verdicts: dict[bytes, _PackVerdict], copies: _Copies
) -> Iterator[tuple[int, int, str, str]]:
    """Offset, length, object and trouble of every chunk that is not right in any place."""
    size = repository.granularity

    @lru_cache(maxsize=_FOOTERS)
    def held(pack: bytes) -> frozenset[tuple[bytes, int, int, int]]:
        entries = packs.read_footer(repository.store, repository.settings, repository.chunker, pack)
        return frozenset((e.id, e.offset, layout.stored_word(e.codec, e.stored), e.raw) for e in entries)

    for chunk in range(view.chunks):
        offset = chunk * size
        raw = min(size, view.size - offset)
        try:
            reference = view.reference(chunk)
        except FormatError as error:
            yield offset, raw, view.what, error.message
            continue
        if reference is None:
            continue
        digest, place = reference
        verdict = verdicts.get(place.pack, _PackVerdict())
        why = verdict.bad.get(place.offset, verdict.why)
        if not why and (digest, place.offset, place.word, raw) not in held(place.pack):
            why = "the index refers to a chunk that the pack does not hold"
            repository.lookup.damaged.add(place.pack, place.offset, why)
        if why and not copies.has(digest, raw):
            yield offset, raw, layout.pack_name(place.pack), why
