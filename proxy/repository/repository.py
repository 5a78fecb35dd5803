"""The image repository over an object store: the adapter of the ``ImageRepository`` port."""

import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.clock import SystemClock
from proxy.closing import Closeable
from proxy.errors import (
    ChangesUnknown,
    FormatError,
    IntegrityError,
    KeyRefused,
    LeaseLost,
    RepositoryFull,
    RepositoryUnavailable,
    RestorePointNotFound,
)
from proxy.model import ImageInfo, MachineId, ReasonCode, RestorePoint, RestorePointId
from proxy.ports import Clock, DamagedPoint, ObjectStore
from proxy.repository import format as layout
from proxy.repository import keys, settings
from proxy.repository.chunks import Chunker
from proxy.repository.claims import Claims
from proxy.repository.dooms import Dooms
from proxy.repository.format import Entry
from proxy.repository.index import IndexBuilder, IndexView, Relocate
from proxy.repository.index_open import open_index
from proxy.repository.keys import Secret
from proxy.repository.leases import READ, Leases
from proxy.repository.ledger import Ledger, place_of, resealed
from proxy.repository.manifest_cache import ManifestCache
from proxy.repository.packs import PackWriter
from proxy.repository.promise import Promise
from proxy.repository.reader import RepositoryImageReader
from proxy.repository.sealing import Keyring, Keys, Sealer
from proxy.repository.settings import Settings
from proxy.repository.writer import RepositoryImageWriter

if TYPE_CHECKING:
    from proxy.repository.lookup import ChunkLookup

RESCUE = "rescue.py"
"""Object, and file beside this one: the program that restores without us, kept where it will be needed."""


def create(
    store: ObjectStore,
    *,
    secret: Secret | None,
    chunk_size: int = layout.DEFAULT_CHUNK,
    pack_size: int = layout.DEFAULT_PACK,
    level: int = 1,
    label: str = "first key",
    cache: Path | None = None,
    clock: Clock | None = None,
) -> "Repository":
    """Make a repository where none is. ``secret`` opens it; with ``None`` everything is stored in the clear, which has to
    be said. Sizes in bytes; ``level`` of zstd. Raises ``RepositoryUnavailable`` if there is one."""
    clock = clock or SystemClock()
    keyring = keys.new_keyring(sealed=secret is not None)
    fresh = Settings(
        id=settings.new_id(),
        created_at=clock.now().isoformat(),
        public_key=Keys(keyring).public,
        key=None if secret is not None else keyring.generations[0],
        chunk_size=chunk_size,
        pack_size=pack_size,
        level=level,
    )
    # The key slot first: a repository whose maker was killed must not be one that nobody can open.
    slot = keys.add_slot(store, fresh, keyring, secret, label=label, now=clock.now()) if secret is not None else None
    with suppress(FileExistsError):
        store.put(RESCUE, resources.files("proxy.repository").joinpath(RESCUE).read_bytes())
    try:
        store.put(settings.NAME, settings.encode(fresh))
    except FileExistsError:
        if slot is not None:
            store.delete(keys.PREFIX + slot.id)
        raise RepositoryUnavailable(place_of(store), "there is a repository already", hint="open it") from None
    return Repository(store, fresh, keyring, cache, clock)


def open(  # noqa: A001
    store: ObjectStore,
    *,
    secret: Secret | None,
    cache: Path | None = None,
    clock: Clock | None = None,
    immutable: timedelta | None = None,
) -> "Repository":
    """Open an existing repository. ``cache``: a local directory that may be lost at any time, best kept between runs
    (without one, a temporary one is made, and the first backup reads the footers of all packs). ``immutable``: what is
    sealed stays for so long (``promise.py``); the store must retain objects for ``retain_for`` of it.
    Raises ``RepositoryUnavailable``, ``KeyRefused``, or ``FormatError`` for one that is damaged or of another version."""
    known = read_settings(store)
    opened = Repository(store, known, unlock(store, known, secret), cache, clock or SystemClock())
    opened.promise = Promise(store, immutable, opened.clock, opened.scratch / "promise.json")
    return opened


def read_settings(store: ObjectStore) -> Settings:
    """What a repository is; needs no key. Raises ``RepositoryUnavailable``, ``FormatError``."""
    try:
        return settings.decode(store.get(settings.NAME))
    except FileNotFoundError:
        raise RepositoryUnavailable(place_of(store), "there is no repository") from None


def unlock(store: ObjectStore, known: Settings, secret: Secret | None) -> Keyring:
    """The keyring. A key for a repository in the clear is refused as well: somebody may have exchanged the repository to
    be given backups that he can read. Raises ``KeyRefused``."""
    if known.key is not None:
        if secret is not None:
            raise KeyRefused("it is not encrypted, though a key is given for it: it is not the repository it was")
        keyring = Keyring((known.key,), sealed=False)
    elif secret is None:
        raise KeyRefused("it is encrypted, and no key was given")
    else:
        keyring = keys.unlock(store, known, secret)[0]
    check_keyring(known, keyring)
    return keyring


def check_keyring(known: Settings, keyring: Keyring) -> None:
    """Raises ``KeyRefused`` for another repository's keys."""
    if Keys(keyring).public != known.public_key:
        raise KeyRefused("the public key in its config object is not that of the keys: one of them was exchanged")


class Repository(Closeable):
    """Restore points and their images. All methods may be called from any thread; see the package's locking table."""

    def __init__(self, store: ObjectStore, known: Settings, keyring: Keyring, cache: Path | None, clock: Clock) -> None:
        self.store = store
        self.settings = known
        self.keyring = keyring
        self.keys = Keys(keyring)
        self.sealer = Sealer(known.id, known.chunk_size, self.keys)
        self.chunker = Chunker(known, self.keys)
        self.granularity = known.chunk_size
        self.clock = clock
        self._own_cache = tempfile.TemporaryDirectory(prefix="lanfree-cache-") if cache is None else None
        self.scratch = (cache or Path(self._own_cache.name if self._own_cache else "")) / known.id.hex()
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(store, self.keys, self.sealer, clock, _manifest_cache(store, self.scratch))
        self.dooms = Dooms(store, self.sealer)
        self.leases = Leases(store, self.sealer)
        self.promise = Promise(store, None, clock, self.scratch / "promise.json")
        self._claims = Claims(self.leases)
        self._packs = PackWriter(store, known, self.chunker, self._put)
        self._lookup: ChunkLookup | None = None
        self._looking_up = threading.Lock()

    @property
    def lookup(self) -> "ChunkLookup":
        """Made when it is first needed: lists, and restores of what is sound, do without it."""
        with self._looking_up:
            if self._lookup is None:
                from proxy.repository.lookup import ChunkLookup  # noqa: PLC0415

                self._lookup = ChunkLookup(self.store, self.settings, self.chunker, self.scratch, self.dooms)
            return self._lookup

    @lookup.setter
    def lookup(self, lookup: "ChunkLookup") -> None:
        with self._looking_up:
            self._lookup = lookup

    def use_leases(self, leases: Leases) -> None:
        """Others than by default; before anything is written. All proxies must agree on when leases expire."""
        self.leases = leases
        self._claims = Claims(leases)

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
        lease = self._claims.begin(key)
        try:
            builder = self._builder(key, size, parent)
        except BaseException:
            lease.drop()
            raise
        return RepositoryImageWriter(
            key,
            builder,
            store=self.store,
            chunker=self.chunker,
            lookup=self.lookup,
            packs=self._packs,
            lease=lease,
            sealed=self._claims.sealed,
        )

    def seal(self, point: RestorePoint) -> RestorePoint:
        """Write the manifest. An empty ``point.id`` is filled in. Sealing the same run's point again returns what is
        there. Raises ``IntegrityError`` if an image's index is not in the repository, or the id is taken."""
        point = resealed(point, self.clock.now())
        if self.ledger.has(point):
            self._claims.forget(point.images)
            there = self.ledger.add(point)
            # Whoever put it may have been killed before its store retained it.
            self._keep_promise(there, self.ledger.name(there))
            return there
        for image in point.images:
            try:
                self.store.size(image.index)
            except FileNotFoundError:
                raise IntegrityError(f"disk {image.key} of {point.machine_name}", f"{image.index} is missing") from None
        added: RestorePoint | None = None
        try:
            with self._claims.committing(point, self._check_lasting):
                self._keep_promise(point)
                added = self.ledger.add(point)
        except (IntegrityError, LeaseLost):
            if added is not None:
                self.ledger.withdraw(added, "its lease was lost while it was sealed")
            raise
        return added

    def points(self, machine: MachineId | None = None) -> Sequence[RestorePoint]:
        return self.ledger.survey(machine, cached=True)[0]

    def damaged_points(self, machine: MachineId | None = None) -> Sequence[DamagedPoint]:
        return self.survey(machine)[1]

    def survey(self, machine: MachineId | None = None) -> tuple[list[RestorePoint], list[DamagedPoint]]:
        """``points`` and ``damaged_points`` of one look. Points that are deleted meanwhile are in neither."""
        return self.ledger.survey(machine)

    def point(self, point: RestorePointId) -> RestorePoint:
        """Several that begin alike raise ``RestorePointNotFound`` too, and say so. One whose manifest is damaged raises
        ``FormatError``."""
        return self.ledger.find(point)

    @contextmanager
    def reading(self, detail: str) -> Iterator[None]:
        """See the port. A lease like a writer's: collectors wait for it. ``detail`` holds the whole id of the restore point
        that is read: retention keeps a point whose id it finds in any lease."""
        with ExitStack() as held:
            with suppress(RepositoryFull, RepositoryUnavailable):
                held.enter_context(self.leases.held(READ, detail))
            yield

    def open_image(self, point: RestorePoint, key: str) -> RepositoryImageReader:
        """Raises ``RestorePointNotFound`` for a disk that the point does not hold, ``IntegrityError`` for a damaged index."""
        image = point.image(key)
        if image is None:
            raise RestorePointNotFound(f"{point.id} with a disk {key}")
        where = f"machine {point.machine_name} ({point.machine}), restore point {point.id}, disk {key}"
        view = self.open_view(where, image)
        return RepositoryImageReader(
            point, key, view, store=self.store, chunker=self.chunker, lookup=lambda: self.lookup
        )

    def doubt(self, points: Sequence[RestorePointId], why: str) -> None:
        """See ``Ledger.doubt``."""
        for point in points:
            with suppress(RestorePointNotFound):  # deleted meanwhile
                self.ledger.doubt(self.ledger.find(point), why)

    def delete(self, point: RestorePointId, why: str = "asked for") -> None:
        """See ``Ledger.delete``."""
        self.ledger.delete(self.ledger.find(point), why)

    def close(self) -> None:
        """Keep the lookup for the next time. Chunks that no sealed image needed and no pack was written for are dropped."""
        self._claims.close()
        if self._lookup is not None:
            self._lookup.close()
        if self._own_cache is not None:
            self._own_cache.cleanup()

    def manifests(self, machine: MachineId | None = None) -> list[str]:
        """See ``Ledger.names``."""
        return self.ledger.names(machine)

    def open_view(self, where: str, image: ImageInfo) -> IndexView:
        """An image's index, compared with what the manifest says of it. Raises ``IntegrityError``."""
        try:
            view = open_index(self.store, self.settings, self.chunker, _index_of(image), self.scratch, disk=image.size)
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
        return self.ledger.read(name).point

    def _put(self, pack: bytes, entries: Sequence[Entry]) -> None:
        self.lookup.add(pack, entries)

    def _builder(self, key: str, size: int, parent: ImageInfo | None) -> IndexBuilder:
        self.lookup.refresh()
        builder = IndexBuilder(size, self.settings, self.scratch)
        if parent is None:
            return builder
        try:
            with closing(self._parent(key, parent)) as view:
                # What the parent referred to may have been moved by collection, or may be going to vanish.
                bad = self.lookup.lost(view.pack_table())
                if not builder.start_from(view, self._relocation(bad)):
                    name = layout.pack_name(view.pack(bad[0]))
                    raise ChangesUnknown(key, ReasonCode.PARENT_DAMAGED, f"object {name} is missing or damaged")
        except BaseException:
            builder.close()
            raise
        return builder

    def _relocation(self, bad: Collection[int]) -> Relocate | None:
        """What changes the references into bad packs, if there are any."""
        if not bad:
            return None
        from proxy.repository.relocate import relocate  # noqa: PLC0415  # it brings numpy, and is rarely needed

        return partial(relocate, bad, self.lookup)

    def _keep_promise(self, point: RestorePoint, *more: str) -> None:
        """Everything that the point needs is retained before anybody counts on it, and ``more`` objects. Raises
        ``IntegrityError``."""
        if self.promise.span is None:
            return
        names = {settings.NAME, *more}
        for image in point.images:
            with closing(self.open_view(f"disk {image.key} of {point.machine_name}", image)) as view:
                names |= {layout.pack_name(view.pack(number)) for number in range(1, view.pack_count + 1)}
            names.add(image.index)
        try:
            self.promise.cover(names)
        except FileNotFoundError as error:
            raise IntegrityError(f"restore point {point.id}", f"object {error} vanished before the seal") from None

    def _check_lasting(self, point: RestorePoint) -> None:
        """Raises ``LeaseLost`` unless everything that the point needs is there, and doomed by nobody."""
        self.lookup.refresh()
        doomed = self.dooms.indexes()
        for image in point.images:
            with closing(self.open_view(f"disk {image.key} of {point.machine_name}", image)) as view:
                bad = self.lookup.lost(view.pack_table())
            if bad or image.index in doomed:
                raise LeaseLost(f"of restore point {point.id}", f"parts of disk {image.key} were collected meanwhile")

    def _parent(self, key: str, parent: ImageInfo) -> IndexView:
        try:
            view = self.open_view(f"disk {key}", parent)
        except IntegrityError as error:
            raise ChangesUnknown(key, ReasonCode.PARENT_DAMAGED, error.message) from None
        if view.refers_to(self.lookup.damaged):
            view.close()
            raise ChangesUnknown(key, ReasonCode.PARENT_DAMAGED, f"chunks of object {parent.index} are damaged")
        return view


def _manifest_cache(store: ObjectStore, scratch: Path) -> ManifestCache | None:
    """For stores across a network; a local file is read as fast from where it is, and damage in it shows at once."""
    return ManifestCache(scratch / "manifests") if store.local_path(settings.NAME) is None else None


def _index_of(image: ImageInfo) -> bytes:
    try:
        name = bytes.fromhex(image.index.rpartition("/")[2])
    except ValueError:
        name = b""
    if len(name) != layout.NAME_BYTES or layout.index_name(name) != image.index:
        raise FormatError(f"image of disk {image.key}", f"{image.index!r} is not the name of an index")
    return name
