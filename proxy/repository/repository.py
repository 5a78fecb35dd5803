"""The image repository over an object store: the adapter of the ``ImageRepository`` port."""

import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from proxy.clock import SystemClock
from proxy.closing import Closeable
from proxy.errors import (
    ChangesUnknown,
    FormatError,
    IntegrityError,
    RepositoryUnavailable,
    RestorePointNotFound,
    RestoreRefused,
)
from proxy.model import ImageInfo, MachineId, ReasonCode, RestorePoint, RestorePointId
from proxy.ports import Clock, DamagedPoint, ObjectStore
from proxy.repository import format as layout
from proxy.repository import manifest, settings
from proxy.repository.chunks import Chunker
from proxy.repository.index import IndexBuilder, IndexView, open_index
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packs import PackWriter
from proxy.repository.reader import RepositoryImageReader
from proxy.repository.settings import Settings
from proxy.repository.writer import RepositoryImageWriter


def create(
    store: ObjectStore,
    *,
    chunk_size: int = layout.DEFAULT_CHUNK,
    pack_size: int = layout.DEFAULT_PACK,
    level: int = 1,
    cache: Path | None = None,
    clock: Clock | None = None,
) -> "Repository":
    """Make a repository where none is. Sizes in bytes; ``level`` of zstd. Raises ``RepositoryUnavailable`` if there is one."""
    clock = clock or SystemClock()
    fresh = settings.fresh(clock.now().isoformat(), chunk_size, pack_size, level)
    try:
        store.put(settings.NAME, settings.encode(fresh))
    except FileExistsError:
        raise RepositoryUnavailable(_place(store), "there is a repository already", hint="open it") from None
    return open(store, cache=cache, clock=clock)


def open(store: ObjectStore, *, cache: Path | None = None, clock: Clock | None = None) -> "Repository":  # noqa: A001
    """Open an existing repository. ``cache``: a local directory that may be lost at any time, best kept between runs
    (without one, a temporary one is made, and the first backup reads the footers of all packs).
    Raises ``RepositoryUnavailable``, or ``FormatError`` for a repository that is damaged or from a newer Lanfree."""
    try:
        known = settings.decode(store.get(settings.NAME))
    except FileNotFoundError:
        raise RepositoryUnavailable(_place(store), "there is no repository") from None
    return Repository(store, known, cache, clock or SystemClock())


class Repository(Closeable):
    """Restore points and their images. All methods may be called from any thread; see the package's locking table."""

    def __init__(self, store: ObjectStore, known: Settings, cache: Path | None, clock: Clock) -> None:
        self.store = store
        self.settings = known
        self.chunker = Chunker(known)
        self.granularity = known.chunk_size
        self._clock = clock
        self._own_cache = tempfile.TemporaryDirectory(prefix="lanfree-cache-") if cache is None else None
        self.scratch = (cache or Path(self._own_cache.name if self._own_cache else "")) / known.id.hex()
        self.lookup = ChunkLookup(store, known, self.chunker, self.scratch)
        self._packs = PackWriter(store, known, self.chunker, self.lookup.add)
        self._deleting = threading.Lock()

    def image_writer(self, key: str, size: int, parent: ImageInfo | None) -> RepositoryImageWriter:
        """Begin an image of ``size`` bytes. With a parent only what changed needs to be written.

        Raises ``ChangesUnknown`` if the parent cannot be built upon: other size (``disk-resized``), or its index, a
        pack, or a chunk of it is known to be damaged or gone (``parent-damaged``): then read everything, without a
        parent, which heals: what the disk still has is stored anew, and older points find it there too.
        """
        if size <= 0:
            raise FormatError(f"image of disk {key}", f"a disk of {size} bytes")
        if parent is not None and parent.size != size:
            raise ChangesUnknown(key, ReasonCode.DISK_RESIZED, f"{parent.size} -> {size} bytes")
        self.lookup.refresh()
        builder = IndexBuilder(size, self.settings, self.scratch)
        if parent is not None:
            try:
                with closing(self._parent(key, parent)) as view:
                    builder.start_from(view)
            except BaseException:
                builder.close()
                raise
        return RepositoryImageWriter(
            key, builder, store=self.store, chunker=self.chunker, lookup=self.lookup, packs=self._packs
        )

    def seal(self, point: RestorePoint) -> RestorePoint:
        """Write the manifest. An empty ``point.id`` is filled in. Sealing the same run's point again returns what is
        there. Raises ``IntegrityError`` if an image's index is not in the repository, or the id is taken."""
        if not point.id:
            point = replace(point, id=manifest.point_id(point.created_at, point.machine, point.run))
        for image in point.images:
            try:
                self.store.size(image.index)
            except FileNotFoundError:
                raise IntegrityError(f"disk {image.key} of {point.machine_name}", f"{image.index} is missing") from None
        point = replace(point, sealed_at=self._clock.now())
        name = manifest.manifest_name(self.chunker.keys, point.machine, point.id)
        try:
            self.store.put(name, manifest.encode(point, self.chunker.keys))
        except FileExistsError:
            there = self._read(name)
            if (there.machine, there.run, there.created_at) != (point.machine, point.run, point.created_at):
                raise IntegrityError(f"restore point {point.id}", "the id is taken by another run") from None
            return there
        return point

    def points(self, machine: MachineId | None = None) -> Sequence[RestorePoint]:
        return self.survey(machine)[0]

    def damaged_points(self, machine: MachineId | None = None) -> Sequence[DamagedPoint]:
        return self.survey(machine)[1]

    def survey(self, machine: MachineId | None = None) -> tuple[list[RestorePoint], list[DamagedPoint]]:
        """``points`` and ``damaged_points`` of one look. Points that are deleted meanwhile are in neither."""
        found: list[RestorePoint] = []
        damaged: list[DamagedPoint] = []
        for name in self.manifests(machine):
            with suppress(FileNotFoundError):
                try:
                    found.append(self.read_manifest(name))
                except FormatError as error:
                    damaged.append(DamagedPoint(name, error.message.removeprefix(f"{name}: ")))
        return sorted(found, key=lambda p: (p.id, p.machine)), damaged

    def point(self, point: RestorePointId) -> RestorePoint:
        """Several that begin alike raise ``RestorePointNotFound`` too, and say so. One whose manifest is damaged raises
        ``FormatError``."""
        names = [name for name in self.manifests() if name.rpartition("/")[2].startswith(point)]
        exact = [name for name in names if name.endswith(f"/{point}")]
        if not point or len(exact or names) != 1:
            raise RestorePointNotFound(f"{point} ({len(names)} begin so)" if point and names else point or "''")
        return self._read((exact or names)[0])

    def open_image(self, point: RestorePoint, key: str) -> RepositoryImageReader:
        """Raises ``RestorePointNotFound`` for a disk that the point does not hold, ``IntegrityError`` for a damaged index."""
        image = point.image(key)
        if image is None:
            raise RestorePointNotFound(f"{point.id} with a disk {key}")
        where = f"machine {point.machine_name} ({point.machine}), restore point {point.id}, disk {key}"
        view = self.open_view(where, image)
        return RepositoryImageReader(point, key, view, store=self.store, chunker=self.chunker, lookup=self.lookup)

    def delete(self, point: RestorePointId) -> None:
        """The manifest first: from then on there is no such point. Its indexes follow; its chunks stay until they are
        collected."""
        with self._deleting:
            found = self.point(point)
            others, damaged = self.survey(found.machine)
            if not any(other.id != found.id for other in others):
                readable = " that can be read" if damaged else ""
                raise RestoreRefused(found.id, f"it is the only restore point of {found.machine_name}{readable}")
            self.store.delete(manifest.manifest_name(self.chunker.keys, found.machine, found.id))
            for image in found.images:
                self.store.delete(image.index)

    def close(self) -> None:
        """Keep the lookup for the next time. Chunks that no sealed image needed and no pack was written for are dropped."""
        self.lookup.close()
        if self._own_cache is not None:
            self._own_cache.cleanup()

    def manifests(self, machine: MachineId | None = None) -> list[str]:
        """Object names of the manifests, by machine and time. Looks first whether the repository is still there, so that
        a vanished mount never looks like an empty repository."""
        with suppress(FileNotFoundError):
            self.store.size(settings.NAME)
            folder = manifest.PREFIX if machine is None else manifest.machine_folder(self.chunker.keys, machine)
            return list(self.store.list(folder))
        raise RepositoryUnavailable(_place(self.store), "its config object is gone")

    def open_view(self, where: str, image: ImageInfo) -> IndexView:
        """An image's index, compared with what the manifest says of it. Raises ``IntegrityError``."""
        try:
            view = open_index(self.store, self.settings, self.chunker, _index_of(image), self.scratch)
        except FileNotFoundError:
            raise IntegrityError(where, f"object {image.index} is missing") from None
        except FormatError as error:
            raise IntegrityError(where, error.message) from None
        if view.size != image.size or view.digest() != image.digest:
            view.close()
            raise IntegrityError(where, f"object {image.index} is not the index that the manifest means")
        return view

    def read_manifest(self, name: str) -> RestorePoint:
        """Raises ``FormatError``, and ``FileNotFoundError`` for one that was deleted meanwhile."""
        try:
            data = self.store.get(name)
        except IntegrityError as error:
            raise FormatError(name, error.message) from None
        point = manifest.decode(name, data, self.chunker.keys)
        if name != manifest.manifest_name(self.chunker.keys, point.machine, point.id):
            raise FormatError(name, f"holds restore point {point.id} of another name")
        return point

    def _read(self, name: str) -> RestorePoint:
        try:
            return self.read_manifest(name)
        except FileNotFoundError:
            raise RestorePointNotFound(name) from None

    def _parent(self, key: str, parent: ImageInfo) -> IndexView:
        try:
            view = self.open_view(f"disk {key}", parent)
        except IntegrityError as error:
            raise ChangesUnknown(key, ReasonCode.PARENT_DAMAGED, error.message) from None
        missing = [p for n in range(1, view.pack_count + 1) if not self.lookup.has_pack(p := view.pack(n))]
        if missing:
            view.close()
            raise ChangesUnknown(
                key, ReasonCode.PARENT_DAMAGED, f"object {layout.pack_name(missing[0])} is missing or damaged"
            )
        if view.refers_to(self.lookup.damaged):
            view.close()
            raise ChangesUnknown(key, ReasonCode.PARENT_DAMAGED, f"chunks of object {parent.index} are damaged")
        return view


def _index_of(image: ImageInfo) -> bytes:
    try:
        name = bytes.fromhex(image.index.rpartition("/")[2])
    except ValueError:
        name = b""
    if len(name) != layout.NAME_BYTES or layout.index_name(name) != image.index:
        raise FormatError(f"image of disk {image.key}", f"{image.index!r} is not the name of an index")
    return name


def _place(store: ObjectStore) -> str:
    path = store.local_path(settings.NAME)
    return str(path.parent) if path is not None else type(store).__name__
