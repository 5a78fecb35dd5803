"""Block addresses: the numbers that pointers, directory entries and resource files name things by.

The low three bits tell the kind; the rest is cut up differently for each, ``unused`` bits must be clear::

    VMFS 6, 64 bits    file block     1   tbz 7..14    cluster 15..45   member 51..63    block = cluster * 512 + member
                       large block    7                number  15..45                    of 512 MiB
                       sub-block, pointer block 2 3 5  cluster  6..41   member 56..63
                       descriptor     4                cluster  6..21   member 22..31
    VMFS 5, 32 bits    file block     1   tbz 5        number   6..31
                       sub-block, pointer block 2 3 5  cluster  6..27   member 28..31, dense volumes: + bits 3..4 above
                       descriptor     4                cluster  6..21   member 22..31

``tbz`` ("to be zeroed"): the block is allocated, what lies in it is some former owner's, and it reads as zero. VMFS 6 has
eight such bits; only all or none of them was ever seen, so that anything between is refused. So is whatever else sets a bit
that has no meaning here: copy-on-write marks among them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.transport.vmfs.fs_format import LARGE_BLOCK_SHIFT, MAJOR_VMFS6, Geometry
from proxy.transport.vmfs.reasons import Subject, VmfsReason

TYPE_MASK = 0x7


class AddressType(IntEnum):
    """Low three bits of an address."""

    NONE = 0
    FILE_BLOCK = 1
    SUB_BLOCK = 2
    POINTER_BLOCK = 3
    DESCRIPTOR = 4
    POINTER_BLOCK_2 = 5
    LARGE_BLOCK = 7


HOLE, DATA, ZEROED = 0, 1, 2
"""Classes of a block of a file: not allocated; data at its place; allocated and still to be zeroed."""


class Piece(NamedTuple):
    """Cluster and member of a piece of a resource file."""

    cluster: int
    member: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Decoded pointers, one element each: the class, and the volume offset in bytes where it is ``DATA``.
    ``large``: how many of them name large blocks."""

    classes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    large: int


_PER_LARGE = 1 << LARGE_BLOCK_SHIFT


def _bits(first: int, last: int) -> int:
    return ((1 << (last + 1)) - 1) & ~((1 << first) - 1)


def _field(value: int, first: int, last: int) -> int:
    return (value & _bits(first, last)) >> first


_SIX_TBZ = _bits(7, 14)
_SIX_FILE_UNUSED = _bits(3, 6) | _bits(46, 50) | _bits(60, 63)  # a member is below 512
_SIX_LARGE_UNUSED = _bits(3, 14) | _bits(46, 63)
_SIX_PIECE_UNUSED = _bits(3, 5) | _bits(42, 55)
_FIVE_TBZ = _bits(5, 5)
_FIVE_FILE_UNUSED = _bits(3, 4)
_FIVE_PIECE_UNUSED = _bits(3, 5)
_FIVE_DENSE_UNUSED = _bits(5, 5)
_DESCRIPTOR_UNUSED = _bits(3, 5)


def descriptor_piece(address: int, subject: Subject) -> Piece:
    """Where a file descriptor is. Refuses what is not the address of one."""
    if address & TYPE_MASK != AddressType.DESCRIPTOR or address & _DESCRIPTOR_UNUSED or address >> 32:
        raise subject.refuse(VmfsReason.UNKNOWN_ADDRESS, f"{address:#x} is no file descriptor")
    return Piece(_field(address, 6, 21), _field(address, 22, 31))


def resource_piece(address: int, geometry: Geometry, subject: Subject) -> Piece:
    """Cluster and member of a sub-block or pointer block. Refuses unknown bits."""
    if geometry.major == MAJOR_VMFS6:
        piece, unused = Piece(_field(address, 6, 41), _field(address, 56, 63)), _SIX_PIECE_UNUSED
    elif geometry.dense:
        member = _field(address, 28, 31) | _field(address, 3, 4) << 4
        piece, unused = Piece(_field(address, 6, 27), member), _FIVE_DENSE_UNUSED
    else:
        piece, unused = Piece(_field(address, 6, 27), _field(address, 28, 31)), _FIVE_PIECE_UNUSED
    if address & unused:
        raise subject.refuse(VmfsReason.UNKNOWN_ADDRESS, f"{address:#x} has unknown bits")
    return piece


def pointer_array(raw: bytes, geometry: Geometry) -> NDArray[np.uint64]:
    """Pointers as 64-bit numbers, whatever their width on disk."""
    return np.frombuffer(raw, "<u8" if geometry.pointer_size == 8 else "<u4").astype(np.uint64, copy=False)


def decode_blocks(pointers: NDArray[np.uint64], geometry: Geometry, subject: Subject) -> Blocks:
    """Pointers to file blocks from a whole table (so that the first one may begin a large block).

    Refuses all that is not understood; whether the blocks lie within the volume is the caller's to check."""
    if not pointers.any():
        return Blocks(np.zeros(len(pointers), np.uint8), np.zeros(len(pointers), np.int64), 0)
    six = geometry.major == MAJOR_VMFS6
    types = (pointers & np.uint64(TYPE_MASK)).astype(np.uint8)
    is_file = types == AddressType.FILE_BLOCK
    is_large = (types == AddressType.LARGE_BLOCK) if six else np.zeros(len(pointers), bool)
    _refuse_if(~(is_file | is_large | (pointers == 0)), pointers, VmfsReason.UNKNOWN_ADDRESS, "is no block", subject)
    unused = np.uint64(_SIX_FILE_UNUSED if six else _FIVE_FILE_UNUSED)
    _refuse_if(is_file & (pointers & unused != 0), pointers, VmfsReason.UNKNOWN_ADDRESS, "has unknown bits", subject)
    zeroed = pointers & np.uint64(_SIX_TBZ if six else _FIVE_TBZ)
    if six:
        partly = is_file & (zeroed != 0) & (zeroed != np.uint64(_SIX_TBZ))
        _refuse_if(partly, pointers, VmfsReason.PARTIALLY_ZEROED, "is to be zeroed in part", subject)
        numbers = ((pointers >> np.uint64(15)) & np.uint64(0x7FFFFFFF)) * np.uint64(512) + (pointers >> np.uint64(51))
    else:
        numbers = pointers >> np.uint64(6)
    classes = np.where(is_file, np.where(zeroed != 0, ZEROED, DATA), HOLE).astype(np.uint8)
    large = int(is_large.sum())
    if large:
        _check_large(pointers, is_large, subject)
        members = (np.arange(len(pointers)) & (_PER_LARGE - 1)).astype(np.uint64)
        of_large = ((pointers >> np.uint64(15)) << np.uint64(LARGE_BLOCK_SHIFT)) + members
        numbers = np.where(is_large, of_large, numbers)
        classes[is_large] = DATA
    offsets = np.where(classes == DATA, numbers, 0).astype(np.int64) * geometry.block_size
    return Blocks(classes, offsets, large)


def _check_large(pointers: NDArray[np.uint64], is_large: NDArray[np.bool_], subject: Subject) -> None:
    """A large block is named by the pointers of all the 512 file blocks that it takes the place of, or it is refused."""
    unused = pointers & np.uint64(_SIX_LARGE_UNUSED) != 0
    _refuse_if(is_large & unused, pointers, VmfsReason.LARGE_BLOCK_LAYOUT, "has unknown bits", subject)
    first = np.arange(len(pointers)) & ~(_PER_LARGE - 1)
    lonely = (is_large | is_large[first]) & (pointers != pointers[first])
    _refuse_if(lonely, pointers, VmfsReason.LARGE_BLOCK_LAYOUT, "shares its 512 MiB with another block", subject)


def _refuse_if(
    bad: NDArray[np.bool_], pointers: NDArray[np.uint64], reason: VmfsReason, why: str, subject: Subject
) -> None:
    if bad.any():
        at = int(bad.argmax())
        raise subject.refuse(reason, f"pointer {int(pointers[at]):#x} {why}")
