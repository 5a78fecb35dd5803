"""An image's index: for every chunk of the disk its id and its place. FORMAT.md draws it.

Chunks are grouped in segments of ``SEGMENT_CHUNKS``; a segment holds all its ids, then all its places, so that ids can be
compared and digested without touching places. A segment of zeroes has no slot. An index is mapped, never read whole.
"""

import mmap
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from blake3 import blake3

from proxy.errors import FormatError
from proxy.extents import Extent, Kind
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.format import (
    CLEAR,
    DIGEST_BYTES,
    HEADER,
    ID_BYTES,
    INDEX_FIELDS,
    INDEX_START,
    NAME_BYTES,
    PLACE,
    SEGMENT_BYTES,
    SEGMENT_CHUNKS,
    SEGMENT_IDS,
    ZERO_ID,
)
from proxy.repository.packs import Place
from proxy.repository.scratch import Scratch, forget
from proxy.repository.sealing import seal_blocks, sealed_size
from proxy.repository.settings import Settings

_ZERO_IDS = memoryview(bytes(SEGMENT_IDS))
_NO_PLACE = bytes(PLACE.size)

# Segments of which the pages are kept while an index is walked: 4 MiB.
_FORGET = 32
_KEPT = _FORGET * SEGMENT_BYTES

# References that are looked at before their pages are given up: around each the kernel maps up to half a MiB.
_TOUCHED = 16

Relocate = Callable[[memoryview, Callable[[bytes], int]], bool]
"""Changes references in slots; ``False``: it could not."""


class IndexBuilder:
    """An index in the making, in an unnamed file that is mapped. Methods may be called from any thread.

    The file is as large as the index can become; what was never touched is a hole. Slots are taken in order of use.
    """

    def __init__(self, size: int, settings: Settings, scratch: Path) -> None:
        self.size = size
        self._settings = settings
        self._count = layout.chunk_count(size, settings.chunk_size)
        self._table = array("I", bytes(4 * layout.segment_count(size, settings.chunk_size)))
        self._base = INDEX_START + 4 * len(self._table)
        self._used = 0
        self._packs: dict[bytes, int] = {}
        self._lock = threading.Lock()
        # Room for the pack table (not more packs than chunks) and the digest behind the last slot.
        room = self._base + len(self._table) * SEGMENT_BYTES + self._count * NAME_BYTES + DIGEST_BYTES
        self._scratch = scratch
        self._sealed: Scratch | None = None
        self._touched = 0
        self._file = Scratch(scratch)
        self._map = self._file.map(room)
        self._file.reserve(0, self._base)

    def start_from(self, parent: "IndexView", relocate: Relocate | None = None) -> bool:
        """Take over all references of an index of the same size; to be called before anything else. ``relocate`` may
        change them: it is given the slots, and how packs get numbers in them. ``False`` if it could not: give this up."""
        with self._lock:
            self._table = array("I", parent.table)
            self._used = parent.slots
            self._packs = {parent.pack(number): number for number in range(1, parent.pack_count + 1)}
            end = self._base + self._used * SEGMENT_BYTES
            self._file.reserve(self._base, end - self._base)
            for start in range(self._base, end, _KEPT):
                stop = min(start + _KEPT, end)
                self._map[start:stop] = parent.data[start:stop]
                parent.forget()
                self._forget()
        if relocate is None:
            return True
        with memoryview(self._map) as view, view[self._base : end] as slots:
            done = relocate(slots, self._number)
        self._forget()
        return done

    def packs(self) -> list[bytes]:
        """Names of the packs that the index refers to, or once did."""
        with self._lock:
            return list(self._packs)

    def id(self, chunk: int) -> bytes:
        """Id of a chunk as it stands now, ``ZERO_ID`` for zeroes."""
        slot = self._table[chunk // SEGMENT_CHUNKS]
        if not slot:
            return ZERO_ID
        at = self._start(slot) + chunk % SEGMENT_CHUNKS * ID_BYTES
        self._touch()
        return self._map[at : at + ID_BYTES]

    def set(self, chunk: int, digest: bytes, place: Place) -> None:
        """Refer a chunk to a place."""
        segment, within = divmod(chunk, SEGMENT_CHUNKS)
        number = self._packs.get(place.pack) or self._number(place.pack)
        start = self._start(self._table[segment] or self._take(segment))
        at = start + within * ID_BYTES
        self._map[at : at + ID_BYTES] = digest
        PLACE.struct.pack_into(self._map, start + SEGMENT_IDS + within * PLACE.size, number, place.offset, place.word)
        self._touch()

    def zero(self, chunk: int, count: int) -> None:
        """Make a run of chunks zero."""
        end = chunk + count
        while chunk < end:
            segment, within = divmod(chunk, SEGMENT_CHUNKS)
            run = min(SEGMENT_CHUNKS - within, end - chunk)
            slot = self._table[segment]
            if slot:
                start = self._start(slot)
                at = start + within * ID_BYTES
                self._map[at : at + run * ID_BYTES] = bytes(run * ID_BYTES)
                at = start + SEGMENT_IDS + within * PLACE.size
                self._map[at : at + run * PLACE.size] = bytes(run * PLACE.size)
                self._touch()
            chunk += run

    def finish(self, name: bytes, chunker: Chunker) -> tuple[memoryview, str]:
        """The whole object, and the image's digest. Nothing may be set any more. The view must be released."""
        plain, digest = self._finish(name, chunker)
        if chunker.keys.newest == CLEAR:
            return plain, digest
        with plain, plain[HEADER.size :] as body:
            size = HEADER.size + sealed_size(len(body))
            self._sealed = Scratch(self._scratch)
            view = memoryview(self._sealed.map(size))
            self._sealed.reserve(0, size)
            view[: HEADER.size] = plain[: HEADER.size]
            with view[HEADER.size :] as out:
                seal_blocks(chunker.keys, name, body, out)
            return view, digest

    def _finish(self, name: bytes, chunker: Chunker) -> tuple[memoryview, str]:
        view = memoryview(self._map)
        data_chunks = self._trim(view)
        end = self._base + self._used * SEGMENT_BYTES
        table = b"".join(self._packs)
        self._file.reserve(end, len(table) + DIGEST_BYTES)
        view[:INDEX_START] = layout.header(
            layout.INDEX_MAGIC, chunker.keys.newest, self._settings.chunk_size, self._settings.id, name
        ) + INDEX_FIELDS.struct.pack(self.size, data_chunks, len(self._table), self._used, len(self._packs), 0)
        view[INDEX_START : self._base] = self._table.tobytes()
        view[end : end + len(table)] = table
        end += len(table)
        hasher = blake3(key=chunker.keys.object)
        for start in range(0, end, _KEPT):
            hasher.update(view[start : min(start + _KEPT, end)])
            self._forget()
        view[end : end + DIGEST_BYTES] = hasher.digest()
        digest = image_digest(chunker, self.size, self._settings.chunk_size, self._segments(view))
        return view[: end + DIGEST_BYTES], digest

    def close(self) -> None:
        """Give the files up."""
        with suppress(
            BufferError
        ):  # an error is on its way whose frames still look at the mapping, which goes with them
            self._map.close()
        self._file.close()
        if self._sealed is not None:
            self._sealed.close()

    def _touch(self) -> None:
        """A reference is looked at. Counted without a lock: a count that is lost costs a few pages."""
        self._touched += 1
        if self._touched >= _TOUCHED:
            self._touched = 0
            self._forget()

    def _forget(self) -> None:
        """Let the pages that were touched leave this process: the kernel's cache keeps them, and they belong to a file."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _segments(self, view: memoryview) -> Iterator[memoryview | None]:
        """All in order; the pages of those behind are given up on the way."""
        for number, slot in enumerate(self._table, 1):
            yield self._segment(view, slot)
            if number % _FORGET == 0:
                self._forget()

    def _start(self, slot: int) -> int:
        return self._base + (slot - 1) * SEGMENT_BYTES

    def _segment(self, view: memoryview, slot: int) -> memoryview | None:
        start = self._start(slot)
        return view[start : start + SEGMENT_BYTES] if slot else None

    def _trim(self, view: memoryview) -> int:
        """Drop packs that nothing refers to any more and number the rest anew; count the chunks that are not zero."""
        columns = [
            self._segment(view, slot)[SEGMENT_IDS:].cast("I")[0::3]  # type: ignore[index]  # slots count from 1
            for slot in range(1, self._used + 1)
        ]
        used: set[int] = set()
        chunks = 0
        for slot, column in enumerate(columns, 1):
            numbers = column.tolist()
            used.update(numbers)
            chunks += len(numbers) - numbers.count(0)
            if slot % _FORGET == 0:
                self._forget()
        used.discard(0)
        if len(used) < len(self._packs):
            kept = [name for name, number in self._packs.items() if number in used]
            renumbered = {self._packs[name]: number for number, name in enumerate(kept, 1)} | {0: 0}
            for slot, column in enumerate(columns, 1):
                column[:] = memoryview(array("I", [renumbered[number] for number in column]))
                if slot % _FORGET == 0:
                    self._forget()
            self._packs = {name: number for number, name in enumerate(kept, 1)}
        return chunks

    def _number(self, pack: bytes) -> int:
        with self._lock:
            return self._packs.setdefault(pack, len(self._packs) + 1)

    def _take(self, segment: int) -> int:
        with self._lock:
            if not self._table[segment]:
                self._file.reserve(self._base + self._used * SEGMENT_BYTES, SEGMENT_BYTES)
                self._used += 1
                self._table[segment] = self._used
            return self._table[segment]


class IndexView:
    """A stored index, mapped. Everything was compared with its digest, and every count with its bounds, when it opened."""

    def __init__(self, what: str, data: memoryview, settings: Settings, chunker: Chunker, name: bytes) -> None:
        self.data = data
        self.what = what
        self._settings = settings
        self._chunker = chunker
        _, own = layout.check_header(what, data, layout.INDEX_MAGIC, settings.chunk_size, settings.id)
        if own != name:
            raise FormatError(what, "carries another index's name")
        if len(data) < INDEX_START + DIGEST_BYTES:
            raise FormatError(what, f"{len(data)} bytes are too few for an index")
        fields: tuple[int, ...] = INDEX_FIELDS.struct.unpack_from(data, HEADER.size)
        self.size, self.data_chunks, segments, self.slots, self.pack_count, _ = fields
        self.slots_at = INDEX_START + 4 * segments
        self.packs_at = self.slots_at + self.slots * SEGMENT_BYTES
        end = self.packs_at + self.pack_count * NAME_BYTES
        if segments != layout.segment_count(self.size, settings.chunk_size) or end + DIGEST_BYTES != len(data):
            raise FormatError(what, f"{len(data)} bytes do not fit its counts: it was truncated or damaged")
        if self._body_digest(end) != data[end:]:
            raise FormatError(what, "its digest does not fit: it was damaged")
        self.table = data[INDEX_START : self.slots_at].cast("I")
        # Each slot belongs to one segment: otherwise a few bytes could stand for a disk that takes hours to walk through.
        if not self.size or sorted(filter(None, self.table)) != list(range(1, self.slots + 1)):
            raise FormatError(what, f"its segments and its {self.slots} slots do not fit each other")
        self.chunks = layout.chunk_count(self.size, settings.chunk_size)

    def pack(self, number: int) -> bytes:
        """Name of the pack with a number from 1 on."""
        if not 1 <= number <= self.pack_count:
            raise FormatError(self.what, f"refers to pack {number} of {self.pack_count}")
        at = self.packs_at + (number - 1) * NAME_BYTES
        return bytes(self.data[at : at + NAME_BYTES])

    def reference(self, chunk: int) -> tuple[bytes, Place] | None:
        """Id and place of a chunk, ``None`` for zeroes."""
        slot = self.table[chunk // SEGMENT_CHUNKS]
        if not slot:
            return None
        start = self._start(slot)
        within = chunk % SEGMENT_CHUNKS
        at = start + within * ID_BYTES
        digest = bytes(self.data[at : at + ID_BYTES])
        number, offset, word = PLACE.struct.unpack_from(self.data, start + SEGMENT_IDS + within * PLACE.size)
        if digest == ZERO_ID:
            if number or offset or word:
                raise FormatError(self.what, f"chunk {chunk} is zero and has a place")
            return None
        return digest, Place(self.pack(number), offset, word)

    def segment_ids(self, slot: int) -> memoryview:
        """Ids of a segment's chunks, back to back, by its slot as it stands in ``table``: ids of zeroes for 0."""
        start = self._start(slot)
        return self.data[start : start + SEGMENT_IDS] if slot else _ZERO_IDS

    def segment_places(self, slot: int) -> memoryview:
        """Places of a segment's chunks, back to back; its slot is not 0."""
        start = self._start(slot)
        return self.data[start + SEGMENT_IDS : start + SEGMENT_BYTES]

    def pack_table(self) -> bytes:
        """Names of its packs, back to back, from number 1 on."""
        return bytes(self.data[self.packs_at : self.packs_at + self.pack_count * NAME_BYTES])

    def refers_to(self, damaged: DamagedPlaces) -> bool:
        """Whether a chunk's place is known to be bad. Costs a walk through all places only if a pack of them is."""
        names = {self.pack(number): number for number in range(1, self.pack_count + 1)}
        if not damaged.packs().isdisjoint(names):
            return True
        bad = {names[pack]: offsets for pack, offsets in damaged.offsets().items() if pack in names}
        for slot in range(1, self.slots + 1) if bad else ():
            places = self.segment_places(slot).cast("I")
            for number, offset in zip(places[0::3].tolist(), places[1::3].tolist(), strict=True):
                if number in bad and offset in bad[number]:
                    return True
        return False

    def extents(self) -> list[Extent]:
        """The disk as DATA and ZERO, to the chunk."""
        return list(self.walk())

    def walk(self) -> Iterator[Extent]:
        """``extents``, one after the other: those of a large disk would take more memory than all the rest."""
        start, zero, chunks = 0, True, 0
        for number, segment in enumerate(self._segments()):
            for kind, run in self._runs(segment, min(SEGMENT_CHUNKS, self.chunks - number * SEGMENT_CHUNKS)):
                if kind is not zero and chunks:
                    yield self._extent(start, chunks, zero)
                    start, chunks = start + chunks, 0
                zero = kind
                chunks += run
        yield self._extent(start, chunks, zero)

    def forget(self) -> None:
        """Let the pages that were looked at leave this process (not the kernel's cache): an index is 128 MiB a TiB."""
        forget(self.data)

    def digest(self) -> str:
        """The image's digest, computed from the ids."""
        return image_digest(self._chunker, self.size, self._settings.chunk_size, self._segments())

    def close(self) -> None:
        """Give the mapping up."""
        self.table.release()
        self.data.release()

    def _segments(self) -> Iterator[memoryview | None]:
        """All in order, ``None`` for one of zeroes; the pages of those behind are given up on the way."""
        for number, slot in enumerate(self.table, 1):
            start = self._start(slot)
            yield self.data[start : start + SEGMENT_BYTES] if slot else None
            if number % _FORGET == 0:
                self.forget()
        self.forget()

    def _start(self, slot: int) -> int:
        return self.slots_at + (slot - 1) * SEGMENT_BYTES

    def _body_digest(self, end: int) -> bytes:
        hasher = blake3(key=self._chunker.keys.object)
        for start in range(0, end, _FORGET * SEGMENT_BYTES):
            hasher.update(self.data[start : min(start + _FORGET * SEGMENT_BYTES, end)])
            self.forget()
        return hasher.digest()

    def _runs(self, segment: memoryview | None, count: int) -> Iterator[tuple[bool, int]]:
        if segment is None:
            yield True, count
            return
        numbers = segment[SEGMENT_IDS:].cast("I")[0::3].tolist()[:count]
        for data, run in groupby(map(bool, numbers)):
            yield not data, len(list(run))

    def _extent(self, chunk: int, count: int, zero: bool) -> Extent:
        start, end = chunk * self._settings.chunk_size, (chunk + count) * self._settings.chunk_size
        return Extent(start, min(end, self.size) - start, Kind.ZERO if zero else Kind.DATA)


def image_digest(chunker: Chunker, size: int, chunk_size: int, segments: Iterator[memoryview | None]) -> str:
    """Keyed BLAKE3 over size, chunk size and the ids of all chunks in order; what is behind the last chunk counts as zero
    up to the end of its segment. Two images of one repository have one digest if and only if they hold the same bytes."""
    hasher = blake3(size.to_bytes(8, "little") + chunk_size.to_bytes(8, "little"), key=chunker.keys.image)
    for segment in segments:
        hasher.update(_ZERO_IDS if segment is None else segment[:SEGMENT_IDS])
    return hasher.hexdigest()
