"""How fast a VMDK on VMFS is read over the SAN, mapped, and read in part, through the whole stack on a tgtd of its own.

    python tests/bench/bench_vmfs.py [--size-mib 512] [--rounds 5] [--map-gib 1024]

Three things, on loopback and from the page cache. Needs root, for tgtd.

1. Reading. A thin disk, half of it holes, its blocks of 1 MiB in random order on the LUN, all of them random bytes. Readers
   take the same bytes: the whole stack (open, all checks, the copy loop, confirm), our iSCSI layer alone (the same pieces,
   known beforehand, with one and with two sessions), and ``qemu-img bench`` over the same stretch of the LUN in order. Within a
   round they run one after the other, in random order: only ratios within a round count. Goal: 0.8 of the best of the others.
   The same disk below a delta of scattered grains of 4 KiB is read too, for information.
2. Mapping. ``open`` and ``extents`` of a thin disk of 1 TiB, with every second block on average, and with all of them, in
   random order. Goal: 2 s.
3. Reading in part. What the array itself counts for opening, for changed ranges, and for confirming.

Figures are printed and not judged: one run on a busy machine proves nothing.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from proxy.extents import Extent, Kind, aligned, intersect, total
from proxy.model import Format, FrozenDisk, Layer, VmdkAddress
from proxy.ports import BlockSource
from proxy.transfer import copy
from proxy.transport.iscsi import Limits, Login, Lun
from proxy.transport.san import SanFabric, SanTarget
from proxy.transport.vmfs import Subject, VmfsFile, open_datastore
from proxy.transport.vmfs_san import FabricLuns, VmfsTransport
from proxy.units import GiB, KiB, MiB, format_size
from tests.bench.bench_san import COPY_READ, COPY_THREADS, GOAL, Run, qemu_img_range, ratio, timed
from tests.integration.transport.tgt_array import HOSTS, INITIATOR, Array
from tests.unit.transport.vmdk_builder import GRAIN, Written, descriptor, se_sparse
from tests.unit.transport.vmfs_builder import DATA, HOLE, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import EXTENT, VolumeOnLuns

NAME = "t10.lanfree-bench"
FLAT = "vm/vm-flat.vmdk"
MAP_GOAL = 2.0
CHUNK = 128 * KiB
"""As a repository would widen what changed."""


class Datastore:
    """A VMFS 6 volume on one sparse image, presented by the array."""

    def __init__(self, array: Array, directory: Path, number: int, size: int, tables: int = 1) -> None:
        volume = VolumeOnLuns((-(-size // EXTENT) + 1,), names=(f"{NAME}-{number}",))
        self.made = VmfsBuilder(volume, tables=tables)
        self.made.directory("vm")
        self.array, self.number = array, number
        self.image = directory / f"lun{number}"

    def thin(self, size: int, classes: Sequence[int] | np.ndarray) -> None:  # type: ignore[type-arg]
        """The base disk; nothing is in its blocks yet."""
        self.made.disk(FLAT, size, classes, content=False)
        self.made.file("vm/vm.vmdk", descriptor(size, "VMFS", "vm-flat.vmdk", cid=1))

    def delta(self, size: int, written: Written) -> None:
        """A delta above it."""
        self.made.file("vm/vm-000001-sesparse.vmdk", se_sparse(size, written))
        text = descriptor(size, "SESPARSE", "vm-000001-sesparse.vmdk", cid=2, parent=(1, "vm.vmdk"))
        self.made.file("vm/vm-000001.vmdk", text)

    def present(self) -> None:
        """Write the image, make a LUN of it."""
        self.made.finish()
        self.made.volume.luns[0].save(self.image)
        self.array.lun(1, self.number, self.image, f"{NAME.removeprefix('t10.')}-{self.number}")

    def fill(self) -> list[tuple[int, int]]:
        """Random bytes into every block of the base disk. (offset on the LUN, length) of each, in order of the disk."""
        places = [(p.offset, p.length) for p in self.file().places() if p.lun >= 0]
        with self.image.open("r+b") as image:
            for offset, length in places:
                image.seek(offset)
                image.write(os.urandom(length))
        return places

    def file(self) -> VmfsFile:
        """The base disk, read from memory."""
        return VmfsFile(open_datastore(self.made.volume.luns, Subject("bench", FLAT)), FLAT)

    def disk(self, path: str = "vm/vm.vmdk") -> FrozenDisk:
        """As a hypervisor would name it."""
        uuid = open_datastore(self.made.volume.luns, Subject("bench", FLAT)).descriptor.uuid
        address = VmdkAddress("bench", path, volume=uuid, devices=(f"{NAME}-{self.number}",))
        return FrozenDisk("scsi0:0", 0, (Layer(address, Format.VMDK),))

    def counted(self) -> int:
        """Bytes that the array says were read."""
        return self.array.counted(1, self.number)[0]


class Nowhere:
    """A sink."""

    def write(self, offset: int, data: memoryview) -> None:
        """Dropped."""

    def zero(self, offset: int, length: int) -> None:
        """Dropped."""


def whole_stack(transport: VmfsTransport, disk: FrozenDisk) -> Callable[[], None]:
    """Open, copy in whole chunks, confirm, as a backup does."""

    def once() -> None:
        with transport.open(disk) as source:
            copy(source, Nowhere(), aligned(source.extents(), CHUNK, source.size), disk="bench")

    return once


def pieces_alone(portal: str, number: int, places: Sequence[tuple[int, int]], sessions: int) -> Callable[[], None]:
    """Our iSCSI layer, told where everything is."""

    def once() -> None:
        luns = [Lun(Login(HOSTS, INITIATOR), [portal], number, Limits()) for _ in range(sessions)]
        left, lock, failed = iter(places), threading.Lock(), list[BaseException]()

        def work(lun: Lun) -> None:
            buffer = memoryview(bytearray(COPY_READ))
            try:
                while True:
                    with lock:
                        offset, length = next(left, (0, 0))
                    if not length:
                        return
                    for at in range(0, length, COPY_READ):
                        lun.read_into(offset + at, buffer[: min(COPY_READ, length - at)])
            except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
                failed.append(error)

        workers = [threading.Thread(target=work, args=(luns[n % sessions],)) for n in range(COPY_THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for lun in luns:
            lun.close()
        if failed:
            raise failed[0]

    return once


def reading(store: Datastore, fabric: SanFabric, portal: str, size: int, rounds: int) -> None:
    """Table 1. ``size``: bytes of data."""
    classes = np.array([DATA, HOLE] * (size // MiB), np.uint8)
    np.random.default_rng(1).shuffle(classes)
    chance = random.Random(1)
    grains = chance.sample(range(2 * size // GRAIN["se"]), size // GRAIN["se"] // 64)
    store.thin(2 * size, classes)
    store.delta(2 * size, {number: os.urandom(4096) for number in grains})
    store.present()
    places = store.fill()
    low = min(offset for offset, _length in places)
    mine = {
        f"whole stack, {n} session{'s' * (n > 1)}": whole_stack(
            VmfsTransport(fabric, luns=FabricLuns(fabric, n)), store.disk()
        )
        for n in (2, 1, 4)
    }
    peers = {
        "iSCSI alone, 1 session": pieces_alone(portal, store.number, places, 1),
        "iSCSI alone, 2 sessions": pieces_alone(portal, store.number, places, 2),
        "qemu-img bench 256K": qemu_img_range(portal, store.number, low, size, 256 * KiB),
    }
    scattered = {"whole stack, under grains": whole_stack(VmfsTransport(fabric), store.disk("vm/vm-000001.vmdk"))}
    readers = {**mine, **peers, **scattered}
    runs: dict[str, list[Run]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name in random.sample(list(readers), len(readers)):
            run = timed(readers[name], size)
            if number:
                runs[name].append(run)
    say(
        f"\n1. reading {size // MiB} MiB of a thin disk in scattered blocks, {rounds} rounds, load {os.getloadavg()[0]:.1f}"
    )
    say(f"{'':26} {'MB/s':>7} {'CPU s/GiB':>9} " + " ".join(f"{'to ' + p[:23]:>27}" for p in peers))
    for name, values in runs.items():
        speed = statistics.median(v.speed for v in values)
        cpu = statistics.median(v.cpu for v in values) * 1024 * MiB / size
        ratios = " ".join(f"{ratio(values, runs[peer]):27.2f}" for peer in peers)
        say(f"{name:26} {speed:7.0f} {cpu:9.2f} {ratios}")
    first = next(iter(mine))
    say(
        f"{first} reaches {min(ratio(runs[first], runs[p]) for p in peers):.2f} of the best of the others (goal {GOAL})"
    )


def mapping(stores: dict[str, Datastore], fabric: SanFabric, rounds: int, disk: int) -> None:
    """Table 2."""
    say(f"\n2. mapping a thin disk of {format_size(disk)} over iSCSI, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for name, store in stores.items():
        took: list[float] = []
        cpu: list[float] = []
        for _ in range(rounds):
            begin, used = time.perf_counter(), time.process_time()
            source = VmfsTransport(fabric).open(store.disk())
            count = len(source.extents())
            took.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
            source.close()
        times = f"{statistics.median(took):.2f} s, worst {max(took):.2f} s, CPU {statistics.median(cpu):.2f} s"
        say(f"{name:26} {count:8} extents  {times} (goal {MAP_GOAL} s)")


def in_part(store: Datastore, fabric: SanFabric, disk: int) -> None:
    """Table 3."""
    say(
        f"\n3. KiB that the array counts; changes of 64 KiB in chunks of {CHUNK // KiB} KiB, disk of {format_size(disk)}"
    )
    titles = ("changes", "of them data", "opening", "reading", "confirming", "read / data", "s")
    say(" ".join(f"{title:>{width}}" for title, width in zip(titles, (8, 14, 10, 10, 10, 11, 6), strict=True)))
    for count in (10, 100, 1000):
        chance = random.Random(count)
        starts = sorted(chance.sample(range(0, disk, 256 * KiB), count))
        changed = aligned([Extent(start, 64 * KiB) for start in starts], CHUNK, disk)
        begin = time.perf_counter()
        counts = [store.counted()]
        with VmfsTransport(fabric).open(store.disk()) as source:
            counts.append(store.counted())
            plan = intersect(source.extents(), changed)
            copy(source, Nowhere(), plan, disk="bench")
            counts.append(store.counted())
            confirm(source)
            counts.append(store.counted())
        took = time.perf_counter() - begin
        opening, read, confirming = (b - a for a, b in pairwise(counts))
        data = total(plan, Kind.DATA)
        counted = f"{data // KiB:14} {opening // KiB:10} {read // KiB:10} {confirming // KiB:10}"
        say(f"{count:8} {counted} {read / max(1, data):11.2f} {took:6.2f}")


def confirm(source: BlockSource) -> None:
    """What leaving the context does."""
    source.confirm()  # type: ignore[attr-defined]


def say(line: str) -> None:
    """Print."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def array() -> Iterator[Array]:
    """A tgtd with one target and no LUN."""
    made = Array()
    try:
        made.start()
        made.target(1, HOSTS)
        yield made
    finally:
        made.stop()


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--map-gib", type=int, default=1024, help="size of the disk that is mapped")
    parser.add_argument("--only", choices=["reading", "mapping"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-") as name, array() as made:
        place, portal = Path(name), made.portals[0]
        fabric = SanFabric([SanTarget(HOSTS, (portal,), INITIATOR)])
        if options.only != "mapping":
            size = options.size_mib * MiB
            store = Datastore(made, place, 1, 2 * size + 512 * MiB)
            reading(store, fabric, portal, size, options.rounds)
            store.image.unlink()
        if options.only != "reading":
            disk = options.map_gib * GiB
            blocks = disk // MiB
            stores = {
                "every second block": np.random.default_rng(1).integers(0, 2, blocks).astype(np.uint8),
                "every block": np.ones(blocks, np.uint8),
            }
            made_stores = {}
            for number, (title, classes) in enumerate(stores.items(), start=2):
                made_stores[title] = Datastore(made, place, number, int(classes.sum()) * MiB + 2048 * MiB)
                made_stores[title].thin(disk, classes)
                made_stores[title].present()
            fabric.forget()
            mapping(made_stores, fabric, options.rounds, disk)
            in_part(made_stores["every second block"], fabric, disk)


if __name__ == "__main__":
    main()
