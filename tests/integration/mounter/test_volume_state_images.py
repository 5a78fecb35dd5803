"""The state of real file systems, clean and dirtied, made by their own tools."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mounter.ports import VolumeState
from mounter.volumes.state import state_of

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires(
        "mkfs.ext4", "debugfs", "mkntfs", "ntfsfix", "mkfs.xfs", "mkfs.fat", "mkfs.exfat", "mkfs.btrfs"
    ),
]

MIB = 1 << 20


def made(path: Path, size: int, *argv: str) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run([*argv, str(path)], check=True, capture_output=True)
    return path


MAKERS: dict[str, tuple[int, list[str]]] = {
    "ext2": (8 * MIB, ["mkfs.ext2", "-q"]),
    "ext3": (16 * MIB, ["mkfs.ext3", "-q"]),
    "ext4": (16 * MIB, ["mkfs.ext4", "-q"]),
    "ntfs": (16 * MIB, ["mkntfs", "-F", "-q", "-f"]),
    "xfs": (320 * MIB, ["mkfs.xfs", "-q"]),
    "vfat": (64 * MIB, ["mkfs.fat", "-F", "32"]),
    "fat": (16 * MIB, ["mkfs.fat", "-F", "16"]),
    "exfat": (16 * MIB, ["mkfs.exfat"]),
    "btrfs": (128 * MIB, ["mkfs.btrfs", "-q"]),
}


def told(kind: str, path: Path) -> tuple[VolumeState, str]:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return state_of(kind, read)


def patched(path: Path, at: int, change: Callable[[int], int]) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([change(old)]))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_system_that_was_just_made_is_clean(kind: str, tmp_path: Path) -> None:
    size, argv = MAKERS[kind]
    state, detail = told(kind, made(tmp_path / "image", size, *argv))
    assert state is VolumeState.CLEAN, detail


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_an_ext_journal_that_was_not_replayed_makes_it_dirty(kind: str, tmp_path: Path) -> None:
    size, argv = MAKERS[kind]
    image = made(tmp_path / "image", size, *argv)
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", str(image)], check=True, capture_output=True)
    assert told(kind, image) == (VolumeState.DIRTY, "needs_recovery")


def test_ntfs_that_is_to_be_checked_is_dirty(tmp_path: Path) -> None:
    size, argv = MAKERS["ntfs"]
    image = made(tmp_path / "image", size, *argv)
    subprocess.run(["ntfsfix", str(image)], check=True, capture_output=True)  # it asks Windows to check the volume
    state, detail = told("ntfs", image)
    assert (state, "$Volume" in detail) == (VolumeState.DIRTY, True)


def test_xfs_without_its_unmount_record_is_dirty(tmp_path: Path) -> None:
    size, argv = MAKERS["xfs"]
    image = made(tmp_path / "image", size, *argv)
    data = image.read_bytes()
    record = data.index(b"\xfe\xed\xba\xbe")
    patched(image, record + 512 + 9, lambda flags: flags & ~0x20)
    state, detail = told("xfs", image)
    assert state is VolumeState.DIRTY
    assert "not closed" in detail


@pytest.mark.parametrize(("kind", "at", "bit"), [("vfat", 0x41, 1), ("fat", 0x25, 1), ("exfat", 106, 2)])
def test_dirty_bits_of_fat_and_exfat_are_seen(kind: str, at: int, bit: int, tmp_path: Path) -> None:
    size, argv = MAKERS[kind]
    image = made(tmp_path / "image", size, *argv)
    patched(image, at, lambda flags: flags | bit)
    assert told(kind, image)[0] is VolumeState.DIRTY


def test_a_btrfs_log_tree_makes_it_dirty(tmp_path: Path) -> None:
    size, argv = MAKERS["btrfs"]
    image = made(tmp_path / "image", size, *argv)
    patched(image, 65536 + 0x60, lambda _: 1)
    assert told("btrfs", image)[0] is VolumeState.DIRTY
