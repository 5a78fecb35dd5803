"""Stream-optimised VMDK against ``qemu-img``: it reads what we write, we read what it writes."""

import random
from pathlib import Path

import pytest

from proxy.command import run
from proxy.transport.vmdk.stream_format import GRAIN
from proxy.transport.vmdk.stream_reader import StreamReader
from proxy.transport.vmdk.stream_writer import StreamWriter, pack_grain
from proxy.units import GiB, KiB, MiB

pytestmark = pytest.mark.tools


def made(path: Path, size: int) -> None:
    """A sparse raw disk with data of all kinds, at the beginning, at the end and across the borders of tables."""
    chosen = random.Random(size)
    with path.open("wb") as file:
        file.truncate(size)
        for start in (0, 32 * MiB - 10, size // 2 + 5, size - 70 * KiB):
            if 0 <= start < size:
                file.seek(start)
                file.write(chosen.randbytes(min(70 * KiB, size - start)))
        for start in range(3 * MiB, size - MiB, max(MiB, size // 40)):
            file.seek(start)
            file.write(b"text that packs well " * 900)


def written_by_us(disk: Path, stream: Path) -> None:
    with disk.open("rb") as source, stream.open("wb") as target:
        writer = StreamWriter(target.write, disk.stat().st_size, "ours.vmdk")
        for start in range(0, disk.stat().st_size, GRAIN):
            packed = pack_grain(start, memoryview(source.read(GRAIN)))
            if packed is not None:
                writer.put(start, packed)
        writer.finish()


@pytest.mark.parametrize("size", [4 * MiB, 32 * MiB, 100 * MiB + 512 * 3, 1 * GiB + 64 * KiB])
def test_qemu_reads_what_we_write(tmp_path: Path, size: int) -> None:
    disk, stream = tmp_path / "disk.raw", tmp_path / "ours.vmdk"
    made(disk, size)
    written_by_us(disk, stream)
    assert b'"streamOptimized"' in run(["qemu-img", "info", "--output=json", stream], timeout=60).stdout
    result = run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", disk, stream], timeout=120)
    assert "identical" in result.text


@pytest.mark.parametrize("size", [4 * MiB, 32 * MiB, 100 * MiB + 512 * 3])
def test_we_read_what_qemu_writes(tmp_path: Path, size: int) -> None:
    disk, stream, back = tmp_path / "disk.raw", tmp_path / "theirs.vmdk", tmp_path / "back.raw"
    made(disk, size)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, stream]
    run(convert, timeout=120)
    with stream.open("rb") as source, back.open("wb") as target:
        reader = StreamReader(source, "theirs")
        target.truncate(reader.size)
        for grain in reader.grains():
            target.seek(grain.start)
            target.write(grain.unpack("theirs"))
    assert reader.size == size
    assert "identical" in run(["qemu-img", "compare", "-f", "raw", "-F", "raw", disk, back], timeout=120).text
