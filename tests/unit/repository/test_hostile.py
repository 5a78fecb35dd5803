"""Storage that means harm: sizes, counts, loops, bombs and names. What comes out is our own errors, in bounded time and memory.

Most of it is tried on repositories in the clear, where storage knows the key and can forge everything; in sealed ones the
same bytes do not even open.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from proxy import repository as repositories
from proxy.errors import FormatError, KeyRefused, LanfreeError
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, keys, manifest, packs, settings, verify
from proxy.repository import format as layout
from proxy.repository.format import (
    CODEC_RAW,
    CODEC_ZSTD,
    HEADER,
    INDEX_FIELDS,
    INDEX_MAGIC,
    SEGMENT_BYTES,
    SEGMENT_CHUNKS,
    SEGMENT_IDS,
    Entry,
)
from proxy.repository.index import IndexView
from proxy.units import GiB, MiB

pytestmark = pytest.mark.slow

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


def resigned(document: dict[str, Any]) -> bytes:
    """A configuration with the digest that it needs: nobody needs a key for that."""
    plain = {key: value for key, value in document.items() if key != "digest"}
    return settings.text({**plain, "digest": blake3(settings.text(plain)).hexdigest()})


INFINITE = float("inf")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("chunk_size", "pack_size", "level") for value in (
            INFINITE, float("nan"), -1, 0, 10**30, [1], None, {}, "x",
        )),
        *(("version", value) for value in (1, 3, 10**30, "2", None, [])),
        *(("id", value) for value in ("", "zz", "00" * 15, 5, None)),
        *(("key", value) for value in ("", "00" * 31, None, 5)),
        *(("public_key", value) for value in ("", "00" * 33, None)),
        ("sealing", "rot13"), ("sealing", ["none"]), ("codec", {}), ("format", 5),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(
    store: MemoryStore, repository: Repository, field: str, value: object
) -> None:
    document = json.loads(store.objects["config"])
    store.objects["config"] = resigned({**document, field: value})
    with pytest.raises((FormatError, KeyRefused)):
        repositories.open(store, secret=None)


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"1" * 5000, b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe"])
def test_what_is_no_configuration_at_all_is_refused(store: MemoryStore, raw: bytes) -> None:
    store.objects["config"] = raw
    with pytest.raises(FormatError):
        repositories.open(store, secret=None)


PASSPHRASE = repositories.Passphrase("a passphrase")


@pytest.fixture(scope="module")
def with_passphrase() -> MemoryStore:
    """Made once: to stretch a passphrase is slow on purpose."""
    store = MemoryStore()
    repositories.create(store, secret=PASSPHRASE).close()
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        *({field: value} for field in ("passes", "memory_kib", "lanes") for value in (
            INFINITE, 10**20, 0, -1, None, "x", [],
        )),
        {"salt": ""}, {"salt": 5}, {"keyring": ""}, {"keyring": "00"}, {"keyring": []}, {"kind": 5}, {"version": 3},
        {"lanes": 16, "memory_kib": 9},
    ],
)  # fmt: skip
def test_a_key_slot_that_cannot_be_opens_nothing(with_passphrase: MemoryStore, change: dict[str, object]) -> None:
    store = MemoryStore()
    store.objects = dict(with_passphrase.objects)
    (name,) = store.list("keys/")
    store.objects[name] = settings.text({**json.loads(store.objects[name]), **change})
    with pytest.raises(KeyRefused):
        repositories.open(store, secret=PASSPHRASE)


def test_a_key_slot_may_ask_for_bounded_memory_and_time_only() -> None:
    memory = keys.MOST_MEMORY_KIB * 1024
    assert (memory <= GiB, keys.MOST_PASSES <= 20, keys.MOST_SLOTS <= 64) == (True, True, True)


@pytest.mark.slow
def test_a_thousand_key_slots_are_not_tried(with_passphrase: MemoryStore) -> None:
    store = MemoryStore()
    store.objects = dict(with_passphrase.objects)
    (name,) = store.list("keys/")
    for number in range(1000):
        store.objects[f"keys/{number:08x}"] = store.objects[name]
    with pytest.raises(KeyRefused, match="key slots"):
        repositories.open(store, secret=PASSPHRASE)


def forged(repository: Repository, point: RestorePoint, **changes: Any) -> RestorePoint:
    """The restore point's manifest with another image, signed."""
    other = replace(point, images=(replace(point.images[0], **changes),))
    name = repository.ledger.name(point)
    data = manifest.encode(manifest.Manifest(other, manifest.Link(1)), repository.sealer, name)
    repository.store.put(name, data, new=False)
    return other


@pytest.mark.parametrize(
    "changes",
    [
        *({"index": name} for name in (
            "../../etc/passwd", "indexes/00/..", "", "config", "/etc/passwd", "indexes/00/" + "0" * 31, "x" * 5000,
        )),
        {"size": -1}, {"size": 0},
    ],
)  # fmt: skip
def test_a_manifest_that_names_what_is_no_image_is_refused_as_a_whole(
    store: MemoryStore, repository: Repository, backup: Backup, changes: dict[str, Any]
) -> None:
    point = backup(repository, os.urandom(5 * CHUNK))
    backup(repository, os.urandom(5 * CHUNK))
    forged(repository, point, **changes)
    before = set(store.objects)
    assert [d.point for d in verify(repository)] == [point.id]
    assert [d.object.rpartition("/")[2] for d in repository.damaged_points()] == [point.id]
    with pytest.raises(FormatError):
        repository.delete(point.id)
    assert set(store.objects) - {n for n in store.objects if n.startswith("states/")} == before


def test_a_manifest_with_one_disk_twice_or_times_without_a_zone_is_refused(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    point = backup(repository, os.urandom(CHUNK))
    name = repository.ledger.name(point)
    for other in (
        replace(point, images=point.images * 2),
        replace(point, created_at=point.created_at.replace(tzinfo=None)),
    ):
        data = manifest.encode(manifest.Manifest(other, manifest.Link(1)), repository.sealer, name)
        store.put(name, data, new=False)
        with pytest.raises(FormatError):
            repository.ledger.read(name)


def index_object(
    repository: Repository,
    size: int,
    table: list[int],
    slots: list[bytes],
    counts: tuple[int, int, int],
    *,
    name: bytes,
) -> bytes:
    """An index with the digest that it needs. ``counts``: segments, slots and packs as its fields claim."""
    head = layout.header(INDEX_MAGIC, 0, repository.granularity, repository.settings.id, name)
    body = INDEX_FIELDS.struct.pack(size, 0, *counts, 0) + struct.pack(f"<{len(table)}I", *table) + b"".join(slots)
    return head + body + blake3(head + body, key=repository.keys.object).digest()


SEGMENT = SEGMENT_CHUNKS * CHUNK
EMPTY = bytes(SEGMENT_BYTES)


@pytest.mark.parametrize(
    ("size", "table", "slots", "counts"),
    [
        pytest.param(SEGMENT, [1], [EMPTY], (1, 2**32 - 1, 0), id="slots that are not there"),
        pytest.param(SEGMENT, [1], [EMPTY], (2**32 - 1, 1, 0), id="segments that are not there"),
        pytest.param(SEGMENT, [1], [EMPTY], (1, 1, 2**32 - 1), id="packs that are not there"),
        pytest.param(2**64 - 1, [1], [EMPTY], (1, 1, 0), id="a disk that is too large for it"),
        pytest.param(0, [], [], (0, 0, 0), id="a disk of nothing"),
        pytest.param(SEGMENT, [2], [EMPTY], (1, 1, 0), id="a slot behind the last"),
        pytest.param(1000 * SEGMENT, [1] * 1000, [EMPTY], (1000, 1, 0), id="one slot for a thousand segments"),
    ],
)
def test_an_index_that_cannot_be_is_refused(
    repository: Repository, size: int, table: list[int], slots: list[bytes], counts: tuple[int, int, int]
) -> None:
    name = bytes(16)
    data = memoryview(index_object(repository, size, table, slots, counts, name=name))
    with pytest.raises(FormatError):
        IndexView(layout.index_name(name), data, repository.settings, repository.chunker, name)


@pytest.mark.parametrize(
    "slot",
    [
        pytest.param(b"\x05" * SEGMENT_IDS + b"\xff" * (SEGMENT_BYTES - SEGMENT_IDS), id="packs that it does not name"),
        pytest.param(bytes(SEGMENT_IDS) + b"\x01" * (SEGMENT_BYTES - SEGMENT_IDS), id="zeroes that have a place"),
        pytest.param(b"\x05" * SEGMENT_IDS + bytes(SEGMENT_BYTES - SEGMENT_IDS), id="ids that have none"),
    ],
)
def test_references_without_a_meaning_are_damage_and_nothing_is_read(
    store: MemoryStore, repository: Repository, backup: Backup, slot: bytes
) -> None:
    point = backup(repository, os.urandom(5 * CHUNK))
    image = point.images[0]
    name = bytes.fromhex(image.index.rpartition("/")[2])
    data = index_object(repository, SEGMENT, [1], [slot], (1, 1, 0), name=name)
    store.objects[image.index] = data
    with closing(IndexView("index", memoryview(data), repository.settings, repository.chunker, name)) as view:
        other = forged(repository, point, size=SEGMENT, digest=view.digest())
    (damage,) = verify(repository)
    assert (damage.offset, damage.length, damage.object) == (0, SEGMENT, image.index)
    with repository.open_image(other, "vda") as reader, pytest.raises(LanfreeError):
        reader.read_into(0, memoryview(bytearray(CHUNK)))


def pack_object(repository: Repository, name: bytes, chunks: list[tuple[bytes, int, bytes, int]]) -> bytes:
    """A pack of (id, codec, stored bytes, raw length), with all the digests that it needs."""
    head = packs.pack_header(repository.settings, 0, name)
    entries, body = [], b""
    for chunk, codec, stored, raw in chunks:
        entries.append(Entry(chunk, HEADER.size + len(body), len(stored), codec, raw))
        body += stored
    footer = layout.pack_footer(entries)
    digest = blake3(body, key=repository.keys.object).digest()
    facts = (len(entries), HEADER.size + len(body), 0)
    return head + body + footer + packs._trailer(repository.keys, head, footer, facts, digest)


def bombs() -> Iterator[tuple[str, bytes]]:
    """zstd frames that hold more than a chunk, or say so."""
    yield "says more", zstandard.ZstdCompressor().compress(bytes(64 * MiB))
    small = bytearray(zstandard.ZstdCompressor().compress(bytes(CHUNK)))
    yield "says nothing", zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MiB))
    # RFC 8878: a frame of one segment, content size 4096 (two bytes, less 256), then blocks of one repeated byte.
    block = (((128 << 10) << 3) | (1 << 1)).to_bytes(3, "little") + b"x"
    last = (((128 << 10) << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"x"
    yield "says less", bytes(small[:4]) + b"\x60" + (CHUNK - 256).to_bytes(2, "little") + block * 200 + last
    # The same with a window of 128 MiB: descriptor 17 << 3, content size in two bytes.
    yield (
        "wants a large window",
        bytes(small[:4]) + b"\x40" + bytes([17 << 3]) + (CHUNK - 256).to_bytes(2, "little") + last,
    )


@pytest.mark.parametrize("bomb", [pytest.param(data, id=name) for name, data in bombs()])
def test_a_decompression_bomb_is_a_damaged_chunk(repository: Repository, store: MemoryStore, bomb: bytes) -> None:
    with pytest.raises(FormatError):
        repository.chunker.restore_into(b"i" * 20, CODEC_ZSTD, bomb, memoryview(bytearray(CHUNK)))


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([(b"i" * 20, CODEC_RAW, b"x" * CHUNK, 2**32 - 1)], id="a chunk of four gigabytes"),
        pytest.param([(b"i" * 20, 3, b"x" * CHUNK, CHUNK)], id="a codec that is none"),
        pytest.param([(b"i" * 20, CODEC_ZSTD, b"", CHUNK)], id="a chunk that takes nothing"),
        pytest.param([(bytes(20), CODEC_RAW, b"x" * CHUNK, CHUNK)], id="a chunk of zeroes"),
        pytest.param([(b"i" * 20, 1 << 2, b"x" * CHUNK, CHUNK)], id="a sealed chunk in the clear"),
        pytest.param([(i.to_bytes(20, "big"), CODEC_RAW, b"x", 1) for i in range(1, 5000)], id="too many chunks"),
    ],
)
def test_a_pack_that_cannot_be_is_refused(
    store: MemoryStore, repository: Repository, chunks: list[tuple[bytes, int, bytes, int]]
) -> None:
    name = b"p" * 16
    store.objects[layout.pack_name(name)] = pack_object(repository, name, chunks)
    repository.lookup.refresh()
    assert layout.pack_name(name) in repository.lookup.unreadable or list(repository.lookup.packs()) == [name]
    assert repository.lookup.recover(b"i" * 20, CHUNK) is None
