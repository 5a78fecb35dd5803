"""Reading ahead: few requests, in the order of the packs, bounded, and no trouble that a reader without it would not have."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import IntegrityError, RepositoryUnavailable
from proxy.extents import Extent, Kind
from proxy.model import RestorePoint
from proxy.ports import ImageReader
from proxy.repository import MemoryStore, PosixStore, Repository
from proxy.repository import format as layout
from proxy.repository import prefetch as module
from proxy.repository.packs import Place
from proxy.repository.prefetch import Prefetch, Reference
from proxy.transfer import copy
from tests.unit.repository.damage import flip

pytestmark = pytest.mark.slow

CHUNK = 4096
PACKS = [bytes([n]) * 16 for n in (1, 2, 3)]
Backup = Callable[..., RestorePoint]


class Packs(MemoryStore):
    """Three packs of any bytes; every read of a pack is noted, and may be held up or fail."""

    def __init__(self) -> None:
        super().__init__()
        for pack in PACKS:
            self.objects[layout.pack_name(pack)] = os.urandom(100 * CHUNK)
        self.gets: list[tuple[str, int, int | None]] = []
        self.on_get: Callable[[str], None] = lambda _: None

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("packs/"):
            self.gets.append((name, offset, length))
            self.on_get(name)
        return super().get(name, offset, length)

    def asked(self) -> int:
        """Bytes of packs that were asked for so far."""
        return sum(length or 0 for _, _, length in self.gets)

    def bytes_of(self, place: Place) -> bytes:
        length = layout.split_stored(place.word)[1]
        return self.objects[layout.pack_name(place.pack)][place.offset : place.offset + length]


@pytest.fixture
def store() -> Packs:
    return Packs()


def chunk(number: int, pack: int, at: int, length: int = CHUNK) -> Reference:
    """A chunk of ``length`` stored bytes, ``at`` chunks into a pack."""
    return number, bytes([number]) * 20, Place(PACKS[pack], at * CHUNK, layout.stored_word(0, length))


def in_order(count: int) -> list[Reference]:
    return [chunk(n, 0, n) for n in range(count)]


def taken(ahead: Prefetch, store: Packs, references: list[Reference]) -> list[Reference]:
    """Take all; those whose bytes came, compared with the packs."""
    came = []
    for reference in references:
        found = ahead.take(reference[0])
        assert found is not None
        assert found[0] == reference
        if found[1] is not None:
            assert bytes(found[1]) == store.bytes_of(reference[2])
            came.append(reference)
    return came


def waiting_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def fetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def test_neighbours_of_a_window_are_one_request(store: Packs) -> None:
    references = in_order(32)
    with Prefetch(store, references, CHUNK, 32 * CHUNK) as ahead:
        assert taken(ahead, store, references) == references
    assert sorted(store.gets) == [(layout.pack_name(PACKS[0]), n * 8 * CHUNK, 8 * CHUNK) for n in range(4)]
    assert fetching_threads() == []


def test_a_window_is_asked_for_in_the_order_of_the_packs(store: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS", 1)
    scattered = [chunk(0, 2, 9), chunk(1, 0, 7), chunk(2, 2, 8), chunk(3, 0, 6), chunk(4, 1, 0), chunk(5, 0, 8)]
    with Prefetch(store, scattered, CHUNK, 32 * CHUNK) as ahead:
        assert taken(ahead, store, scattered) == scattered
    names = [layout.pack_name(pack) for pack in PACKS]
    assert store.gets == [
        (names[0], 6 * CHUNK, 3 * CHUNK),
        (names[1], 0, CHUNK),
        (names[2], 8 * CHUNK, 2 * CHUNK),
    ]


def test_a_small_gap_is_read_over_and_a_large_one_is_not(store: Packs) -> None:
    near = [chunk(0, 0, 0, CHUNK - CHUNK // 4), chunk(1, 0, 1), chunk(2, 0, 3)]
    with Prefetch(store, near, CHUNK, 32 * CHUNK) as ahead:
        assert taken(ahead, store, near) == near
    assert sorted((offset, length) for _, offset, length in store.gets) == [(0, 2 * CHUNK), (3 * CHUNK, CHUNK)]


def test_one_chunk_that_an_image_needs_often_is_fetched_once_a_window(store: Packs) -> None:
    same = [chunk(n, 0, 5) for n in range(8)]
    with Prefetch(store, same, CHUNK, 32 * CHUNK) as ahead:
        assert taken(ahead, store, same) == same
    assert store.gets == [(layout.pack_name(PACKS[0]), 5 * CHUNK, CHUNK)]


def test_no_more_is_fetched_than_may_be_held(store: Packs) -> None:
    references = in_order(100)
    with Prefetch(store, references, CHUNK, 16 * CHUNK) as ahead:
        assert waiting_for(lambda: store.asked() == 16 * CHUNK)
        for number in range(3):
            assert ahead.take(number) is not None
        assert store.asked() == 16 * CHUNK, "three of a request's four are taken, so it is still held"
        assert ahead.take(3) is not None
        assert waiting_for(lambda: store.asked() == 20 * CHUNK)


def test_several_requests_are_under_way_at_once(store: Packs) -> None:
    together = threading.Barrier(4, timeout=20)

    def meet(_: str) -> None:
        together.wait()

    store.on_get = meet
    references = in_order(16)
    with Prefetch(store, references, CHUNK, 16 * CHUNK) as ahead:
        assert taken(ahead, store, references) == references
    assert not together.broken


def test_what_is_not_among_the_references_is_left_to_the_reader(store: Packs) -> None:
    with Prefetch(store, [chunk(3, 0, 3), chunk(5, 0, 5)], CHUNK, 32 * CHUNK) as ahead:
        assert ahead.take(4) is None
        assert ahead.take(5) is not None
        assert ahead.take(5) is None, "taken before"
        assert ahead.take(3) is not None, "in any order"
        assert ahead.take(99) is None


def test_a_reader_that_is_far_ahead_of_the_plan_neither_waits_nor_makes_it_grow(store: Packs) -> None:
    references = in_order(90)
    with Prefetch(store, references, CHUNK, 16 * CHUNK) as ahead:
        assert ahead.take(89) is None, "to be read without"
        assert waiting_for(lambda: store.asked() >= 16 * CHUNK)
        assert store.asked() <= 24 * CHUNK
        assert taken(ahead, store, references[:89]) == references[:89]
    assert store.asked() == 89 * CHUNK, "what was read without is not fetched as well"


def test_many_threads_take_every_chunk_once(store: Packs) -> None:
    references = in_order(100)
    waiting = iter(references)
    lock = threading.Lock()
    wrong: list[int] = []

    def work(ahead: Prefetch) -> None:
        while True:
            with lock:
                reference = next(waiting, None)
            if reference is None:
                return
            found = ahead.take(reference[0])
            if found is None or found[1] is None or bytes(found[1]) != store.bytes_of(reference[2]):
                wrong.append(reference[0])

    with Prefetch(store, references, CHUNK, 16 * CHUNK) as ahead:
        threads = [threading.Thread(target=work, args=(ahead,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_pack_that_is_gone_or_short_leaves_each_chunk_to_the_reader(store: Packs) -> None:
    del store.objects[layout.pack_name(PACKS[1])]
    references = [chunk(0, 0, 0), chunk(1, 1, 1), chunk(2, 0, 99), chunk(3, 2, 100)]
    with Prefetch(store, references, CHUNK, 16 * CHUNK) as ahead:
        assert taken(ahead, store, references) == [references[0], references[2]]


def test_a_store_that_cannot_be_reached_is_told_to_whoever_waits(store: Packs) -> None:
    def fail(_: str) -> None:
        raise RepositoryUnavailable("bucket", "no answer")

    store.on_get = fail
    with Prefetch(store, in_order(8), CHUNK, 16 * CHUNK) as ahead, pytest.raises(RepositoryUnavailable):
        ahead.take(0)
    assert fetching_threads() == []


def test_an_index_that_turns_out_to_be_bad_ends_the_plan_and_no_read(store: Packs) -> None:
    def references() -> Iterator[Reference]:
        yield from in_order(3)
        raise IntegrityError("index", "bad")

    with Prefetch(store, references(), CHUNK, 64 * CHUNK) as ahead:
        assert taken(ahead, store, in_order(3)) == in_order(3)
        assert ahead.take(3) is None


def test_closing_in_the_middle_ends_all_threads(store: Packs) -> None:
    ahead = Prefetch(store, in_order(100), CHUNK, 16 * CHUNK)
    ahead.take(0)
    ahead.close()
    ahead.close()
    assert fetching_threads() == []
    assert ahead.take(50) is None


@pytest.fixture
def repository(store: Packs, tmp_path: Path) -> Iterator[Repository]:
    store.objects.clear()
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=None
    ) as made:
        yield made


class Out:
    """A sink."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.data[offset : offset + length] = bytes(length)


def copied(image: ImageReader) -> bytes:
    out = Out(image.size)
    copy(image, out, image.extents(), disk="vda", segment=4 * CHUNK, granularity=image.granularity)
    return bytes(out.data)


DATA = os.urandom(90 * CHUNK) + bytes(20 * CHUNK) + os.urandom(40 * CHUNK + 99)


def test_a_copy_that_reads_ahead_gets_the_image_in_few_requests(
    store: Packs, repository: Repository, backup: Backup
) -> None:
    with repository.open_image(backup(repository, DATA), "vda") as image:
        store.gets.clear()
        image.will_read(image.extents(), 64 * CHUNK)
        assert copied(image) == DATA
        assert len(store.gets) < 25, "130 chunks in 9 packs; 33 segments"
        image.will_read(image.extents(), 64 * CHUNK)
        assert copied(image) == DATA, "once more"
        part = bytearray(100)
        image.read_into(7, memoryview(part))
        assert part == DATA[7:107]
    assert fetching_threads() == []


def test_a_damaged_chunk_that_was_read_ahead_is_named_or_had_from_another_place(
    store: Packs, repository: Repository, backup: Backup
) -> None:
    point = backup(repository, DATA)
    bad = DATA[30 * CHUNK : 31 * CHUNK]
    (name,) = [n for n, data in store.objects.items() if n.startswith("packs/") and bad in data]
    flip(store, name, store.objects[name].index(bad))
    with repository.open_image(point, "vda") as image:
        image.will_read(image.extents())
        with pytest.raises(IntegrityError, match=f"offset {30 * CHUNK}"):
            copied(image)
    backup(repository, bad)  # stores the chunk anew
    with repository.open_image(point, "vda") as image:
        image.will_read(image.extents())
        assert copied(image) == DATA


def test_only_data_of_the_extents_is_fetched(store: Packs, repository: Repository, backup: Backup) -> None:
    with repository.open_image(backup(repository, DATA), "vda") as image:
        store.gets.clear()
        image.will_read([Extent(0, 2 * CHUNK), Extent(90 * CHUNK, 20 * CHUNK, Kind.ZERO), Extent(150 * CHUNK, 99)])
        assert waiting_for(lambda: len(store.gets) == 2)
    assert store.asked() == 2 * CHUNK + 99


def test_packs_that_are_local_files_are_left_to_the_kernel(tmp_path: Path, backup: Backup) -> None:
    (tmp_path / "store").mkdir()
    with repositories.create(
        PosixStore(tmp_path / "store"), chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=None
    ) as repository, repository.open_image(backup(repository, DATA), "vda") as image:  # fmt: skip
        image.will_read(image.extents())
        assert fetching_threads() == []
        assert copied(image) == DATA
