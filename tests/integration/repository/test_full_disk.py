"""Real file systems that are too small: for the repository, and for its cache."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import RepositoryFull
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
    with repositories.create(PosixStore(root), chunk_size=CHUNK, cache=small_file_system, secret=SECRET) as repository:
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
        (small_file_system / "ballast").unlink()
        assert repository.points() == [point]
        assert list(verify(repository)) == []
        assert list(small_file_system.glob("*/*.run")) == []


def test_the_file_system_is_as_small_as_these_tests_need(small_file_system: Path) -> None:
    figures = os.statvfs(small_file_system)
    assert figures.f_blocks * figures.f_frsize == 2 * MiB
