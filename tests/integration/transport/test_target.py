"""Restoring to real LUNs: what is refused before the first write, what is on the LUN afterwards, what stays unallocated."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy import command
from proxy.errors import RestoreRefused, WriteFailed
from proxy.model import LunAddress
from proxy.ports import DiskPlace
from proxy.transport.iscsi import Limits, RestoreToken, vpd
from proxy.transport.lun_target import LunTarget
from proxy.transport.raw import SharedFiles
from proxy.transport.san import Access, SanFabric
from proxy.transport.target import SiteTargets, open_lun_target
from proxy.units import KiB, MiB
from tests.integration.transport.test_iscsi_session import AnotherHost
from tests.integration.transport.tgt_array import BACKUP, HOSTS, RESTORE, Array

pytestmark = [pytest.mark.tools, pytest.mark.requires("tgtd", "root")]

SIZE = 32 * MiB
QUICK = Limits(timeout=5, login_timeout=2)
PLACE, ADDRESS = DiskPlace(target=HOSTS, lun=1), LunAddress(HOSTS, 1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty LUN."""
    path = tmp_path / "empty.img"
    with path.open("wb") as f:
        f.truncate(SIZE)
    return path


@pytest.fixture
def fabric(served: Array, tmp_path: Path) -> SanFabric:
    backup = served.san_target(BACKUP, tmp_path / "secret")
    return SanFabric([backup, served.san_target(RESTORE, tmp_path / "unused", Access.RESTORE)], QUICK)


@pytest.fixture
def targets(fabric: SanFabric, tmp_path: Path) -> SiteTargets:
    return SiteTargets(fabric, SharedFiles([tmp_path]))


def allocated(path: Path) -> int:
    """Bytes that the file takes; after fsync, for delayed allocation takes more at first."""
    with path.open("rb") as f:
        os.fsync(f.fileno())
    return path.stat().st_blocks * 512


def test_what_was_written_is_on_the_lun_and_zeroes_take_no_space(targets: SiteTargets, image: Path) -> None:
    data = os.urandom(3 * MiB)
    with targets.open(PLACE, SIZE, overwrite=False) as target:
        assert (target.size, target.identity) == (SIZE, "t10.lanfree-lun-0001")
        target.write(MiB, memoryview(data))
        target.zero(8 * MiB, 24 * MiB)
        target.zero(2 * MiB, MiB)
        target.flush()
    expected = bytearray(SIZE)
    expected[MiB : 4 * MiB] = data
    expected[2 * MiB : 3 * MiB] = bytes(MiB)
    assert image.read_bytes() == expected
    assert allocated(image) == 2 * MiB
    with targets.read_back(PLACE, SIZE) as source:
        back = bytearray(SIZE)
        source.read_into(0, memoryview(back))
    assert back == expected


def test_ranges_that_do_not_fit_the_luns_blocks_are_written_and_zeroed_exactly(
    targets: SiteTargets, image: Path
) -> None:
    image.write_bytes(b"\xaa" * SIZE)
    with targets.open(PLACE, SIZE - 100, overwrite=True) as target:
        target.write(1000, memoryview(b"x" * 3000))
        target.zero(10_001, 5000)
        target.zero(20_001, 7)
        target.write(SIZE - 150, memoryview(b"y" * 50))
        target.flush()
    expected = bytearray(b"\xaa" * SIZE)
    expected[1000:4000] = b"x" * 3000
    expected[10_001:15_001] = bytes(5000)
    expected[20_001:20_008] = bytes(7)
    expected[SIZE - 150 : SIZE - 100] = b"y" * 50
    assert image.read_bytes() == expected


Change = Callable[[LunTarget], None]


def no_write_same(target: LunTarget) -> None:
    """As a device that knows UNMAP only."""
    target._provisioning = vpd.Provisioning(unmap=True, write_same=False)
    target._methods = list(target._zero_methods())
    assert len(target._methods) == 3


def coarse_unmap(target: LunTarget) -> None:
    """As a device that deallocates in pieces of 64 KiB, shifted by 4 KiB."""
    no_write_same(target)
    target._lun.block_limits = vpd.BlockLimits(unmap=128, unmap_descriptors=1, unmap_granularity=128, unmap_alignment=8)


def not_thin(target: LunTarget) -> None:
    """As a device that never deallocates."""
    target._methods = target._methods[-2:]


def plain_writes(target: LunTarget) -> None:
    """As a device that knows WRITE(16) and nothing else."""
    target._methods = target._methods[-1:]


@pytest.mark.parametrize(
    ("change", "left"),
    [(lambda _: None, 0), (no_write_same, 0), (coarse_unmap, 128 * KiB), (not_thin, 4 * MiB), (plain_writes, 4 * MiB)],
    ids=["WRITE SAME with UNMAP", "UNMAP", "UNMAP in granules", "WRITE SAME", "WRITE"],
)
def test_every_way_to_zero_gives_zeroes_and_the_better_ones_free_the_space(
    fabric: SanFabric, image: Path, change: Change, left: int
) -> None:
    image.write_bytes(b"\xaa" * 8 * MiB + bytes(SIZE - 8 * MiB))
    unit = fabric.resolve(ADDRESS, Access.RESTORE)
    with open_lun_target(fabric, unit, RestoreToken(unit.identity.name, SIZE, overwrite=True)) as target:
        before = allocated(image)
        change(target)
        target.zero(2 * MiB, 4 * MiB)
        target.flush()
    assert image.read_bytes() == b"\xaa" * 2 * MiB + bytes(4 * MiB) + b"\xaa" * 2 * MiB + bytes(SIZE - 8 * MiB)
    assert before - 4 * MiB <= allocated(image) <= before - 4 * MiB + left


def test_a_lun_with_somebodys_data_is_refused_unless_the_person_said_that_it_may_go(
    targets: SiteTargets, image: Path
) -> None:
    command.run(["mke2fs", "-q", "-F", image], timeout=30)
    with pytest.raises(RestoreRefused, match="ext file system") as refused:
        targets.open(PLACE, SIZE, overwrite=False)
    assert "--overwrite" in refused.value.hint
    targets.open(PLACE, SIZE, overwrite=True).close()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (["mkswap", "-q"], "swap"),
        (["qemu-img", "create", "-q", "-f", "qcow2"], "qcow2"),
        (["mkntfs", "-q", "-F", "-s", "512"], "NTFS"),
    ],
    ids=["swap", "qcow2", "ntfs"],
)
def test_signatures_that_real_tools_write_are_recognised(
    targets: SiteTargets, image: Path, make: list[str], found: str, requires: Callable[..., None]
) -> None:
    requires(make[0])
    # conv=notrunc in effect: the LUN keeps its size whatever the tool would make of the file
    command.run([*make, image, *(["16M"] if make[0] == "qemu-img" else [])], timeout=60, check=make[0] != "mkntfs")
    os.truncate(image, SIZE)
    with pytest.raises(RestoreRefused, match=found):
        targets.open(PLACE, SIZE, overwrite=False)


def test_the_backup_header_of_a_partition_table_is_enough_for_a_refusal(targets: SiteTargets, image: Path) -> None:
    command.run(["sfdisk", "-q", image], stdin=b"label: gpt\n2048,8192\n", timeout=20)
    with pytest.raises(RestoreRefused, match="GPT"):
        targets.open(PLACE, SIZE, overwrite=False)
    with image.open("r+b") as f:
        f.write(bytes(MiB))  # as somebody who wiped the beginning only
    with pytest.raises(RestoreRefused, match="backup"):
        targets.open(PLACE, SIZE, overwrite=False)


def test_a_lun_that_is_too_small_is_refused(targets: SiteTargets) -> None:
    with pytest.raises(RestoreRefused, match="the disk needs"):
        targets.open(PLACE, SIZE + 512, overwrite=True)


def test_a_write_protected_lun_is_refused_before_the_first_write(served: Array, targets: SiteTargets) -> None:
    params = ("--op", "update", "--tid", "3", "--lun", "1", "--params", "readonly=1")
    served.admin("--mode", "logicalunit", *params)
    with pytest.raises(RestoreRefused, match="write-protected"):
        targets.open(PLACE, SIZE, overwrite=True)


def test_a_lun_that_becomes_read_only_fails_the_write(served: Array, targets: SiteTargets) -> None:
    with targets.open(PLACE, SIZE, overwrite=True) as target:
        served.admin("--mode", "logicalunit", "--op", "update", "--tid", "3", "--lun", "1", "--params", "readonly=1")
        with pytest.raises(WriteFailed, match="DATA PROTECT"):
            target.write(0, memoryview(bytes(512)))


def test_a_backup_target_is_never_written_to(fabric: SanFabric) -> None:
    unit = fabric.resolve(ADDRESS)
    assert unit.target.access is Access.BACKUP
    with pytest.raises(RestoreRefused, match="for backups"):
        open_lun_target(fabric, unit, RestoreToken(unit.identity.name, SIZE, overwrite=True))


def test_a_site_without_a_restore_target_has_no_place_to_write(served: Array, tmp_path: Path) -> None:
    fabric = SanFabric([served.san_target(BACKUP, tmp_path / "secret")], QUICK)
    with pytest.raises(RestoreRefused, match="none of 1 configured targets"):
        SiteTargets(fabric, SharedFiles([])).open(PLACE, SIZE, overwrite=True)


def test_another_hosts_persistent_reservation_is_a_refusal(served: Array, targets: SiteTargets) -> None:
    key = (0x1234).to_bytes(8, "big")
    host = AnotherHost(served, RESTORE)
    try:
        register = bytes([0x5F, 0x00, 0, 0, 0, 0, 0, 0, 24, 0])
        reserve = bytes([0x5F, 0x01, 0x01, 0, 0, 0, 0, 0, 24, 0])  # write exclusive
        assert host.does(1, register, bytes(8) + key + bytes(8)).good
        assert host.does(1, reserve, key + bytes(16)).good
        with pytest.raises(RestoreRefused, match=r"persistent reservation \(write exclusive, key 0x0000000000001234\)"):
            targets.open(PLACE, SIZE, overwrite=True)
    finally:
        host.close()


def test_a_token_for_another_unit_opens_nothing(fabric: SanFabric) -> None:
    unit = fabric.resolve(ADDRESS, Access.RESTORE)
    for name in ("t10.lanfree-lun-0002", ""):
        with pytest.raises(RestoreRefused, match="the restore named"):
            open_lun_target(fabric, unit, RestoreToken(name, SIZE, overwrite=True))


def test_a_unit_that_was_exchanged_after_it_was_found_is_not_written_to(
    served: Array, fabric: SanFabric, tmp_path: Path
) -> None:
    unit = fabric.resolve(ADDRESS, Access.RESTORE)
    other = tmp_path / "other.img"
    other.write_bytes(bytes(SIZE))
    served.unmap_lun(3, 1)
    served.lun(3, 1, other, "lanfree-lun-0002")
    with pytest.raises(RestoreRefused, match="lanfree-lun-0002"):
        open_lun_target(fabric, unit, RestoreToken(unit.identity.name, SIZE, overwrite=True))


def test_a_failed_opening_leaves_the_lun_as_it_was(targets: SiteTargets, image: Path) -> None:
    command.run(["mke2fs", "-q", "-F", image], timeout=30)
    before = image.read_bytes()
    with pytest.raises(RestoreRefused):
        targets.open(PLACE, SIZE, overwrite=False)
    targets.open(PLACE, SIZE, overwrite=True).close()
    assert image.read_bytes() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_opening_sends_no_writing_command(served: Array, targets: SiteTargets, overwrite: bool) -> None:
    with targets.open(PLACE, SIZE, overwrite=overwrite) as target:  # tgtd counts for as long as the session lives
        assert served.counted(3, 1)[1:] == (0, 0)
        target.write(0, memoryview(b"x" * 512))
        assert served.counted(3, 1)[1:] == (512, 1)


def test_writes_from_many_threads_all_arrive(targets: SiteTargets, image: Path) -> None:
    data = os.urandom(SIZE)
    with targets.open(PLACE, SIZE, overwrite=False) as target, ThreadPoolExecutor(4) as pool:
        pieces = range(0, SIZE, MiB)
        assert list(pool.map(lambda at: target.write(at, memoryview(data)[at : at + MiB]), pieces)) == [None] * 32
        target.flush()
    assert image.read_bytes() == data


def test_sizes_are_told_by_the_device_and_not_by_the_token(targets: SiteTargets) -> None:
    with targets.open(PLACE, MiB, overwrite=False) as target:
        assert target.size == MiB
        with pytest.raises(WriteFailed, match="leaves"):
            target.write(MiB, memoryview(bytes(512)))
        with pytest.raises(WriteFailed, match="leaves"):
            target.zero(MiB - 512, 1024)
    with pytest.raises(WriteFailed, match="closed"):
        target.write(0, memoryview(bytes(512)))
