"""Where volumes appear in a mounted restore point."""

import pytest

from mounter.fuse.layout import Layout, directories, places
from mounter.ports import Volume


def volume(device: str, mountpoint: str | None = None, problem: str | None = None) -> Volume:
    return Volume(device, device, "ext4", "", "", 1, mountpoint, problem)


LINUX = [
    volume("/dev/sda1", "/boot/efi"),
    volume("/dev/sda2", "/"),
    volume("/dev/guests/data", "/boot"),
    volume("/dev/sdb", None),
    volume("/dev/sdc", "/lost", "damaged"),
]
WINDOWS = [volume("/dev/sda1"), volume("/dev/sda2", "C:"), volume("/dev/sdb1", "D:")]


def shown(volumes: list[Volume], layout: Layout) -> list[tuple[str, str]]:
    return [(place.volume.device, place.path) for place in places(volumes, layout)]


def test_a_linux_guest_has_its_own_tree_parents_first_and_nothing_that_it_does_not_mount() -> None:
    assert shown(LINUX, Layout.TREE) == [
        ("/dev/sda2", "/"),
        ("/dev/guests/data", "/boot"),
        ("/dev/sda1", "/boot/efi"),
    ]


def test_a_windows_guest_has_its_drives_and_the_rest_below_volumes() -> None:
    assert shown(WINDOWS, Layout.TREE) == [
        ("/dev/sda2", "/C"),
        ("/dev/sdb1", "/D"),
        ("/dev/sda1", "/volumes/sda1"),
    ]


def test_side_by_side_every_volume_that_can_be_read_has_a_directory() -> None:
    assert shown(LINUX, Layout.VOLUMES) == [
        ("/dev/sda1", "/sda1"),
        ("/dev/sda2", "/sda2"),
        ("/dev/guests/data", "/guests-data"),
        ("/dev/sdb", "/sdb"),
    ]


def test_without_a_system_the_tree_is_the_volumes() -> None:
    assert shown([volume("/dev/sda"), volume("/dev/sdb")], Layout.TREE) == [("/dev/sda", "/sda"), ("/dev/sdb", "/sdb")]


def test_names_of_subvolumes_are_the_guests_and_cannot_leave_or_collide() -> None:
    hostile = [
        volume("btrfsvol:/dev/sda/../../etc"),
        volume("btrfsvol:/dev/sda/a/b"),
        volume("btrfsvol:/dev/sda/a-b"),
        volume("btrfsvol:/dev/sda/new\nline"),
        volume("/dev/.."),
    ]
    assert [path for _, path in shown(hostile, Layout.VOLUMES)] == [
        "/sda-..-..-etc",
        "/sda-a-b",
        "/sda-a-b-2",
        "/sda-new-line",
        "/volume",
    ]


@pytest.mark.parametrize("mountpoint", ["/../outside", "/a/./b", "/with\0zero"])
def test_a_mount_point_that_is_not_what_it_seems_is_left_out(mountpoint: str) -> None:
    assert shown([volume("/dev/sda", "/"), volume("/dev/sdb", mountpoint)], Layout.TREE) == [("/dev/sda", "/")]


def test_directories_to_make_have_their_parents_first() -> None:
    assert directories(["/volumes/sda1", "/C", "/volumes/sdb"]) == ("/volumes", "/volumes/sda1", "/C", "/volumes/sdb")
    assert directories(["/"]) == ()
