"""An image's index: for every chunk of the disk its id and its place. FORMAT.md draws it.

Chunks are grouped in segments of ``SEGMENT_CHUNKS``; a segment holds all its ids, then all its places, so that ids can be
compared and digested without touching places. A segment of zeroes has no slot. An index is mapped, never read whole.
"""

import threading
from array import array
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.errors import FormatError
from proxy.extents import Extent, Kind
from proxy.ports import ObjectStore
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
from proxy.repository.scratch import Scratch, mapped
from proxy.repository.sealing import BLOCK, seal_blocks, sealed_size, unseal_block
from proxy.repository.settings import Settings
from proxy.units import MiB

_ZERO_SEGMENT = bytes(SEGMENT_BYTES)
_NO_PLACE = bytes(PLACE.size)


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
        self._file = Scratch(scratch)
        self._map = self._file.map(room)
        self._file.reserve(0, self._base)

    def start_from(self, parent: "IndexView") -> None:
        """Take over all references of an index of the same size; to be called before anything else."""
        with self._lock:
            self._table = array("I", parent.table)
            self._used = parent.slots
            self._packs = {parent.pack(number): number for number in range(1, parent.pack_count + 1)}
            end = self._base + self._used * SEGMENT_BYTES
            self._file.reserve(self._base, end - self._base)
            for start in range(self._base, end, MiB):
                stop = min(start + MiB, end)
                self._map[start:stop] = parent.data[start:stop]

    def packs(self) -> list[bytes]:
        """Names of the packs that the index refers to, or once did."""
        with self._lock:
            return list(self._packs)

    def id(self, chunk: int) -> bytes:
        """Id of a chunk as it stands now, ``ZERO_ID`` for zeroes."""
        slot = self._table[chunk // SEGMENT_CHUNKS]
        if not slot:
            return ZERO_ID
        at = self._base + (slot - 1) * SEGMENT_BYTES + chunk % SEGMENT_CHUNKS * ID_BYTES
        return self._map[at : at + ID_BYTES]

    def set(self, chunk: int, digest: bytes, place: Place) -> None:
        """Refer a chunk to a place."""
        segment, within = divmod(chunk, SEGMENT_CHUNKS)
        number = self._packs.get(place.pack) or self._number(place.pack)
        slot = self._table[segment] or self._take(segment)
        start = self._base + (slot - 1) * SEGMENT_BYTES
        at = start + within * ID_BYTES
        self._map[at : at + ID_BYTES] = digest
        PLACE.struct.pack_into(self._map, start + SEGMENT_IDS + within * PLACE.size, number, place.offset, place.word)

    def zero(self, chunk: int, count: int) -> None:
        """Make a run of chunks zero."""
        end = chunk + count
        while chunk < end:
            segment, within = divmod(chunk, SEGMENT_CHUNKS)
            run = min(SEGMENT_CHUNKS - within, end - chunk)
            slot = self._table[segment]
            if slot:
                start = self._base + (slot - 1) * SEGMENT_BYTES
                at = start + within * ID_BYTES
                self._map[at : at + run * ID_BYTES] = bytes(run * ID_BYTES)
                at = start + SEGMENT_IDS + within * PLACE.size
                self._map[at : at + run * PLACE.size] = bytes(run * PLACE.size)
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
        view[end : end + DIGEST_BYTES] = blake3(view[:end], key=chunker.keys.object).digest()
        segments = (self._segment(view, slot) for slot in self._table)
        digest = image_digest(chunker, self.size, self._settings.chunk_size, segments)
        return view[: end + DIGEST_BYTES], digest

    def close(self) -> None:
        """Give the files up."""
        self._map.close()
        self._file.close()
        if self._sealed is not None:
            self._sealed.close()

    def _segment(self, view: memoryview, slot: int) -> memoryview | None:
        start = self._base + (slot - 1) * SEGMENT_BYTES
        return view[start : start + SEGMENT_BYTES] if slot else None

    def _trim(self, view: memoryview) -> int:
        """Drop packs that nothing refers to any more and number the rest anew; count the chunks that are not zero."""
        columns = [
            self._segment(view, slot)[SEGMENT_IDS:].cast("I")[0::3]  # type: ignore[index]  # slots count from 1
            for slot in range(1, self._used + 1)
        ]
        used: set[int] = set()
        chunks = 0
        for column in columns:
            numbers = column.tolist()
            used.update(numbers)
            chunks += len(numbers) - numbers.count(0)
        used.discard(0)
        if len(used) < len(self._packs):
            kept = [name for name, number in self._packs.items() if number in used]
            renumbered = {self._packs[name]: number for number, name in enumerate(kept, 1)} | {0: 0}
            for column in columns:
                column[:] = memoryview(array("I", [renumbered[number] for number in column]))
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
        self._base = INDEX_START + 4 * segments
        self._packs_at = self._base + self.slots * SEGMENT_BYTES
        end = self._packs_at + self.pack_count * NAME_BYTES
        if segments != layout.segment_count(self.size, settings.chunk_size) or end + DIGEST_BYTES != len(data):
            raise FormatError(what, f"{len(data)} bytes do not fit its counts: it was truncated or damaged")
        if blake3(data[:end], key=chunker.keys.object).digest() != data[end:]:
            raise FormatError(what, "its digest does not fit: it was damaged")
        self.table = data[INDEX_START : self._base].cast("I")
        if max(self.table, default=0) > self.slots:
            raise FormatError(what, f"a segment points behind its {self.slots} slots")
        self.chunks = layout.chunk_count(self.size, settings.chunk_size)

    def pack(self, number: int) -> bytes:
        """Name of the pack with a number from 1 on."""
        if not 1 <= number <= self.pack_count:
            raise FormatError(self.what, f"refers to pack {number} of {self.pack_count}")
        at = self._packs_at + (number - 1) * NAME_BYTES
        return bytes(self.data[at : at + NAME_BYTES])

    def reference(self, chunk: int) -> tuple[bytes, Place] | None:
        """Id and place of a chunk, ``None`` for zeroes."""
        slot = self.table[chunk // SEGMENT_CHUNKS]
        if not slot:
            return None
        start = self._base + (slot - 1) * SEGMENT_BYTES
        within = chunk % SEGMENT_CHUNKS
        at = start + within * ID_BYTES
        digest = bytes(self.data[at : at + ID_BYTES])
        number, offset, word = PLACE.struct.unpack_from(self.data, start + SEGMENT_IDS + within * PLACE.size)
        if digest == ZERO_ID:
            if number or offset or word:
                raise FormatError(self.what, f"chunk {chunk} is zero and has a place")
            return None
        return digest, Place(self.pack(number), offset, word)

    def refers_to(self, damaged: DamagedPlaces) -> bool:
        """Whether a chunk's place is known to be bad. Costs a walk through all places only if a pack of them is."""
        names = {self.pack(number): number for number in range(1, self.pack_count + 1)}
        if not damaged.packs().isdisjoint(names):
            return True
        bad = {names[pack]: offsets for pack, offsets in damaged.offsets().items() if pack in names}
        for slot in range(1, self.slots + 1) if bad else ():
            start = self._base + (slot - 1) * SEGMENT_BYTES + SEGMENT_IDS
            places = self.data[start : start + SEGMENT_CHUNKS * PLACE.size].cast("I")
            for number, offset in zip(places[0::3].tolist(), places[1::3].tolist(), strict=True):
                if number in bad and offset in bad[number]:
                    return True
        return False

    def extents(self) -> list[Extent]:
        """The disk as DATA and ZERO, to the chunk."""
        out: list[tuple[bool, int]] = []
        for segment, slot in enumerate(self.table):
            count = min(SEGMENT_CHUNKS, self.chunks - segment * SEGMENT_CHUNKS)
            for zero, run in self._runs(slot, count):
                if out and out[-1][0] is zero:
                    out[-1] = (zero, out[-1][1] + run)
                else:
                    out.append((zero, run))
        return list(self._cut(out))

    def digest(self) -> str:
        """The image's digest, computed from the ids."""
        segments = (self._segment(slot) for slot in self.table)
        return image_digest(self._chunker, self.size, self._settings.chunk_size, segments)

    def close(self) -> None:
        """Give the mapping up."""
        self.table.release()
        self.data.release()

    def _segment(self, slot: int) -> memoryview | None:
        start = self._base + (slot - 1) * SEGMENT_BYTES
        return self.data[start : start + SEGMENT_BYTES] if slot else None

    def _runs(self, slot: int, count: int) -> Iterator[tuple[bool, int]]:
        segment = self._segment(slot)
        if segment is None:
            yield True, count
            return
        numbers = segment[SEGMENT_IDS:].cast("I")[0::3].tolist()[:count]
        for zero, run in groupby(number == 0 for number in numbers):
            yield zero, sum(1 for _ in run)

    def _cut(self, runs: list[tuple[bool, int]]) -> Iterator[Extent]:
        start = 0
        for zero, count in runs:
            end = min(start + count * self._settings.chunk_size, self.size)
            yield Extent(start, end - start, Kind.ZERO if zero else Kind.DATA)
            start = end


def image_digest(chunker: Chunker, size: int, chunk_size: int, segments: Iterator[memoryview | None]) -> str:
    """Keyed BLAKE3 over size, chunk size and the ids of all chunks in order; what is behind the last chunk counts as zero
    up to the end of its segment. Two images of one repository have one digest if and only if they hold the same bytes."""
    hasher = blake3(size.to_bytes(8, "little") + chunk_size.to_bytes(8, "little"), key=chunker.keys.image)
    for segment in segments:
        hasher.update(_ZERO_SEGMENT[:SEGMENT_IDS] if segment is None else segment[:SEGMENT_IDS])
    return hasher.hexdigest()


def open_index(store: ObjectStore, settings: Settings, chunker: Chunker, name: bytes, scratch: Path) -> IndexView:
    """Map an index: where it lies if it is in the clear and the store has files, else from an unnamed copy in the clear.
    Raises ``FormatError`` and ``FileNotFoundError``."""
    what = layout.index_name(name)
    size = store.size(what)
    head = store.get(what, 0, min(HEADER.size, size))
    generation, own = layout.check_header(what, head, layout.INDEX_MAGIC, settings.chunk_size, settings.id)
    if (generation == CLEAR) is not (chunker.keys.newest == CLEAR) or own != name:
        raise FormatError(what, "is in the clear in a sealed repository, or carries another index's name")
    path = store.local_path(what) if generation == CLEAR else None
    if path is not None:
        with path.open("rb") as file:
            return IndexView(what, mapped(what, file.fileno()), settings, chunker, name)
    with closing(Scratch(scratch)) as copy:
        copy.write(head)
        cipher = None if generation == CLEAR else chunker.keys.object_cipher(name, generation)
        for block in _blocks(store, what, size, cipher):
            copy.write(block)
        return IndexView(what, copy.mapped(what), settings, chunker, name)


# One request; eight blocks of an index that is sealed.
_REQUEST = 8


def _blocks(store: ObjectStore, what: str, size: int, cipher: AESGCM | None) -> Iterator[bytes | memoryview]:
    """An index's body in the clear, piece by piece."""
    step = BLOCK if cipher is None else BLOCK + layout.TAG_BYTES
    number = 0
    for start in range(HEADER.size, size, _REQUEST * step):
        part = memoryview(store.get(what, start, min(_REQUEST * step, size - start)))
        for at in range(0, len(part), step):
            block = part[at : at + step]
            yield block if cipher is None else unseal_block(what, cipher, number, block)
            number += 1
