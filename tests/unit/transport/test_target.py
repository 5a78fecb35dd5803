"""Which machine's disk lies where: the rules, over made-up fabrics. Real arrays and the writing are tested elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import RestoreRefused
from proxy.model import DeviceAddress, FileAddress, Location, LunAddress, NbdAddress, VmdkAddress
from proxy.ports import DiskPlace
from proxy.transport.iscsi import Identity, LoginFailed, LoginReason
from proxy.transport.raw import SharedFiles
from proxy.transport.san import Access, SanFabric, SanTarget
from proxy.transport.target import SiteTargets

HOSTS, RESTORE = "iqn.2026-01.org.example:hosts", "iqn.2026-01.org.example:restore"
PORTAL, OTHER_PORTAL = "192.0.2.1:3260", "198.51.100.1:3260"
NAA1, NAA2 = "naa.600a0b80000000000000000000000001", "naa.600a0b80000000000000000000000002"
ONE, TWO, NAMELESS = Identity((NAA1,)), Identity((NAA2,)), Identity(())
LOCAL1, LOCAL2 = Identity((), ("t10.IET_____00010001",)), Identity((), ("t10.IET_____00010002",))
MPATH = DeviceAddress("/dev/mapper/mpatha")
PLACE = DiskPlace(target=RESTORE, lun=9)

Units = Mapping[int, Identity]


def backup(*presents: str, portal: str = PORTAL) -> SanTarget:
    return SanTarget("iqn.2026-01.org.example:backup", (portal,), "iqn.x:proxy", presents=presents)


def restore(*presents: str) -> SanTarget:
    return SanTarget(RESTORE, (PORTAL,), "iqn.x:proxy", presents=presents, access=Access.RESTORE)


def site(shown: Mapping[SanTarget, Units | LoginFailed]) -> SiteTargets:
    def scan(target: SanTarget) -> Units:
        answer = shown[target]
        if isinstance(answer, LoginFailed):
            raise answer
        return answer

    return SiteTargets(SanFabric(tuple(shown), scan=scan), SharedFiles([]))


def told(targets: SiteTargets, disk: Location, place: DiskPlace = PLACE) -> str:
    holds, unknown = targets.holds(place, disk), targets.cannot_tell(place, disk)
    assert not (holds and unknown)
    return "there" if holds else "unknown" if unknown else "elsewhere"


@pytest.mark.parametrize(
    ("seen", "unit", "result"),
    [
        (ONE, ONE, "there"),
        (ONE, Identity((NAA2, NAA1)), "there"),
        (ONE, TWO, "elsewhere"),
        (LOCAL1, LOCAL1, "there"),
        (LOCAL1, LOCAL2, "unknown"),
        (ONE, LOCAL1, "unknown"),
        (NAMELESS, NAMELESS, "unknown"),
    ],
)
def test_a_disk_that_only_a_backup_target_presents_is_compared_by_its_names(
    seen: Identity, unit: Identity, result: str
) -> None:
    targets = site({backup(HOSTS): {3: seen}, restore(): {9: unit}})
    assert told(targets, LunAddress(HOSTS, 3)) == result


def test_local_names_mean_the_same_unit_only_within_one_array() -> None:
    targets = site({backup(HOSTS, portal=OTHER_PORTAL): {3: LOCAL1}, restore(): {9: LOCAL1}})
    assert told(targets, LunAddress(HOSTS, 3)) == "unknown"


@pytest.mark.parametrize("unit", [ONE, LOCAL1, NAMELESS])
def test_numbers_tell_where_the_restore_target_presents_the_hosts_target(unit: Identity) -> None:
    targets = site({restore(HOSTS): {9: unit, 3: TWO}})
    assert told(targets, LunAddress(HOSTS, 9)) == "there"
    assert told(targets, LunAddress(RESTORE, 9)) == "there"
    assert told(targets, LunAddress(HOSTS, 3)) == "elsewhere"
    assert told(targets, LunAddress(HOSTS, 4)) == "elsewhere"
    assert told(targets, LunAddress(HOSTS, 9), DiskPlace(target=HOSTS, lun=9)) == "there"


def test_a_name_that_a_backup_target_gives_counts_against_a_number_that_says_otherwise() -> None:
    targets = site({backup(HOSTS): {3: ONE}, restore(HOSTS): {9: ONE, 3: TWO}})
    assert told(targets, LunAddress(HOSTS, 3)) == "there"


def test_a_lun_that_no_target_presents_is_told_by_its_world_wide_name_alone() -> None:
    targets = site({restore(): {9: ONE}})
    assert told(targets, LunAddress(HOSTS, 3)) == "unknown"
    assert told(targets, LunAddress(HOSTS, 3, name=NAA1)) == "there"
    assert told(targets, LunAddress(HOSTS, 3, name=NAA2)) == "elsewhere"
    assert told(targets, LunAddress(HOSTS, 3, name=LOCAL2.name)) == "unknown"


def test_a_block_device_is_told_by_its_world_wide_name_alone() -> None:
    targets = site({backup(HOSTS): {3: TWO}, restore(HOSTS): {9: ONE}})
    assert told(targets, DeviceAddress("/dev/disk/by-id/wwn-0x1", NAA1)) == "there"
    assert told(targets, DeviceAddress("/dev/disk/by-id/wwn-0x2", NAA2)) == "elsewhere"
    assert told(targets, MPATH) == "unknown"


def test_a_disk_on_a_datastore_lies_on_every_lun_of_it() -> None:
    targets = site({backup(HOSTS): {3: TWO}, restore(HOSTS): {9: ONE}})
    padded = "t10.ATA_____DISK_0001___________"
    for devices, result in (
        ((NAA1,), "there"),
        ((NAA2, NAA1), "there"),
        ((NAA2,), "elsewhere"),
        ((), "elsewhere"),
        ((padded, NAA2), "elsewhere"),
    ):
        assert told(targets, VmdkAddress("ds", "vm/vm.vmdk", devices=devices)) == result
    padded_unit = site({restore(HOSTS): {9: Identity(("t10.ATA_____DISK_0001",))}})
    assert told(padded_unit, VmdkAddress("ds", "vm/vm.vmdk", devices=(padded,))) == "there"
    assert told(site({restore(): {9: NAMELESS}}), VmdkAddress("ds", "vm/vm.vmdk", devices=(NAA1,))) == "unknown"


def test_files_and_exports_are_not_luns() -> None:
    targets = site({restore(HOSTS): {9: ONE}})
    assert told(targets, FileAddress("/images/a")) == "elsewhere"
    assert told(targets, NbdAddress("nbd://h/a")) == "elsewhere"


def test_a_backup_target_that_does_not_answer_makes_a_lun_unknown_and_is_asked_once_for_all_disks() -> None:
    asked: list[str] = []
    failed = LoginFailed("iqn.x", PORTAL, LoginReason.UNREACHABLE, "no answer within 5 s")
    dead, place = backup(HOSTS), restore()

    def scan(target: SanTarget) -> Units:
        if target is dead:
            asked.append(target.iqn)
            raise failed
        return {9: ONE}

    targets = SiteTargets(SanFabric([dead, place], scan=scan), SharedFiles([]))
    assert {told(targets, LunAddress(HOSTS, number)) for number in range(20)} == {"unknown"}
    assert len(asked) == 1


def test_a_place_that_restores_cannot_write_to_is_a_refusal_and_no_answer() -> None:
    for targets in (site({}), site({backup(HOSTS): {9: ONE}}), site({restore(HOSTS): {1: ONE}})):
        for ask in (targets.holds, targets.cannot_tell):
            with pytest.raises(RestoreRefused):
                ask(DiskPlace(target=HOSTS, lun=9), LunAddress(HOSTS, 9))


def test_a_file_is_known_by_each_of_its_paths(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "second").hardlink_to(tmp_path / "a")
    (tmp_path / "b").touch()
    targets, place = site({}), DiskPlace(path=str(tmp_path / "a"))
    for name in ("a", "link", "second", "./x/../a"):
        assert told(targets, FileAddress(f"{tmp_path}/{name}"), place) == "there"
    assert told(targets, FileAddress(str(tmp_path / "b")), place) == "elsewhere"
    assert told(targets, MPATH, place) == "elsewhere"
    assert told(targets, LunAddress(HOSTS, 1), place) == "elsewhere"
    new = DiskPlace(path=str(tmp_path / "new"))
    assert told(targets, FileAddress(f"{tmp_path}/x/../new"), new) == "there"
