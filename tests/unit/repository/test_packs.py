"""Packs: what they say of themselves, how many are held in memory, and who waits for whom."""

import os
import threading
from collections.abc import Sequence

import pytest

from proxy.errors import FormatError, RepositoryFull
from proxy.repository import MemoryStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.format import Entry
from proxy.repository.packs import BUFFERS, PackWriter, read_footer
from proxy.repository.sealing import Keyring, Keys
from proxy.repository.settings import Settings

CHUNK = 4096
KEYS = Keys(Keyring((b"k" * 32,), sealed=False))
SETTINGS = Settings(b"r" * 16, "", KEYS.public, b"k" * 32, CHUNK, 64 * 1024)
CHUNKER = Chunker(SETTINGS, KEYS)


class SlowStore(MemoryStore):
    """Puts wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        self.waiting.release()
        assert self.gate.wait(20)
        super().put(name, data, new=new)


def writer(store: MemoryStore) -> tuple[PackWriter, dict[bytes, list[Entry]]]:
    known: dict[bytes, list[Entry]] = {}

    def durable(pack: bytes, entries: Sequence[Entry]) -> None:
        known[pack] = list(entries)

    return PackWriter(store, SETTINGS, CHUNKER, durable), known


def encoded(chunker: Chunker, chunk: bytes, data: bytes | memoryview) -> tuple[int, memoryview]:
    """Codec byte and stored bytes of a chunk."""
    codec, plain = chunker.compress(memoryview(data))
    codec, length = chunker.sealed(codec, len(plain))
    stored = memoryview(bytearray(length))
    chunker.seal_into(chunk, plain, stored)
    return codec, stored


def add(packs: PackWriter, data: bytes) -> bytes:
    """The pack that the chunk went to."""
    place, _ = packs.add(CHUNKER.id(data), layout.CODEC_RAW, data, len(data))
    return place.pack


def test_a_pack_tells_what_it_holds() -> None:
    store = MemoryStore()
    packs, known = writer(store)
    chunks = [os.urandom(CHUNK) for _ in range(5)]
    names = {add(packs, chunk) for chunk in chunks}
    assert list(store.list("")) == []
    packs.flush(names)
    (name,) = names
    assert read_footer(store, SETTINGS, CHUNKER, name) == known[name]
    assert [e.id for e in known[name]] == [CHUNKER.id(chunk) for chunk in chunks]
    for entry, chunk in zip(known[name], chunks, strict=True):
        assert store.get(layout.pack_name(name), entry.offset, entry.stored) == chunk


@pytest.mark.slow
def test_a_footer_that_is_larger_than_one_request_is_read_whole() -> None:
    store = MemoryStore()
    packs, known = writer(store)
    names = {add(packs, number.to_bytes(4, "big")) for number in range(layout.MAX_PACK_ENTRIES + 10)}
    packs.flush(names)
    assert sorted(len(entries) for entries in known.values()) == [10, layout.MAX_PACK_ENTRIES]
    for name in names:
        assert read_footer(store, SETTINGS, CHUNKER, name) == known[name]


def test_a_chunk_that_two_bring_at_once_is_taken_once() -> None:
    packs, _ = writer(MemoryStore())
    chunk = b"x" * CHUNK
    first, new = packs.add(CHUNKER.id(chunk), layout.CODEC_RAW, chunk, CHUNK)
    second, again = packs.add(CHUNKER.id(chunk), layout.CODEC_RAW, chunk, CHUNK)
    assert (new, again) == (True, False)
    assert first == second == packs.pending(CHUNKER.id(chunk))


def test_a_full_pack_is_put_while_others_go_on_and_memory_stays_bounded() -> None:
    store = SlowStore()
    packs, known = writer(store)
    per_pack = SETTINGS.pack_size // CHUNK
    added: list[int] = []

    def fill(first: int) -> None:
        for n in range(per_pack):
            add(packs, os.urandom(CHUNK))
            added.append(first + n)

    threads = [threading.Thread(target=fill, args=(n * 1000,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(BUFFERS):
        assert store.waiting.acquire(timeout=20)
    assert not store.waiting.acquire(timeout=0.2)  # all buffers are under way: the others wait for one
    assert len(added) <= BUFFERS * per_pack
    store.gate.set()
    for thread in threads:
        thread.join()
    assert len(added) == 5 * per_pack
    assert sum(map(len, known.values())) >= 4 * per_pack


class SlowChunker(Chunker):
    """Chunks whose first byte is 1 are stored when they are let through, those with 2 not at all."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, KEYS)
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)

    def seal_into(self, chunk: bytes, plain: bytes | memoryview, out: memoryview) -> None:
        if plain[0] == 1:
            self.waiting.release()
            assert self.gate.wait(20)
        if plain[0] == 2:
            raise MemoryError
        super().seal_into(chunk, plain, out)


def test_a_pack_is_put_when_all_who_have_room_in_it_have_filled_it() -> None:
    store, chunker = MemoryStore(), SlowChunker()
    packs = PackWriter(store, SETTINGS, chunker, lambda _pack, _entries: None)
    slow, quick = (memoryview(bytes([first]) + os.urandom(CHUNK - 1)) for first in (1, 0))
    filling = threading.Thread(target=packs.store, args=(chunker.id(slow), slow))
    filling.start()
    assert chunker.waiting.acquire(timeout=20)
    place, new = packs.store(chunker.id(quick), quick)  # does not wait for the other
    assert new
    putting = threading.Thread(target=packs.flush, args=({place.pack},))
    putting.start()
    putting.join(0.2)
    assert putting.is_alive()
    assert list(store.list("")) == []
    chunker.gate.set()
    putting.join(20)
    filling.join(20)
    entries = read_footer(store, SETTINGS, chunker, place.pack)
    there = [store.get(layout.pack_name(place.pack), e.offset, e.stored) for e in entries]
    assert there == [slow, quick]


def test_a_chunk_that_could_not_be_stored_loses_its_pack_for_all() -> None:
    store, chunker = MemoryStore(), SlowChunker()
    packs = PackWriter(store, SETTINGS, chunker, lambda _pack, _entries: None)
    good, bad = (memoryview(bytes([first]) + os.urandom(CHUNK - 1)) for first in (0, 2))
    place, _ = packs.store(chunker.id(good), good)
    with pytest.raises(MemoryError):
        packs.store(chunker.id(bad), bad)
    with pytest.raises(MemoryError):
        packs.flush({place.pack})
    assert list(store.list("")) == []
    assert packs.pending(chunker.id(bad)) is None
    again, new = packs.store(chunker.id(good), good)
    packs.flush({again.pack})
    assert new
    assert again.pack != place.pack


def test_what_is_written_into_a_pack_that_was_given_up_lands_in_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    store, chunker = MemoryStore(), SlowChunker()
    packs = PackWriter(store, SETTINGS, chunker, lambda _pack, _entries: None)
    slow, quick = (memoryview(bytes([first]) + os.urandom(CHUNK - 1)) for first in (1, 0))
    filling = threading.Thread(target=packs.store, args=(chunker.id(slow), slow))
    filling.start()
    assert chunker.waiting.acquire(timeout=20)
    lost = packs.pending(chunker.id(slow))
    assert lost is not None

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(packs._changed, "wait", interrupted)
        packs.flush({lost.pack})
    place, _ = packs.store(chunker.id(quick), quick)
    chunker.gate.set()
    filling.join(20)
    packs.flush({place.pack})
    assert store.get(layout.pack_name(place.pack), place.offset, CHUNK) == quick


def test_flush_waits_for_a_pack_that_another_thread_is_putting() -> None:
    store = SlowStore()
    packs, known = writer(store)
    name = add(packs, b"a" * 100)
    other = threading.Thread(target=packs.flush, args=({name},))
    other.start()
    assert store.waiting.acquire(timeout=20)
    done = threading.Event()
    mine = threading.Thread(target=lambda: (packs.flush({name}), done.set()))
    mine.start()
    assert not done.wait(0.1)
    store.gate.set()
    assert done.wait(20)
    other.join()
    mine.join()
    assert set(known) == {name}


def test_flush_leaves_alone_what_is_not_needed() -> None:
    store = MemoryStore()
    packs, known = writer(store)
    add(packs, b"a" * 100)
    packs.flush(set())
    assert known == {}
    assert list(store.list("")) == []


def test_a_pack_that_could_not_be_put_is_remembered_and_its_chunks_are_not() -> None:
    store = MemoryStore()
    packs, known = writer(store)
    chunk = b"c" * 100
    name = add(packs, chunk)
    store.fail_at(0)
    with pytest.raises(RepositoryFull):
        packs.flush({name})
    store.fail_at(None)
    with pytest.raises(RepositoryFull):
        packs.check([name])
    assert packs.pending(CHUNKER.id(chunk)) is None
    other = add(packs, chunk)
    packs.flush({other})
    assert set(known) == {other}


def test_a_pack_under_another_name_is_refused() -> None:
    store = MemoryStore()
    packs, _ = writer(store)
    name = add(packs, b"a" * 100)
    packs.flush({name})
    store.objects[layout.pack_name(b"o" * 16)] = store.objects[layout.pack_name(name)]
    with pytest.raises(FormatError, match="digest of its footer"):
        read_footer(store, SETTINGS, CHUNKER, b"o" * 16)


@pytest.mark.parametrize(
    ("codec", "stored", "raw"),
    [
        pytest.param(1, b"not zstd at all", 100, id="no frame"),
        pytest.param(1, encoded(CHUNKER, b"i" * 20, memoryview(bytes(CHUNK)))[1], 100, id="frame of another size"),
        pytest.param(1, bytes.fromhex("28b52ffd") + b"\xe0" + b"\xff" * 8, CHUNK, id="frame that claims exabytes"),
        pytest.param(0, b"123", 100, id="raw of another length"),
        pytest.param(9, b"123", 3, id="unknown codec"),
    ],
)
def test_a_hostile_chunk_is_refused_without_taking_its_memory(codec: int, stored: bytes, raw: int) -> None:
    with pytest.raises(FormatError):
        CHUNKER.decompress_into(codec, stored, memoryview(bytearray(raw)))


def test_chunks_that_do_not_compress_are_stored_as_they_are() -> None:
    noise = os.urandom(CHUNK)
    assert encoded(CHUNKER, CHUNKER.id(noise), memoryview(noise)) == (layout.CODEC_RAW, noise)
    codec, packed = encoded(CHUNKER, b"i" * 20, memoryview(b"text" * 1024))
    assert codec == layout.CODEC_ZSTD
    out = bytearray(CHUNK)
    CHUNKER.decompress_into(codec, packed, memoryview(out))
    assert out == b"text" * 1024


SEALING = Chunker(SETTINGS, Keys(Keyring((b"k" * 32, b"l" * 32))))


@pytest.mark.parametrize("data", [b"text" * 1024, os.urandom(CHUNK)], ids=["compressible", "noise"])
def test_a_sealed_chunk_comes_back_and_no_bit_of_it_can_change(data: bytes) -> None:
    chunk = SEALING.id(data)
    codec, stored = encoded(SEALING, chunk, memoryview(data))
    assert layout.split_codec(codec)[0] == 2  # the newest generation
    assert data[:64] not in bytes(stored)
    assert SEALING.restore(chunk, codec, stored, CHUNK) == data
    for place in (0, 11, 12, len(stored) // 2, len(stored) - 1):
        damaged = bytearray(stored)
        damaged[place] ^= 1
        with pytest.raises(FormatError, match="seal"):
            SEALING.restore(chunk, codec, bytes(damaged), CHUNK)
    with pytest.raises(FormatError, match="seal"):
        SEALING.restore(b"o" * 20, codec, stored, CHUNK)


def test_one_chunk_sealed_twice_looks_different_each_time() -> None:
    data = memoryview(bytes([7]) * CHUNK)
    assert encoded(SEALING, b"i" * 20, data)[1] != encoded(SEALING, b"i" * 20, data)[1]


def test_chunks_of_older_generations_are_read_and_those_of_newer_ones_ask_for_the_new_keyring() -> None:
    old = Chunker(SETTINGS, Keys(Keyring((b"k" * 32,))))
    data = b"text" * 1024
    assert old.id(data) == SEALING.id(data)  # so that deduplication goes on
    codec, stored = encoded(old, old.id(data), memoryview(data))
    assert SEALING.restore(old.id(data), codec, stored, CHUNK) == data
    codec, stored = encoded(SEALING, old.id(data), memoryview(data))
    with pytest.raises(FormatError, match="open the repository again"):
        old.restore(old.id(data), codec, stored, CHUNK)


def test_a_chunk_in_the_clear_is_refused_by_a_sealed_repository() -> None:
    data = b"text" * 1024
    codec, stored = encoded(CHUNKER, SEALING.id(data), memoryview(data))
    with pytest.raises(FormatError, match="in the clear"):
        SEALING.restore(SEALING.id(data), codec, stored, CHUNK)


def test_nothing_in_a_sealed_pack_can_be_read_without_the_key() -> None:
    store = MemoryStore()
    packs = PackWriter(store, SETTINGS, SEALING, lambda _, __: None)
    data = b"text" * 1024
    codec, stored = encoded(SEALING, SEALING.id(data), memoryview(data))
    place, _ = packs.add(SEALING.id(data), codec, stored, CHUNK)
    packs.flush({place.pack})
    (entry,) = read_footer(store, SETTINGS, SEALING, place.pack)
    assert (entry.id, entry.codec, entry.raw) == (SEALING.id(data), codec, CHUNK)
    there = store.get(layout.pack_name(place.pack))
    assert SEALING.id(data) not in there
    assert b"text" not in there
