"""Block addresses bit by bit, against numbers that ESXi wrote and against drawings.

::

    VMFS 6   63      51     46         15     7    3 0
             |member | unused | cluster | tbz |unused|1|
    VMFS 5            31                6 5  4  3 0
                      |  number         |tbz|unused|1|
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from proxy.errors import TransportRefused
from proxy.transport.vmfs.addresses import (
    DATA,
    HOLE,
    ZEROED,
    Blocks,
    Piece,
    decode_blocks,
    descriptor_piece,
    pointer_array,
    resource_piece,
)
from proxy.transport.vmfs.fs_format import Geometry
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import MiB
from tests.unit.transport.vmfs_builder import VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import VolumeOnLuns

SUBJECT = Subject("san", "scsi0:0")


def geometry(version: int) -> Geometry:
    return VmfsBuilder(VolumeOnLuns((1,), version=version), version=version).geometry


SIX, FIVE = geometry(6), geometry(5)
SPARSE_FIVE = replace(FIVE, dense=False)


def decoded(shape: Geometry, *pointers: int) -> Blocks:
    return decode_blocks(np.array(pointers, np.uint64), shape, SUBJECT)


def large(number: int, count: int = 512) -> list[int]:
    return [7 | number << 15] * count


def numbers(blocks: Blocks) -> list[int]:
    return (blocks.offsets // MiB).tolist()


def refusal(shape: Geometry, *pointers: int) -> str:
    with pytest.raises(TransportRefused) as refused:
        decoded(shape, *pointers)
    return refused.value.reason


def test_file_blocks_that_esxi_wrote_are_where_it_wrote_them() -> None:
    six = decoded(SIX, 0x38000000000001, 0x608000000018001, 0)
    assert numbers(six) == [7, 3 * 512 + 0xC1, 0]
    assert six.classes.tolist() == [DATA, DATA, HOLE]
    assert numbers(decoded(FIVE, 0x141, 0x15E41)) == [5, 0x579]


@pytest.mark.parametrize(
    ("shape", "address", "piece"),
    [
        (SIX, 0x100000000000482, Piece(0x12, 1)),
        (SIX, 0x5, Piece(0, 0)),
        (FIVE, 0x34483, Piece(0xD12, 0)),
        (FIVE, 0x10034483, Piece(0xD12, 1)),
        (FIVE, 0xF0000042 | 3 << 3, Piece(1, 63)),
        (SPARSE_FIVE, 0xF0000042, Piece(1, 15)),
    ],
)
def test_sub_blocks_and_pointer_blocks_are_clusters_and_members(shape: Geometry, address: int, piece: Piece) -> None:
    assert resource_piece(address, shape, SUBJECT) == piece


@pytest.mark.parametrize(
    ("shape", "address"),
    [(SIX, 0x482 | 1 << 3), (SIX, 0x482 | 1 << 42), (FIVE, 0x482 | 1 << 5), (SPARSE_FIVE, 0x482 | 1 << 3)],
)
def test_unknown_bits_in_a_piece_are_refused(shape: Geometry, address: int) -> None:
    with pytest.raises(TransportRefused) as refused:
        resource_piece(address, shape, SUBJECT)
    assert refused.value.reason == VmfsReason.UNKNOWN_ADDRESS


def test_a_descriptor_is_a_cluster_and_a_member() -> None:
    assert descriptor_piece(0x168008C4, SUBJECT) == Piece(0x23, 0x5A)


@pytest.mark.parametrize("address", [0, 1, 0x482, 4 | 1 << 3, 4 | 1 << 32])
def test_what_is_no_descriptor_is_refused(address: int) -> None:
    with pytest.raises(TransportRefused):
        descriptor_piece(address, SUBJECT)


@pytest.mark.parametrize(("shape", "bits"), [(SIX, 0xFF << 7), (FIVE, 1 << 5)], ids=["6", "5"])
def test_a_block_to_be_zeroed_has_no_place(shape: Geometry, bits: int) -> None:
    found = decoded(shape, 0x8001, 0x8001 | bits)
    assert found.classes.tolist() == [DATA, ZEROED]
    assert found.offsets[1] == 0


@pytest.mark.parametrize("bits", [1, 0x80, 0x7F, 0xFE, 0x55])
def test_a_block_that_is_to_be_zeroed_in_part_is_refused(bits: int) -> None:
    assert refusal(SIX, 0x8001, 0x8001 | bits << 7) == VmfsReason.PARTIALLY_ZEROED


@pytest.mark.parametrize("bit", [3, 4, 5, 6, 46, 47, 48, 49, 50, 60, 61, 62, 63])
def test_bits_without_meaning_are_refused_on_6(bit: int) -> None:
    assert refusal(SIX, 0, 0x8001 | 1 << bit) == VmfsReason.UNKNOWN_ADDRESS


@pytest.mark.parametrize("bit", [3, 4])
def test_bits_without_meaning_are_refused_on_5(bit: int) -> None:
    assert refusal(FIVE, 0, 0x8001 | 1 << bit) == VmfsReason.UNKNOWN_ADDRESS


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("shape", [SIX, FIVE], ids=["6", "5"])
def test_addresses_of_another_kind_are_no_blocks(shape: Geometry, kind: int) -> None:
    assert refusal(shape, 0x8001, 0x8000 | kind) == VmfsReason.UNKNOWN_ADDRESS


def test_a_large_block_is_unknown_to_5() -> None:
    assert refusal(FIVE, 0x8007) == VmfsReason.UNKNOWN_ADDRESS


def test_a_large_block_is_512_blocks_in_a_row() -> None:
    found = decoded(SIX, *large(3), *large(1, 7))
    assert numbers(found) == [*range(3 * 512, 4 * 512), *range(512, 519)]
    assert found.large == 519


LARGE_LAYOUTS = {
    "one-pointer": [*large(3, 1), *[0] * 511],
    "another-in-the-middle": [*large(3, 100), *large(4, 412)],
    "hole-in-the-middle": [*large(3, 100), 0, *large(3, 411)],
    "begins-in-the-middle": [*[0] * 12, *large(3, 500)],
    "unknown-bits": [7 | 3 << 15 | 1 << 7] * 512,
    "member-bits": [7 | 3 << 15 | 1 << 60] * 512,
}


@pytest.mark.parametrize("pointers", LARGE_LAYOUTS.values(), ids=LARGE_LAYOUTS)
def test_large_blocks_in_any_other_layout_are_refused(pointers: list[int]) -> None:
    assert refusal(SIX, *pointers) == VmfsReason.LARGE_BLOCK_LAYOUT


def test_pointers_of_both_widths_become_64_bits() -> None:
    def array(raw: bytes, shape: Geometry) -> list[int]:
        found: NDArray[np.uint64] = pointer_array(raw, shape)
        assert found.dtype == np.uint64
        return found.tolist()

    assert array(b"\1\0\0\0\2\0\0\0", FIVE) == [1, 2]
    assert array(b"\1\0\0\0\2\0\0\0", SIX) == [1 | 2 << 32]
