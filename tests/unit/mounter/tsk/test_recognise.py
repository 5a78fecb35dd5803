"""What a volume holds, from its marks."""

import struct

import pytest

from mounter.tsk.recognise import recognise
from proxy.errors import FastPathRefused
from tests.unit.mounter.tsk.disks import ext_superblock, region

VFAT = struct.pack("<3s8sHBHBHHBHHHI", b"\xeb\x3c\x90", b"mkfs.fat", 512, 4, 1, 2, 512, 0, 0xF8, 16, 0, 0, 0)
VFAT = (VFAT.ljust(39, b"\0") + struct.pack("<I11s8s", 0x2B68E5A2, b"NO NAME    ", b"FAT16   ")).ljust(
    510, b"\0"
) + b"\x55\xaa"
# reserved sector and two tables of 16 sectors, then the root directory
VFAT_ROOT = 33 * 512
NTFS = (b"\xeb\x52\x90NTFS    ".ljust(72, b"\0") + struct.pack("<Q", 0x1F21B4817F52A503)).ljust(
    510, b"\0"
) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ({}, "ext2"),
        ({"compat": 0x4}, "ext3"),
        ({"compat": 0x4, "incompat": 0x6}, "ext3"),
        ({"compat": 0x4, "incompat": 0x42}, "ext4"),
        ({"incompat": 0x2, "read_only": 0x400}, "ext4"),
    ],
)
def test_the_ext_family_is_told_apart_by_its_features(features: dict[str, int], kind: str) -> None:
    found = recognise(region({1024: ext_superblock(**features)}))
    assert (found.type, found.uuid) == (kind, "00010203-0405-0607-0809-0a0b0c0d0e0f")


def test_labels_are_text_without_what_follows_them() -> None:
    assert recognise(region({1024: ext_superblock(label="Wurzel ü \0rest".encode()[:16])})).label == "Wurzel ü"


def test_ntfs_and_fat_are_told_with_their_serial_numbers() -> None:
    assert recognise(region({0: NTFS})).uuid == "1F21B4817F52A503"
    label = b"MY LABEL   \x08" + bytes(20)
    found = recognise(region({0: VFAT, VFAT_ROOT: b"\xe5" + bytes(31) + label}))
    assert (found.type, found.uuid, found.label) == ("vfat", "2B68-E5A2", "MY LABEL")
    assert recognise(region({0: VFAT})).label == ""


def test_swap_and_nothing_are_known() -> None:
    assert recognise(region({4086: b"SWAPSPACE2"})).type == "swap"
    assert recognise(region({})).type == "unknown"
    assert recognise(region({300_000: b"something"})).type == ""


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({512: b"LABELONE"}, "lvm"),
        ({0: b"LUKS\xba\xbe"}, "encrypted"),
        ({3: b"-FVE-FS-"}, "encrypted"),
        ({0: b"XFSB"}, "xfs"),
        ({65600: b"_BHRfS_M"}, "btrfs"),
        ({4096: b"\xfc\x4e\x2b\xa9"}, "md"),
        ({4 * 1024 * 1024 - 65536: b"\xfc\x4e\x2b\xa9"}, "md"),
        ({4 * 1024 * 1024 - 8192: b"\xfc\x4e\x2b\xa9"}, "md"),
        ({4 * 1024 * 1024 - 512: b"PRIVHEAD"}, "ldm"),
        ({3: b"EXFAT   "}, "exfat"),
        ({4086: b"S1SUSPEND\0"}, "swsuspend"),
        ({1024: ext_superblock(incompat=0x8)}, "jbd"),
        ({1024: ext_superblock(flags=4)}, "ext4dev"),
        ({1024: ext_superblock(label=b"\xff\xfe")}, "label"),
        ({1024: ext_superblock(label=b"a\x01")}, "label"),
        ({0: b"XFSB", 1024: ext_superblock()}, "xfs"),
    ],
)
def test_what_is_not_for_this_reader_is_refused_with_a_reason(marks: dict[int, bytes], reason: str) -> None:
    with pytest.raises(FastPathRefused) as refused:
        recognise(region(marks))
    assert refused.value.reason == reason
