"""The cache of manifests saves requests and is never trusted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository import open as open_repository
from proxy.repository.manifest_cache import ManifestCache
from tests.unit.repository.damage import flipped

Backup = Callable[..., RestorePoint]


class CountingStore(MemoryStore):
    """Remembers which manifests were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("points/"):
            self.asked.append(name)
        return super().get(name, offset, length)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def test_a_second_listing_asks_for_new_manifests_only_in_another_process_too(
    store: CountingStore, repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2", machine="m2")
    assert set(repository.points()) == {first, second}
    store.asked.clear()
    assert repository.points("m1") == [first]
    assert store.asked == []
    third = backup(repository, b"3")
    store.asked.clear()
    with open_repository(store, secret=None, cache=tmp_path / "cache") as again:
        assert again.points("m1") == [first, third]
    assert store.asked == [repository.ledger.name(third)]


def test_what_was_deleted_is_not_listed_from_the_cache(repository: Repository, backup: Backup) -> None:
    first, second = backup(repository, b"1"), backup(repository, b"2")
    assert len(repository.points()) == 2
    repository.delete(first.id)
    assert repository.points() == [second]


@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: flipped(d, len(d) // 2)])
def test_a_damaged_cache_costs_requests_and_nothing_else(
    store: CountingStore, repository: Repository, backup: Backup, damage: Callable[[bytes], bytes]
) -> None:
    points = [backup(repository, bytes([n])) for n in range(4)]
    assert repository.points() == points
    (file,) = (repository.scratch / "manifests").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert repository.points() == points
    assert repository.points() == points
    store.asked.clear()
    assert repository.points() == points
    assert len(store.asked) <= 1


def test_damage_in_the_store_shows_where_damage_is_asked_for(
    store: CountingStore, repository: Repository, backup: Backup
) -> None:
    backup(repository, b"1")
    bad = backup(repository, b"2")
    assert len(repository.points()) == 2
    store.objects[repository.ledger.name(bad)] = b"rubbish"
    assert [damaged.object for damaged in repository.damaged_points()] == [repository.ledger.name(bad)]
    assert len(repository.survey()[0]) == 1


def test_a_cache_of_mostly_deleted_points_is_made_anew(repository: Repository, backup: Backup) -> None:
    backup(repository, b"1")
    cache = ManifestCache(repository.scratch / "manifests")
    assert len(repository.points()) == 1
    (file,) = (repository.scratch / "manifests").iterdir()
    cache.keep(file.name, {f"points/x/{n}": b"old" for n in range(100)})
    assert len(cache.known(file.name)) == 101
    assert len(repository.points()) == 1
    assert len(cache.known(file.name)) == 1


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ManifestCache(tmp_path / "file")
    cache.keep("folder", {"points/a/b": b"data"})
    assert cache.known("folder") == {}
