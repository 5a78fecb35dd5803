"""Random backups, incrementals, deletes, holds, damage, repairs and reopenings against disks kept as plain bytes."""

import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy import repository as repositories
from proxy.errors import ChangesUnknown, DeleteRefused
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import MemoryStore, Repository, verify
from proxy.repository.checking.repair import repair
from proxy.repository.copy import copy_points

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
SIZES = (1, CHUNK, 7 * CHUNK + 3)

Change = tuple[int, int, str]
# One write: which chunk, how many, and what: zero, a content that other disks have too, or bytes of its own.
writes = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 4), st.sampled_from(["zero", "data-zero", "shared", "own"])), max_size=6
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("backup"), st.integers(0, len(SIZES) - 1), st.booleans(), writes),
        st.tuples(st.just("delete"), st.integers(0, 20)),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(st.just("hold"), st.integers(0, 20)),
        st.tuples(st.just("spoil"), st.integers(0, 1 << 20)),
    ),
    min_size=1,
    max_size=12,
)


class Machine:
    """One disk as bytes, and its restore points with the bytes that they must hold."""

    def __init__(self, size: int) -> None:
        self.disk = bytearray(size)
        self.points: list[tuple[RestorePoint, bytes]] = []
        self.last: RestorePoint | None = None

    def parent(self) -> ImageInfo | None:
        return self.points[-1][0].images[0] if self.points else None


def content(kind: str, length: int, seed: int) -> bytes:
    if kind in ("zero", "data-zero"):
        return bytes(length)
    return random.Random(1 if kind == "shared" else seed).randbytes(length)


def back_up(
    repository: Repository, number: int, machine: Machine, *, whole: bool, changes: list[Change], count: int
) -> None:
    size = len(machine.disk)
    parent = machine.parent()
    # What changed is known since the last point only: if that was deleted, everything is written over an older parent.
    whole = whole or parent is None or machine.last != machine.points[-1][0]
    try:
        started = repository.image_writer("vda", size, parent)
    except ChangesUnknown:  # it refers to places that were damaged once: everything is read, as a backup does
        started, whole = repository.image_writer("vda", size, None), True
    with started as writer:
        for chunk, run, kind in changes:
            start = min(chunk * CHUNK, (size - 1) // CHUNK * CHUNK)
            length = min(run * CHUNK, size - start)
            machine.disk[start : start + length] = content(kind, length, count)
            if kind == "zero":
                writer.zero(start, length)
            else:
                writer.write(start, memoryview(machine.disk)[start : start + length])
        if whole:
            writer.write(0, memoryview(machine.disk))
        image = writer.seal()
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=count)
    point = RestorePoint(
        "", f"m{number}", "name", "h", f"r{count}", moment, Level.FULL, Consistency.CRASH, (image,),
        MachineConfiguration("none", ""),
    )  # fmt: skip
    machine.last = repository.seal(point)
    machine.points.append((machine.last, bytes(machine.disk)))


def delete(repository: Repository, owner: Machine, which: int, held: set[str]) -> None:
    """What is held stays; what goes, goes."""
    point, _ = owner.points[which % len(owner.points)]
    if point.id in held:
        with pytest.raises(DeleteRefused):
            repository.delete(point.id)
        return
    repository.delete(point.id)
    del owner.points[which % len(owner.points)]


def spoil(store: MemoryStore, repository: Repository, copy: Repository, place: int) -> None:
    """A byte of a pack changes, or a pack is lost; verification finds it, a copy mends it, and verification says so."""
    list(copy_points(repository, copy))
    names = list(store.list("packs/"))
    if not names:
        return
    name = names[place % len(names)]
    data = bytearray(store.objects[name])
    data[place % len(data)] ^= 1
    if place % 3:
        store.objects[name] = bytes(data)
    else:
        store.delete(name)
    assert {done.why for done in repair(repository, copy, verify(repository, deep=bool(place % 2)))} <= {""}
    assert list(verify(repository)) == []  # from now on they count as good again


def check(repository: Repository, machines: list[Machine]) -> None:
    expected = sorted((point for m in machines for point, _ in m.points), key=lambda p: (p.id, p.machine))
    assert list(repository.points()) == expected
    digests: dict[str, bytes] = {}
    for machine in machines:
        for point, data in machine.points:
            with repository.open_image(point, "vda") as image:
                out = bytearray(len(data))
                image.read_into(0, memoryview(out))
                assert out == data
                covered = bytearray()
                for extent in image.extents():
                    covered += data[extent.start : extent.end] if extent.kind.value == "data" else bytes(extent.length)
                assert covered == data
            assert digests.setdefault(point.images[0].digest, data) == data
    assert list(verify(repository)) == []


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_every_restore_point_holds_what_its_disk_held(steps: list[tuple[object, ...]]) -> None:
    store = MemoryStore()
    machines = [Machine(size) for size in SIZES]
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory)
        repository = repositories.create(store, chunk_size=CHUNK, pack_size=64 * 1024, cache=cache, secret=SECRET)
        copy = repositories.create(MemoryStore(), chunk_size=2 * CHUNK, pack_size=64 * 1024, secret=None)
        held: set[str] = set()
        for count, step in enumerate(steps):
            match step:
                case ("backup", int(number), bool(whole), list(changes)):
                    back_up(repository, number, machines[number], whole=whole, changes=changes, count=count)
                case ("delete", int(which)):
                    owners = [m for m in machines if len(m.points) > 1]
                    if owners:
                        delete(repository, owners[which % len(owners)], which, held)
                case ("hold", int(which)):
                    points = [point for m in machines for point, _ in m.points]
                    if points:
                        repository.ledger.hold(points[which % len(points)].id, "evidence")
                        held.add(points[which % len(points)].id)
                case ("spoil", int(place)):
                    spoil(store, repository, copy, place)
                case ("reopen", bool(keep_cache)):
                    repository.close()
                    repository = repositories.open(store, cache=cache if keep_cache else None, secret=SECRET)
        check(repository, machines)
        repository.close()
        copy.close()


def test_equal_chunks_of_different_machines_are_stored_once(tmp_path: Path) -> None:
    store = MemoryStore()
    with repositories.create(store, chunk_size=CHUNK, cache=tmp_path, secret=SECRET) as repository:
        machines = [Machine(7 * CHUNK) for _ in range(3)]
        for number, machine in enumerate(machines):
            back_up(repository, number, machine, whole=True, changes=[(0, 4, "shared")], count=number)
        figures = repositories.statistics(repository)
        assert figures.chunks == 4
        assert figures.unique == 4 * CHUNK
        assert figures.referenced == 3 * 4 * CHUNK
        assert figures.deduplication == 3.0
        assert (figures.machines, figures.points, figures.images) == (3, 3, 3)
        assert figures.logical == 3 * 7 * CHUNK
        assert figures.stored == sum(map(len, store.objects.values()))
