"""The fixtures that our own tests are made with, read by dissect.vmfs, so that a mistake is not tested against itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from proxy.transport.vmfs import Subject, VmfsFile, open_datastore
from proxy.transport.vmfs.fs_format import Layout
from proxy.units import GiB, MiB, TiB
from tests.integration.transport.vmfs_peers import dissect_reading, oracle_interpreter, our_reading
from tests.unit.transport.vmfs_builder import DATA, HOLE, LARGE, SYMLINK, ZEROED, Disk, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import VolumeOnLuns

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]

SUBJECT = Subject("san", "scsi0:0")
CHANCE = np.random.default_rng(4)


@pytest.fixture(scope="session")
def oracle(pytestconfig: pytest.Config) -> Path:
    assert pytestconfig.cache is not None
    return oracle_interpreter(pytestconfig.cache.mkdir("vmfs-images"))


def small_files(made: VmfsBuilder) -> None:
    made.directory("vm")
    made.directory("vm/nested")
    made.file("vm/vm.vmx", b'displayName = "vm"\n')
    made.file("vm/empty.log", b"")
    made.file("vm/vmware.log", CHANCE.bytes(5000))
    made.file("vm/pieces.log", CHANCE.bytes(3 * made.geometry.sub_block + 17), layout=Layout.SUB_BLOCKS)
    made.file("vm/blocks.log", CHANCE.bytes(3 * MiB + 99), layout=Layout.BLOCKS)
    made.file("vm/link", b"vm.vmx", kind=SYMLINK)
    for number in range(60):
        made.file(f"vm/nested/file {number} é", str(number).encode())


def disks(made: VmfsBuilder) -> dict[str, Disk]:
    """Every kind of disk; names tell which."""
    two_levels = np.zeros(3 * TiB // MiB, np.uint8)
    two_levels[[0, 1, 8191, 8192, 70_000, len(two_levels) - 1]] = DATA
    kinds = {
        "thick-scattered": (300 * MiB, np.ones(300, np.uint8)),
        "thick-uneven": (40 * MiB - 512, np.ones(40, np.uint8)),
        "thin": (12 * GiB, CHANCE.choice([HOLE, HOLE, HOLE, DATA], 800).astype(np.uint8)),
        "lazy-zeroed": (600 * MiB, CHANCE.choice([ZEROED, ZEROED, DATA], 600).astype(np.uint8)),
        "mixed": (2000 * MiB, CHANCE.choice([ZEROED, HOLE, HOLE, HOLE, DATA], 2000).astype(np.uint8)),
        "two-levels": (3 * TiB, two_levels),
    }
    found = {name: made.disk(f"vm/{name}", size, blocks) for name, (size, blocks) in kinds.items()}
    found["thick-contiguous"] = made.disk("vm/thick-contiguous", 90 * MiB, [DATA] * 90, scattered=False)
    return found


def large_disk(made: VmfsBuilder) -> Mapping[str, Disk]:
    blocks = [LARGE] * 512 + [DATA, HOLE, ZEROED] + [HOLE] * 509 + [LARGE] * 512
    return {"large": made.disk("vm/large", len(blocks) * MiB, blocks)}


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("extents", [(16,), (6, 8, 2)], ids=["one-lun", "three-luns"])
def test_every_file_of_a_fixture_reads_as_dissect_reads_it(
    version: int, extents: tuple[int, ...], oracle: Path, tmp_path: Path
) -> None:
    volume = VolumeOnLuns(extents, version=version)
    made = VmfsBuilder(volume, version=version, tables=4 if version == 5 else 1)
    small_files(made)
    written = disks(made)
    made.finish()
    fs = open_datastore(volume.luns, SUBJECT)
    ours, ranges = our_reading(fs)
    images = [lun.save(tmp_path / f"lun{index}.img") for index, lun in enumerate(volume.luns)]
    theirs = dissect_reading(oracle, images, ranges, start=volume.start)
    assert len(ours) == len(made.addresses) + 8
    assert ours == theirs
    for disk in written.values():
        assert_as_written(VmfsFile(fs, disk.name), disk)


def test_large_blocks_read_as_dissect_reads_them(oracle: Path, tmp_path: Path) -> None:
    """No real volume had any: this compares two guesses, ours and theirs."""
    volume = VolumeOnLuns((16,))
    made = VmfsBuilder(volume)
    made.directory("vm")
    written = large_disk(made)
    made.finish()
    fs = open_datastore(volume.luns, SUBJECT)
    ours, ranges = our_reading(fs)
    image = volume.luns[0].save(tmp_path / "lun.img")
    assert ours == dissect_reading(oracle, [image], ranges, start=volume.start)
    assert_as_written(VmfsFile(fs, "vm/large"), written["large"])


@pytest.mark.parametrize("version", [5, 6])
def test_a_thin_disk_of_1_tib_is_mapped_whole(version: int) -> None:
    """Every other block on average, in random order: half a million extents."""
    volume = VolumeOnLuns((2200,), version=version)
    made = VmfsBuilder(volume, version=version, tables=2)
    made.disk("thin", TiB, CHANCE.integers(0, 2, TiB // MiB).astype(np.uint8), content=False)
    made.finish()
    extents = VmfsFile(open_datastore(volume.luns, SUBJECT), "thin").extents()
    assert len(extents) > 500_000
    assert sum(extent.length for extent in extents) == TiB


def assert_as_written(source: VmfsFile, disk: Disk) -> None:
    """At both edges of every block that is not a hole, and of the one behind it."""
    for block in np.flatnonzero(disk.classes != HOLE).tolist():
        low, high = max(0, block * MiB - 512), min(disk.size, (block + 1) * MiB + 512)
        buffer = bytearray(high - low)
        source.read_into(low, memoryview(buffer))
        assert buffer == disk.expected(low, high - low), f"block {block} of {disk.name}"
