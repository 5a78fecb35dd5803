"""How an image is read: neighbours in one request, pieces of chunks from a bounded cache, the same from many threads."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import FormatError, IntegrityError
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository import reader as module

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


def test_nothing_unchecked_reaches_the_callers_buffer(
    store: CountingStore, repository: Repository, backup: Backup
) -> None:
    data = os.urandom(2 * CHUNK)
    point = backup(repository, data)
    (name,) = store.list("packs/")
    damaged = bytearray(store.objects[name])
    damaged[damaged.index(data[CHUNK : CHUNK + 100])] ^= 1
    store.objects[name] = bytes(damaged)
    with repository.open_image(point, "vda") as image:
        out = bytearray(b"." * CHUNK)
        with pytest.raises(IntegrityError, match=f"offset {CHUNK}:"):
            image.read_into(CHUNK, memoryview(out))
        assert out == b"." * CHUNK


def test_closing_twice_is_allowed_and_reading_afterwards_is_not(repository: Repository, backup: Backup) -> None:
    image = repository.open_image(backup(repository, b"x"), "vda")
    image.close()
    image.close()
    with pytest.raises(FormatError, match="closed"):
        image.read_into(0, memoryview(bytearray(1)))
