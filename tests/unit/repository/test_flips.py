"""Any byte of any kind of object changes, or an object ends early: it is noticed, and wrong data never comes out."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy import repository as repositories
from proxy.errors import FormatError, IntegrityError, LanfreeError
from proxy.model import RestorePoint
from proxy.repository import MemoryStore, Repository, verify
from proxy.repository.checking.packcheck import PackChecker
from proxy.repository.records import Health, Records

pytestmark = pytest.mark.slow

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]
Spoil = Callable[[bytes], bytes]


class Scene:
    """A repository with an object of every kind, and what its restore points must hold."""

    def __init__(self, store: MemoryStore, cache: Path, backup: Backup, *, sealed: bool) -> None:
        self.store = store
        self.cache = cache
        self.secret = SECRET if sealed else None
        self.disks: dict[str, bytes] = {}
        with repositories.create(
            store, chunk_size=CHUNK, pack_size=64 * 1024, cache=cache, secret=self.secret
        ) as repository:
            data = os.urandom(30 * CHUNK) + b"text that compresses " * 1000 + bytes(9 * CHUNK)
            for machine in ("m1", "m2"):
                for _ in range(3):
                    data = os.urandom(2 * CHUNK) + data[2 * CHUNK :]
                    self.disks[backup(repository, data, machine=machine).id] = data
            gone, *_, held = repository.points("m1")
            repository.delete(gone.id)
            del self.disks[gone.id]
            self.unneeded = gone.images[0].index
            repository.ledger.hold(held.id, "evidence")
            repository.ledger.note_health(held, Health.GOOD)

    def open(self) -> Repository:
        return repositories.open(self.store, secret=self.secret, cache=self.cache)

    def name(self, prefix: str) -> str:
        """The first object of a kind."""
        return next(name for name in self.store.list(prefix))


@pytest.fixture(params=["sealed", "clear"])
def scene(request: pytest.FixtureRequest, store: MemoryStore, tmp_path: Path, backup: Backup) -> Scene:
    return Scene(store, tmp_path / "cache", backup, sealed=request.param == "sealed")


def spoiled(data: bytes, places: Iterator[int] | range | list[int]) -> Iterator[bytes]:
    """A bit of each of these bytes flipped, one after the other."""
    chooser = random.Random(len(data))
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chooser.randrange(8)
        yield bytes(changed)


def shortened(data: bytes, count: int = 60) -> Iterator[bytes]:
    """Cut at many lengths, and with more behind it."""
    lengths = {0, 1, 7, 8, 47, 48, len(data) - 1, len(data) - 64}
    lengths.update(random.Random(len(data)).choices(range(len(data)), k=count))
    for length in sorted(lengths):
        yield data[: max(length, 0)]
    yield data + b"\0"
    yield data + data


def some(data: bytes, count: int) -> list[int]:
    """Bytes at both ends, and some between."""
    ends = {*range(min(100, len(data))), *range(max(len(data) - 100, 0), len(data))}
    return sorted(ends | set(random.Random(len(data)).choices(range(len(data)), k=count)))


def test_every_byte_of_the_configuration_counts(scene: Scene) -> None:
    good = scene.store.objects["config"]
    for bad in (*spoiled(good, range(len(good))), *(good[:n] for n in range(len(good) - 1))):
        scene.store.objects["config"] = bad
        with pytest.raises(LanfreeError):
            scene.open()


def test_a_damaged_key_slot_opens_nothing_or_what_it_opened_before(
    store: MemoryStore, tmp_path: Path, backup: Backup, restore: Restore
) -> None:
    scene = Scene(store, tmp_path / "cache", backup, sealed=True)
    name = scene.name("keys/")
    good = store.objects[name]
    refused = 0
    for bad in (*spoiled(good, range(len(good))), *shortened(good)):
        store.objects[name] = bad
        try:
            with scene.open() as repository:
                point = repository.points()[-1]
                assert restore(repository, point) == scene.disks[point.id]
        except LanfreeError:
            refused += 1
    assert refused > len(good) / 2


@pytest.mark.parametrize("prefix", ["points/", "tombstones/", "holds/", "states/"])
def test_every_byte_of_a_small_object_counts(scene: Scene, prefix: str) -> None:
    name = scene.name(prefix)
    good = scene.store.objects[name]
    with scene.open() as repository:
        ledger = repository.ledger
        kinds: dict[str, Records[Any]] = {
            "tombstones/": ledger.tombstones,
            "holds/": ledger.holds,
            "states/": ledger.verifications,
        }
        manifest = name.replace(prefix, "points/")
        read = (lambda: ledger.read(manifest)) if prefix == "points/" else (lambda: kinds[prefix].get(manifest))
        assert read() is not None
        for bad in (*spoiled(good, range(len(good))), *shortened(good)):
            scene.store.objects[name] = bad
            with pytest.raises(FormatError) as raised:
                read()
            assert name in raised.value.message or "generation" in raised.value.message


def test_bytes_of_an_index_count(scene: Scene) -> None:
    with scene.open() as repository:
        image = repository.points()[0].images[0]
        good = scene.store.objects[image.index]
        for bad in (*spoiled(good, some(good, 60)), *shortened(good, 20)):
            scene.store.objects[image.index] = bad
            with pytest.raises(IntegrityError):
                repository.open_view("here", image)


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "not deep"])
def test_bytes_of_a_pack_count(scene: Scene, deep: bool) -> None:
    name = max(scene.store.list("packs/"), key=lambda n: len(scene.store.objects[n]))
    pack = bytes.fromhex(name.rpartition("/")[2])
    good = scene.store.objects[name]
    with scene.open() as repository:
        checker = PackChecker(repository, 1, deep=deep)
        for bad in (*spoiled(good, some(good, 150)), *shortened(good, 20)):
            scene.store.objects[name] = bad
            ((_, verdict),) = checker.check_all([pack])
            assert not verdict.right
        scene.store.objects[name] = good
        assert [verdict.right for _, verdict in checker.check_all([pack])] == [True]


def everything(scene: Scene, restore: Restore) -> bool:
    """Open, verify, read all, back up, delete: whether anybody noticed. What is read is right, and nothing but our errors
    comes out."""
    noticed = False
    try:
        with scene.open() as repository:
            noticed |= bool(list(verify(repository)))
            damaged_places = repository.lookup.damaged
            # A chunk that only a deleted restore point needed is nobody's damage; it is recorded so that nobody uses it.
            noticed |= bool(damaged_places.packs() or damaged_places.offsets())
            points, damaged = repository.survey()
            noticed |= bool(damaged)
            for point in points:
                try:
                    assert restore(repository, point) == scene.disks[point.id]
                except LanfreeError:
                    noticed = True
            for point in points:
                with suppress(LanfreeError):
                    repository.delete(point.id)
            repositories.statistics(repository)
    except LanfreeError:
        noticed = True
    return noticed


@pytest.mark.parametrize("seed", range(25))
def test_whatever_changes_somebody_notices_and_nothing_wrong_is_restored(
    scene: Scene, restore: Restore, seed: int
) -> None:
    chooser = random.Random(seed)
    name = chooser.choice(
        [n for n in scene.store.list("") if not n.startswith(("states/", "damaged/", "leases/", "rescue.py"))]
    )
    data = bytearray(scene.store.objects[name])
    what = chooser.choice(["flip", "flips", "zeroes", "cut", "swap"])
    if what == "cut":
        del data[chooser.randrange(len(data)) :]
    elif what == "zeroes":
        start = chooser.randrange(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif what == "swap":
        others = [n for n in scene.store.list(name.partition("/")[0]) if n != name]
        data = bytearray(scene.store.objects[chooser.choice(others)]) if others else data[: len(data) // 2]
    for _ in range({"flip": 1, "flips": 20}.get(what, 0)):
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
    # A slot that does not open is no way in; the index of a deleted restore point is read by nobody, and will be collected.
    harmless = bytes(data) == scene.store.objects[name] or name.startswith("keys/") or name == scene.unneeded
    scene.store.objects[name] = bytes(data)
    assert everything(scene, restore) or harmless


def test_nothing_is_noticed_where_nothing_changed(scene: Scene, restore: Restore) -> None:
    assert not everything(scene, restore)
