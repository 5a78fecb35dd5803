"""The image repository over every store against the contract of its ports: repository, writer and reader."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import (
    ChangesUnknown,
    DeleteRefused,
    FormatError,
    IntegrityError,
    LanfreeError,
    RepositoryUnavailable,
    RestorePointNotFound,
)
from proxy.extents import Extent, Kind, is_map
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.ports import ImageReader, ImageRepository, ObjectStore
from proxy.repository import MemoryStore, PosixStore
from proxy.transfer import copy
from proxy.units import MiB

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
START = datetime(2026, 1, 1, tzinfo=UTC)


def posix(directory: Path) -> ObjectStore:
    folder = directory / "store"
    folder.mkdir()
    return PosixStore(folder)


def memory(_: Path) -> ObjectStore:
    return MemoryStore()


@pytest.fixture(params=[posix, memory], ids=["posix", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    maker: Callable[[Path], ObjectStore] = request.param
    return maker(tmp_path)


# In the clear is the exception that somebody has to ask for.
@pytest.fixture(params=[pytest.param(SECRET, id="sealed"), pytest.param(None, id="clear", marks=pytest.mark.slow)])
def repository(request: pytest.FixtureRequest, store: ObjectStore, tmp_path: Path) -> Iterator[ImageRepository]:
    secret: repositories.Secret | None = request.param
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=secret
    ) as made:
        yield made


def restore_point(*images: ImageInfo, machine: str = "m1", run: str = "run", minute: int = 0) -> RestorePoint:
    moment = START + timedelta(minutes=minute)
    configuration = MachineConfiguration("libvirt-xml", "<domain/>", b"\xff\x00")
    return RestorePoint(
        "", machine, f"name of {machine}", "h1", run, moment, Level.FULL, Consistency.CRASH, images, configuration
    )


def write(repository: ImageRepository, data: bytes, parent: ImageInfo | None = None, key: str = "vda") -> ImageInfo:
    with repository.image_writer(key, len(data), parent) as writer:
        writer.write(0, memoryview(data))
        return writer.seal()


def whole(image: ImageReader) -> bytes:
    out = bytearray(image.size)
    image.read_into(0, memoryview(out))
    return bytes(out)


DATA = os.urandom(3 * CHUNK) + bytes(2 * CHUNK) + b"text " * 2000 + os.urandom(100)


def test_a_disk_comes_back_as_it_was_written(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image:
        assert image.size == len(DATA)
        assert whole(image) == DATA
        for offset, length in ((0, 1), (CHUNK - 1, 2), (3 * CHUNK, 5), (len(DATA) - 7, 7), (5, 4 * CHUNK)):
            part = bytearray(length)
            image.read_into(offset, memoryview(part))
            assert part == DATA[offset : offset + length]


def test_a_reader_refuses_to_read_behind_the_end(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image, pytest.raises(FormatError):
        image.read_into(len(DATA) - 1, memoryview(bytearray(2)))


def test_what_is_never_written_is_zero_without_a_parent(repository: ImageRepository) -> None:
    with repository.image_writer("vda", 10 * CHUNK + 5, None) as writer:
        writer.write(2 * CHUNK, memoryview(b"x" * CHUNK))
        point = repository.seal(restore_point(writer.seal()))
    with repository.open_image(point, "vda") as image:
        assert whole(image) == bytes(2 * CHUNK) + b"x" * CHUNK + bytes(7 * CHUNK + 5)
        assert image.extents() == [
            Extent(0, 2 * CHUNK, Kind.ZERO),
            Extent(2 * CHUNK, CHUNK),
            Extent(3 * CHUNK, 7 * CHUNK + 5, Kind.ZERO),
        ]


def test_what_is_never_written_is_the_parents(repository: ImageRepository) -> None:
    first = write(repository, DATA)
    with repository.image_writer("vda", len(DATA), first) as writer:
        writer.write(CHUNK, memoryview(b"n" * CHUNK))
        writer.zero(2 * CHUNK, CHUNK)
        second = writer.seal()
    old = repository.seal(restore_point(first, run="1"))
    new = repository.seal(restore_point(second, run="2", minute=1))
    with repository.open_image(old, "vda") as image:
        assert whole(image) == DATA
    with repository.open_image(new, "vda") as image:
        assert whole(image) == DATA[:CHUNK] + b"n" * CHUNK + bytes(CHUNK) + DATA[3 * CHUNK :]
    assert second.bytes_new == CHUNK
    assert second.digest != first.digest


def test_equal_bytes_have_equal_digests_however_they_were_written(repository: ImageRepository) -> None:
    first = write(repository, DATA)
    again = write(repository, DATA)
    with repository.image_writer("vda", len(DATA), write(repository, os.urandom(len(DATA)))) as writer:
        writer.write(5 * CHUNK, memoryview(DATA)[5 * CHUNK :])
        writer.write(0, memoryview(DATA)[: 3 * CHUNK])
        writer.zero(3 * CHUNK, 2 * CHUNK)
        other_way = writer.seal()
    assert first.digest == again.digest == other_way.digest
    assert again.bytes_new == 0


def test_a_parent_of_another_size_cannot_be_built_upon(repository: ImageRepository) -> None:
    first = write(repository, DATA)
    with pytest.raises(ChangesUnknown) as raised:
        repository.image_writer("vda", len(DATA) + CHUNK, first)
    assert raised.value.reason == "disk-resized"


@pytest.mark.parametrize(
    ("offset", "length"), [(1, CHUNK), (0, CHUNK - 1), (0, 2 * CHUNK + 50), (CHUNK * 2, CHUNK), (-CHUNK, CHUNK)]
)
def test_a_writer_takes_whole_chunks_within_the_disk_only(
    repository: ImageRepository, offset: int, length: int
) -> None:
    with repository.image_writer("vda", 2 * CHUNK + 100, None) as writer:
        writer.write(2 * CHUNK, memoryview(b"e" * 100))
        with pytest.raises(LanfreeError):
            writer.write(offset, memoryview(bytes(length)))
        with pytest.raises(LanfreeError):
            writer.zero(offset, length)


def test_the_buffer_may_be_reused_as_soon_as_write_returns(repository: ImageRepository) -> None:
    buffer = bytearray(CHUNK)
    with repository.image_writer("vda", 8 * CHUNK, None) as writer:
        for n in range(8):
            buffer[:] = os.urandom(CHUNK - 1) + bytes([n])
            writer.write(n * CHUNK, memoryview(buffer))
        point = repository.seal(restore_point(writer.seal()))
    with repository.open_image(point, "vda") as image:
        assert whole(image)[CHUNK - 1 :: CHUNK] == bytes(range(8))


def test_many_threads_write_one_image(repository: ImageRepository) -> None:
    data = os.urandom(200 * CHUNK)
    errors: list[BaseException] = []
    with repository.image_writer("vda", len(data), None) as writer:

        def work(first: int) -> None:
            try:
                for n in range(first, 200, 4):
                    writer.write(n * CHUNK, memoryview(data)[n * CHUNK : (n + 1) * CHUNK])
            except BaseException as error:  # noqa: BLE001  # a thread has nobody to raise to
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        point = repository.seal(restore_point(writer.seal()))
    assert errors == []
    with repository.open_image(point, "vda") as image:
        assert whole(image) == data


def test_an_image_that_was_given_up_leaves_no_restore_point(repository: ImageRepository) -> None:
    with repository.image_writer("vda", len(DATA), None) as writer:
        writer.write(0, memoryview(DATA))
    writer.close()
    with pytest.raises(LanfreeError):
        writer.seal()
    assert repository.points() == []


def test_digests_of_chunks_compare_a_device_with_an_image(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image:
        for offset in range(0, len(DATA), image.granularity):
            chunk = memoryview(DATA)[offset : offset + image.granularity]
            expected = None if not any(chunk) else image.chunk_digest(chunk)
            assert image.digest_at(offset) == expected
        assert image.digest_at(0) != image.digest_at(CHUNK)


def test_extents_are_a_map_of_the_image(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image:
        extents = image.extents()
        assert is_map(extents, len(DATA))
        for extent in extents:
            if extent.kind is Kind.ZERO:
                assert not any(DATA[extent.start : extent.end])
        assert image.can_report_extents
        with pytest.raises(ChangesUnknown):
            image.changed("anything")


def test_the_map_of_an_image_is_its_extents_as_often_as_it_is_walked_through(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image:
        made_anew = image.map()
        assert list(made_anew) == list(made_anew) == list(image.extents())


def test_an_image_whose_reading_was_announced_reads_the_same_in_any_order(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.open_image(point, "vda") as image:
        for _ in range(2):
            image.will_read(image.map(), 2 * CHUNK)
            for offset in (5 * CHUNK, 0, 3 * CHUNK):
                part = bytearray(2 * CHUNK)
                image.read_into(offset, memoryview(part))
                assert part == DATA[offset : offset + 2 * CHUNK]
        assert whole(image) == DATA


def test_points_can_be_read_while_reading_is_told(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with repository.reading("a test"), repository.open_image(point, "vda") as image:
        assert whole(image) == DATA
    with pytest.raises(LanfreeError), repository.reading("a test that fails"):
        repository.open_image(point, "vdz")


def test_a_point_that_is_deleted_while_it_is_read_can_still_be_opened_and_read(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    repository.seal(restore_point(write(repository, os.urandom(len(DATA))), run="2", minute=2))
    with repository.reading(f"a test of {point.id}"):
        repository.delete(point.id)
        with repository.open_image(point, "vda") as image:
            assert whole(image) == DATA


def test_an_image_of_two_points_stays_when_one_of_them_is_deleted(repository: ImageRepository) -> None:
    image = write(repository, DATA)
    first = repository.seal(restore_point(image, run="1", minute=1))
    other = repository.seal(restore_point(image, run="2", minute=2))
    repository.delete(first.id)
    with repository.open_image(other, "vda") as found:
        assert whole(found) == DATA


def test_a_sealed_point_is_found_by_machine_by_id_and_by_beginning(repository: ImageRepository) -> None:
    image = write(repository, DATA)
    first = repository.seal(restore_point(image, run="1", minute=1))
    other = repository.seal(restore_point(image, run="2", minute=2, machine="m2"))
    third = repository.seal(restore_point(image, run="3", minute=3))
    assert list(repository.points()) == [first, other, third]
    assert list(repository.points("m1")) == [first, third]
    assert list(repository.points("m3")) == []
    assert repository.point(other.id) == other
    assert repository.point(other.id[:-4]) == other
    assert first.sealed_at is not None
    with pytest.raises(RestorePointNotFound, match="3 begin so"):
        repository.point(first.id[:8])
    for nothing in ("", "2027"):
        with pytest.raises(RestorePointNotFound):
            repository.point(nothing)


def test_sealing_twice_for_one_run_gives_one_point(repository: ImageRepository) -> None:
    point = restore_point(write(repository, DATA))
    first = repository.seal(point)
    assert repository.seal(point) == first
    assert repository.seal(first) == first
    assert list(repository.points()) == [first]


def test_a_point_is_not_sealed_without_its_images(repository: ImageRepository) -> None:
    image = replace(write(repository, DATA), index="indexes/00/" + "00" * 16)
    with pytest.raises(IntegrityError, match="missing"):
        repository.seal(restore_point(image))
    assert repository.points() == []


def test_the_only_point_of_a_machine_is_not_deleted(repository: ImageRepository) -> None:
    image = write(repository, DATA)
    first = repository.seal(restore_point(image, run="1", minute=1))
    other = repository.seal(restore_point(write(repository, DATA), run="2", minute=2, machine="m2"))
    with pytest.raises(DeleteRefused, match="only restore point"):
        repository.delete(first.id)
    assert list(repository.points()) == [first, other]


@pytest.mark.slow
def test_any_point_but_the_last_can_be_deleted_and_the_others_stay_whole(repository: ImageRepository) -> None:
    points = []
    datas = []
    parent = None
    for n in range(4):
        datas.append(DATA[:CHUNK] + os.urandom(CHUNK) + DATA[2 * CHUNK :])
        parent = write(repository, datas[-1], parent)
        points.append(repository.seal(restore_point(parent, run=str(n), minute=n)))
    for n in (1, 0, 3):
        repository.delete(points[n].id)
    assert list(repository.points()) == [points[2]]
    with repository.open_image(points[2], "vda") as image:
        assert whole(image) == datas[2]
    with pytest.raises(RestorePointNotFound):
        repository.delete(points[0].id)


def test_a_disk_that_the_point_does_not_hold_is_told(repository: ImageRepository) -> None:
    point = repository.seal(restore_point(write(repository, DATA)))
    with pytest.raises(RestorePointNotFound, match="vdz"):
        repository.open_image(point, "vdz")


def test_a_repository_is_made_once_and_opened_often(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnavailable, match="no repository"):
        repositories.open(store, secret=SECRET)
    with repositories.create(store, chunk_size=CHUNK, cache=tmp_path / "c", secret=SECRET) as made:
        point = made.seal(restore_point(write(made, DATA)))
    with pytest.raises(RepositoryUnavailable, match="already"):
        repositories.create(store, secret=SECRET)
    with repositories.open(store, secret=SECRET) as again:
        assert again.granularity == CHUNK
        assert again.points() == [point]
        with again.open_image(point, "vda") as image:
            assert whole(image) == DATA


def test_a_repository_that_vanishes_never_looks_empty(store: ObjectStore, repository: ImageRepository) -> None:
    repository.seal(restore_point(write(repository, DATA)))
    for name in list(store.list("")):
        store.delete(name)
    with pytest.raises(RepositoryUnavailable):
        repository.points()


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [2 * MiB, 4 * MiB])
def test_the_copy_loop_brings_whole_chunks_of_any_size(chunk: int, tmp_path: Path) -> None:
    data = os.urandom(chunk + 512) + bytes(chunk) + b"text" * (chunk // 4)
    size = len(data)
    with repositories.create(MemoryStore(), chunk_size=chunk, cache=tmp_path, secret=SECRET) as repository:
        first = repository.seal(restore_point(write(repository, data)))
        with repository.open_image(first, "vda") as source, repository.image_writer("vdb", size, None) as writer:
            with pytest.raises(FormatError, match="whole chunks"):
                copy(source, writer, [Extent(0, size)], disk="vdb", workers=1)
            copy(source, writer, [Extent(0, size)], disk="vdb", granularity=writer.granularity)
            image = writer.seal()
        assert image.digest == first.images[0].digest
        with repository.open_image(repository.seal(restore_point(image, run="2", minute=1)), "vdb") as copied:
            assert whole(copied) == data


def test_a_damaged_chunk_is_stored_anew_by_the_next_backup_and_older_points_heal(
    store: ObjectStore, repository: ImageRepository
) -> None:
    old = repository.seal(restore_point(write(repository, DATA)))
    for name in store.list("packs/"):  # the last byte of what may be the header of the first chunk
        damaged = bytearray(store.get(name))
        damaged[63] ^= 1
        store.put(name, bytes(damaged), new=False)
    with repository.open_image(old, "vda") as image, pytest.raises(IntegrityError):
        whole(image)
    with pytest.raises(ChangesUnknown) as raised:
        repository.image_writer("vda", len(DATA), old.images[0])
    assert raised.value.reason == "parent-damaged"
    new = repository.seal(restore_point(write(repository, DATA), run="2", minute=1))
    for point in (old, new):
        with repository.open_image(point, "vda") as image:
            assert whole(image) == DATA
    with repository.image_writer("vda", len(DATA), new.images[0]) as writer:
        assert writer.seal().digest == old.images[0].digest


def spoil(store: ObjectStore, point: RestorePoint) -> str:
    """Damage a restore point's manifest; the object's name."""
    name = next(n for n in store.list("points/") if n.endswith(point.id))
    damaged = bytearray(store.get(name))
    damaged[len(damaged) // 2] ^= 1
    store.put(name, bytes(damaged), new=False)
    return name


@pytest.mark.slow
def test_a_manifest_that_cannot_be_read_hides_no_other(store: ObjectStore, repository: ImageRepository) -> None:
    image = write(repository, DATA)
    first = repository.seal(restore_point(image, run="1", minute=1))
    bad = repository.seal(restore_point(image, run="2", minute=2))
    other = repository.seal(restore_point(image, run="3", minute=3, machine="m2"))
    assert list(repository.damaged_points()) == []
    name = spoil(store, bad)
    assert list(repository.points()) == [first, other]
    assert list(repository.points("m1")) == [first]
    for machine in (None, "m1"):
        (damaged,) = repository.damaged_points(machine)
        assert damaged.object == name
        assert "signature" in damaged.why
    assert list(repository.damaged_points("m2")) == []
    assert repository.point(first.id) == first
    for beginning in (bad.id, bad.id[:-3]):
        with pytest.raises(FormatError, match=name):
            repository.point(beginning)


def test_a_point_that_cannot_be_read_does_not_count_as_another_one(
    store: ObjectStore, repository: ImageRepository
) -> None:
    good = repository.seal(restore_point(write(repository, DATA), run="1", minute=1))
    bad = repository.seal(restore_point(write(repository, DATA), run="2", minute=2))
    spoil(store, bad)
    with pytest.raises(DeleteRefused, match="only restore point of name of m1 that can be read"):
        repository.delete(good.id)
    with pytest.raises(FormatError):
        repository.delete(bad.id)
    assert list(repository.points()) == [good]


def test_a_repository_that_vanishes_has_no_damaged_points_but_an_error(
    store: ObjectStore, repository: ImageRepository
) -> None:
    for name in list(store.list("")):
        store.delete(name)
    with pytest.raises(RepositoryUnavailable):
        repository.damaged_points()
