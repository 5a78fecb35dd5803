"""Every call to the store that changes something fails once, and so do all after it: as after a crash or on a full disk."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import ChangesUnknown, RepositoryFull
from proxy.model import ImageInfo, RestorePoint
from proxy.repository import MemoryStore, Repository

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


@pytest.mark.slow
def test_a_backup_that_fails_at_any_call_leaves_no_point_or_a_whole_one(
    tmp_path: Path, backup: Backup, restore: Restore
) -> None:
    first, second = os.urandom(40 * CHUNK), os.urandom(40 * CHUNK)
    call, done = 0, False
    while not done:
        store = MemoryStore()
        with repositories.create(
            store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / f"c{call}", secret=SECRET
        ) as repository:
            old = backup(repository, first)
            store.fail_at(call)
            try:
                new = backup(repository, second, parent=old.images[0])
                done = True
            except RepositoryFull:
                new = None
            store.fail_at(None)
            assert list(repository.points()) == [p for p in (old, new) if p is not None]
            assert restore(repository, old) == first
            assert list(repositories.verify(repository)) == []
            again = backup(repository, second, parent=old.images[0])
            assert restore(repository, again) == second
        with repositories.open(store, secret=SECRET) as reopened:
            assert list(repositories.verify(reopened)) == []
            assert restore(reopened, again) == second
        call += 1
    assert call > 4  # three packs, an index and a manifest


@pytest.mark.slow
def test_a_delete_that_fails_at_any_call_leaves_the_point_whole_or_gone(
    tmp_path: Path, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(3 * CHUNK)
    for call in range(4):  # tombstone, manifest, verification record
        store = MemoryStore()
        with repositories.create(store, chunk_size=CHUNK, cache=tmp_path / f"c{call}", secret=SECRET) as repository:
            old, new = backup(repository, data), backup(repository, data)
            store.fail_at(call)
            if call < 3:
                with pytest.raises(RepositoryFull):
                    repository.delete(old.id)
            else:
                repository.delete(old.id)
            store.fail_at(None)
            left = list(repository.points())
            assert left == ([old, new] if call == 0 else [new])
            assert all(restore(repository, point) == data for point in left)
            assert list(repositories.verify(repository)) == []
            lost = repositories.unreferenced(repository)
            assert lost.packs == ()
            assert lost.indexes == (() if call == 0 else (old.images[0].index,))  # collected later


def test_a_lost_pack_fails_every_image_that_needs_it_and_no_other(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    shared = os.urandom(10 * CHUNK)
    doomed = repository.image_writer("a", 10 * CHUNK, None)
    sharing = repository.image_writer("b", 10 * CHUNK, None)
    doomed.write(0, memoryview(shared))
    sharing.write(0, memoryview(shared))  # finds its chunks in the pack that is not durable yet
    store.fail_at(0)
    with pytest.raises(RepositoryFull):
        doomed.seal()
    store.fail_at(None)
    with pytest.raises(RepositoryFull):
        sharing.seal()
    with pytest.raises(RepositoryFull):
        sharing.write(0, memoryview(shared))
    healthy = backup(repository, shared)
    assert restore(repository, healthy) == shared
    assert list(repositories.verify(repository)) == []


def test_packs_of_a_run_that_was_given_up_serve_the_next_run(
    store: MemoryStore, tmp_path: Path, backup: Backup
) -> None:
    data = os.urandom(64 * CHUNK)
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "a", secret=SECRET
    ) as repository:
        writer = repository.image_writer("vda", len(data), None)
        writer.write(0, memoryview(data))
        writer.close()
    with repositories.open(store, cache=tmp_path / "b", secret=SECRET) as repository:
        lost = repositories.unreferenced(repository)
        assert len(lost.packs) == 4  # a sealed chunk is 28 bytes longer: fifteen fit a pack
        assert repository.points() == []
        point = backup(repository, data)
        assert 0 < point.images[0].bytes_new < 20 * CHUNK  # what was in the pack that was not full
        assert set(repositories.unreferenced(repository).packs) == set()


def test_a_parent_whose_pack_is_gone_is_not_built_upon_and_a_full_backup_heals(
    store: MemoryStore, tmp_path: Path, backup: Backup, restore: Restore
) -> None:
    data = os.urandom(40 * CHUNK)
    with repositories.create(store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path, secret=SECRET) as repository:
        old = backup(repository, data)
    victim = next(store.list("packs/"))
    store.delete(victim)
    with repositories.open(store, cache=tmp_path, secret=SECRET) as repository:
        with pytest.raises(ChangesUnknown) as raised:
            repository.image_writer("vda", len(data), old.images[0])
        assert raised.value.reason == "parent-damaged"
        assert victim in raised.value.message
        healed = backup(repository, data)
        assert restore(repository, healed) == data
        assert restore(repository, old) == data  # the id counts: its chunks are found where they are now


def test_a_parent_whose_index_is_damaged_is_not_built_upon(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    old = backup(repository, os.urandom(5 * CHUNK))
    for image in (replace(old.images[0], digest="00" * 32), replace(old.images[0], index="indexes/00/" + "00" * 16)):
        with pytest.raises(ChangesUnknown):
            repository.image_writer("vda", image.size, image)


def test_concurrent_writers_share_chunks_and_are_right(
    repository: Repository, backup: Backup, restore: Restore
) -> None:
    shared = os.urandom(60 * CHUNK)
    disks = [shared + os.urandom(20 * CHUNK) for _ in range(4)]
    images: dict[int, ImageInfo] = {}
    start = threading.Barrier(4)

    def run(number: int) -> None:
        with repository.image_writer("vda", len(disks[number]), None) as writer:
            start.wait()
            for at in range(0, len(disks[number]), 8 * CHUNK):
                writer.write(at, memoryview(disks[number])[at : at + 8 * CHUNK])
            images[number] = writer.seal()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    template = backup(repository, b"x")
    for number, image in images.items():
        point = repository.seal(replace(template, id="", machine=f"c{number}", run=f"c{number}", images=(image,)))
        assert restore(repository, point) == disks[number]
    figures = repositories.statistics(repository)
    # A chunk that becomes durable between the two looks of another thread may be stored twice: rare, and harmless.
    assert 141 * CHUNK <= figures.unique + CHUNK <= 160 * CHUNK
    assert list(repositories.verify(repository)) == []
