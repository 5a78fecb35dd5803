"""Real file systems that are too small: for the repository, and for its cache."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy import command
from proxy import repository as repositories
from proxy.errors import RepositoryFull, RepositoryUnavailable
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import PosixStore, Repository, verify
from proxy.units import MiB

SECRET = repositories.KeyFile(bytes(range(32)))

pytestmark = pytest.mark.tools

CHUNK = 4096


def restore_point(image: ImageInfo) -> RestorePoint:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    configuration = MachineConfiguration("none", "")
    return RestorePoint("", "m", "m", "h", image.index, moment, Level.FULL, Consistency.CRASH, (image,), configuration)


def back_up(repository: Repository, data: bytes) -> RestorePoint:
    with repository.image_writer("vda", len(data), None) as writer:
        for start in range(0, len(data), 16 * CHUNK):
            writer.write(start, memoryview(data)[start : start + 16 * CHUNK])
        return repository.seal(restore_point(writer.seal()))


def test_a_repository_that_is_full_keeps_what_is_sealed_and_works_again_with_space(
    small_file_system: Path, tmp_path: Path
) -> None:
    store = PosixStore(small_file_system)
    data = os.urandom(64 * CHUNK)
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=SECRET
    ) as repository:
        point = back_up(repository, data)
        ballast = small_file_system / "ballast"
        free = os.statvfs(small_file_system)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 40 * CHUNK))
        with pytest.raises(RepositoryFull, match="no space left"):
            back_up(repository, os.urandom(64 * CHUNK))
        assert repository.points() == [point]
        assert list(verify(repository)) == []
        assert list((small_file_system / ".tmp").iterdir()) == []
        ballast.unlink()
        back_up(repository, os.urandom(64 * CHUNK))
        assert len(repository.points()) == 2
        assert list(verify(repository)) == []


def restored(repository: Repository, point: RestorePoint) -> bytes:
    with repository.open_image(point, "vda") as image:
        out = bytearray(image.size)
        image.read_into(0, memoryview(out))
        return bytes(out)


@contextmanager
def read_only(path: Path, place: Path) -> Iterator[Path]:
    """What is at ``path``, for reading only."""
    place.mkdir()
    command.run(["mount", "--bind", path, place], timeout=20)
    try:
        command.run(["mount", "-o", "remount,ro,bind", place], timeout=20)
        yield place
    finally:
        command.run(["umount", place], timeout=20)


@pytest.mark.requires("root")
def test_a_repository_that_is_mounted_for_reading_only_is_listed_and_restored(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    data = os.urandom(20 * CHUNK)
    with repositories.create(PosixStore(root), chunk_size=CHUNK, pack_size=64 * 1024, secret=SECRET) as repository:
        point = back_up(repository, data)
    with (
        read_only(root, tmp_path / "mounted") as place,
        repositories.open(PosixStore(place), secret=SECRET) as repository,
    ):
        assert repository.points() == [point]
        with repository.reading("a restore"):
            assert restored(repository, point) == data
        with pytest.raises(RepositoryUnavailable, match=r"[Rr]ead-only"):
            back_up(repository, data)


class Full:
    """Lets the ``at``-th system call that needs space fail, and, unless ``once``, all that follow."""

    NAMES = ("open", "write", "fsync", "link", "mkdir", "posix_fallocate")

    def __init__(self, at: int, *, once: bool) -> None:
        self.count = 0
        self._at = at
        self._once = once

    @contextmanager
    def in_force(self) -> Iterator[None]:
        before = {name: getattr(os, name) for name in self.NAMES}
        try:
            for name, call in before.items():
                setattr(os, name, self._wrapped(name, call))
            yield
        finally:
            for name, call in before.items():
                setattr(os, name, call)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **more: Any) -> Any:
            if name == "open" and not words[1] & os.O_CREAT:
                return call(*words, **more)
            if name == "fsync" and stat.S_ISDIR(os.fstat(words[0]).st_mode):
                return call(*words, **more)  # how many directories a listing syncs differs from run to run
            number = self.count
            self.count += 1
            if number == self._at or (number > self._at and not self._once):
                if name == "write":
                    call(words[0], memoryview(words[1])[: len(words[1]) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*words, **more)

        return counted


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
def test_space_that_ends_at_any_call_and_comes_back_loses_nothing(
    small_file_system: Path, tmp_path: Path, once: bool
) -> None:
    store, cache = PosixStore(small_file_system), tmp_path / "cache"
    disks: dict[str, bytes] = {}
    failed = 0
    with repositories.create(store, chunk_size=CHUNK, pack_size=64 * 1024, cache=cache, secret=SECRET):
        pass
    at = 0
    while True:
        data = os.urandom(20 * CHUNK)
        full = Full(at, once=once)
        # A new process each time: directories that this one has made are no calls any more.
        store = PosixStore(small_file_system)
        with repositories.open(store, cache=cache, secret=SECRET) as repository:
            try:
                with full.in_force():
                    point = back_up(repository, data)
                disks[point.id] = data
            except RepositoryFull:
                failed += 1
            points = {p.id: p for p in repository.points()}
            for late in points.keys() - disks.keys():  # sealed, and then the lease could not be looked at
                assert restored(repository, points[late]) == data
                disks[late] = data
            assert points.keys() == disks.keys()
            assert list(verify(repository)) == []
            again = back_up(repository, data)
            disks[again.id] = data
            for old in list(points)[:-1]:
                repository.delete(old)
                del disks[old]
            assert restored(repository, again) == data
            assert not any((small_file_system / ".tmp").iterdir())
            lost = repositories.unreferenced(repository)
            for name in (*lost.packs, *lost.indexes):
                store.delete(name)
        if full.count <= at:
            break
        at += 1
    assert failed > 15  # two packs, an index, a manifest, leases: each is opened, written, synced and named


def test_a_full_cache_directory_is_an_error_and_not_the_end_of_the_process(
    small_file_system: Path, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    segment = 4096 * CHUNK
    with repositories.create(PosixStore(root), chunk_size=CHUNK, cache=small_file_system, secret=SECRET) as repository:
        size = 40 * segment  # its index needs 128 KiB a segment: more than the cache has
        with (
            repository.image_writer("vda", size, None) as writer,
            pytest.raises(RepositoryFull, match="cache directory"),
        ):
            for start in range(0, size, segment):
                writer.write(start, memoryview(b"x" * CHUNK))
        assert repository.points() == []
        back_up(repository, os.urandom(4 * CHUNK))
        assert list(verify(repository)) == []


def test_a_cache_without_space_for_the_lookup_costs_no_backup(
    small_file_system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.repository.lookup.RECENT", 10)
    root = tmp_path / "repository"
    root.mkdir()
    data = os.urandom(50 * CHUNK)
    with repositories.create(PosixStore(root), chunk_size=CHUNK, cache=small_file_system, secret=None) as repository:
        free = os.statvfs(small_file_system)
        # Room for one index (128 KiB and a little), none for the runs.
        (small_file_system / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 140 * 1024))
        with repository.image_writer("vda", len(data), None) as writer:
            writer.write(0, memoryview(data))
            filler = small_file_system / "filler"
            with pytest.raises(OSError, match="space"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            image = writer.seal()
        filler.unlink()
        point = repository.seal(replace(restore_point(image), run="r"))
        assert list(small_file_system.glob("*/*.run")) == []
        (small_file_system / "ballast").unlink()
        assert repository.points() == [point]
        assert list(verify(repository)) == []


def test_the_file_system_is_as_small_as_these_tests_need(small_file_system: Path) -> None:
    figures = os.statvfs(small_file_system)
    assert figures.f_blocks * figures.f_frsize == 2 * MiB
