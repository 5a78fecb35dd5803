"""Compaction: sealed bytes move as they are, once, and never what is not whole; parents' references follow."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from proxy import repository as repositories
from proxy.errors import ChangesUnknown
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository
from proxy.repository import format as layout
from proxy.repository.collection import compact
from proxy.repository.collection.compact import Mover, candidates
from proxy.repository.collection.needed import Needed, Survey
from proxy.repository.format import Entry
from proxy.repository.packs import read_footer
from tests.unit.repository.collection_helpers import collect_now
from tests.unit.repository.damage import flip

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


@pytest.fixture(params=[pytest.param(SECRET, id="sealed"), pytest.param(None, id="clear", marks=pytest.mark.slow)])
def repository(store: MemoryStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Repository]:
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=request.param
    ) as made:
        yield made


def looked(repository: Repository) -> Needed:
    return Survey(repository, 0).run()


def footer(repository: Repository, pack: bytes) -> list[Entry]:
    return read_footer(repository.store, repository.settings, repository.chunker, pack)


def thinned(repository: Repository, backup: Backup, keep: int) -> RestorePoint:
    """A point that needs every ``keep``-th chunk of packs whose other chunks nobody needs."""
    data = os.urandom(64 * CHUNK)
    gone = backup(repository, data)
    kept = backup(repository, b"".join(data[n * CHUNK : (n + 1) * CHUNK] for n in range(0, 64, keep)))
    repository.delete(gone.id)
    return kept


def test_packs_are_chosen_by_their_dead_share_emptiest_first(repository: Repository, backup: Backup) -> None:
    thinned(repository, backup, 2)
    thinned(repository, backup, 8)
    needed = looked(repository)
    every = candidates(needed.marks, needed.resolver, 0.0)
    shares = [c.dead / (c.dead + c.live) for c in every]
    assert shares == sorted(shares, reverse=True)
    for c in every:
        entries = footer(repository, needed.marks.packs.name(c.number))
        live = needed.marks.live(np.full(len(entries), c.number), np.array([e.offset for e in entries], np.uint32))
        assert c.live == sum(e.stored for e, wanted in zip(entries, live.tolist(), strict=True) if wanted)
        assert c.live + c.dead == sum(e.stored for e in entries)
    chosen = candidates(needed.marks, needed.resolver, 0.6)
    assert 0 < len(chosen) < len(every)
    assert all(c.dead > 0.6 * (c.dead + c.live) for c in chosen)


def test_sealed_bytes_are_moved_as_they_are(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    thinned(repository, backup, 4)
    needed = looked(repository)
    before = set(store.list("packs/"))
    mover = Mover(repository, needed.marks)
    worth = candidates(needed.marks, needed.resolver, 0.3)
    needed.resolver.avoid(needed.marks.packs, frozenset(needed.marks.packs.name(c.number) for c in worth))
    for c in worth:
        assert mover.move(needed.marks.packs.name(c.number), needed.resolver)
    mover.finish()
    old = {}
    for name in before:
        pack = bytes.fromhex(name[-32:])
        old |= {e.id: store.get(name, e.offset, e.stored) for e in footer(repository, pack)}
    new = {}
    for name in set(store.list("packs/")) - before:
        for e in footer(repository, bytes.fromhex(name[-32:])):
            new[e.id] = store.get(name, e.offset, e.stored)
    assert len(new) == 16
    assert all(old[chunk] == data for chunk, data in new.items())
    assert mover.bytes == sum(map(len, new.values()))
    # Again: everything is found where it was moved to.
    again = looked(repository)
    again.resolver.avoid(again.marks.packs, frozenset(needed.marks.packs.name(c.number) for c in worth))
    second = Mover(repository, again.marks)
    for c in worth:
        assert second.move(needed.marks.packs.name(c.number), again.resolver)
    second.finish()
    assert second.bytes == 0


@pytest.mark.parametrize("where", ["chunk", "footer"])
def test_what_is_damaged_is_not_moved_and_its_pack_stays(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore, where: str
) -> None:
    kept = thinned(repository, backup, 4)
    needed = looked(repository)
    worth = candidates(needed.marks, needed.resolver, 0.3)
    pack = needed.marks.packs.name(worth[0].number)
    name = layout.pack_name(pack)
    entries = footer(repository, pack)
    live = needed.marks.live(np.full(len(entries), worth[0].number), np.array([e.offset for e in entries], np.uint32))
    first = next(e for e, wanted in zip(entries, live.tolist(), strict=True) if wanted)
    at = first.offset + 40 if where == "chunk" else len(store.objects[name]) - 60
    flip(store, name, at)
    report = collect_now(repository)
    assert name in store.objects
    assert name not in [item.object for item in report.compacted]
    assert {*repository.lookup.damaged.packs(), *repository.lookup.damaged.offsets()} == {pack}
    if where == "footer":
        assert restore(repository, kept)


def test_a_pack_that_is_gone_cannot_be_moved(store: MemoryStore, repository: Repository, backup: Backup) -> None:
    thinned(repository, backup, 4)
    needed = looked(repository)
    pack = needed.marks.packs.name(0)
    store.delete(layout.pack_name(pack))
    assert not Mover(repository, needed.marks).move(pack, needed.resolver)


def test_long_neighbourhoods_are_read_in_bounded_ranges(
    repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "RANGE_BYTES", 3 * CHUNK)
    data = os.urandom(12 * CHUNK)
    backup(repository, data)
    needed = looked(repository)
    pack = needed.marks.packs.name(0)
    parts = compact._neighbours(footer(repository, pack))
    assert [len(part) for part in parts] == [3, 3, 3, 3]
    assert [e for part in parts for e in part] == footer(repository, pack)


def test_an_incremental_refers_to_where_the_chunks_of_its_parent_are_now(
    store: MemoryStore, repository: Repository, backup: Backup, restore: Restore
) -> None:
    kept = thinned(repository, backup, 4)
    collect_now(repository)
    data = restore(repository, kept)
    with repository.image_writer("vda", len(data), kept.images[0]) as writer:
        image = writer.seal()
    assert image.digest == kept.images[0].digest
    view = repository.open_view("a test", image)
    packs = {view.pack(number) for number in range(1, view.pack_count + 1)}
    view.close()
    assert all(layout.pack_name(pack) in store.objects for pack in packs)


def test_a_parent_is_not_built_upon_if_a_chunk_of_it_is_only_in_doomed_packs(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    kept = backup(repository, os.urandom(8 * CHUNK))
    repository.dooms.add(list(store.list("packs/")), [], repository.clock.now())
    with pytest.raises(ChangesUnknown, match="parent-damaged"):
        repository.image_writer("vda", 8 * CHUNK, kept.images[0])
    assert list(store.list("leases/")) == []
