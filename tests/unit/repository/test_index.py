"""Indexes: references come back, unused packs go, and hostile bytes are refused."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from proxy.errors import FormatError
from proxy.extents import Extent, Kind
from proxy.repository import MemoryStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.format import HEADER, INDEX_START, SEGMENT_BYTES, SEGMENT_CHUNKS, SEGMENT_IDS
from proxy.repository.index import IndexBuilder, IndexView
from proxy.repository.index_open import open_index
from proxy.repository.packs import Place
from proxy.repository.sealing import Keyring, Keys
from proxy.repository.settings import Settings

CHUNK = 4096
KEYS = Keys(Keyring((b"k" * 32,), sealed=False))
SETTINGS = Settings(b"r" * 16, "", KEYS.public, b"k" * 32, CHUNK, 64 * 1024)
CHUNKER = Chunker(SETTINGS, KEYS)
NAME = b"n" * 16
SEGMENT = SEGMENT_CHUNKS * CHUNK


def ident(number: int) -> bytes:
    return struct.pack("<20s", str(number).encode())


def place(pack: int, offset: int = 48) -> Place:
    return Place(bytes([pack]) * 16, offset, layout.stored_word(layout.CODEC_ZSTD, 99))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., bytes]:
    """An index object from {chunk: pack}."""

    def run(
        size: int, chunks: dict[int, int], parent: IndexView | None = None, zero: tuple[int, int] = (0, 0)
    ) -> bytes:
        builder = IndexBuilder(size, SETTINGS, tmp_path)
        if parent is not None:
            builder.start_from(parent)
        for chunk, pack in chunks.items():
            builder.set(chunk, ident(chunk), place(pack))
            assert builder.id(chunk) == ident(chunk)
        builder.zero(*zero)
        data, digest = builder.finish(NAME, CHUNKER)
        with data:
            out = bytes(data)
        builder.close()
        assert view(out).digest() == digest
        return out

    return run


def view(data: bytes) -> IndexView:
    return IndexView("index", memoryview(data), SETTINGS, CHUNKER, NAME)


def sealed(data: bytes | bytearray) -> bytes:
    """Hostile bytes with a digest that fits: the attacker has the key."""
    return bytes(data[:-32]) + blake3(data[:-32], key=CHUNKER.keys.object).digest()


def test_references_come_back_and_zero_segments_take_no_slot(build: Callable[..., bytes]) -> None:
    last = 5 * SEGMENT_CHUNKS + 7
    data = build(last * CHUNK + 5, {0: 1, 2: 2, 3 * SEGMENT_CHUNKS: 1, last: 3})
    index = view(data)
    assert index.slots == 3
    assert index.data_chunks == 4
    assert len(data) == INDEX_START + 6 * 4 + 3 * SEGMENT_BYTES + 3 * 16 + 32
    assert index.reference(0) == (ident(0), place(1))
    assert index.reference(1) is None
    assert index.reference(SEGMENT_CHUNKS + 5) is None
    assert index.reference(last) == (ident(last), place(3))
    assert index.extents() == [
        Extent(0, CHUNK),
        Extent(CHUNK, CHUNK, Kind.ZERO),
        Extent(2 * CHUNK, CHUNK),
        Extent(3 * CHUNK, 3 * SEGMENT - 3 * CHUNK, Kind.ZERO),
        Extent(3 * SEGMENT, CHUNK),
        Extent(3 * SEGMENT + CHUNK, 2 * SEGMENT + 6 * CHUNK, Kind.ZERO),
        Extent(last * CHUNK, 5),
    ]


@pytest.mark.slow
def test_an_empty_disk_of_ten_tebibytes_has_a_small_index(tmp_path: Path) -> None:
    settings = Settings(b"r" * 16, "", KEYS.public, b"k" * 32)
    builder = IndexBuilder(10 * 1024**4, settings, tmp_path)
    builder.zero(0, 10 * 1024**4 // settings.chunk_size)
    data, _ = builder.finish(NAME, Chunker(settings, KEYS))
    with data:
        assert len(data) == INDEX_START + 10240 * 4 + 32
    builder.close()


def test_an_incremental_takes_over_what_it_does_not_replace(build: Callable[..., bytes]) -> None:
    parent = view(build(3 * SEGMENT, {0: 1, 1: 2, 2 * SEGMENT_CHUNKS: 2}))
    child = view(build(3 * SEGMENT, {1: 3, SEGMENT_CHUNKS: 3}, parent))
    assert child.reference(0) == parent.reference(0)
    assert child.reference(1) == (ident(1), place(3))
    assert child.reference(SEGMENT_CHUNKS) == (ident(SEGMENT_CHUNKS), place(3))
    assert child.reference(2 * SEGMENT_CHUNKS) == parent.reference(2 * SEGMENT_CHUNKS)
    assert child.data_chunks == 4


def test_packs_that_nothing_refers_to_any_more_leave_the_table(build: Callable[..., bytes]) -> None:
    parent = view(build(2 * SEGMENT, {0: 1, 1: 2, 2: 3, SEGMENT_CHUNKS: 4}))
    child = view(build(2 * SEGMENT, {0: 5}, parent, zero=(1, 1)))
    assert [child.pack(n) for n in range(1, child.pack_count + 1)] == [bytes([n]) * 16 for n in (3, 4, 5)]
    assert child.reference(0) == (ident(0), place(5))
    assert child.reference(1) is None
    assert child.reference(2) == (ident(2), place(3))
    assert child.reference(SEGMENT_CHUNKS) == (ident(SEGMENT_CHUNKS), place(4))


def test_zeroing_spans_segments(build: Callable[..., bytes]) -> None:
    chunks = dict.fromkeys((0, SEGMENT_CHUNKS - 1, SEGMENT_CHUNKS, 2 * SEGMENT_CHUNKS, 3 * SEGMENT_CHUNKS - 1), 1)
    index = view(build(3 * SEGMENT, chunks, zero=(SEGMENT_CHUNKS - 1, SEGMENT_CHUNKS + 2)))
    assert [n for n in chunks if index.reference(n) is not None] == [0, 3 * SEGMENT_CHUNKS - 1]


def test_equal_references_have_equal_digests_whatever_the_packs(build: Callable[..., bytes]) -> None:
    one = view(build(2 * SEGMENT, {5: 1, SEGMENT_CHUNKS: 1}))
    other = view(build(2 * SEGMENT, {SEGMENT_CHUNKS: 2, 5: 3, 7: 3}, zero=(7, 1)))
    assert one.digest() == other.digest()
    assert one.digest() != view(build(2 * SEGMENT - 1, {5: 1, SEGMENT_CHUNKS: 1})).digest()


def poke(data: bytes, at: int, code: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, value)
    return sealed(changed)


@pytest.mark.parametrize(
    ("at", "code", "value"),
    [
        pytest.param(HEADER.size, "<Q", 1 << 60, id="size of an exabyte"),
        pytest.param(HEADER.size, "<Q", 0, id="size of nothing"),
        pytest.param(HEADER.size + 16, "<I", 0xFFFFFFFF, id="segments without end"),
        pytest.param(HEADER.size + 20, "<I", 0xFFFFFFFF, id="slots without end"),
        pytest.param(HEADER.size + 20, "<I", 0, id="no slots"),
        pytest.param(HEADER.size + 24, "<I", 0xFFFFFFFF, id="packs without end"),
        pytest.param(INDEX_START, "<I", 2, id="segment behind the slots"),
        pytest.param(0, "<I", 0, id="magic"),
        pytest.param(8, "<H", 3, id="version from the future"),
        pytest.param(8, "<H", 1, id="version of the past"),
        pytest.param(10, "<H", 64, id="generation without end"),
        pytest.param(32, "<I", 0, id="another name"),
    ],
)
def test_a_hostile_index_is_refused_when_it_opens(build: Callable[..., bytes], at: int, code: str, value: int) -> None:
    good = build(SEGMENT, {0: 1})
    assert view(sealed(good)).reference(0)
    with pytest.raises(FormatError):
        view(poke(good, at, code, value))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(SEGMENT_IDS, 2, id="pack behind the table"),
        pytest.param(SEGMENT_IDS, 0, id="data without a pack"),
        pytest.param(SEGMENT_IDS + 12, 1, id="zero chunk with a place"),
    ],
)
def test_a_hostile_reference_is_refused_when_it_is_used(build: Callable[..., bytes], at: int, value: int) -> None:
    index = view(poke(build(SEGMENT, {0: 1}), INDEX_START + 4 + at, "<I", value))
    with pytest.raises(FormatError):
        for chunk in range(2):
            index.reference(chunk)


@pytest.mark.parametrize("length", [0, 1, HEADER.size, INDEX_START, INDEX_START + 31])
def test_a_truncated_index_is_refused(build: Callable[..., bytes], length: int) -> None:
    good = build(SEGMENT, {0: 1})
    with pytest.raises(FormatError):
        view(good[:length])


def test_an_index_of_a_store_without_files_is_mapped_from_a_copy(build: Callable[..., bytes], tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(layout.index_name(NAME), build(SEGMENT, {0: 1}))
    index = open_index(store, SETTINGS, CHUNKER, NAME, tmp_path, disk=SEGMENT * CHUNK)
    assert index.reference(0) == (ident(0), place(1))
    assert list(tmp_path.iterdir()) == []


def test_a_segment_s_ids_and_places_are_those_of_its_chunks(build: Callable[..., bytes]) -> None:
    index = view(build(3 * SEGMENT, {0: 1, SEGMENT_CHUNKS - 1: 2, 2 * SEGMENT_CHUNKS + 5: 1}))
    assert bytes(index.segment_ids(index.table[1])) == bytes(SEGMENT_IDS), "a segment of zeroes has no slot"
    for chunk in (0, SEGMENT_CHUNKS - 1, 2 * SEGMENT_CHUNKS + 5):
        segment, within = divmod(chunk, SEGMENT_CHUNKS)
        ids, places = (part(index.table[segment]) for part in (index.segment_ids, index.segment_places))
        assert (len(ids), len(ids) + len(places)) == (SEGMENT_IDS, SEGMENT_BYTES)
        number, offset, word = struct.unpack_from("<3I", places, 12 * within)
        assert index.reference(chunk) == (
            bytes(ids[20 * within : 20 * within + 20]),
            Place(index.pack(number), offset, word),
        )
    assert index.packs_at - index.slots_at == 2 * SEGMENT_BYTES
    assert bytes(index.data[index.packs_at : index.packs_at + 16]) == index.pack(1)
