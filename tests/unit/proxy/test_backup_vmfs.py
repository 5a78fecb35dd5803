"""The backup use case over a VMFS datastore: a hypervisor in memory, whose disk lies on a LUN in memory as well.

The transport is given the disk's place on the datastore; the bytes there and those of the hypervisor are kept the same.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from proxy.backup import BackupPorts, BackupRequest, BackupResult, back_up
from proxy.errors import TransportError
from proxy.hypervisor.memory import MemoryHypervisor
from proxy.interlock import Interlock
from proxy.model import FrozenDisk, Level, ReasonCode, RestorePoint
from proxy.ports import BlockSource
from proxy.repository import KeyFile, MemoryStore, Repository, create
from proxy.transport.memory import MemoryTransport
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_builder import DATA, HOLE, ZEROED
from tests.unit.transport.vmfs_site import KEY, Site, thin_site

pytestmark = pytest.mark.slow

CHUNK = 64 * KiB
BLOCKS = [DATA, HOLE, DATA, ZEROED]


class OnDatastore:
    """``VmfsTransport`` for frozen disks whose place the hypervisor in memory does not know."""

    mode = "san"

    def __init__(self, made: Site) -> None:
        self.made, self.luns = made, made.luns()

    def probe(self, disk: FrozenDisk) -> None:
        self.made.transport(self.luns).probe(self._placed(disk))

    def open(self, disk: FrozenDisk) -> BlockSource:
        return self.made.transport(self.luns).open(self._placed(disk))

    def _placed(self, disk: FrozenDisk) -> FrozenDisk:
        return replace(disk, layers=self.made.disk().layers)


@dataclass
class Rig:
    hypervisor: MemoryHypervisor
    repository: Repository
    made: Site
    ports: BackupPorts
    machine: str
    runs: int = 0

    def back_up(self) -> BackupResult:
        self.runs += 1
        return back_up(self.ports, BackupRequest(f"run-{self.runs:08}", self.machine))

    def restored(self, point: RestorePoint) -> bytes:
        with self.repository.open_image(point, KEY) as reader:
            data = bytearray(reader.size)
            reader.read_into(0, memoryview(data))
            return bytes(data)

    def live(self) -> bytes:
        return self.hypervisor.live_bytes(self.machine, KEY)

    def write(self, offset: int, data: bytes) -> None:
        """The guest writes: into a block that the datastore has."""
        self.hypervisor.write(self.machine, KEY, offset, data)
        at = self.made.made.at["vm/vm-flat.vmdk"] + self.made.made.geometry.pointers_at
        pointer = int.from_bytes(self.made.volume.read(at + offset // MiB * 8, 8), "little")
        block = (pointer >> 15 & 0x7FFFFFFF) * 512 + (pointer >> 51)
        self.made.volume.write(block * MiB + offset % MiB, data)

    def meanwhile(self, change: Callable[[], None]) -> None:
        """Once, after the next disk was opened and before it is read."""
        plain = self.repository.image_writer

        def changing(*arguments: object) -> object:
            self.repository.image_writer = plain  # type: ignore[method-assign]
            change()
            return plain(*arguments)  # type: ignore[arg-type]

        self.repository.image_writer = changing  # type: ignore[method-assign,assignment]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    made = thin_site(BLOCKS)
    hypervisor = MemoryHypervisor()
    machine = hypervisor.add("web1", {KEY: made.truth})
    repository = create(
        MemoryStore(), chunk_size=CHUNK, pack_size=256 * KiB, cache=tmp_path / "cache", secret=KeyFile(bytes(range(32)))
    )
    lan = MemoryTransport(hypervisor.disk_bytes, mode="lan")
    ports = BackupPorts(hypervisor, [OnDatastore(made), lan], repository, Interlock(tmp_path / "locks"), audit_sample=0)
    return Rig(hypervisor, repository, made, ports, machine)


def swap_blocks(made: Site) -> None:
    """As if the disk had been moved or consolidated: its blocks are somewhere else."""
    at = made.made.at["vm/vm-flat.vmdk"] + made.made.geometry.pointers_at
    first, third = made.volume.read(at, 8), made.volume.read(at + 16, 8)
    made.volume.write(at, third + bytes(8) + first)


def test_a_full_reads_what_the_file_system_has_and_no_hole(rig: Rig) -> None:
    point = rig.back_up().point
    (image,) = point.images
    assert rig.restored(point) == rig.live()
    assert (image.transport, image.source) == ("san", f"vmfs:{rig.made.uuid}/vm/vm-flat.vmdk")
    assert image.bytes_read == 2 * MiB


def test_an_incremental_reads_what_changed_and_not_more_of_the_lun(rig: Rig) -> None:
    rig.back_up()
    rig.write(100, random.Random(1).randbytes(3000))
    rig.write(2 * MiB + 5 * CHUNK - 10, b"across two chunks")
    point = rig.back_up().point
    (image,) = point.images
    assert point.level is Level.INCREMENTAL
    assert image.bytes_read == 3 * CHUNK
    assert rig.restored(point) == rig.live()
    transport = rig.ports.transports[0]
    assert isinstance(transport, OnDatastore)
    assert sum(length for batch in transport.luns.opened[-1].batches for _at, length in batch) == 3 * CHUNK


def test_blocks_that_move_under_the_reader_send_the_run_over_the_lan_and_never_into_a_restore_point(rig: Rig) -> None:
    rig.meanwhile(lambda: swap_blocks(rig.made))
    point = rig.back_up().point
    (image,) = point.images
    assert image.transport == "lan"
    assert rig.restored(point) == rig.live()
    (why,) = (reason.detail for reason in point.reasons if reason.code is ReasonCode.TRANSPORT_FALLBACK)
    assert "map-changed" in why
    assert rig.repository.points(rig.machine) == [point]
    assert rig.hypervisor.leftovers == ()


def test_without_another_way_such_a_run_fails_and_leaves_nothing(rig: Rig) -> None:
    rig.ports = replace(rig.ports, transports=rig.ports.transports[:1])
    rig.meanwhile(lambda: swap_blocks(rig.made))
    with pytest.raises(TransportError, match="map-changed"):
        rig.back_up()
    assert list(rig.repository.points(rig.machine)) == []
    assert rig.hypervisor.leftovers == ()
    point = rig.back_up().point  # the next one finds the blocks where they are now
    assert rig.restored(point) != rig.live(), "the test's own swap changed the disk"


def test_a_lun_that_goes_away_in_mid_run_sends_it_over_the_lan(rig: Rig) -> None:
    transport = rig.ports.transports[0]
    assert isinstance(transport, OnDatastore)

    def gone() -> None:
        transport.luns.opened[-1].broken = True

    rig.meanwhile(gone)
    point = rig.back_up().point
    assert point.images[0].transport == "lan"
    assert rig.restored(point) == rig.live()
    assert all(lun.closed for lun in transport.luns.opened)
