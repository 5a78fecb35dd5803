"""Partition tables, from their bytes."""

import struct
import uuid

import pytest

from mounter.tsk.partitions import device_name, holds_files, table_of
from proxy.errors import FastPathRefused
from proxy.units import MiB
from tests.unit.mounter.tsk.disks import disk, gpt, mbr

LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
RESERVED = uuid.UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae").bytes_le
LDM = uuid.UUID("af9b60a0-1431-4f62-bc68-3311714a69ad").bytes_le
OWN = uuid.UUID("0d0a0d0a-1111-2222-3333-444444444444")


def padded(head: bytes, size: int = 8 * MiB) -> bytearray:
    data = bytearray(size)
    data[: len(head)] = head
    return data


def test_devices_are_named_as_the_kernel_counts() -> None:
    assert [device_name(n) for n in (0, 1, 25, 26, 27, 701, 702)] == [
        f"/dev/sd{name}" for name in ("a", "b", "z", "aa", "ab", "zz", "aaa")
    ]


def test_a_disk_without_a_table_is_one_volume() -> None:
    for head in (b"", mbr(), b"\xeb\x3c\x90" + bytes(443) + b"\x12" * 64 + b"\x55\xaa"):
        table = table_of(disk(padded(head)), "/dev/sda")
        assert [(p.device, p.number, p.region.offset, p.region.size) for p in table.partitions] == [
            ("/dev/sda", 0, 0, 8 * MiB)
        ]


def test_primary_and_logical_partitions_have_their_numbers_and_identifiers() -> None:
    data = padded(mbr((0x83, 2048, 2048), (0x05, 4096, 8192), (0x07, 12288, 1024)))
    for at, entries in ((4096, ((0x83, 16, 100), (0x05, 2048, 4096))), (6144, ((0x82, 16, 200),))):
        data[at * 512 : at * 512 + 512] = mbr(*entries)
    table = table_of(disk(data), "/dev/sdb")
    assert table.kind == "dos"
    assert table.signature == 0xCAFE1234
    found = [(p.device, p.region.offset // 512, p.region.size // 512, p.uuid) for p in table.partitions]
    assert found == [
        ("/dev/sdb1", 2048, 2048, "cafe1234-01"),
        ("/dev/sdb3", 12288, 1024, "cafe1234-03"),
        ("/dev/sdb5", 4112, 100, "cafe1234-05"),
        ("/dev/sdb6", 6160, 200, "cafe1234-06"),
    ]


def test_a_chain_of_logical_partitions_that_bites_its_tail_ends() -> None:
    data = padded(mbr((0x05, 4096, 8192)))
    data[4096 * 512 : 4097 * 512] = mbr((0x83, 16, 100), (0x05, 0, 4096))
    with pytest.raises(FastPathRefused, match="more than"):
        table_of(disk(data), "/dev/sda")


def test_a_gpt_is_read_with_its_guids() -> None:
    data = padded(
        gpt((LINUX, OWN.bytes_le, 2048, 4095), (bytes(16), bytes(16), 0, 0), (RESERVED, OWN.bytes_le, 4096, 8191))
    )
    table = table_of(disk(data), "/dev/sda")
    assert table.kind == "gpt"
    first, second = table.partitions
    assert (first.device, first.region.offset, first.region.size) == ("/dev/sda1", 2048 * 512, 2048 * 512)
    assert (first.uuid, holds_files(first)) == (str(OWN), True)
    assert (second.device, holds_files(second)) == ("/dev/sda3", False)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (mbr((0x42, 63, 1000)), "ldm"),
        (gpt((LDM, OWN.bytes_le, 2048, 4095)), "ldm"),
        (mbr((0xEE, 1, 1000)), "partition-table"),
        (gpt((LINUX, OWN.bytes_le, 2048, 4095))[:1100] + b"\x01", "partition-table"),
        (mbr((0x83, 2048, 1 << 20)), "partition-table"),
        (mbr((0, 2048, 1024)), "partition-table"),
        (mbr((0x05, 2048, 1024), (0x0F, 4096, 1024)), "partition-table"),
    ],
)
def test_what_is_not_sure_is_refused(head: bytes, reason: str) -> None:
    with pytest.raises(FastPathRefused) as refused:
        table_of(disk(padded(head)), "/dev/sda")
    assert refused.value.reason == reason


def test_a_gpt_with_a_wrong_checksum_is_refused() -> None:
    damaged = bytearray(gpt((LINUX, OWN.bytes_le, 2048, 4095)))
    struct.pack_into("<Q", damaged, 512 + 72, 3)
    with pytest.raises(FastPathRefused, match="damaged"):
        table_of(disk(padded(bytes(damaged))), "/dev/sda")
