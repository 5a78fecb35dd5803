"""The deduplication lookup: finds what packs hold, survives and distrusts its cache, and never refers to what is gone."""

import errno
import os
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from proxy.errors import RepositoryFull
from proxy.repository import MemoryStore, parallel
from proxy.repository import format as layout
from proxy.repository import lookup as module
from proxy.repository import runs as files
from proxy.repository.chunks import Chunker
from proxy.repository.dooms import Dooms
from proxy.repository.format import HEADER, Entry
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packs import PackWriter, Place
from proxy.repository.sealing import Keyring, Keys
from proxy.repository.settings import Settings
from tests.unit.repository.test_leases import Clear

KEYS = Keys(Keyring((b"k" * 32,), sealed=False))
SETTINGS = Settings(b"r" * 16, "", KEYS.public, b"k" * 32, 4096, 64 * 1024)
CHUNKER = Chunker(SETTINGS, KEYS)


def opened(store: MemoryStore, directory: Path) -> ChunkLookup:
    return ChunkLookup(store, SETTINGS, CHUNKER, directory)


def entries(ids: list[bytes]) -> list[Entry]:
    return [Entry(chunk, HEADER.size + n * 10, 10, layout.CODEC_ZSTD, 4096) for n, chunk in enumerate(ids)]


def put_pack(store: MemoryStore, contents: list[bytes]) -> bytes:
    """A real pack in the store, of which no lookup was told."""
    packs = PackWriter(store, SETTINGS, CHUNKER, lambda _, __: None)
    names = {packs.add(CHUNKER.id(c), layout.CODEC_RAW, c, len(c))[0].pack for c in contents}
    packs.flush(names)
    (name,) = names
    return name


@pytest.mark.slow
@pytest.mark.parametrize("room", [10, 100, 100_000])
def test_everything_added_is_found_in_memory_and_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(module, "RECENT", room)
    chooser = random.Random(3)
    store = MemoryStore()
    lookup = opened(store, tmp_path)
    expected: dict[bytes, Place] = {}
    for _ in range(60):
        pack = chooser.randbytes(16)
        store.put(layout.pack_name(pack), b"present, never read: its chunks were told by add")
        ids = [chooser.randbytes(20) for _ in range(20)]
        lookup.add(pack, entries(ids))
        expected |= {c: Place(pack, HEADER.size + n * 10, layout.stored_word(1, 10)) for n, c in enumerate(ids)}
        if chooser.random() < 0.3:
            lookup.refresh()
    lookup.refresh()
    assert {chunk: lookup.find(chunk) for chunk in expected} == expected
    assert all(lookup.find(chooser.randbytes(20)) is None for _ in range(200))
    lookup.close()
    again = opened(store, tmp_path)
    again.refresh()
    assert {chunk: again.find(chunk) for chunk in expected} == expected
    assert again.unreadable == {}
    assert len(list(tmp_path.glob("*.run"))) <= 8
    again.close()


def test_unevenly_spread_ids_are_found_too(tmp_path: Path) -> None:
    lookup = opened(MemoryStore(), tmp_path)
    ids = [b"\x00" * 12 + n.to_bytes(8, "big") for n in range(500)] + [
        b"\xff" * 12 + n.to_bytes(8, "big") for n in range(500)
    ]
    lookup.add(b"p" * 16, entries(ids))
    lookup.close()
    store = MemoryStore()
    store.put(layout.pack_name(b"p" * 16), b"")
    again = opened(store, tmp_path)
    again.refresh()
    assert [chunk for chunk in ids if again.find(chunk) is None] == []
    assert again.find(b"\x00" * 12 + (501).to_bytes(8, "big")) is None
    again.close()


def test_packs_of_others_are_learnt_from_their_footers(tmp_path: Path) -> None:
    store = MemoryStore()
    lookup = opened(store, tmp_path)
    chunk = os.urandom(500)
    pack = put_pack(store, [chunk])
    assert lookup.find(CHUNKER.id(chunk)) is None
    lookup.refresh()
    assert lookup.find(CHUNKER.id(chunk)) == Place(pack, HEADER.size, layout.stored_word(0, 500))
    assert lookup.has_pack(pack)


@pytest.mark.parametrize("persisted", [False, True])
def test_chunks_of_a_pack_that_is_gone_are_not_found(tmp_path: Path, persisted: bool) -> None:
    store = MemoryStore()
    chunk = os.urandom(500)
    pack = put_pack(store, [chunk])
    lookup = opened(store, tmp_path)
    lookup.refresh()
    if persisted:
        lookup.close()
        lookup = opened(store, tmp_path)
    assert lookup.find(CHUNKER.id(chunk)) is not None
    store.delete(layout.pack_name(pack))
    lookup.refresh()
    assert lookup.find(CHUNKER.id(chunk)) is None
    assert not lookup.has_pack(pack)


@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_copy_of_a_chunk_is_found_when_one_is_gone(tmp_path: Path, persisted: bool, victim: int) -> None:
    store = MemoryStore()
    chunk = os.urandom(500)
    copies = [put_pack(store, [chunk]) for _ in range(2)]
    lookup = opened(store, tmp_path)
    lookup.refresh()
    if persisted:
        lookup.close()
        lookup = opened(store, tmp_path)
    store.delete(layout.pack_name(copies.pop(victim)))
    lookup.refresh()
    found = lookup.find(CHUNKER.id(chunk))
    assert found is not None
    assert found.pack == copies[0]


def test_a_pack_that_cannot_be_read_is_noted_and_not_used(tmp_path: Path) -> None:
    store = MemoryStore()
    chunk = os.urandom(500)
    pack = put_pack(store, [chunk])
    name = layout.pack_name(pack)
    whole = store.objects[name]
    store.objects[name] = whole[:-1]
    lookup = opened(store, tmp_path)
    lookup.refresh()
    assert list(lookup.unreadable) == [name]
    assert lookup.find(CHUNKER.id(chunk)) is None
    assert not lookup.has_pack(pack)
    store.objects[name] = whole
    lookup.refresh()
    assert (lookup.unreadable, lookup.has_pack(pack)) == ({}, True)
    assert lookup.find(CHUNKER.id(chunk)) is not None


def test_a_pack_that_could_not_be_read_and_is_gone_is_noted_no_more(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(layout.pack_name(b"p" * 16), b"no pack")
    lookup = opened(store, tmp_path)
    lookup.refresh()
    assert len(lookup.unreadable) == 1
    store.delete(layout.pack_name(b"p" * 16))
    lookup.refresh()
    assert lookup.unreadable == {}


def test_footers_are_read_several_at_once_and_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meeting(MemoryStore):
        """Answers a request for a footer when as many are under way as may be."""

        barrier = threading.Barrier(parallel.THREADS, timeout=10)

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            self.barrier.wait()
            return super().get(name, offset, length)

    monkeypatch.setattr(module, "_SLICE", parallel.THREADS)
    store = Meeting()
    chunks = [os.urandom(50) for _ in range(2 * parallel.THREADS)]
    for chunk in chunks:
        put_pack(store, [chunk])
    lookup = opened(store, tmp_path)
    lookup.refresh()
    assert [chunk for chunk in chunks if lookup.find(CHUNKER.id(chunk)) is None] == []


def test_what_the_cache_takes_no_more_is_known_but_in_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.EDQUOT, "over quota")

    store = MemoryStore()
    first, second = os.urandom(50), os.urandom(50)
    put_pack(store, [first])
    lookup = opened(store, tmp_path)
    lookup.refresh()
    (run,) = lookup.snapshot()
    monkeypatch.setattr(files, "build", full)
    assert lookup.snapshot() == (run,)
    put_pack(store, [second])
    lookup.refresh()
    with pytest.raises(RepositoryFull, match=str(tmp_path)):
        lookup.snapshot()
    assert lookup.snapshot(partial=True) == (run,)
    assert lookup.find(CHUNKER.id(first)) and lookup.find(CHUNKER.id(second))
    monkeypatch.undo()
    assert len(lookup.snapshot()) == 2


@pytest.mark.slow
def test_no_flipped_byte_of_the_cache_becomes_a_wrong_place(tmp_path: Path) -> None:
    store = MemoryStore()
    chunks = [os.urandom(50) for _ in range(4)]
    put_pack(store, chunks)
    lookup = opened(store, tmp_path)
    lookup.refresh()
    right = {CHUNKER.id(chunk): lookup.find(CHUNKER.id(chunk)) for chunk in chunks}
    lookup.close()
    (run,) = tmp_path.glob("*.run")
    good = run.read_bytes()
    for at in range(len(good)):
        run.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        damaged = opened(store, tmp_path)
        damaged.refresh()
        for chunk, place in right.items():
            found = damaged.find(chunk)
            assert found is None or found == place
        damaged.close()
        for path in tmp_path.glob("*.run"):
            path.unlink()


@pytest.mark.parametrize("content", [b"", b"x", b"LANFRUN2" + b"\xff" * 8, b"LANFRUN1" + bytes(9)])
def test_a_cache_file_that_is_no_run_is_thrown_away(tmp_path: Path, content: bytes) -> None:
    store = MemoryStore()
    chunk = os.urandom(50)
    put_pack(store, [chunk])
    (tmp_path / "bad.run").write_bytes(content)
    lookup = opened(store, tmp_path)
    lookup.refresh()
    assert lookup.find(CHUNKER.id(chunk)) is not None
    assert not (tmp_path / "bad.run").exists()


def test_two_processes_may_share_the_cache(tmp_path: Path) -> None:
    store = MemoryStore()
    chunks = [os.urandom(50) for _ in range(30)]
    put_pack(store, chunks[:10])
    one, other = opened(store, tmp_path), opened(store, tmp_path)
    one.refresh()
    put_pack(store, chunks[10:20])
    other.refresh()
    one.close()
    other.close()
    third = opened(store, tmp_path)
    put_pack(store, chunks[20:])
    third.refresh()  # merges the runs of both
    assert [c for c in chunks if third.find(CHUNKER.id(c)) is None] == []
    third.close()
    fourth = opened(store, tmp_path)
    fourth.refresh()
    assert [c for c in chunks if fourth.find(CHUNKER.id(c)) is None] == []


def test_what_is_doomed_is_read_but_not_counted_on(tmp_path: Path) -> None:
    store = MemoryStore()
    dooms, others = Dooms(store, Clear()), Dooms(store, Clear())
    lookup = ChunkLookup(store, SETTINGS, CHUNKER, tmp_path, dooms)
    chunk = os.urandom(50)
    digest = CHUNKER.id(chunk)
    pack = put_pack(store, [chunk])
    lookup.refresh()
    others.add([layout.pack_name(pack)], [], datetime(2026, 1, 1, tzinfo=UTC))
    assert lookup.find(digest) is not None  # nobody told it yet
    lookup.refresh()
    assert lookup.find(digest) is None
    assert lookup.recover(digest, 50) == chunk
    assert lookup.has_pack(pack)
    assert lookup.doomed() == {pack}
    copy = put_pack(store, [chunk])
    lookup.refresh()
    found = lookup.find(digest)
    assert found is not None
    assert found.pack == copy


def test_dooms_are_listed_before_packs(tmp_path: Path) -> None:
    class Listing(MemoryStore):
        listed: ClassVar[list[str]] = []

        def list(self, prefix: str) -> Iterator[str]:
            self.listed.append(prefix)
            return super().list(prefix)

    store = Listing()
    ChunkLookup(store, SETTINGS, CHUNKER, tmp_path, Dooms(store, Clear())).refresh()
    assert store.listed.index("dooms/") < store.listed.index("packs/")


def test_the_packs_that_are_there_are_told(tmp_path: Path) -> None:
    store = MemoryStore()
    lookup = opened(store, tmp_path)
    packs = [put_pack(store, [os.urandom(50)]) for _ in range(3)]
    lookup.refresh()
    store.delete(layout.pack_name(packs[1]))
    lookup.refresh()
    mine = put_pack(store, [os.urandom(50)])
    lookup.add(mine, entries([os.urandom(20)]))
    assert list(lookup.packs()) == sorted([packs[0], packs[2], mine])


def test_a_distrusted_cache_is_made_again_from_the_packs(tmp_path: Path) -> None:
    store = MemoryStore()
    lookup = opened(store, tmp_path)
    chunks = [os.urandom(50) for _ in range(5)]
    put_pack(store, chunks)
    lookup.refresh()
    lookup.snapshot()
    for run in tmp_path.glob("*.run"):
        data = bytearray(run.read_bytes())
        data[-1] ^= 1  # the check word of the last record
        run.write_bytes(data)
    assert sum(lookup.find(CHUNKER.id(chunk)) is None for chunk in chunks) == 1
    lookup.rebuild()
    assert all(lookup.find(CHUNKER.id(chunk)) for chunk in chunks)


def test_runs_that_are_full_of_what_is_gone_are_rewritten(tmp_path: Path) -> None:
    store = MemoryStore()
    lookup = opened(store, tmp_path)
    packs = [put_pack(store, [os.urandom(50) for _ in range(10)]) for _ in range(8)]
    lookup.refresh()
    lookup.close()
    size = sum(path.stat().st_size for path in tmp_path.glob("*.run"))
    for pack in packs[:3]:
        store.delete(layout.pack_name(pack))
    again = opened(store, tmp_path)
    again.refresh()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.run")) < size * 5 / 8 + 50
    assert list(again.packs()) == sorted(packs[3:])
