import pytest

from mounter.ports import FoundVolume, Volume, identified, shown


@pytest.mark.parametrize(
    ("mountpoint", "path", "expected"),
    [
        ("/", b"/etc/x", b"/etc/x"),
        ("/", b"/", b"/"),
        ("/data", b"/x\xff", b"/data/x\xff"),
        ("/data", b"/", b"/data"),
        ("C:", b"/Users", b"C:/Users"),
        ("C:", b"/", b"C:"),
        (None, b"/x", b"/dev/sdb:/x"),
        (None, b"/", b"/dev/sdb:"),
    ],
)
def test_a_path_is_shown_as_the_guest_names_it(mountpoint: str | None, path: bytes, expected: bytes) -> None:
    assert Volume("v", "/dev/sdb", "ext4", "", "", 0, mountpoint).guest_path(path) == expected


def test_volumes_are_known_by_uuid_and_clones_by_device() -> None:
    found = [
        FoundVolume("/dev/sda1", "ext4", "", "u1", 0),
        FoundVolume("/dev/sdb1", "ext4", "", "u2", 0),
        FoundVolume("/dev/sdc1", "ext4", "", "u2", 0),
        FoundVolume("/dev/sdd", "vfat", "", "", 0),
        FoundVolume("btrfsvol:/dev/sde/a", "btrfs", "", "u5", 0, name="a"),
        FoundVolume("btrfsvol:/dev/sde/b", "btrfs", "", "u5", 0, name="b"),
    ]
    assert [v.id for v in identified(found)] == [
        "u1",
        "device:/dev/sdb1",
        "device:/dev/sdc1",
        "device:/dev/sdd",
        "u5/a",
        "u5/b",
    ]


def test_hostile_names_are_harmless_on_a_terminal() -> None:
    assert shown(b"/a\x1b[2J\n\xff\xc3\xa9") == "/a\\x1b[2J\\n\\xffé"
