"""What a written chunk costs: nothing for zeroes, one comparison if unchanged, one look-up if known, else its bytes."""

import os
from pathlib import Path

import pytest

from proxy.errors import FormatError
from proxy.repository import MemoryStore, Repository
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packs import Place

CHUNK = 4096


class CountingLookup(ChunkLookup):
    """Remembers what was asked."""

    asked = 0

    def find(self, chunk: bytes) -> Place | None:
        self.asked += 1
        return super().find(chunk)


def stored(store: MemoryStore) -> int:
    """Bytes of all objects but leases, which go again."""
    return sum(len(data) for name, data in store.objects.items() if not name.startswith("leases/"))


@pytest.fixture
def lookup(repository: Repository, tmp_path: Path) -> CountingLookup:
    counting = CountingLookup(repository.store, repository.settings, repository.chunker, tmp_path / "counting")
    repository.lookup = counting
    return counting


def test_only_chunks_that_changed_are_looked_up(repository: Repository, lookup: CountingLookup) -> None:
    data = bytearray(os.urandom(20 * CHUNK) + bytes(10 * CHUNK))
    with repository.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(data))
        first = writer.seal()
    assert lookup.asked == 20
    data[7 * CHUNK] ^= 1
    with repository.image_writer("vda", len(data), first) as writer:
        writer.write(0, memoryview(data))
        second = writer.seal()
    assert lookup.asked == 21
    assert second.bytes_new == CHUNK


def test_an_image_tells_what_it_brought_and_what_that_takes(store: MemoryStore, repository: Repository) -> None:
    before = stored(store)
    data = b"text" * CHUNK + bytes(CHUNK) + os.urandom(CHUNK)
    with repository.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(data))
        image = writer.seal()
    grown = stored(store) - before
    assert image.bytes_new == 2 * CHUNK  # four equal chunks of text, and the noise
    assert CHUNK < image.bytes_stored <= grown < image.bytes_stored + 300  # header and footer of the pack
    assert image.size == len(data)
    assert (image.transport, image.source, image.bytes_read) == ("", "", 0)


def test_zeroes_are_never_stored_however_they_come(store: MemoryStore, repository: Repository) -> None:
    with repository.image_writer("vda", 10 * CHUNK + 9, None) as writer:
        writer.write(0, memoryview(bytes(4 * CHUNK)))
        writer.zero(4 * CHUNK, 6 * CHUNK + 9)
        image = writer.seal()
    assert list(store.list("packs/")) == []
    assert image.bytes_new == 0
    assert len(store.objects[image.index]) < 200


def test_sealing_twice_gives_the_same_image(repository: Repository) -> None:
    with repository.image_writer("vda", CHUNK, None) as writer:
        writer.write(0, memoryview(b"x" * CHUNK))
        assert writer.seal() == writer.seal()
        with pytest.raises(FormatError, match="closed"):
            writer.write(0, memoryview(b"y" * CHUNK))


def test_a_disk_of_no_bytes_is_refused(repository: Repository) -> None:
    with pytest.raises(FormatError, match="0 bytes"):
        repository.image_writer("vda", 0, None)
