"""Volumes that ESXi made: every file of every one read as dissect.vmfs reads it. A tier of its own: ``make test-vmfs``.

The images are in the source distribution of dissect.vmfs 3.13 (AGPL), which is fetched by its hash, never kept in the tree,
and unpacked one volume at a time (each 2.1 GB sparse). Not named ``test_*``, so that no other tier collects it.
"""

import csv
import gzip
import hashlib
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.command import run
from proxy.errors import TransportRefused
from proxy.extents import Kind
from proxy.model import Format, FrozenDisk, Layer, VmdkAddress
from proxy.transport.raw import FileSource
from proxy.transport.san import SanFabric
from proxy.transport.vmdk import VmdkReason, open_vmdk
from proxy.transport.vmfs import VmfsFile
from proxy.transport.vmfs.lvm import LogicalVolume, assemble, scan
from proxy.transport.vmfs_san import VmfsTransport
from proxy.units import MiB
from tests.integration.transport.vmfs_peers import (
    SUBJECT,
    datastore,
    dissect_reading,
    oracle_interpreter,
    our_reading,
)
from tests.unit.transport.vmfs_site import FileLuns

pytestmark = pytest.mark.timeout(1800)

SDIST = "dissect.vmfs==3.13"
SDIST_SHA256 = "904a4116b944acfc6a7a9de013ae1db14c760cb76138fd77c6a5b510b98c828d"

DATA = "/tests/_data/"

# image files -> files and directories in the volume
VOLUMES = {
    ("vmfs/vmfs5",): 138,
    ("vmfs/vmfs6",): 140,
    ("vmfs/zero5",): 9,
    ("vmfs/zero6",): 11,
    ("vmfs/vmfs5-no-dense-sbpc",): 7,
    ("vmfs/vmfs5-resource-optimized",): 7,
    ("vmfs/vmfs6-resource-optimized",): 9,
    ("vmfs/vmfs5l",): 7,
    ("vmfs/vmfs6l",): 9,
    ("vmfs/vmfs5d",): 7,
    ("vmfs/vmfs6d",): 9,
    ("vmfs/vmfs5ld",): 7,
    ("vmfs/vmfs6ld",): 9,
    ("vmfs/span/vmfs5-span-0", "vmfs/span/vmfs5-span-1"): 7,
    ("vmfs/span/vmfs6-span-0", "vmfs/span/vmfs6-span-1"): 9,
}

# Volume managers without a file system: how many bytes the volume has.
LOGICAL_VOLUMES = {
    ("lvm/lvm5",): 0x20000000,
    ("lvm/lvm6",): 0x20000000,
    ("lvm/span/lvm5-span-0", "lvm/span/lvm5-span-1"): 0x40000000,
    ("lvm/span/lvm6-span-0", "lvm/span/lvm6-span-1"): 0x40000000,
}

HUGE = 70368742081024
"""Bytes of the 64 TiB devices of which the distribution keeps the parts that are not zero."""


def cache(config: pytest.Config) -> Path:
    assert config.cache is not None
    return config.cache.mkdir("vmfs-images")


@pytest.fixture(scope="session")
def images(pytestconfig: pytest.Config) -> Path:
    """Directory of the packed images. A file with another hash than expected is never opened."""
    directory = cache(pytestconfig)
    archive = directory / "dissect_vmfs-3.13.tar.gz"
    if not archive.exists():
        words = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", directory, SDIST]
        run([sys.executable, *words], timeout=300)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SDIST_SHA256:
        archive.unlink()
        pytest.fail("the source distribution is not the one that was expected", pytrace=False)
    if not (directory / "unpacked").exists():
        with tarfile.open(archive) as packed:
            for member in packed:
                if member.isfile() and DATA in member.name:
                    target = directory / "data" / member.name.partition(DATA)[2]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    content = packed.extractfile(member)
                    assert content is not None
                    target.write_bytes(content.read())
        (directory / "unpacked").touch()
    return directory / "data"


@pytest.fixture(scope="session")
def oracle(pytestconfig: pytest.Config) -> Path:
    return oracle_interpreter(cache(pytestconfig))


def unpack(images: Path, names: Sequence[str], into: Path) -> list[Path]:
    """Sparse files of the named images."""
    made: list[Path] = []
    for name in names:
        made.append(into / Path(name).name)
        with gzip.open(images / f"{name}.bin.gz") as packed, made[-1].open("wb") as plain:
            size = 0
            while data := packed.read(1 << 20):
                if data.count(0) != len(data):
                    os.pwrite(plain.fileno(), data, size)
                size += len(data)
            plain.truncate(size)
    return made


def delete(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink()


def named(names: Sequence[str]) -> str:
    return "+".join(Path(name).name for name in names)


@pytest.mark.parametrize(("names", "count"), VOLUMES.items(), ids=map(named, VOLUMES))
def test_every_file_of_a_volume_made_by_esxi_reads_as_dissect_reads_it(
    names: tuple[str, ...], count: int, images: Path, oracle: Path, tmp_path: Path
) -> None:
    files = unpack(images, names, tmp_path)
    try:
        volume = datastore(files)
        ours, ranges = our_reading(volume)
        assert len(ours) == count
        assert ours == dissect_reading(oracle, files, ranges, managed=bool(volume.volume.uuid))
    finally:
        delete(files)


@pytest.mark.parametrize("name", ["vmfs5", "vmfs6"])
def test_disks_of_a_volume_made_by_esxi_are_opened_by_their_descriptors(
    name: str, images: Path, tmp_path: Path
) -> None:
    """Two thin disks with one sector of "B" each, at 42 GiB and 117 GiB, and a raw device mapping."""
    files = unpack(images, [f"vmfs/{name}"], tmp_path)
    try:
        fs = datastore(files)
        for disk, size, place in (("normal", 69 << 30, 42 << 30), ("large", 42 << 40, 117 << 30)):
            with open_vmdk(lambda path: VmfsFile(fs, path), f"{disk}.vmdk", SUBJECT) as source:
                (data,) = (extent for extent in source.extents() if extent.kind is Kind.DATA)
                buffer = bytearray(data.length)
                source.read_into(data.start, memoryview(buffer))
                assert (source.size, data.start, data.length) == (size, place, MiB)
                assert buffer == (b"B" * 512).ljust(MiB, b"\0")
        with pytest.raises(TransportRefused) as refused:
            open_vmdk(lambda path: VmfsFile(fs, path), "rdm.vmdk", SUBJECT)
        assert refused.value.reason == VmdkReason.RAW_DEVICE
    finally:
        delete(files)


@pytest.mark.parametrize("name", ["vmfs5", "vmfs6"])
def test_the_transport_opens_disks_of_a_volume_made_by_esxi_after_all_its_checks(
    name: str, images: Path, tmp_path: Path
) -> None:
    """By the name that the host wrote on the LUN, and the UUID that it would tell. Reads both ends and around the data."""
    (image,) = unpack(images, [f"vmfs/{name}"], tmp_path)
    try:
        fs = datastore([image])
        lun = fs.volume.devices[0].rpartition(":")[0]
        image = image.rename(tmp_path / lun)
        transport = VmfsTransport(SanFabric([]), luns=FileLuns(tmp_path))
        address = VmdkAddress("esxi", "normal.vmdk", volume=fs.descriptor.uuid, devices=(lun,))
        with transport.open(FrozenDisk("scsi0:0", 69 << 30, (Layer(address, Format.VMDK),))) as source:
            for offset, data in ((0, b""), (42 << 30, b"B" * 512), ((69 << 30) - MiB, b"")):
                buffer = bytearray(MiB)
                source.read_into(offset, memoryview(buffer))
                assert buffer == data.ljust(MiB, b"\0")
        rdm = FrozenDisk("scsi0:1", 0, (Layer(replace(address, path="rdm.vmdk"), Format.VMDK),))
        with pytest.raises(TransportRefused) as refused:
            transport.open(rdm)
        assert refused.value.reason == VmdkReason.RAW_DEVICE
    finally:
        delete([image])


@pytest.mark.parametrize(("names", "size"), LOGICAL_VOLUMES.items(), ids=map(named, LOGICAL_VOLUMES))
def test_a_logical_volume_made_by_esxi_is_put_together(
    names: tuple[str, ...], size: int, images: Path, tmp_path: Path
) -> None:
    files = unpack(images, names, tmp_path)
    try:
        (volume,) = assemble(scan([FileSource(os.open(f, os.O_RDONLY), f.name) for f in files], SUBJECT), SUBJECT)
        assert isinstance(volume, LogicalVolume)
        assert volume.size == size
        assert len(list(volume.pieces(0, size))) == len(names)
        assert len(volume.devices) == len(names)
    finally:
        delete(files)


@pytest.mark.parametrize("name", ["lvm5", "lvm6"])
def test_a_volume_of_64_tib_made_by_esxi_finds_its_bytes_in_all_its_maps(name: str, images: Path) -> None:
    """Whoever made the images wrote at 0, 16, 32 and 48 TiB of the volume which place it was."""
    (volume,) = assemble(scan([Parts(images / "lvm" / "huge" / f"{name}.csv.gz")], SUBJECT), SUBJECT)
    assert isinstance(volume, LogicalVolume)
    for offset in range(0, volume.size, 16 << 40):
        buffer = bytearray(32)
        volume.read_into(offset, memoryview(buffer))
        said = bytes(buffer).rstrip(b"\0").decode()
        assert said == f"Logical offset {hex(offset) if offset else 0}"


class Parts:
    """A device of which some parts are known and the rest is zero."""

    size = HUGE

    def __init__(self, table: Path) -> None:
        self._parts = list(self._rows(table))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        buffer[:] = bytes(len(buffer))
        for start, data in self._parts:
            low, high = max(offset, start), min(end, start + len(data))
            if low < high:
                buffer[low - offset : high - offset] = data[low - start : high - start]

    @staticmethod
    def _rows(table: Path) -> Iterator[tuple[int, bytes]]:
        csv.field_size_limit(1 << 30)
        with gzip.open(table, "rt") as rows:
            for offset, data in csv.reader(rows):
                yield int(offset), bytes.fromhex(data)
