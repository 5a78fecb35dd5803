"""One image of a restore point, read: every byte that leaves was compared with its chunk's id."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, FormatError, IntegrityError
from proxy.extents import Extent
from proxy.model import ChangeId, ReasonCode, RestorePoint
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.index import IndexView
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packs import Place, read_chunk
from proxy.units import MiB

# For mounts, which read pieces of chunks: 16 MiB are 64 chunks of 256 KiB, enough for the working set of a directory walk.
# Copies read whole chunks and pass it by.
CACHE_BYTES = 16 * MiB

# Neighbouring chunks of a pack come in one request. Larger would hold more memory a thread and gain nothing on a disk.
RANGE_BYTES = 4 * MiB

_Chunk = tuple[int, bytes, Place]


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
        lookup: ChunkLookup,
    ) -> None:
        self.size = view.size
        self.granularity = chunker.size
        self.identity = f"{point.id}/{key}"
        self._name = f"machine {point.machine_name} ({point.machine}), restore point {point.id}, disk {key}"
        self._key = key
        self._view = view
        self._store = store
        self._chunker = chunker
        self._lookup = lookup
        self._cache: OrderedDict[int, bytes | memoryview] = OrderedDict()
        self._cache_room = max(CACHE_BYTES // chunker.size, 2)
        self._lock = threading.Lock()
        self._closed = False

    def extents(self) -> Sequence[Extent]:
        return self._view.extents()

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        raise ChangesUnknown(self._key, ReasonCode.NO_TRACKING, "an image in the repository tracks nothing")

    def chunk_digest(self, data: memoryview) -> bytes:
        return self._chunker.id(data)

    def digest_at(self, offset: int) -> bytes | None:
        reference = self._reference(offset // self.granularity)
        return None if reference is None else reference[0]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Raises ``IntegrityError`` for chunks that are damaged or gone, if no other copy is in the repository."""
        if self._closed:
            raise FormatError(self._name, "is closed")
        if offset < 0 or offset + len(buffer) > self.size:
            raise FormatError(self._name, f"{len(buffer)} bytes at {offset} are not within its {self.size}")
        end = offset + len(buffer)
        batch: list[_Chunk] = []
        for number in range(offset // self.granularity, layout.chunk_count(end, self.granularity)):
            low, high = self._bounds(number, offset, end)
            reference = self._reference(number)
            if reference is None:
                buffer[low - offset : high - offset] = bytes(high - low)
                continue
            cached = self._cached(number) if high - low < self._raw(number) else None
            if cached is not None:
                self._copy(number, cached, offset, buffer)
                continue
            if batch and not _neighbours(batch, reference[1]):
                self._fetch(batch, offset, buffer)
                batch = []
            batch.append((number, *reference))
        if batch:
            self._fetch(batch, offset, buffer)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._cache.clear()
            self._view.close()

    def _fetch(self, batch: Sequence[_Chunk], offset: int, buffer: memoryview) -> None:
        """Read neighbours in one request, check each, copy what was asked for."""
        start = batch[0][2].offset
        end = batch[-1][2].offset + layout.split_stored(batch[-1][2].word)[1]
        try:
            data = memoryview(self._store.get(layout.pack_name(batch[0][2].pack), start, end - start))
        except (FileNotFoundError, FormatError, IntegrityError):
            data = None  # each chunk for itself: the trouble may be another's
        for number, digest, place in batch:
            try:
                if data is None:
                    chunk = read_chunk(self._store, self._chunker, digest, place, self._raw(number))
                else:
                    at = place.offset - start
                    codec, length = layout.split_stored(place.word)
                    chunk = self._chunker.restore(digest, codec, data[at : at + length], self._raw(number))
            except FileNotFoundError:
                chunk = self._elsewhere(number, digest, f"object {layout.pack_name(place.pack)} is missing")
            except (FormatError, IntegrityError) as error:
                self._lookup.damaged.add(place.pack, place.offset, error.message)
                chunk = self._elsewhere(number, digest, error.message)
            self._copy(number, chunk, offset, buffer)

    def _elsewhere(self, number: int, digest: bytes, why: str) -> bytes | memoryview:
        """The place is damaged or gone. The id counts, the place is only where it was: a later backup may have stored the
        chunk anew, collection may have moved it."""
        chunk = self._lookup.recover(digest, self._raw(number))
        if chunk is None:
            self._lookup.refresh()
            chunk = self._lookup.recover(digest, self._raw(number))
        if chunk is None:
            raise IntegrityError(self._where(number), why)
        return chunk

    def _copy(self, number: int, chunk: bytes | memoryview, offset: int, buffer: memoryview) -> None:
        low, high = self._bounds(number, offset, offset + len(buffer))
        base = number * self.granularity
        buffer[low - offset : high - offset] = chunk[low - base : high - base]
        if high - low < len(chunk):
            self._remember(number, chunk)

    def _bounds(self, number: int, start: int, end: int) -> tuple[int, int]:
        return max(number * self.granularity, start), min((number + 1) * self.granularity, end)

    def _raw(self, number: int) -> int:
        return min(self.granularity, self.size - number * self.granularity)

    def _reference(self, number: int) -> tuple[bytes, Place] | None:
        try:
            return self._view.reference(number)
        except FormatError as error:
            raise IntegrityError(self._where(number), error.message) from None

    def _cached(self, number: int) -> bytes | memoryview | None:
        with self._lock:
            chunk = self._cache.get(number)
            if chunk is not None:
                self._cache.move_to_end(number)
            return chunk

    def _remember(self, number: int, chunk: bytes | memoryview) -> None:
        kept = bytes(chunk)  # a chunk stored raw is a view that would keep its whole range in memory
        with self._lock:
            self._cache[number] = kept
            self._cache.move_to_end(number)
            while len(self._cache) > self._cache_room:
                self._cache.popitem(last=False)

    def _where(self, number: int) -> str:
        return f"{self._name}, offset {number * self.granularity}"


def _neighbours(batch: Sequence[_Chunk], place: Place) -> bool:
    last = batch[-1][2]
    end = last.offset + layout.split_stored(last.word)[1]
    return last.pack == place.pack and end == place.offset and end - batch[0][2].offset < RANGE_BYTES
