"""Claims: from the beginning of an image to its manifest somebody holds a lease, or everything is looked at again."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import FormatError, IntegrityError, LeaseLost, RepositoryFull
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository.leases import EXPIRY, Leases
from tests.unit.repository.collection_helpers import HandClock, collect_now

CHUNK = 4096
Backup = Callable[..., RestorePoint]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(clock: HandClock) -> "Interrupting":
    return Interrupting(clock=clock)


class Interrupting(MemoryStore):
    """Does something just before a manifest is put, as if the putting process had been asleep."""

    before_manifest: Callable[[], object] | None = None

    def put(self, name: str, data: bytes | memoryview, *, new: bool = True) -> None:
        if name.startswith("points/") and self.before_manifest is not None:
            work, self.before_manifest = self.before_manifest, None
            work()
        super().put(name, data, new=new)


def leases(store: MemoryStore) -> list[str]:
    return list(store.list("leases/"))


def test_a_lease_is_held_from_the_image_to_the_manifest(
    store: Interrupting, repository: Repository, backup: Backup
) -> None:
    template = backup(repository, os.urandom(CHUNK))
    assert leases(store) == []
    with repository.image_writer("vda", 3 * CHUNK, None) as writer:
        assert len(leases(store)) == 1
        writer.write(0, memoryview(os.urandom(3 * CHUNK)))
        image = writer.seal()
    assert len(leases(store)) == 1
    repository.seal(replace(template, id="", run="next", images=(image,)))
    assert leases(store) == []


def test_an_image_that_is_given_up_gives_its_lease_back(store: Interrupting, repository: Repository) -> None:
    repository.image_writer("vda", 3 * CHUNK, None).close()
    assert leases(store) == []


def test_an_image_that_cannot_begin_gives_its_lease_back(store: Interrupting, repository: Repository) -> None:
    store.objects["dooms/00"] = b"not a doom"
    with pytest.raises(FormatError):
        repository.image_writer("vda", 3 * CHUNK, None)
    assert leases(store) == []


def test_a_repository_that_is_closed_gives_all_leases_back(
    store: Interrupting, tmp_path: Path, repository: Repository
) -> None:
    with (
        repositories.open(store, secret=None, cache=tmp_path / "other") as other,
        other.image_writer("vda", 3 * CHUNK, None) as writer,
    ):
        writer.seal()
        assert len(leases(store)) == 1
    assert leases(store) == []


def test_a_writer_whose_renewals_fail_is_told_while_it_writes(store: Interrupting, repository: Repository) -> None:
    repository.use_leases(Leases(store, repository.sealer, renew=0.01))
    with repository.image_writer("vda", 3 * CHUNK, None) as writer:
        store.fail_at(0)
        with pytest.raises(RepositoryFull):
            for _ in range(100_000):
                writer.write(0, memoryview(bytes(CHUNK)))
        store.fail_at(None)


@pytest.mark.parametrize("collected", [False, True])
def test_a_process_that_slept_while_it_sealed_leaves_a_whole_point_or_none(
    store: Interrupting, repository: Repository, backup: Backup, clock: HandClock, tmp_path: Path, *, collected: bool
) -> None:
    template = backup(repository, os.urandom(CHUNK))
    data = os.urandom(30 * CHUNK)
    with repository.image_writer("vda", len(data), None) as writer:
        writer.write(0, memoryview(data))
        image = writer.seal()
    point = replace(template, id="", run="asleep", images=(image,))

    def others() -> None:
        clock.advance(EXPIRY)
        with repositories.open(store, secret=None, cache=tmp_path / "other") as other:
            if collected:
                assert collect_now(other).deleted != ()
            else:
                assert other.leases.remove_expired() != []

    store.before_manifest = others
    if collected:
        with pytest.raises((IntegrityError, LeaseLost)):
            repository.seal(point)
        assert repository.points() == [template]
    else:
        assert repository.seal(point) in repository.points()
    assert list(repositories.verify(repository)) == []
    assert [name for name in leases(store) if not name.endswith(".alive")] == []


def test_sealing_again_needs_no_lease(store: Interrupting, repository: Repository, backup: Backup) -> None:
    point = backup(repository, os.urandom(5 * CHUNK))
    repository.dooms.add(list(store.list("packs/")), [], repository.clock.now())
    assert repository.seal(point) == point
