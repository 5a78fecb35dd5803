"""How an image is read: neighbours in one request, pieces of chunks from a bounded cache, the same from many threads."""

import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import FormatError, IntegrityError
from proxy.extents import Kind, is_map
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository import index as index_module
from proxy.repository import reader as module
from tests.unit.repository.damage import flip

CHUNK = 4096
Backup = Callable[..., RestorePoint]


class CountingStore(MemoryStore):
    """Remembers every read."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[str, int, int | None]] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.gets.append((name, offset, length))
        return super().get(name, offset, length)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def repository(store: CountingStore, tmp_path: Path) -> Iterator[Repository]:
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=None
    ) as made:
        yield made


def test_neighbouring_chunks_of_a_pack_come_in_one_request(
    store: CountingStore, repository: Repository, backup: Backup
) -> None:
    data = os.urandom(8 * CHUNK) + bytes(4 * CHUNK) + os.urandom(8 * CHUNK)  # 16 chunks: one pack
    with repository.open_image(backup(repository, data), "vda") as image:
        store.gets.clear()
        out = bytearray(len(data))
        image.read_into(0, memoryview(out))
    assert out == data
    assert len(store.gets) == 1


def test_one_request_is_not_larger_than_its_bound(
    store: CountingStore, repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(16 * CHUNK)
    monkeypatch.setattr(module, "RANGE_BYTES", 4 * CHUNK)
    with repository.open_image(backup(repository, data), "vda") as image:
        store.gets.clear()
        out = bytearray(len(data))
        image.read_into(0, memoryview(out))
    assert out == data
    assert [length for _, _, length in store.gets] == [4 * CHUNK] * 4


def test_pieces_of_one_chunk_cost_one_request(store: CountingStore, repository: Repository, backup: Backup) -> None:
    data = os.urandom(3 * CHUNK)
    with repository.open_image(backup(repository, data), "vda") as image:
        store.gets.clear()
        for at in range(CHUNK, 2 * CHUNK, 512):
            part = bytearray(512)
            image.read_into(at, memoryview(part))
            assert part == data[at : at + 512]
    assert len(store.gets) == 1


def test_the_cache_of_chunks_is_bounded(
    store: CountingStore, repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", 3 * CHUNK)
    with repository.open_image(backup(repository, os.urandom(8 * CHUNK)), "vda") as image:

        def touch(chunk: int) -> int:
            before = len(store.gets)
            image.read_into(chunk * CHUNK + 1, memoryview(bytearray(10)))
            return len(store.gets) - before

        assert [touch(n) for n in (0, 1, 2, 0, 1, 2)] == [1, 1, 1, 0, 0, 0]
        assert [touch(n) for n in (3, 0)] == [1, 1]  # the one that was used longest ago had to go
        assert [touch(n) for n in (2, 3, 0)] == [0, 0, 0]


def test_many_threads_read_one_image(repository: Repository, backup: Backup) -> None:
    data = os.urandom(20 * CHUNK) + bytes(20 * CHUNK) + b"text" * (5 * CHUNK) + os.urandom(77)
    wrong: list[tuple[int, int]] = []
    with repository.open_image(backup(repository, data), "vda") as image:

        def read(seed: int) -> None:
            chooser = random.Random(seed)
            for _ in range(100):
                at = chooser.randrange(len(data))
                length = min(chooser.randrange(1, 5 * CHUNK), len(data) - at)
                part = bytearray(length)
                image.read_into(at, memoryview(part))
                if part != data[at : at + length]:
                    wrong.append((at, length))

        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_nothing_damaged_stays_in_the_callers_buffer(
    store: CountingStore, repository: Repository, backup: Backup
) -> None:
    data = os.urandom(2 * CHUNK)
    point = backup(repository, data)
    (name,) = store.list("packs/")
    flip(store, name, store.objects[name].index(data[CHUNK : CHUNK + 100]))
    with repository.open_image(point, "vda") as image:
        out = bytearray(b"." * CHUNK)
        with pytest.raises(IntegrityError, match=f"offset {CHUNK}:"):
            image.read_into(CHUNK, memoryview(out))
        assert out == bytes(CHUNK)


def test_closing_twice_is_allowed_and_reading_afterwards_is_not(repository: Repository, backup: Backup) -> None:
    image = repository.open_image(backup(repository, b"x"), "vda")
    image.close()
    image.close()
    with pytest.raises(FormatError, match="closed"):
        image.read_into(0, memoryview(bytearray(1)))


@pytest.mark.slow
def test_the_map_is_the_extents_made_anew_by_every_walk(
    repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_FORGET", 1)
    monkeypatch.setattr(module, "_FORGET_CHUNKS", 1)
    segment = 4096 * CHUNK
    data = bytearray(3 * segment + 5 * CHUNK + 7)
    for at in (0, 3 * CHUNK, segment - CHUNK, segment, 3 * segment + 2 * CHUNK, len(data) - 7):
        data[at : at + 7] = b"content"
    with repository.open_image(backup(repository, bytes(data)), "vda") as image:
        extents = image.extents()
        assert list(image.map()) == extents
        assert list(image.map()) == extents, "walked again"
        assert is_map(image.map(), len(data))
        assert [e.start for e in extents if e.kind is Kind.DATA] == [
            0, 3 * CHUNK, segment - CHUNK, 3 * segment + 2 * CHUNK, 3 * segment + 5 * CHUNK
        ]  # fmt: skip
        out = bytearray(len(data))
        for start in range(0, len(data), 1024 * CHUNK):
            image.read_into(start, memoryview(out)[start : start + 1024 * CHUNK])
        assert out == data, "pages that were given up come back"


@pytest.mark.slow
def test_the_map_of_a_scattered_image_takes_no_memory_that_grows(repository: Repository) -> None:
    chunks = 24_000
    with repository.image_writer("vda", chunks * CHUNK, None) as writer:
        for number in range(0, chunks, 2):
            writer.write(number * CHUNK, memoryview(b"x" * CHUNK))
        image = writer.seal()
    view = repository.open_view("test", image)
    tracemalloc.start()
    try:
        assert sum(1 for _ in view.walk()) == chunks
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        view.close()
    assert peak < 1_000_000


def test_collectors_are_told_that_somebody_reads(repository: Repository) -> None:
    with repository.reading("restore r-1"):
        (lease,) = repository.leases.living()
        assert (lease.kind, lease.holder.detail if lease.holder else "") == ("restore", "restore r-1")
    assert repository.leases.living() == []


def test_a_repository_that_takes_nothing_more_can_be_read(
    store: CountingStore, repository: Repository, backup: Backup
) -> None:
    point = backup(repository, b"content")
    store.fail_at(0)
    with repository.reading("restore r-1"), repository.open_image(point, "vda") as image:
        out = bytearray(7)
        image.read_into(0, memoryview(out))
    assert out == b"content"
