"""One image of a restore point, read: every byte that leaves was compared with its chunk's id."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, FormatError, IntegrityError
from proxy.extents import Extent, Kind
from proxy.model import ChangeId, ReasonCode, RestorePoint
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.index import IndexView
from proxy.repository.packs import Place
from proxy.repository.prefetch import AHEAD, Prefetch, Reference
from proxy.units import MiB

if TYPE_CHECKING:
    from proxy.repository.lookup import ChunkLookup

# For mounts, which read pieces of chunks: 16 MiB are 64 chunks of 256 KiB, enough for the working set of a directory walk.
# Copies read whole chunks and pass it by.
CACHE_BYTES = 16 * MiB

# Neighbouring chunks of a pack come in one request. Larger would hold more memory a thread and gain nothing on a disk.
RANGE_BYTES = 4 * MiB

# 8 MiB of index, 64 GiB of disk at 256 KiB chunks.
_FORGET_CHUNKS = 64 * layout.SEGMENT_CHUNKS


class RepositoryImageReader(Closeable):
    """The ``ImageReader`` port. Errors name machine, restore point, disk and offset."""

    can_report_extents = True

    def __init__(
        self,
        point: RestorePoint,
        key: str,
        view: IndexView,
        *,
        store: ObjectStore,
        chunker: Chunker,
        lookup: "Callable[[], ChunkLookup]",
    ) -> None:
        """``lookup``: gives where else chunks are, asked for only when one is damaged."""
        self.size = view.size
        self.granularity = chunker.size
        self._longest = chunker.size + layout.SEAL_BYTES
        self.identity = f"{point.id}/{key}"
        self._name = f"machine {point.machine_name} ({point.machine}), restore point {point.id}, disk {key}"
        self._key = key
        self._view = view
        self._store = store
        self._chunker = chunker
        self._lookup = lookup
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._cache_room = max(CACHE_BYTES // chunker.size, 2)
        self._lock = threading.Lock()
        self._ahead: Prefetch | None = None
        self._closed = False
        self._forget_at = _FORGET_CHUNKS

    def extents(self) -> Sequence[Extent]:
        return self._view.extents()

    def map(self) -> Iterable[Extent]:
        return _Map(self._view)

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        raise ChangesUnknown(self._key, ReasonCode.NO_TRACKING, "an image in the repository tracks nothing")

    def chunk_digest(self, data: memoryview) -> bytes:
        return self._chunker.id(data)

    def digest_at(self, offset: int) -> bytes | None:
        reference = self._reference(offset // self.granularity)
        return None if reference is None else reference[0]

    def differing(self, other: "RepositoryImageReader") -> Iterator[tuple[int, int]]:
        """Ranges ``[a, b)`` of numbers of chunks that are not the same in both; as far as both go."""
        # Imported when it is needed: it brings numpy, which other restores do without.
        from proxy.repository.index_compare import differing_chunks  # noqa: PLC0415

        yield from differing_chunks(self._view, other._view)

    def will_read(self, extents: Iterable[Extent], ahead: int = AHEAD) -> None:
        """See the port. ``ahead``: bytes of packs held in memory, about. Local files are left to the kernel, which reads
        ahead by itself: measured, a copy of everything in between only cost (9 % CPU, 35 MiB)."""
        before, self._ahead = self._ahead, None
        if before is not None:
            before.close()
        if self._store.local_path("packs") is None:
            self._ahead = Prefetch(self._store, self._references(extents), self.granularity, ahead)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Nothing that is damaged stays in the buffer. Raises
        ``IntegrityError`` for chunks that are damaged or gone, if no other copy is in the repository."""
        if self._closed:
            raise FormatError(self._name, "is closed")
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(self._name, f"{len(buffer)} bytes at {offset} are not within its {self.size}")
        end = offset + len(buffer)
        self._forget(end // self.granularity)
        batch: list[Reference] = []
        for number in range(offset // self.granularity, layout.chunk_count(end, self.granularity)):
            low, high = self._bounds(number, offset, end)
            fetched = self._ahead.take(number) if self._ahead is not None else None
            if fetched is not None:
                self._decode(*fetched, offset, buffer)
                continue
            reference = self._reference(number)
            if reference is None:
                buffer[low - offset : high - offset] = bytes(high - low)
                continue
            cached = self._cached(number) if high - low < self._raw(number) else None
            if cached is not None:
                base = number * self.granularity
                buffer[low - offset : high - offset] = cached[low - base : high - base]
                continue
            if batch and not _neighbours(batch, reference[1]):
                self._fetch(batch, offset, buffer)
                batch = []
            batch.append((number, *reference))
        if batch:
            self._fetch(batch, offset, buffer)

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        with self._lock:
            self._closed = True
            self._cache.clear()
            self._view.close()

    def _fetch(self, batch: Sequence[Reference], offset: int, buffer: memoryview) -> None:
        """Read neighbours in one request, check each, copy what was asked for."""
        start = batch[0][2].offset
        end = batch[-1][2].offset + layout.split_stored(batch[-1][2].word)[1]
        try:
            data = memoryview(self._store.get(layout.pack_name(batch[0][2].pack), start, end - start))
        except (FileNotFoundError, FormatError, IntegrityError):
            data = None  # each chunk for itself: the trouble may be another's
        for reference in batch:
            at = reference[2].offset - start
            stored = None if data is None else data[at : at + layout.split_stored(reference[2].word)[1]]
            self._decode(reference, stored, offset, buffer)

    def _decode(self, reference: Reference, stored: memoryview | None, offset: int, buffer: memoryview) -> None:
        """One chunk, unsealed and decompressed into its part of the buffer and compared with its id; from wherever it can
        be had. ``stored``: its bytes in the pack, ``None`` if they could not be had together with its neighbours."""
        number, digest, place = reference
        codec, length = layout.split_stored(place.word)
        low, high = self._bounds(number, offset, offset + len(buffer))
        part = buffer[low - offset : high - offset]
        whole = len(part) == self._raw(number)
        out = part if whole else memoryview(bytearray(self._raw(number)))
        try:
            if stored is None:
                stored = memoryview(self._store.get(layout.pack_name(place.pack), place.offset, length))
            self._chunker.restore_into(digest, codec, stored, out)
        except FileNotFoundError:
            self._instead(number, digest, f"object {layout.pack_name(place.pack)} is missing", out)
        except (FormatError, IntegrityError) as error:
            self._lookup().damaged.add(place.pack, place.offset, error.message)
            self._instead(number, digest, error.message, out)
        if not whole:
            base = number * self.granularity
            part[:] = out[low - base : high - base]
            self._remember(number, out)

    def _instead(self, number: int, digest: bytes, why: str, out: memoryview) -> None:
        """The place is damaged or gone. The id counts, the place is only where it was: a later backup may have stored the
        chunk anew, collection may have moved it. If not, nothing of the bad one stays in the buffer."""
        out[:] = bytes(len(out))
        chunk = self._lookup().recover(digest, self._raw(number))
        if chunk is None:
            self._lookup().refresh()
            chunk = self._lookup().recover(digest, self._raw(number))
        if chunk is None:
            raise IntegrityError(self._where(number), why)
        out[:] = chunk

    def _forget(self, number: int) -> None:
        """A copy goes through the whole index: what it has behind it need not stay in memory."""
        if number >= self._forget_at:
            self._forget_at = number + _FORGET_CHUNKS
            self._view.forget()

    def _bounds(self, number: int, start: int, end: int) -> tuple[int, int]:
        return max(number * self.granularity, start), min((number + 1) * self.granularity, end)

    def _raw(self, number: int) -> int:
        return min(self.granularity, self.size - number * self.granularity)

    def _reference(self, number: int) -> tuple[bytes, Place] | None:
        try:
            return self._view.reference(number)
        except FormatError as error:
            raise IntegrityError(self._where(number), error.message) from None

    def _references(self, extents: Iterable[Extent]) -> Iterator[Reference]:
        """Of all chunks that lie in DATA wholly. What claims more than a chunk can take is left for ``read_into`` to
        refuse."""
        for extent in extents:
            if extent.kind is Kind.ZERO:
                continue
            last = layout.chunk_count(extent.end, self.granularity)
            for number in range(layout.chunk_count(extent.start, self.granularity), last):
                reference = self._reference(number)
                if reference is not None and layout.split_stored(reference[1].word)[1] <= self._longest:
                    yield number, *reference

    def _cached(self, number: int) -> memoryview | None:
        with self._lock:
            chunk = self._cache.get(number)
            if chunk is not None:
                self._cache.move_to_end(number)
            return chunk

    def _remember(self, number: int, chunk: memoryview) -> None:
        with self._lock:
            self._cache[number] = chunk
            self._cache.move_to_end(number)
            while len(self._cache) > self._cache_room:
                self._cache.popitem(last=False)

    def _where(self, number: int) -> str:
        return f"{self._name}, offset {number * self.granularity}"


class _Map:
    """Extents of an index, read from it anew by each ``for``."""

    def __init__(self, view: IndexView) -> None:
        self._view = view

    def __iter__(self) -> Iterator[Extent]:
        return self._view.walk()


def _neighbours(batch: Sequence[Reference], place: Place) -> bool:
    last = batch[-1][2]
    end = last.offset + layout.split_stored(last.word)[1]
    return last.pack == place.pack and end == place.offset and end - batch[0][2].offset < RANGE_BYTES
