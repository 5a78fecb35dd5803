"""The raw transport over real block devices: loop devices, named as udev would name a LUN."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import command
from proxy.extents import Extent
from proxy.model import DeviceAddress, Format, FrozenDisk, Layer
from proxy.transport.raw import RawTransport, SharedFiles
from proxy.units import MiB

pytestmark = [pytest.mark.tools, pytest.mark.requires("losetup", "root")]

NAA = "naa.600a0b80000000000000000000000001"


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "lun.img"
    path.write_bytes(os.urandom(3 * MiB + 512))  # not a multiple of what O_DIRECT is aligned to
    return path


@pytest.fixture
def by_id(tmp_path: Path, backing: Path) -> Iterator[Path]:
    device = command.run(["losetup", "-f", "--show", "-r", backing], timeout=10).text.strip()
    directory = tmp_path / "by-id"
    directory.mkdir()
    (directory / f"wwn-0x{NAA[4:]}").symlink_to(device)
    yield directory
    command.run(["losetup", "-d", device], timeout=10)


def test_a_block_device_is_read_whole_by_its_world_wide_name(by_id: Path, backing: Path) -> None:
    size = backing.stat().st_size
    disk = FrozenDisk("vda", size, (Layer(DeviceAddress("/dev/sdz", NAA), Format.RAW),))
    transport = RawTransport(SharedFiles([], by_id=by_id))
    transport.probe(disk)
    with transport.open(disk) as source:
        assert (source.size, source.identity) == (size, NAA)
        assert source.extents() == [Extent(0, size)]
        data = bytearray(size)
        source.read_into(0, memoryview(data))
    assert hashlib.sha256(data).digest() == hashlib.sha256(backing.read_bytes()).digest()


def test_a_device_is_read_past_the_page_cache(by_id: Path, backing: Path) -> None:
    disk = FrozenDisk("vda", MiB, (Layer(DeviceAddress("/dev/sdz", NAA), Format.RAW),))
    with RawTransport(SharedFiles([], by_id=by_id)).open(disk) as source:
        data = bytearray(4096)
        source.read_into(0, memoryview(data))
        with backing.open("r+b") as f:  # as another host that writes to the LUN
            f.write(b"\x42" * 4096)
            f.flush()
            os.fsync(f.fileno())
        source.read_into(0, memoryview(data))
    assert data == b"\x42" * 4096
