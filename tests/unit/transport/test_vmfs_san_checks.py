"""The hypervisor's account of allocated areas against our map.

::

    ours      |DDDD|....|DDDD|         told      |####|            fine: less than ours
                                                  |   ##|          refused: a hole for us
"""

import pytest

from proxy.errors import TransportRefused
from proxy.extents import Extent, Kind
from proxy.transport.vmfs_san.checks import area_block, check_allocation
from proxy.units import KiB, MiB

SIZE = 8 * MiB + 512
OURS = [Extent(0, 2 * MiB), Extent(2 * MiB, 4 * MiB, Kind.ZERO), Extent(6 * MiB, SIZE - 6 * MiB)]


@pytest.mark.parametrize(
    "told",
    [
        [],
        [Extent(0, MiB), Extent(MiB, MiB)],
        [Extent(7 * MiB, SIZE - 7 * MiB)],
        [Extent(7 * MiB, 2 * MiB)],
        [Extent(2 * MiB - 64 * KiB, 64 * KiB)],
        [Extent(0, 512, Kind.ZERO)],
    ],
    ids=["nothing", "touching", "to-the-end", "over-the-end", "edge", "whatever-its-kind"],
)
def test_areas_within_our_data_are_fine(told: list[Extent]) -> None:
    check_allocation(told, OURS, SIZE, "scsi0:0")


@pytest.mark.parametrize(
    "told",
    [[Extent(3 * MiB, 64 * KiB)], [Extent(0, SIZE)], [Extent(MiB, 2 * MiB)], [Extent(0, MiB), Extent(5 * MiB, MiB)]],
    ids=["in-the-hole", "all", "into-the-hole", "second-area"],
)
def test_an_area_that_is_zero_for_us_is_told_with_its_place(told: list[Extent]) -> None:
    with pytest.raises(TransportRefused, match=r"\d+ bytes in 1 areas, the first \d+ at \d+") as refused:
        check_allocation(told, OURS, SIZE, "scsi0:0")
    assert refused.value.reason == "allocation-differs"


@pytest.mark.parametrize(
    ("areas", "block"),
    [
        ([], MiB),
        ([Extent(0, SIZE)], MiB),
        ([Extent(0, 4 * MiB)], MiB),
        ([Extent(MiB, 2 * MiB)], MiB),
        ([Extent(256 * KiB, 256 * KiB)], 256 * KiB),
        ([Extent(64 * KiB, SIZE - 64 * KiB)], 64 * KiB),
        ([Extent(4096, 4096)], 64 * KiB),
    ],
    ids=["none", "all", "large", "file-block", "256K", "ends-with-the-disk", "smallest"],
)
def test_the_block_of_a_report_is_that_of_its_bounds(areas: list[Extent], block: int) -> None:
    assert area_block(areas, SIZE) == block


def test_an_empty_disk_has_nothing_to_compare() -> None:
    check_allocation([], [], 0, "scsi0:0")
