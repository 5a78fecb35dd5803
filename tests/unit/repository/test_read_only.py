"""Somebody else's repository stays as it is, whatever its readers would like to note there."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import ConfigurationError, RepositoryUnavailable
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository.stores.read_only import ReadOnlyStore

Backup = Callable[..., RestorePoint]


def test_whatever_would_change_something_is_refused() -> None:
    below = MemoryStore()
    below.put("config", b"there")
    store = ReadOnlyStore(below)
    assert (store.get("config"), store.size("config"), list(store.list(""))) == (b"there", 5, ["config"])
    assert store.age("config") < 10
    with pytest.raises(RepositoryUnavailable, match="only read"):
        store.put("packs/1", b"new")
    with pytest.raises(RepositoryUnavailable, match="only read"):
        store.put("leases/1", b"new")
    with pytest.raises(RepositoryUnavailable, match="only read"):
        store.delete("config")
    with pytest.raises(ConfigurationError):
        store.retain("config", datetime(2030, 1, 1, tzinfo=UTC))
    assert below.objects == {"config": b"there"}


def test_leases_are_put_where_they_are_allowed_and_nothing_else() -> None:
    below = MemoryStore()
    store = ReadOnlyStore(below, leases=True)
    store.put("leases/restore-1", b"me")
    assert list(below.objects) == ["leases/restore-1"]
    store.delete("leases/restore-1")
    with pytest.raises(RepositoryUnavailable):
        store.put("leases", b"")
    assert not below.objects


@pytest.mark.parametrize("leases", [False, True])
def test_a_repository_is_read_without_a_trace(
    leases: bool, store: MemoryStore, repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    data = os.urandom(40000)
    point = backup(repository, data)
    before = dict(store.objects)
    with (
        repositories.open(ReadOnlyStore(store, leases=leases), secret=None, cache=tmp_path / "other") as reader,
        reader.reading(f"copy of restore point {point.id}"),
        reader.open_image(point, point.images[0].key) as image,
    ):
        assert any(name.startswith("leases/") for name in store.objects) is leases
        read = bytearray(image.size)
        image.read_into(0, memoryview(read))
    assert bytes(read) == data
    assert store.objects == before
