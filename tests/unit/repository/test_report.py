"""A report's figures are those of a simple count over everything, for every machine and for all."""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.errors import RepositoryUnavailable
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, PosixStore, Repository
from proxy.repository import format as layout
from proxy.repository.checking import counting
from proxy.repository.checking.report import Report, make_report
from proxy.repository.collection.collect import collect
from proxy.repository.packs import read_footer

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]


@pytest.fixture(params=["memory", "posix", "clear"])
def any_repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    store = MemoryStore()
    if request.param == "posix":
        (tmp_path / "root").mkdir()
        store = PosixStore(tmp_path / "root")  # type: ignore[assignment]  # both are object stores
    secret = None if request.param == "clear" else SECRET
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, secret=secret, cache=tmp_path / "any"
    ) as made:
        yield made


def compressible(chunks: int, seed: int) -> bytes:
    return b"".join(random.Random(seed + n).randbytes(1500) + bytes(CHUNK - 1500) for n in range(chunks))


def check(repository: Repository, found: Report) -> None:
    """Count everything one by one, the slow way, and compare."""
    raw: dict[bytes, int] = {}
    stored: dict[bytes, int] = {}
    users: dict[bytes, set[str]] = defaultdict(set)
    referenced: dict[str, int] = defaultdict(int)
    points = repository.points()
    for point in points:
        for image in point.images:
            with closing(repository.open_view("", image)) as view:
                for chunk in range(view.chunks):
                    reference = view.reference(chunk)
                    if reference is None:
                        continue
                    ident, place = reference
                    raw[ident] = min(CHUNK, view.size - chunk * CHUNK)
                    stored[ident] = layout.split_stored(place.word)[1]
                    users[ident].add(point.machine)
                    referenced[point.machine] += raw[ident]
    for machine in found.machines:
        own = [ident for ident, who in users.items() if machine.machine in who]
        mine = [p for p in points if p.machine == machine.machine]
        assert machine.points == len(mine)
        assert machine.images == sum(len(p.images) for p in mine)
        assert machine.logical == sum(image.size for p in mine for image in p.images)
        assert machine.referenced == referenced[machine.machine]
        assert machine.unique == sum(raw[ident] for ident in own)
        assert machine.compressed == sum(stored[ident] for ident in own)
        assert machine.exclusive == sum(stored[ident] for ident in own if len(users[ident]) == 1)
        assert (machine.oldest, machine.newest) == (mine[0].created_at, mine[-1].created_at)
        assert machine.machine_name == mine[-1].machine_name
    assert {m.machine for m in found.machines} == {p.machine for p in points}
    total = found.total
    assert total.unique == sum(raw.values())
    assert total.compressed == sum(stored.values())
    assert total.referenced == sum(referenced.values())
    packs = [layout.pack_of(name) for name in repository.store.list("packs/")]
    footers = [read_footer(repository.store, repository.settings, repository.chunker, p) for p in packs if p]
    assert total.packs == len(packs)
    assert total.chunks == sum(map(len, footers))
    assert total.in_packs == sum(e.stored for footer in footers for e in footer)
    assert total.dead == total.in_packs - total.compressed
    assert total.stored == sum(repository.store.size(name) for name in repository.store.list(""))


def fill(repository: Repository, backup: Backup) -> list[RestorePoint]:
    """Two machines with three points each that share chunks among themselves and with one another, and a short end."""
    made = []
    for number, machine in enumerate("ab"):
        disk = bytearray(compressible(40, 1000) + bytes(30 * CHUNK) + os.urandom(20 * CHUNK) + b"end")
        parent = None
        for _ in range(3):
            made.append(backup(repository, bytes(disk), machine, parent=parent))
            parent = made[-1].images[0]
            for chunk in (3 + len(made), 50 + len(made), 70 + 2 * number + len(made), 90):
                at = chunk * CHUNK
                disk[at : at + CHUNK] = os.urandom(CHUNK)[: len(disk) - at]
    return made


@pytest.mark.slow
def test_figures_are_those_of_a_simple_count(any_repository: Repository, backup: Backup) -> None:
    fill(any_repository, backup)
    check(any_repository, make_report(any_repository))


@pytest.mark.slow
def test_figures_hold_after_deletion_and_collection(any_repository: Repository, backup: Backup) -> None:
    points = fill(any_repository, backup)
    before = make_report(any_repository).total
    any_repository.delete(points[0].id)
    any_repository.delete(points[1].id)
    deleted = make_report(any_repository)
    check(any_repository, deleted)
    assert deleted.total.dead > before.dead
    assert deleted.total.in_packs == before.in_packs
    for _ in range(2):
        collect(any_repository, grace=0.0, settle=0.0, young=0.0, threshold=0.0)
    collected = make_report(any_repository)
    check(any_repository, collected)
    assert collected.total.dead == 0
    assert collected.total.compressed == deleted.total.compressed


@pytest.mark.slow
def test_figures_are_the_same_in_many_partitions(
    any_repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(any_repository, backup)
    whole = make_report(any_repository)
    monkeypatch.setattr(counting, "_PARTITION", 10)
    assert make_report(any_repository) == whole


@pytest.mark.slow
def test_a_disk_of_several_segments_is_counted_to_its_short_end(repository: Repository, backup: Backup) -> None:
    size = 2 * 4096 * CHUNK + 100
    data = bytearray(size)
    for chunk in (0, 4095, 4096, 8191, 8192):
        data[chunk * CHUNK : chunk * CHUNK + 50] = os.urandom(50)
    first = backup(repository, bytes(data))
    data[4096 * CHUNK] ^= 1
    backup(repository, bytes(data), parent=first.images[0])
    found = make_report(repository)
    check(repository, found)
    assert found.total.referenced == 2 * (4 * CHUNK + 100)
    assert found.total.unique == 5 * CHUNK + 100


def test_an_empty_repository_has_no_ratios_and_no_machines(any_repository: Repository) -> None:
    found = make_report(any_repository)
    assert found.machines == ()
    assert (found.total.deduplication, found.total.compression, found.total.dead) == (0.0, 0.0, 0)
    check(any_repository, found)


def test_ratios_of_equal_machines(any_repository: Repository, backup: Backup) -> None:
    data = compressible(30, 5)
    for machine in "abc":
        backup(any_repository, data, machine)
    found = make_report(any_repository)
    assert found.total.deduplication == 3.0
    assert 2.0 < found.total.compression < 3.0
    assert [(m.exclusive, m.deduplication) for m in found.machines] == [(0, 1.0)] * 3


@pytest.mark.slow
def test_the_machine_that_takes_most_for_itself_comes_first(any_repository: Repository, backup: Backup) -> None:
    for machine, chunks in (("small", 2), ("large", 9), ("middle", 5)):
        backup(any_repository, os.urandom(chunks * CHUNK), machine)
    assert [m.machine for m in make_report(any_repository).machines] == ["large", "middle", "small"]


def test_damaged_manifests_and_indexes_are_counted_and_the_rest_is_reported(
    store: MemoryStore, repository: Repository, backup: Backup
) -> None:
    points = [backup(repository, os.urandom(3 * CHUNK)) for _ in range(4)]
    store.objects[repository.ledger.name(points[0])] = b"rubbish"
    store.objects[points[1].images[0].index] = b"rubbish"
    found = make_report(repository)
    assert (found.total.damaged_points, found.total.damaged_images) == (1, 1)
    assert (found.total.points, found.total.images) == (3, 3)
    assert found.total.unique == 2 * 3 * CHUNK


def test_a_repository_out_of_reach_is_not_an_empty_one(store: MemoryStore, repository: Repository) -> None:
    store.delete("config")
    with pytest.raises(RepositoryUnavailable):
        make_report(repository)
