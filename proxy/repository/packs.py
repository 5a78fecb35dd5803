"""Packs: many chunks in one immutable object that describes itself. Written here, in memory, and put as a whole.

One pack is open for all writers of a repository object. The thread whose chunk does not fit any more puts the full pack
while the others go on filling the next one; with ``BUFFERS`` packs under way they wait, which bounds the memory.
"""

import mmap
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from blake3 import blake3
from cryptography.exceptions import InvalidTag

from proxy.errors import FormatError
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.format import CLEAR, HEADER, PACK_ENTRY, PACK_MAGIC, PACK_TRAILER, SEAL_BYTES, Entry
from proxy.repository.scratch import anonymous
from proxy.repository.sealing import Keys
from proxy.repository.settings import Settings
from proxy.units import KiB

# One is filled while one is made durable. A third would hide a slower store at the cost of one more pack of memory.
BUFFERS = 2

# One request fetches the footer of nearly every pack: a full one of 32 MiB has some 130 to 500 entries of 32 bytes.
_TAIL = 16 * KiB


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is: pack, offset in it in bytes, and codec with stored length (``format.stored_word``)."""

    pack: bytes
    offset: int
    word: int


class _OpenPack:
    """A pack that is being filled. ``buffer`` has room for the chunks and the largest footer."""

    def __init__(self, settings: Settings, keys: Keys, buffer: mmap.mmap) -> None:
        self.name = secrets.token_bytes(layout.NAME_BYTES)
        self._keys = keys
        self.entries: list[Entry] = []
        self.unfilled = 0
        self.error: BaseException | None = None
        self.buffer = buffer
        self._view = memoryview(buffer)
        # A chunk as large as a pack may not compress, and is then a seal larger.
        self._limit = HEADER.size + settings.pack_size + SEAL_BYTES
        self._end = HEADER.size
        self._header = pack_header(settings, keys.newest, self.name)
        buffer[: HEADER.size] = self._header

    def fits(self, length: int) -> bool:
        return self._end + length <= self._limit and len(self.entries) < layout.MAX_PACK_ENTRIES

    def reserve(self, chunk: bytes, codec: int, length: int, raw: int) -> tuple[Place, memoryview]:
        """The chunk's place, and the room there that is to be filled."""
        offset = self._end
        self._end += length
        self.entries.append(Entry(chunk, offset, length, codec, raw))
        self.unfilled += 1
        return Place(self.name, offset, layout.stored_word(codec, length)), self._view[offset : self._end]

    def finish(self) -> memoryview:
        """Add the footer; the whole object as a view of the buffer."""
        view = memoryview(self.buffer)
        generation = self._keys.newest
        # What is sealed needs no digest of its own: each chunk's tag is one.
        body = bytes(layout.DIGEST_BYTES)
        if generation == CLEAR:
            body = blake3(view[HEADER.size : self._end], key=self._keys.object).digest()
        footer = _seal_footer(self._keys, self.name, layout.pack_footer(self.entries))
        tail = _trailer(self._keys, self._header, footer, (len(self.entries), self._end, generation), body)
        end = self._end + len(footer) + len(tail)
        view[self._end : end] = footer + tail
        return view[:end]


class _Waited(threading.local):
    """Seconds that this thread has waited for the store."""

    seconds = 0.0


class PackWriter:
    """Takes chunks of all image writers of one repository object. All methods may be called from any thread."""

    def __init__(
        self,
        store: ObjectStore,
        settings: Settings,
        chunker: Chunker,
        durable: Callable[[bytes, Sequence[Entry]], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._chunker = chunker
        self._durable = durable
        self._changed = threading.Condition()
        self._current: _OpenPack | None = None
        self._pending: dict[bytes, Place] = {}
        self._under_way: set[bytes] = set()
        self._free: list[mmap.mmap] = []
        self._made = 0
        self._waited = _Waited()
        self.failures: dict[bytes, BaseException] = {}

    @property
    def waited(self) -> float:
        """Seconds that the calling thread has spent in here waiting for the store, since it began."""
        return self._waited.seconds

    def pending(self, chunk: bytes) -> Place | None:
        """The chunk's place in a pack that is not durable yet."""
        return self._pending.get(chunk)

    def add(self, chunk: bytes, codec: int, stored: bytes | memoryview, raw: int) -> tuple[Place, bool]:
        """Copy stored bytes in as they are; also whether the chunk is new (another thread may have brought it meanwhile)."""

        def fill(room: memoryview) -> None:
            room[:] = stored

        return self._add(chunk, codec, len(stored), raw, fill)

    def store(self, chunk: bytes, data: memoryview) -> tuple[Place, bool]:
        """The same for the chunk's own bytes: compressed where that gains enough, and sealed straight into the pack."""
        codec, plain = self._chunker.compress(data)
        return self._add(
            chunk, *self._chunker.sealed(codec, len(plain)), len(data), partial(self._chunker.seal_into, chunk, plain)
        )

    def flush(self, needed: Collection[bytes]) -> None:
        """Return when all of the needed packs are durable; raise what kept one of them from it."""
        with self._changed:
            pack = self._current
            if pack is not None and pack.name in needed:
                self._detach(pack)
            else:
                pack = None
        if pack is not None:
            self._put(pack)
        with self._waiting(), self._changed:
            awaited = self._under_way.intersection(needed)
            while not awaited.isdisjoint(self._under_way):
                self._changed.wait()
        self.check(needed)

    def check(self, needed: Collection[bytes]) -> None:
        """Raise the error that lost one of the needed packs, if one was lost."""
        if not self.failures:
            return
        for name in needed:
            if name in self.failures:
                raise self.failures[name]

    def _open(self) -> _OpenPack:
        with self._waiting():
            while not self._free and self._made >= BUFFERS and self._current is None:
                self._changed.wait()
        if self._current is not None:
            return self._current  # opened by another thread while this one waited
        if not self._free:
            footer = layout.MAX_PACK_ENTRIES * PACK_ENTRY.size + SEAL_BYTES + PACK_TRAILER.size
            self._free.append(anonymous(HEADER.size + self._settings.pack_size + SEAL_BYTES + footer))
            self._made += 1
        self._current = _OpenPack(self._settings, self._chunker.keys, self._free.pop())
        return self._current

    def _add(
        self, chunk: bytes, codec: int, length: int, raw: int, fill: Callable[[memoryview], None]
    ) -> tuple[Place, bool]:
        while True:
            with self._changed:
                known = self._pending.get(chunk)
                if known is not None:
                    return known, False
                pack = self._current or self._open()
                if pack.fits(length):
                    place, room = pack.reserve(chunk, codec, length, raw)
                    self._pending[chunk] = place
                    break
                self._detach(pack)
            self._put(pack)
        self._fill(pack, room, fill)
        return place, True

    def _fill(self, pack: _OpenPack, room: memoryview, fill: Callable[[memoryview], None]) -> None:
        """Without the lock: several threads fill one pack at once, and it is put when all have."""
        try:
            fill(room)
        except BaseException as error:  # others may refer to the place by now
            pack.error = error
            raise
        finally:
            with self._changed:
                pack.unfilled -= 1
                if not pack.unfilled and pack is not self._current:
                    self._changed.notify_all()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        begin = perf_counter()
        try:
            yield
        finally:
            self._waited.seconds += perf_counter() - begin

    def _detach(self, pack: _OpenPack) -> None:
        self._current = None
        self._under_way.add(pack.name)

    def _put(self, pack: _OpenPack) -> None:
        """Make a detached pack durable and known; whatever happens, its buffer is free afterwards."""
        try:
            with self._changed:
                while pack.unfilled:
                    self._changed.wait()
            if pack.error is not None:
                raise pack.error
            with pack.finish() as data, self._waiting():
                self._store.put(layout.pack_name(pack.name), data)
            self._durable(pack.name, pack.entries)
        except BaseException as error:  # an interrupt loses the pack just as a full disk does
            self.failures[pack.name] = error
            raise
        finally:
            with self._changed:
                for entry in pack.entries:
                    self._pending.pop(entry.id, None)
                self._under_way.discard(pack.name)
                if pack.unfilled:  # interrupted while others fill it: what they write must land in no other pack
                    self._made -= 1
                else:
                    self._free.append(pack.buffer)
                self._changed.notify_all()


def read_footer(store: ObjectStore, settings: Settings, chunker: Chunker, pack: bytes) -> list[Entry]:
    """What a pack says that it holds, checked against its digest. Raises ``FormatError``, ``FileNotFoundError``."""
    name = layout.pack_name(pack)
    size = store.size(name)
    start = max(0, size - _TAIL)
    tail = store.get(name, start, size - start)
    offset = parse_trailer(name, tail, size).offset
    if offset < start:
        tail = store.get(name, offset, size - offset)
        start = offset
    return check_footer(pack, tail[offset - start :], size, settings, chunker)


def read_chunk(store: ObjectStore, chunker: Chunker, digest: bytes, place: Place, raw: int) -> bytearray:
    """One chunk of ``raw`` bytes. Raises ``IntegrityError`` or ``FormatError`` if it is not there whole, and
    ``FileNotFoundError`` if its pack is gone."""
    codec, length = layout.split_stored(place.word)
    return chunker.restore(digest, codec, store.get(layout.pack_name(place.pack), place.offset, length), raw)


@dataclass(frozen=True, slots=True)
class Trailer:
    """``count`` entries, which begin at ``offset``; ``body``: digest of the chunks of a pack in the clear."""

    count: int
    offset: int
    generation: int
    body: bytes


def parse_trailer(name: str, tail: bytes | memoryview, size: int) -> Trailer:
    """``tail``: the last bytes of an object of ``size``. Nothing but its own bounds is checked."""
    if size < HEADER.size + PACK_TRAILER.size or len(tail) < PACK_TRAILER.size:
        raise FormatError(name, f"{size} bytes are too few for a pack")
    fields = PACK_TRAILER.struct.unpack_from(tail, len(tail) - PACK_TRAILER.size)
    count, offset, generation, _, body, _, magic = fields
    if magic != layout.PACK_END:
        raise FormatError(name, "does not end like a pack: it was truncated or damaged")
    if count > layout.MAX_PACK_ENTRIES or offset < HEADER.size or generation > layout.MAX_GENERATION:
        raise FormatError(name, f"claims {count} chunks, footer at {offset}, key generation {generation}")
    seal = SEAL_BYTES if generation else 0
    if offset + count * PACK_ENTRY.size + seal + PACK_TRAILER.size != size:
        raise FormatError(name, f"has {size} bytes, which does not fit {count} chunks, footer at {offset}")
    return Trailer(count, offset, generation, body)


def check_footer(
    pack: bytes, footer: bytes | memoryview, size: int, settings: Settings, chunker: Chunker
) -> list[Entry]:
    """Entries of a footer (entries and trailer), after its digest was compared. ``size``: bytes of the whole pack."""
    name = layout.pack_name(pack)
    trailer = parse_trailer(name, footer, size)
    entries = bytes(footer[: -PACK_TRAILER.size])
    header = pack_header(settings, trailer.generation, pack)
    facts = (trailer.count, trailer.offset, trailer.generation)
    if _trailer(chunker.keys, header, entries, facts, trailer.body) != footer[len(entries) :]:
        raise FormatError(name, "the digest of its footer does not fit")
    plain = _unseal_footer(name, chunker.keys, pack, trailer.generation, entries)
    return layout.pack_entries(name, plain, trailer.count, trailer.offset, settings.chunk_size)


def check_frame(pack: bytes, data: memoryview, settings: Settings, chunker: Chunker) -> None:
    """Everything in a whole pack that no chunk's own check covers. Raises ``FormatError``."""
    name = layout.pack_name(pack)
    trailer = parse_trailer(name, data[-PACK_TRAILER.size :], len(data))
    if data[: HEADER.size] != pack_header(settings, trailer.generation, pack):
        raise FormatError(name, "its header changed")
    if trailer.generation != CLEAR:
        return
    if blake3(data[HEADER.size : trailer.offset], key=chunker.keys.object).digest() != trailer.body:
        raise FormatError(name, "bytes of a chunk changed without changing what it reads as")


def pack_header(settings: Settings, generation: int, pack: bytes) -> bytes:
    """The only header that a pack of this name can have."""
    return layout.header(PACK_MAGIC, generation, settings.chunk_size, settings.id, pack)


def _trailer(keys: Keys, header: bytes, footer: bytes | memoryview, facts: tuple[int, int, int], body: bytes) -> bytes:
    """``facts``: entries, where they begin, generation."""
    unsigned = PACK_TRAILER.struct.pack(*facts, 0, body, bytes(layout.DIGEST_BYTES), layout.PACK_END)
    digest = blake3(header, key=keys.object).update(footer).update(unsigned).digest()
    return PACK_TRAILER.struct.pack(*facts, 0, body, digest, layout.PACK_END)


def _seal_footer(keys: Keys, pack: bytes, entries: bytes) -> bytes:
    if keys.newest == CLEAR:
        return entries
    nonce = secrets.token_bytes(layout.NONCE_BYTES)
    return nonce + keys.object_cipher(pack, keys.newest).encrypt(nonce, entries, None)


def _unseal_footer(name: str, keys: Keys, pack: bytes, generation: int, sealed: bytes) -> bytes:
    if (generation == CLEAR) is not (keys.newest == CLEAR):
        raise FormatError(name, "is in the clear in a sealed repository, or the other way round")
    if generation == CLEAR:
        return sealed
    try:
        nonce, rest = sealed[: layout.NONCE_BYTES], sealed[layout.NONCE_BYTES :]
        return keys.object_cipher(pack, generation).decrypt(nonce, rest, None)
    except InvalidTag:
        raise FormatError(name, "the seal of its footer does not fit") from None
