"""Whether the log of an XFS volume holds something to replay: is its last record the mark of an unmount?

Format: "XFS Algorithms & Data Structures", chapter "Journaling Log"; big-endian. The log is a ring of 512-byte blocks. The
first word of each block is the number of the round in which it was written (in a record's first block: its magic), so the
head, where the next record would go, is where that number drops::

    | 7 | 7 | 7 | 7 | 6 | 6 | 6 |         head = block 4; the record before it begins with MAGIC

A clean unmount writes a record of one operation, flagged so, as the last thing.
"""

import struct
from collections.abc import Callable

from mounter.ports import VolumeState
from proxy.units import KiB, MiB

_MAGIC = b"\xfe\xed\xba\xbe"
_BLOCK = 512

# mkfs.xfs makes logs of at most 2 GiB.
_LARGEST_LOG = 2048 * MiB

# A record is at most 256 KiB; the last one begins within this of the head, in front of it nothing was written later.
_LONGEST_RECORD = 512 * KiB

_UNMOUNT = 0x20

# What a freeze leaves is some records of 1 KiB; where there is more to replay, nobody looks what it is.
_LEFT_BY_FREEZE = 16

_LITTLE_ENDIAN = 1
_TRANSACTION = b"NART"
_BUFFER = 0x123C
_CONTINUED = 0x04 | 0x08


def left(read: Callable[[int, int], bytes]) -> tuple[VolumeState, str]:
    """State and detail. ``read`` gives exactly what it is asked for or raises. Raises ``ValueError`` for nonsense."""
    start, blocks = _place(read)

    def block(number: int, count: int = 1) -> bytes:
        first = read(start + number * _BLOCK, min(count, blocks - number) * _BLOCK)
        return first + read(start, count * _BLOCK - len(first)) if len(first) < count * _BLOCK else first

    head = _head(block, blocks)
    if head is None:
        return VolumeState.CLEAN, "its log was never written"
    at, record = _last_record(block, blocks, head)
    length, tail, operations, size = (
        *struct.unpack_from(">I", record, 12),
        *struct.unpack_from(">Q", record, 24),
        *struct.unpack_from(">I", record, 40),
        *struct.unpack_from(">I", record, 320),
    )
    heads = max(-(-size // (32 * KiB)), 1) if struct.unpack_from(">I", record, 8)[0] & 2 else 1
    end = (at + heads + -(-length // _BLOCK)) % blocks
    if operations == 1 and end == head and block((at + heads) % blocks)[9] & _UNMOUNT:
        return VolumeState.CLEAN, "unmount record"
    dirty = (head - (tail & 0xFFFFFFFF)) % blocks
    # A freeze writes the superblock to the log, so that a mount after a power cut looks for orphaned inodes
    # (xfs_fs_freeze of Linux): all else is in its place.
    if dirty <= _LEFT_BY_FREEZE and _superblock_alone(block, blocks, (tail & 0xFFFFFFFF) % blocks, head):
        return VolumeState.CLEAN, "frozen: its log holds the superblock alone"
    return VolumeState.DIRTY, f"its log was not closed: {dirty * _BLOCK // KiB} KiB to replay"


def _superblock_alone(block: Callable[[int, int], bytes], blocks: int, tail: int, head: int) -> bool:
    """Whether all that was logged from ``tail`` on is the buffer of block 0. A record is operations, each with a header of 12
    bytes; an item is a description and as many more operations as it says."""
    at, following = tail, 0
    for _ in range(_LEFT_BY_FREEZE):
        if at == head:
            return True
        record = block(at, 1)
        (length,) = struct.unpack_from(">I", record, 12)
        operations, form = *struct.unpack_from(">I", record, 40), *struct.unpack_from(">I", record, 300)
        count = -(-length // _BLOCK)
        if record[:4] != _MAGIC or form != _LITTLE_ENDIAN or not 0 < count <= _LEFT_BY_FREEZE:
            return False
        data = bytearray(block((at + 1) % blocks, count))
        for number in range(count):  # the first word of each block is kept in the header, its place has the round
            data[number * _BLOCK : number * _BLOCK + 4] = record[44 + 4 * number : 48 + 4 * number]
        position = 0
        for _ in range(operations):
            if position + 12 > len(data):
                return False
            size, _client, flags = struct.unpack_from(">IBB", data, position + 4)
            body = data[position + 12 : position + 12 + size]
            position += 12 + size
            if flags & _CONTINUED:
                return False
            if not size or body[:4] == _TRANSACTION:
                continue
            if following:
                following -= 1
                continue
            if len(body) < 16:
                return False
            kind, following, _, _, place = struct.unpack_from("<HHHHq", body)
            if kind != _BUFFER or place:
                return False
            following -= 1
        at = (at + 1 + count) % blocks
    return False


def _place(read: Callable[[int, int], bytes]) -> tuple[int, int]:
    """Where the log lies: byte and number of blocks."""
    superblock = read(0, 512)
    if superblock[:4] != b"XFSB":
        raise ValueError("no XFS superblock")
    size: int = struct.unpack_from(">I", superblock, 4)[0]
    first: int = struct.unpack_from(">Q", superblock, 48)[0]
    group: int = struct.unpack_from(">I", superblock, 84)[0]
    count: int = struct.unpack_from(">I", superblock, 96)[0]
    shift = superblock[124]
    if not first:
        raise ValueError("its log is on another device")
    if not 512 <= size <= 64 * KiB or not 0 < count * size <= _LARGEST_LOG or shift > 32:
        raise ValueError(f"a log of {count} blocks of {size} bytes")
    return ((first >> shift) * group + (first & ((1 << shift) - 1))) * size, count * size // _BLOCK


def _cycle(data: bytes) -> int:
    """The round in which a block was written."""
    at = 4 if data[:4] == _MAGIC else 0
    return int.from_bytes(data[at : at + 4], "big")


def _head(block: Callable[[int], bytes], blocks: int) -> int | None:
    """The block behind the last record; ``None`` when nothing was ever written."""
    first, last = _cycle(block(0)), _cycle(block(blocks - 1))
    if not first:
        return None
    if first == last:
        return 0
    low, high = 0, blocks - 1  # the round of ``low`` is the first one's, that of ``high`` is not
    while high - low > 1:
        middle = (low + high) // 2
        if _cycle(block(middle)) == first:
            low = middle
        else:
            high = middle
    return high


def _last_record(block: Callable[[int, int], bytes], blocks: int, head: int) -> tuple[int, bytes]:
    """Block number and first block of the record before the head."""
    count = min(_LONGEST_RECORD // _BLOCK, blocks)
    start = (head - count) % blocks
    data = block(start, count)
    for number in range(count - 1, -1, -1):
        if data[number * _BLOCK : number * _BLOCK + 4] == _MAGIC:
            return (start + number) % blocks, data[number * _BLOCK : (number + 1) * _BLOCK]
    raise ValueError("no record before the head of its log")
