"""Files in shared directories, and devices by the names that are unique in the world."""

import os
from pathlib import Path

import pytest

from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, is_map
from proxy.model import DeviceAddress, FileAddress, Format, FrozenDisk, Layer, LunAddress, NbdAddress
from proxy.transport.raw import DeviceSource, FileSource, RawTransport, SharedFiles
from proxy.units import KiB, MiB

NAA = "naa.600a0b80000000000000000000000001"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "shared" / "disk.img"
    path.parent.mkdir()
    with path.open("wb") as f:
        f.truncate(4 * MiB)
        f.seek(MiB)
        f.write(os.urandom(128 * KiB))
    return path


def disk(location: FileAddress | DeviceAddress | LunAddress | NbdAddress, size: int = 4 * MiB) -> FrozenDisk:
    return FrozenDisk("vda", size, (Layer(location, Format.RAW),))


def reason(files: SharedFiles, location: FileAddress | DeviceAddress | LunAddress | NbdAddress) -> str:
    with pytest.raises(TransportRefused) as probed:
        RawTransport(files).probe(disk(location))
    with pytest.raises(TransportRefused) as opened:
        RawTransport(files).open(disk(location))
    assert probed.value.reason == opened.value.reason
    return probed.value.reason


def test_a_shared_file_is_read_and_its_holes_are_known(image: Path) -> None:
    truth = image.read_bytes()
    with RawTransport(SharedFiles([image.parent])).open(disk(FileAddress(str(image)))) as source:
        assert (source.size, source.identity) == (4 * MiB, str(image))
        assert source.extents() == [
            Extent(0, MiB, Kind.ZERO),
            Extent(MiB, 128 * KiB),
            Extent(MiB + 128 * KiB, 3 * MiB - 128 * KiB, Kind.ZERO),
        ]
        data = bytearray(70_000)
        source.read_into(MiB - 100, memoryview(data))
        assert data == truth[MiB - 100 : MiB - 100 + 70_000]


@pytest.mark.parametrize("shape", ["empty", "all hole", "all data", "ends in data", "ends in hole"])
def test_extents_are_a_map_of_any_file(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "x"
    with path.open("wb") as f:
        f.write(b"x" * (MiB if shape == "all data" else 0))
        f.truncate(0 if shape == "empty" else MiB)
        if shape == "ends in data":
            f.seek(MiB - 4096)
            f.write(b"x" * 4096)
        if shape == "ends in hole":
            f.write(b"x" * 4096)
    with FileSource(os.open(path, os.O_RDONLY), "x") as source:
        found = source.extents()
        assert is_map(found, source.size)
        kinds = "".join(e.kind.value[0] for e in found)
    assert kinds == {"empty": "", "all hole": "z", "all data": "d", "ends in data": "zd", "ends in hole": "dz"}[shape]


def test_a_path_outside_the_shared_directories_is_refused_however_it_gets_there(image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.img"
    outside.write_bytes(b"x" * 512)
    (image.parent / "link").symlink_to(outside)
    shared = SharedFiles([image.parent])
    for path in (outside, image.parent / "link", image.parent / ".." / "outside.img", Path("shared/disk.img")):
        assert reason(shared, FileAddress(str(path))) == "path-not-shared"
    assert reason(SharedFiles([]), FileAddress(str(image))) == "path-not-shared"


def test_a_link_into_a_shared_directory_is_fine(image: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(image.parent)
    assert SharedFiles([tmp_path / "alias"]).check(str(image), "raw", "vda") == image


def test_missing_files_and_directories_are_told_apart(image: Path) -> None:
    shared = SharedFiles([image.parent])
    assert reason(shared, FileAddress(str(image.parent / "absent"))) == "path-missing"
    (image.parent / "sub").mkdir()
    assert reason(shared, FileAddress(str(image.parent / "sub"))) == "not-a-file-or-device"
    os.mkfifo(image.parent / "pipe")
    assert reason(shared, FileAddress(str(image.parent / "pipe"))) == "not-a-file-or-device"


def test_a_hosts_own_device_name_means_nothing_here(tmp_path: Path) -> None:
    shared = SharedFiles([], by_id=tmp_path)
    for path in (
        "/dev/sdb",
        "/dev/mapper/mpatha",
        str(tmp_path / "dm-name-vg-lv"),
        str(tmp_path / "usb-Stick"),
        str(tmp_path / "ata-Disk"),
    ):
        assert reason(shared, DeviceAddress(path)) == "device-name-not-unique"
    assert reason(shared, LunAddress("iqn.x:y", 1)) == "device-name-not-unique"
    assert reason(shared, NbdAddress("nbd://x")) == "not-on-this-machine"


def test_a_device_is_found_by_its_name_multipath_first(tmp_path: Path) -> None:
    shared = SharedFiles([], by_id=tmp_path)
    assert reason(shared, DeviceAddress("/dev/sdb", NAA)) == "path-missing"
    for prefix in ("scsi-3", "wwn-0x", "dm-uuid-mpath-3"):
        link = tmp_path / f"{prefix}{NAA[4:]}"
        link.touch()
        assert shared.device(DeviceAddress("/dev/sdb", NAA), "raw", "vda") == link
        assert shared.device(LunAddress("iqn.x:y", 1, name=NAA), "raw", "vda") == link
        assert shared.device(DeviceAddress(str(link)), "raw", "vda") == link
    assert reason_open(shared, DeviceAddress("/dev/sdb", NAA)) == "not-a-file-or-device"


def test_an_eui_name_finds_an_nvme_device(tmp_path: Path) -> None:
    link = tmp_path / "nvme-eui.0025385b71b00001"
    link.touch()
    address = DeviceAddress("/dev/nvme7n1", "eui.0025385b71b00001")
    assert SharedFiles([], by_id=tmp_path).device(address, "raw", "vda") == link


def reason_open(files: SharedFiles, location: DeviceAddress) -> str:
    with pytest.raises(TransportRefused) as opened:
        RawTransport(files).open(disk(location))
    return opened.value.reason


def test_direct_reads_fill_any_buffer_at_any_offset(image: Path) -> None:
    truth = image.read_bytes()
    with DeviceSource(os.open(image, os.O_RDONLY | os.O_DIRECT), NAA) as source:
        assert (source.size, source.identity, source.can_report_extents) == (4 * MiB, NAA, False)
        assert source.extents() == [Extent(0, 4 * MiB)]
        for offset, length in ((0, MiB), (MiB - 1, 2 * MiB + 7), (MiB + 513, 511), (4 * MiB - 3, 3), (5, 0)):
            data = bytearray(length)
            source.read_into(offset, memoryview(data))
            assert data == truth[offset : offset + length]


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["file", "device"])
def test_reads_that_cannot_be_are_errors(image: Path, flags: int) -> None:
    kind = DeviceSource if flags else FileSource
    with kind(os.open(image, os.O_RDONLY | flags), "x") as source:
        with pytest.raises(ReadFailed, match="leaves"):
            source.read_into(4 * MiB - 1, memoryview(bytearray(2)))
        with pytest.raises(ReadFailed, match="leaves"):
            source.read_into(-1, memoryview(bytearray(2)))
        with pytest.raises(ChangesUnknown):
            source.changed("mark")
        os.truncate(image, MiB)
        with pytest.raises(ReadFailed, match=r"shorter|ends"):
            source.read_into(2 * MiB, memoryview(bytearray(512)))
        source.close()
        with pytest.raises(ReadFailed, match="closed"):
            source.read_into(0, memoryview(bytearray(2)))


def test_nothing_is_opened_for_writing(image: Path) -> None:
    with SharedFiles([image.parent]).open_container(str(image), "raw", "vda") as source, pytest.raises(OSError):
        os.write(source._fd, b"x")
