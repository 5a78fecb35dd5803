"""From GET LBA STATUS to extents. Pure: the device is a function.

Devices answer in their own ways, and only one mistake is dangerous: to call something zero that is not. So whatever an
answer leaves out, overlaps or does not reach is DATA::

    asked from      v
    answer        |ZZZZZZ|  |DDD|ZZZ|       starts before what was asked, leaves a gap
    taken           |ZZZZ|DD|DDD|ZZZ|
"""

from collections.abc import Callable, Sequence

from proxy.extents import Extent, Kind, normal
from proxy.transport.iscsi.scsi import LbaStatus


def allocation(ask: Callable[[int], Sequence[LbaStatus]], blocks: int, block_size: int, first: int = 0) -> list[Extent]:
    """A map of blocks ``[first, blocks)``. ``ask(block)`` gives the device's runs from a block on, as many as it likes."""
    found: list[Extent] = []
    position = first
    while position < blocks:
        reached = position
        for run in ask(position):
            begin, end = max(run.block, reached), min(run.block + run.blocks, blocks)
            if end <= begin:
                continue
            if begin > reached:
                found.append(_extent(reached, begin, Kind.DATA, block_size))
            found.append(_extent(begin, end, Kind.DATA if run.mapped else Kind.ZERO, block_size))
            reached = end
        if reached == position:
            found.append(_extent(position, blocks, Kind.DATA, block_size))
            break
        position = reached
    return normal(found)


def _extent(first: int, end: int, kind: Kind, block_size: int) -> Extent:
    return Extent(first * block_size, (end - first) * block_size, kind)
