"""Logical volumes out of extents, whole or refused.

::

    one LUN    |hdr|0 1 2|               volume |0 1 2|
    two LUNs   |hdr|0 1| |hdr|2|         volume |0 1|2|
"""

import struct

import pytest

from proxy.errors import TransportRefused
from proxy.transport.vmfs.lvm import LogicalVolume, Place, assemble, scan
from proxy.transport.vmfs.lvm_format import HEADER_AT, format_uuid
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_lun_builder import DATA_AT, EXTENT, PARTITION_AT, SparseLun, VolumeOnLuns

SUBJECT = Subject("san", "scsi0:0")
HEADER = PARTITION_AT + HEADER_AT
DATA = PARTITION_AT + DATA_AT


def volume_of(luns: list[SparseLun]) -> LogicalVolume:
    (found,) = assemble(scan(luns, SUBJECT), SUBJECT)
    if isinstance(found, TransportRefused):
        raise found
    return found


def refusal(luns: list[SparseLun]) -> str:
    with pytest.raises(TransportRefused) as refused:
        volume_of(luns)
    return refused.value.reason


def poke(made: VolumeOnLuns, offset: int, form: str, *values: int, lun: int = 0) -> list[SparseLun]:
    made.luns[lun].write(HEADER + offset, struct.pack(form, *values))
    return made.luns


def entry(version: int, number: int = 0) -> int:
    """Where an extent's entry is, from the header."""
    return (4096 + 512 * KiB + 4096 if version == 6 else 512 + 512 * KiB + 1024) + 128 * number


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("table", ["gpt", "mbr", ""])
def test_a_volume_on_one_lun_is_its_extents_in_a_row(version: int, table: str) -> None:
    made = VolumeOnLuns((3,), version=version, table=table)
    found = volume_of(made.luns)
    assert found.size == 3 * EXTENT
    assert found.uuid == "68626f2d-86473108-d4e1-bc2411b17e28"
    assert found.devices == (f"naa.6000c29{0:025x}:1",)
    start = made.start + DATA_AT
    assert list(found.pieces(5, 3 * EXTENT - 5)) == [Place(0, start + 5, 3 * EXTENT - 5)]


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "reversed"])
def test_a_volume_on_two_luns_goes_on_where_the_first_one_ends(version: int, order: int) -> None:
    made = VolumeOnLuns((2, 1), version=version)
    luns = made.luns[::order]
    made.write(2 * EXTENT - 3, b"abcdef")
    found = volume_of(luns)
    first, second = (0, 1) if order > 0 else (1, 0)
    assert list(found.pieces(2 * EXTENT - 3, 6)) == [
        Place(first, DATA + 2 * EXTENT - 3, 3),
        Place(second, DATA, 3),
    ]
    buffer = bytearray(6)
    found.read_into(2 * EXTENT - 3, memoryview(buffer))
    assert buffer == b"abcdef"


def test_extents_in_any_physical_order_are_put_in_logical_order() -> None:
    made = VolumeOnLuns((2,), version=5)
    for number, physical in ((0, 1), (1, 0)):
        poke(made, entry(5, number) + 9, "<Q", DATA_AT + physical * EXTENT)
    found = volume_of(made.luns)
    assert list(found.pieces(0, 2 * EXTENT)) == [Place(0, DATA + EXTENT, EXTENT), Place(0, DATA, EXTENT)]


def test_a_missing_lun_is_a_refusal() -> None:
    assert refusal(VolumeOnLuns((1, 1)).luns[:1]) == VmfsReason.SPAN_MISSING


def test_two_copies_of_a_lun_are_a_refusal() -> None:
    made = VolumeOnLuns((1, 1))
    assert refusal([*made.luns, made.luns[1]]) == VmfsReason.SPAN_AMBIGUOUS


def test_luns_that_disagree_about_their_volume_are_a_refusal() -> None:
    assert refusal(poke(VolumeOnLuns((1, 1)), 4096, "<Q", 4 * EXTENT, lun=1)) == VmfsReason.SPAN_AMBIGUOUS


def test_an_extent_that_is_not_used_leaves_a_gap_and_a_refusal() -> None:
    assert refusal(poke(VolumeOnLuns((3,), version=5), entry(5, 1), "<B", 0)) == VmfsReason.SPAN_MISSING


CASES = {
    "version-4": (4, "<I", 4, VmfsReason.LVM_VERSION),
    "version-7": (4, "<I", 7, VmfsReason.LVM_VERSION),
    "no-volume": (0x66, "<I", 0, VmfsReason.LVM_DAMAGED),
    "two-volumes": (0x66, "<I", 2, VmfsReason.LVM_DAMAGED),
    "device-too-large": (0x5E, "<Q", 1 << 50, VmfsReason.LUN_TOO_SMALL),
    "data-behind-end": (0x7A, "<Q", 1 << 50, VmfsReason.LVM_DAMAGED),
    "no-extents": (0x6A, "<I", 0, VmfsReason.LVM_DAMAGED),
    "four-billion-extents": (0x6A, "<I", 2**32 - 1, VmfsReason.LVM_DAMAGED),
    "more-extents-than-maps": (0x6A, "<I", 9000, VmfsReason.LVM_DAMAGED),
    "two-maps": (0xBE, "<I", 2, VmfsReason.LVM_EXTENDED),
    "extension": (0xC2, "<Q", 1 << 40, VmfsReason.LVM_EXTENDED),
    "odd-alignment": (0xCA, "<I", 3, VmfsReason.LVM_DAMAGED),
    "huge-volume": (4096, "<Q", 1 << 60, VmfsReason.LVM_DAMAGED),
    "no-devices": (4096 + 0x90, "<I", 0, VmfsReason.LVM_DAMAGED),
    "extent-outside-lun": (entry(6) + 9, "<Q", 1 << 50, VmfsReason.LUN_TOO_SMALL),
    "extent-far-outside": (entry(6) + 9, "<Q", 2**64 - 1, VmfsReason.LVM_DAMAGED),
    "extent-in-metadata": (entry(6) + 9, "<Q", 0, VmfsReason.LVM_DAMAGED),
    "extent-outside-volume": (entry(6) + 17, "<Q", 2**63, VmfsReason.LVM_DAMAGED),
    "extent-without-length": (entry(6) + 25, "<Q", 0, VmfsReason.LVM_DAMAGED),
    "extent-of-odd-length": (entry(6) + 25, "<Q", 12345, VmfsReason.LVM_DAMAGED),
}


@pytest.mark.parametrize(("offset", "form", "value", "reason"), CASES.values(), ids=CASES)
def test_a_damaged_header_is_refused_with_its_reason(offset: int, form: str, value: int, reason: VmfsReason) -> None:
    assert refusal(poke(VolumeOnLuns((2,)), offset, form, value)) == reason


@pytest.mark.parametrize("next_at", [HEADER_AT, 0x500000, 2**60], ids=["itself", "nothing-there", "outside"])
def test_a_chain_of_extensions_that_leads_astray_is_refused(next_at: int) -> None:
    made = VolumeOnLuns((2,), version=5)
    poke(made, 0x6A, "<I", 9000)
    poke(made, 0xC2, "<Q", next_at)
    assert refusal(made.luns) in {VmfsReason.LVM_DAMAGED, VmfsReason.BLOCK_OUTSIDE}


def test_overlapping_extents_are_refused() -> None:
    assert refusal(poke(VolumeOnLuns((3,), version=5), entry(5, 1) + 17, "<Q", 0)) == VmfsReason.LVM_DAMAGED


def test_a_lun_without_a_header_is_passed_over() -> None:
    assert scan([SparseLun(64 * MiB)], SUBJECT) == []


def test_a_uuid_is_printed_as_hosts_print_it() -> None:
    raw = bytes.fromhex("2d6f62685831e2902e8abc2411b17e28")
    assert format_uuid(raw) == "68626f2d-90e23158-8a2e-bc2411b17e28"
