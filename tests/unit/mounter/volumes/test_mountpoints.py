"""Which volume the guest has where, from its own files."""

import struct
import uuid
from collections.abc import Mapping

import pytest

from mounter.ports import FileType, FoundVolume
from mounter.volumes.mountpoints import Inspection, PartitionFacts, inspect
from tests.unit.mounter.hive import hive, number, text

Contents = Mapping[str, Mapping[str, bytes | str]]
"""By device and path: bytes of files, targets of links. Directories above them are there."""


class Tree:
    """``Files`` over values."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def type(self, device: str, path: str) -> FileType | None:
        there = self._contents.get(device, {})
        if path in there:
            return FileType.FILE if isinstance(there[path], bytes) else FileType.SYMLINK
        below = path.rstrip("/") + "/"
        return FileType.DIRECTORY if path == "/" or any(name.startswith(below) for name in there) else None

    def read(self, device: str, path: str, offset: int, length: int) -> bytes:
        content = self._contents[device][path]
        assert isinstance(content, bytes)
        return content[offset : offset + length]

    def link(self, device: str, path: str) -> str:
        target = self._contents[device][path]
        assert isinstance(target, str)
        return target


def volume(device: str, kind: str = "ext4", *, label: str = "", own: str = "", name: str = "") -> FoundVolume:
    return FoundVolume(device, kind, label, own, 1 << 30, name=name)


def linux(fstab: str, **more: bytes | str) -> dict[str, bytes | str]:
    return {"/etc/fstab": fstab.encode(), "/bin": "usr/bin", "/usr/bin/env": b"", **more}


def places(found: Inspection) -> dict[str, str]:
    assert found.unsure == ""
    return found.mountpoints


@pytest.mark.parametrize(
    ("source", "device"),
    [
        ("UUID=AAAA-BBBB", "/dev/sdb1"),
        ('UUID="aaaa-bbbb"', "/dev/sdb1"),
        ("LABEL=DATA", "/dev/sdb2"),
        ("PARTUUID=CAFE1234-03", "/dev/sdb3"),
        ("/dev/disk/by-uuid/aaaa-bbbb", "/dev/sdb1"),
        ("/dev/disk/by-label/two\\x20words", "/dev/sdc"),
        ("LABEL=two\\040words", "/dev/sdc"),
        ("/dev/vdb1", "/dev/sdb1"),
        ("/dev/xvdb2", "/dev/sdb2"),
        ("/dev/hdc", "/dev/sdc"),
        ("/dev/nvme1n1p3", "/dev/sdb3"),
        ("/dev/mapper/vol--group-home--lv", "/dev/vol-group/home-lv"),
        ("/dev/vol-group/home-lv", "/dev/vol-group/home-lv"),
        ("UUID=not-there", None),
        ("/dev/disk/by-id/ata-x", None),
        ("server:/export", None),
    ],
)
def test_each_way_to_name_a_volume_in_fstab(source: str, device: str | None) -> None:
    volumes = [
        volume("/dev/sda1"),
        volume("/dev/sdb1", "vfat", own="AAAA-BBBB"),
        volume("/dev/sdb2", label="DATA"),
        volume("/dev/sdb3"),
        volume("/dev/sdc", label="two words"),
        volume("/dev/vol-group/home-lv"),
    ]
    partitions = {"/dev/sdb3": PartitionFacts("cafe1234-03", 0xCAFE1234, 0)}
    found = inspect(volumes, partitions, Tree({"/dev/sda1": linux(f"# comment\n{source} /data auto defaults 0 2\n")}))
    assert places(found) == {"/dev/sda1": "/"} | ({} if device is None else {device: "/data"})


def test_lines_that_mount_nothing_are_left_out_and_the_first_place_counts() -> None:
    fstab = (
        "LABEL=a none swap sw\nLABEL=b /x swap\n#LABEL=c /c\n\nLABEL=d\nLABEL=e /e/../f//\nLABEL=e /second # again\n"
    )
    volumes = [volume("/dev/sda"), *(volume(f"/dev/sd{x}", label=x) for x in "bcde")]
    found = inspect(volumes, {}, Tree({"/dev/sda": linux(fstab)}))
    assert places(found) == {"/dev/sda": "/", "/dev/sde": "/f"}


def test_subvolumes_are_told_apart_by_their_option() -> None:
    volumes = [
        volume("btrfsvol:/dev/sda/root", "btrfs", own="u", name="root"),
        volume("btrfsvol:/dev/sda/home", "btrfs", own="u", name="home"),
    ]
    fstab = (
        "UUID=u / btrfs subvol=/root,compress 0 0\nUUID=u /home btrfs subvol=home 0 0\nUUID=u /old btrfs subvol=gone\n"
    )
    found = inspect(volumes, {}, Tree({volumes[0].device: linux(fstab)}))
    assert places(found) == {volumes[0].device: "/", volumes[1].device: "/home"}


def test_of_two_systems_in_one_machine_the_first_has_the_names() -> None:
    tree = Tree({"/dev/sda": linux("/dev/sdc /data ext4"), "/dev/sdb": linux("/dev/sdd /data ext4")})
    found = inspect([volume(f"/dev/sd{x}") for x in "abcd"], {}, tree)
    assert places(found) == {"/dev/sda": "/", "/dev/sdc": "/data"}
    assert [s.root for s in found.systems] == ["/dev/sda", "/dev/sdb"]


def test_what_runs_there_is_told_by_its_own_files() -> None:
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62)
    root = linux(
        "",
        **{
            "/etc/os-release": "../usr/lib/os-release",
            "/usr/lib/os-release": b"NAME=x\nID=ubuntu\nVERSION_ID=\"22.04\"\nPRETTY_NAME='Ubuntu 22.04'\n",
            "/etc/hostname": b"web1\n",
            "/usr/bin/bash": "dash",
            "/usr/bin/dash": elf,
        },
    )
    (system,) = inspect([volume("/dev/sda")], {}, Tree({"/dev/sda": root})).systems
    assert (system.type, system.distribution, system.product) == ("linux", "ubuntu", "Ubuntu 22.04")
    assert (system.version, system.hostname, system.architecture) == ("22.4", "web1", "x86_64")
    assert (system.root, system.packages_format) == ("/dev/sda", "deb")


def test_links_that_lead_in_circles_or_out_are_followed_no_further() -> None:
    root = linux(
        "", **{"/etc/os-release": "os-release", "/etc/hostname": "../../../../../etc/own", "/etc/own": b"inside"}
    )
    (system,) = inspect([volume("/dev/sda")], {}, Tree({"/dev/sda": root})).systems
    assert (system.distribution, system.hostname) == ("", "inside")


def test_data_disks_have_no_system_and_no_place() -> None:
    found = inspect([volume("/dev/sda"), volume("/dev/sdb", "ntfs")], {}, Tree({"/dev/sda": {"/etc/fstab": b""}}))
    assert (found.systems, found.mountpoints, found.unsure) == ([], {}, "")


OWN = uuid.UUID("0d0a0d0a-1111-2222-3333-444444444444")
CONFIG = "/Windows/System32/config"


def windows(devices: Mapping[str, tuple[int, bytes]]) -> dict[str, bytes | str]:
    system = {
        "Select": {"Current": number(1)},
        "MountedDevices": dict(devices),
        "ControlSet001": {"Services": {"Tcpip": {"Parameters": {"Hostname": text("WIN1")}}}},
    }
    version = {
        "ProductName": text("Windows Server 2022"),
        "CurrentMajorVersionNumber": number(10),
        "CurrentMinorVersionNumber": number(0),
    }
    software = {"Microsoft": {"Windows NT": {"CurrentVersion": version}}}
    cmd = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664)
    return {
        f"{CONFIG}/SYSTEM": hive(system),
        f"{CONFIG}/SOFTWARE": hive(software),
        "/Windows/System32/cmd.exe": cmd,
    }


def test_drive_letters_come_from_the_registry() -> None:
    devices = {
        "\\DosDevices\\C:": (3, struct.pack("<IQ", 0xCAFE1234, 1 << 20)),
        "\\DosDevices\\E:": (3, b"DMIO:ID:" + OWN.bytes_le),
        "\\DosDevices\\Z:": (3, struct.pack("<IQ", 1, 2)),
        "\\??\\Volume{x}": (3, struct.pack("<IQ", 0xCAFE1234, 1 << 20)),
    }
    partitions = {
        "/dev/sda1": PartitionFacts("cafe1234-01", 0xCAFE1234, 1 << 20),
        "/dev/sdb2": PartitionFacts(str(OWN), 0, 1 << 20),
    }
    volumes = [volume("/dev/sda1", "ntfs"), volume("/dev/sdb2", "ntfs"), volume("/dev/sdc", "ntfs")]
    found = inspect(volumes, partitions, Tree({"/dev/sda1": windows(devices)}))
    assert places(found) == {"/dev/sda1": "C:", "/dev/sdb2": "E:"}
    (system,) = found.systems
    assert (system.type, system.product, system.version) == ("windows", "Windows Server 2022", "10.0")
    assert (system.hostname, system.architecture) == ("WIN1", "x86_64")


def test_a_windows_whose_registry_cannot_be_read_is_on_c_and_says_that_it_is_not_sure() -> None:
    broken = {**windows({}), f"{CONFIG}/SYSTEM": b"rubbish"}
    found = inspect([volume("/dev/sda1", "ntfs")], {}, Tree({"/dev/sda1": broken}))
    assert found.mountpoints == {"/dev/sda1": "C:"}
    assert "registry" in found.unsure
