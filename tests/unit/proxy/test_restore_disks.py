"""Several disks at once, differential restores, and what is left when one of them fails."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, back_up
from proxy.errors import Cancelled, IntegrityError, RestoreRefused, WriteFailed
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import PowerState, ReasonCode, RestorePoint
from proxy.ports import BlockTarget, DiskPlace, NewMachine, Progress
from proxy.repository import MemoryStore, Repository, create
from proxy.restore import RestorePorts, RestoreRequest, RestoreResult, restore
from proxy.transport.memory import MemoryTransport
from proxy.transport.memory_targets import MemoryTargets
from proxy.transport.raw import SharedFiles
from proxy.transport.san import SanFabric
from proxy.transport.target import SiteTargets
from proxy.units import KiB

pytestmark = pytest.mark.slow

CHUNK = 16 * KiB
KEYS = ("vda", "vdb", "vdc")
FIRST, ZEROES = 40, 16  # chunks
# Data, zeroes, data, and an end within a chunk; larger than one segment of the copy loop.
IMAGES = {
    key: random.Random(key).randbytes(FIRST * CHUNK)
    + bytes(ZEROES * CHUNK)
    + random.Random(key * 2).randbytes(40 * CHUNK + 512)
    for key in KEYS
}


@dataclass
class Site:
    hypervisor: MemoryHypervisor
    store: MemoryStore
    repository: Repository
    targets: MemoryTargets
    ports: RestorePorts
    machine: str
    point: RestorePoint

    def restore(self, **options: object) -> RestoreResult:
        places = {key: DiskPlace(path=f"/images/{key}") for key in KEYS}
        request = RestoreRequest(
            "restore-1", self.point.id, NewMachine(name="db1", host="h2", disks=places), define=False
        )
        return restore(self.ports, replace(request, **options))  # type: ignore[arg-type]

    def device(self, key: str) -> bytearray:
        return self.targets.devices[f"/images/{key}"].data

    def calls(self, key: str, name: str) -> list[tuple[int, int]]:
        faults = self.targets.devices[f"/images/{key}"].faults
        return [(offset, length) for call, offset, length in faults.calls if call == name]

    def on_write(self, key: str, action: Callable[[], None]) -> None:
        """Do something at every write to the disk's place, before it."""
        opened = self.targets.open

        def opening(place: DiskPlace, size: int, *, overwrite: bool) -> BlockTarget:
            target = opened(place, size, overwrite=overwrite)
            write = target.write

            def writing(offset: int, data: memoryview) -> None:
                action()
                write(offset, data)

            if place.path.endswith(key):
                target.write = writing  # type: ignore[method-assign]
            return target

        self.targets.open = opening  # type: ignore[method-assign]

    def keep_as_it_is(self) -> None:
        """The devices hold what the restore point has."""
        for key in KEYS:
            self.device(key)[:] = IMAGES[key]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("db1", IMAGES)
    store = MemoryStore()
    with create(store, chunk_size=CHUNK, pack_size=256 * KiB, cache=tmp_path / "cache", secret=None) as repository:
        interlock = Interlock(tmp_path / "locks")
        transport = MemoryTransport(hypervisor.disk_bytes)
        done = back_up(BackupPorts(hypervisor, [transport], repository, interlock), BackupRequest("run-1", machine))
        hypervisor.set_state(machine, PowerState.OFF)
        targets = MemoryTargets({f"/images/{key}": bytes(len(IMAGES[key])) for key in KEYS})
        ports = RestorePorts(hypervisor, repository, targets, interlock)
        yield Site(hypervisor, store, repository, targets, ports, machine, done.point)


def restoring_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("disk-", "copy-", "fetch-"))]


def test_all_disks_come_back_and_are_told_in_order_of_their_keys(site: Site) -> None:
    result = site.restore()
    assert [disk.key for disk in result.disks] == list(KEYS)
    for disk in result.disks:
        assert bytes(site.device(disk.key)) == IMAGES[disk.key]
        assert disk.bytes_written == len(IMAGES[disk.key]) - ZEROES * CHUNK
        assert disk.bytes_zeroed == ZEROES * CHUNK
        assert disk.compared
        assert disk.reasons == ()
    assert restoring_threads() == []


@pytest.mark.slow
def test_two_disks_are_written_at_once_and_a_third_waits(site: Site) -> None:
    together = threading.Barrier(2, timeout=20)
    first: set[str] = set()

    def meet(key: str) -> Callable[[], None]:
        def meeting() -> None:
            if key not in first and len(first) < 2:
                first.add(key)
                together.wait()

        return meeting

    for key in KEYS:
        site.on_write(key, meet(key))
    site.restore()
    assert first == {"vda", "vdb"}
    assert not together.broken


def test_who_lives_there_is_asked_before_each_disk_also_when_they_go_on_at_once(site: Site) -> None:
    asked: list[str] = []
    machines = site.hypervisor.machines

    def asking() -> object:
        asked.append(threading.current_thread().name)
        return machines()

    site.hypervisor.machines = asking  # type: ignore[method-assign,assignment]
    site.restore()
    assert len(asked) == 1 + len(KEYS), "once for all before the first write, and once before each disk"


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_write_error_ends_all_disks_and_names_the_one(site: Site, at_once: int) -> None:
    site.ports = replace(site.ports, disks_at_once=at_once)
    site.targets.devices["/images/vdb"].faults.fail(3, WriteFailed("/images/vdb", 0, CHUNK, "array gone"))
    with pytest.raises(WriteFailed, match="array gone") as caught:
        site.restore()
    assert "it came from disk vdb, on its way to /images/vdb" in caught.value.__notes__
    assert "disk vdb is not restored: /images/vdb may hold a part of it" in caught.value.__notes__
    assert restoring_threads() == []
    if at_once == 1:
        assert bytes(site.device("vda")) == IMAGES["vda"]
        assert not any("vda" in note for note in caught.value.__notes__)
        assert not any(site.device("vdc"))


def test_a_damaged_chunk_in_the_middle_is_named_by_machine_point_disk_and_offset(site: Site) -> None:
    chunk = IMAGES["vdb"][70 * CHUNK : 71 * CHUNK]
    (pack,) = [name for name, data in site.store.objects.items() if name.startswith("packs/") and chunk in data]
    data = bytearray(site.store.objects[pack])
    data[data.index(chunk) + 7] ^= 1
    site.store.objects[pack] = bytes(data)
    with pytest.raises(IntegrityError) as caught:
        site.restore()
    for fact in ("db1", site.point.id, "disk vdb", f"offset {70 * CHUNK}"):
        assert fact in caught.value.message
    assert restoring_threads() == []


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_cancelled_restore_ends_all_disks_and_says_what_is_incomplete(site: Site, at_once: int) -> None:
    cancelled = threading.Event()
    site.on_write("vda", cancelled.set)
    site.ports = replace(site.ports, cancelled=cancelled.is_set, disks_at_once=at_once)
    with pytest.raises(Cancelled) as caught:
        site.restore()
    assert "disk vda is not restored: /images/vda may hold a part of it" in caught.value.__notes__
    if at_once == 1:
        assert not any(site.device("vdb") + site.device("vdc"))
    assert restoring_threads() == []


def test_progress_is_told_by_one_thread_at_a_time(site: Site) -> None:
    telling = threading.Lock()
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        assert telling.acquire(blocking=False)
        told.append(progress)
        telling.release()

    site.ports = replace(site.ports, progress=tell)
    site.restore()
    assert {p.disk for p in told} == {*KEYS, *(f"{key} (read back)" for key in KEYS)}
    assert all(p.done <= p.total for p in told)


def test_without_comparison_nothing_is_read_back_and_the_result_says_so(site: Site) -> None:
    read_back: list[DiskPlace] = []
    reading = site.targets.read_back
    site.targets.read_back = lambda place, size: read_back.append(place) or reading(place, size)  # type: ignore[method-assign,func-returns-value]
    result = site.restore(compare=False)
    assert read_back == []
    assert [disk.compared for disk in result.disks] == [False] * 3
    assert bytes(site.device("vdc")) == IMAGES["vdc"]


@pytest.mark.slow
def test_a_hole_where_data_should_be_is_found_out(site: Site) -> None:
    reading = site.targets.read_back

    def emptied(place: DiskPlace, size: int) -> object:
        site.targets.devices[str(place)].data[10 * CHUNK : 20 * CHUNK] = bytes(10 * CHUNK)
        return reading(place, size)

    site.targets.read_back = emptied  # type: ignore[method-assign,assignment]
    with pytest.raises(WriteFailed, match=f"{10 * CHUNK} of"):
        site.restore()


def test_a_differential_restore_needs_the_word_to_overwrite(site: Site) -> None:
    site.keep_as_it_is()
    with pytest.raises(RestoreRefused, match="changes what is there"):
        site.restore(differential=True)
    assert site.calls("vda", "write") == []


def test_a_differential_restore_of_what_is_there_already_writes_nothing(site: Site) -> None:
    site.keep_as_it_is()
    result = site.restore(differential=True, overwrite=True)
    for disk in result.disks:
        assert (disk.bytes_written, disk.bytes_zeroed) == (0, 0)
        assert disk.bytes_read == len(IMAGES[disk.key]) - ZEROES * CHUNK, "holes are not read"
        assert [reason.code for reason in disk.reasons] == [ReasonCode.DIFFERENCES_FROM_TARGET]
        assert site.calls(disk.key, "write") == site.calls(disk.key, "zero") == []


def test_only_chunks_that_differ_are_fetched_and_written(site: Site) -> None:
    site.keep_as_it_is()
    device = site.device("vda")
    device[5 * CHUNK + 17] ^= 1  # a chunk, and two neighbours
    device[30 * CHUNK : 32 * CHUNK] = b"x" * (2 * CHUNK)
    device[-1] ^= 1  # the short end
    asked: list[str] = []
    fetch = site.store.get
    site.store.get = lambda name, *a: asked.append(name) or fetch(name, *a)  # type: ignore[method-assign,func-returns-value]
    disk = site.restore(differential=True, overwrite=True).disks[0]
    assert bytes(site.device("vda")) == IMAGES["vda"]
    assert sorted(site.calls("vda", "write")) == [
        (5 * CHUNK, CHUNK), (30 * CHUNK, 2 * CHUNK), (len(device) // CHUNK * CHUNK, 512)
    ]  # fmt: skip
    assert disk.bytes_written == 3 * CHUNK + 512
    assert len([name for name in asked if name.startswith("packs/")]) <= 6


def test_zeroes_are_right_in_a_differential_restore_whatever_was_there(site: Site) -> None:
    site.keep_as_it_is()
    device = site.device("vda")
    zeroes = FIRST * CHUNK
    device[zeroes + 3 * CHUNK : zeroes + 5 * CHUNK] = b"y" * (2 * CHUNK)  # data where the image is zero
    device[8 * CHUNK : 12 * CHUNK] = bytes(4 * CHUNK)  # a hole where the image has data
    disk = site.restore(differential=True, overwrite=True).disks[0]
    assert bytes(site.device("vda")) == IMAGES["vda"]
    assert site.calls("vda", "zero") == [(zeroes + 3 * CHUNK, 2 * CHUNK)]
    assert site.calls("vda", "write") == [(8 * CHUNK, 4 * CHUNK)]
    assert (disk.bytes_written, disk.bytes_zeroed) == (4 * CHUNK, 2 * CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_differential_restore_makes_any_device_equal(site: Site, seed: int) -> None:
    chooser = random.Random(seed)
    for key in KEYS:
        device = site.device(key)
        device[:] = IMAGES[key] if chooser.random() < 0.7 else chooser.randbytes(len(device))
        for _ in range(30):
            at, length = chooser.randrange(len(device)), chooser.randrange(3 * CHUNK)
            end = min(at + length, len(device))
            device[at:end] = bytes(end - at) if chooser.random() < 0.5 else chooser.randbytes(end - at)
    result = site.restore(differential=True, overwrite=True)
    for disk in result.disks:
        assert bytes(site.device(disk.key)) == IMAGES[disk.key]
        assert disk.compared


def test_a_place_that_cannot_be_read_is_written_wholly_with_the_reason(site: Site) -> None:
    reading = site.targets.read_back
    refusals = {f"/images/{key}" for key in KEYS}

    def smaller(place: DiskPlace, size: int) -> object:
        if str(place) in refusals:
            refusals.discard(str(place))
            return reading(place, size + 1)  # asks for more than is there
        return reading(place, size)

    site.targets.read_back = smaller  # type: ignore[method-assign,assignment]
    result = site.restore(differential=True, overwrite=True)
    for disk in result.disks:
        assert bytes(site.device(disk.key)) == IMAGES[disk.key]
        assert [reason.code for reason in disk.reasons] == [ReasonCode.TARGET_NOT_COMPARABLE]
        assert disk.bytes_read == 0


def test_a_sparse_file_takes_no_more_blocks_after_its_restore(site: Site, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    original, restored = shared / "original", shared / "restored"
    size, block = 4096 * KiB, 4 * KiB
    with original.open("wb") as file:
        for at in range(0, size, 16 * block):
            file.seek(at)
            file.write(random.Random(at).randbytes(block))  # a sixteenth of the repository's chunk
        file.truncate(size)
        os.fsync(file.fileno())
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("sparse", {"vda": original.read_bytes()})
    with create(MemoryStore(), chunk_size=64 * KiB, cache=tmp_path / "other", secret=None) as repository:
        interlock = site.ports.interlock
        backup = BackupPorts(hypervisor, [MemoryTransport(hypervisor.disk_bytes)], repository, interlock)
        point = back_up(backup, BackupRequest("run-2", machine)).point
        targets = SiteTargets(SanFabric([]), SharedFiles([shared]))
        new = NewMachine(name="sparse", host="h1", disks={"vda": DiskPlace(path=str(restored))})
        request = RestoreRequest("restore-2", point.id, new, define=False)
        restore(RestorePorts(hypervisor, repository, targets, interlock), request)
    assert restored.read_bytes() == original.read_bytes()
    assert restored.stat().st_blocks <= original.stat().st_blocks
    assert original.stat().st_blocks * 512 < size // 8, "the original is sparse, or nothing is tested here"
