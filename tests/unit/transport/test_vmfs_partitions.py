"""Partition tables: where the VMFS partitions of a LUN are, and what is refused.

::

    GPT    |MBR: 0xEE|header|entries|  partition  |          first sector .. last sector
    MBR    |0xFB at …|      |       |  partition  |
    none   |  the whole LUN                       |
"""

import struct
import uuid

import pytest

from proxy.errors import TransportRefused
from proxy.transport.vmfs.partitions import Partition, vmfs_partitions
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import GiB, MiB
from tests.unit.transport.vmfs_lun_builder import VMFS_GUID, SparseLun, gpt, gpt_header, mbr

SUBJECT = Subject("san", "scsi0:0")
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def lun(head: bytes, size: int = GiB) -> SparseLun:
    made = SparseLun(size)
    made.write(0, head)
    return made


def refusal(of: SparseLun) -> str:
    with pytest.raises(TransportRefused) as refused:
        vmfs_partitions(of, SUBJECT)
    return refused.value.reason


def test_vmfs_partitions_of_a_gpt_are_found_by_their_type() -> None:
    table = gpt(GiB, [(LINUX, MiB, MiB), (VMFS_GUID, 8 * MiB, 64 * MiB), (VMFS_GUID, 128 * MiB, 256 * MiB)])
    assert vmfs_partitions(lun(table), SUBJECT) == [
        Partition(2, 8 * MiB, 64 * MiB),
        Partition(3, 128 * MiB, 256 * MiB),
    ]


def test_vmfs_partitions_of_an_mbr_are_found_by_their_type() -> None:
    table = mbr([(0x83, MiB, MiB), (0xFB, 8 * MiB, 64 * MiB)])
    assert vmfs_partitions(lun(table), SUBJECT) == [Partition(2, 8 * MiB, 64 * MiB)]


@pytest.mark.parametrize("head", [b"", mbr([])], ids=["nothing", "empty-mbr"])
def test_a_lun_without_partitions_is_looked_at_as_a_whole(head: bytes) -> None:
    assert vmfs_partitions(lun(head), SUBJECT) == [Partition(0, 0, GiB)]


def test_a_gpt_of_others_has_no_vmfs_partition() -> None:
    assert vmfs_partitions(lun(gpt(GiB, [(LINUX, MiB, MiB)])), SUBJECT) == []


def test_a_protective_mbr_without_a_gpt_is_damage() -> None:
    assert refusal(lun(mbr([(0xEE, 512, MiB)]))) == VmfsReason.PARTITION_TABLE_DAMAGED


@pytest.mark.parametrize("byte", [512 + 16, 512 + 40, 512 + 90, 1024 + 3, 1024 + 16000])
def test_one_changed_byte_of_a_gpt_is_noticed(byte: int) -> None:
    table = bytearray(gpt(GiB, [(VMFS_GUID, 8 * MiB, 64 * MiB)]))
    table[byte] ^= 0x40
    assert refusal(lun(bytes(table))) == VmfsReason.PARTITION_TABLE_DAMAGED


@pytest.mark.parametrize(
    "changes",
    [{"size": 4096}, {"size": 91}, {"my_lba": 2}, {"count": 2**32 - 1}, {"entry_size": 4}, {"table_lba": 2**63}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_gpt_header_that_is_consistent_and_absurd_is_refused(changes: dict[str, int]) -> None:
    table = gpt(GiB, [(VMFS_GUID, 8 * MiB, 64 * MiB)])
    header = gpt_header(table[1024:], GiB // 512 - 1, **changes)
    assert refusal(lun(table[:512] + header.ljust(512, b"\0") + table[1024:])) == VmfsReason.PARTITION_TABLE_DAMAGED


def test_a_partition_behind_the_end_of_the_gpt_is_refused() -> None:
    table = bytearray(gpt(GiB, [(VMFS_GUID, 8 * MiB, 64 * MiB)]))
    struct.pack_into("<Q", table, 1024 + 40, 2**40)
    header = gpt_header(bytes(table[1024:]), GiB // 512 - 1)
    assert (
        refusal(lun(bytes(table[:512]) + header.ljust(512, b"\0") + bytes(table[1024:]))) == "partition-table-damaged"
    )


def test_a_partition_that_the_lun_is_too_small_for_is_refused() -> None:
    assert refusal(lun(mbr([(0xFB, 8 * MiB, 2 * GiB)]))) == VmfsReason.LUN_TOO_SMALL


def test_sectors_of_4096_bytes_are_refused() -> None:
    table = gpt(GiB, [(VMFS_GUID, 8 * MiB, 64 * MiB)], sector=4096)
    assert refusal(lun(table)) == VmfsReason.SECTOR_SIZE


@pytest.mark.parametrize("size", [0, 512, 8191])
def test_a_lun_of_a_few_sectors_is_refused(size: int) -> None:
    assert refusal(SparseLun(size)) == VmfsReason.LUN_TOO_SMALL
