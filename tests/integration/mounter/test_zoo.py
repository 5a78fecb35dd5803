"""Every kind of container and file system in one machine, opened in one appliance; what cannot be opened says why."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mounter.export import Export, ImageToExport
from mounter.keys import Key
from mounter.ports import FileType, GuestFilesystem, Volume, VolumeState
from mounter.remote import libguestfs
from proxy.units import KiB, MiB
from tests.integration.mounter.container_zoo import ACL, KEY_FILE, NOTE, PASSPHRASE, RECOVERY, Zoo, make

TOOLS = "root nbdkit mke2fs mkntfs ntfscp sfdisk cryptsetup module:guestfs module:cryptography"
# Two starts of an appliance with ten disks: under four minutes on a busy machine without KVM.
pytestmark = [pytest.mark.tools, pytest.mark.requires(*TOOLS.split()), pytest.mark.timeout(900)]

WRONG = b"a key of another volume"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return make(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def machine(zoo: Zoo) -> Iterator[GuestFilesystem]:
    images = [ImageToExport(name, "openers:file_image", {"path": str(path)}) for name, path in zoo.images().items()]
    keys = [
        Key("", PASSPHRASE + b"\n"),
        Key("/dev/sda10", KEY_FILE),
        Key(zoo.uuids[12], WRONG),
        Key("/dev/sdb3", RECOVERY.replace("-", "").encode()),
    ]
    with Export(images) as export:
        opens = libguestfs(accelerate=False, keys=keys, open_seconds=600)
        with opens(export.served, export.directory) as opened:
            yield opened


@pytest.fixture(scope="module")
def volumes(machine: GuestFilesystem) -> dict[str, Volume]:
    return {volume.device: volume for volume in machine.volumes()}


def who(machine: GuestFilesystem, volume: Volume) -> str:
    assert volume.problem is None
    return b"".join(machine.read(volume, b"/who")).decode()


@pytest.mark.parametrize(
    ("device", "kind", "told"),
    [
        pytest.param("/dev/sda1", "ext2", "ext2", id="ext2"),
        pytest.param("/dev/sda2", "ext3", "ext3", id="ext3"),
        pytest.param("/dev/sda3", "ext4", "ext4", id="ext4"),
        pytest.param("/dev/sda4", "xfs", "xfs", id="XFS"),
        pytest.param("/dev/sda5", "vfat", "vfat", id="FAT"),
        pytest.param("/dev/sda6", "exfat", "exfat", id="exFAT"),
        pytest.param("/dev/sda7", "ntfs", "ntfs", id="NTFS"),
        pytest.param("/dev/sdb1", "ntfs", "windows", id="MBR"),
        pytest.param("/dev/sdb5", "vfat", "logical", id="MBR-logical"),
        pytest.param("/dev/sdh", "ext4", "bare", id="no-partition-table"),
        pytest.param("/dev/pair/wide", "ext4", "wide", id="LVM-over-two-disks"),
        pytest.param("/dev/pair/thin", "ext4", "thin", id="LVM-thin"),
        pytest.param("/dev/mapper/ldm_vol_Zoo-Dg0_Spanned", "ntfs", "spanned", id="LDM-over-two-disks"),
        pytest.param("/dev/mapper/ldm_vol_Zoo-Dg0_Simple", "ntfs", "simple", id="LDM"),
        pytest.param("/dev/sealed/inside", "ext4", "lvm in luks", id="LVM-in-LUKS"),
        pytest.param("/dev/mapper/opened-sdb3", "ext4", "bitlocker", id="BitLocker"),
    ],
)
def test_a_volume_is_found_by_its_device_and_read(
    device: str, kind: str, told: str, machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    volume = volumes[device]
    assert (volume.type, who(machine, volume)) == (kind, told)
    assert volume.size > 0


@pytest.mark.parametrize(("number", "told"), [(9, "luks9"), (10, "luks10")], ids=["LUKS1", "LUKS2-key-file"])
def test_an_encrypted_volume_is_opened_by_its_key_and_stands_for_its_container(
    number: int, told: str, zoo: Zoo, machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    assert who(machine, volumes[f"/dev/mapper/luks-{zoo.uuids[number]}"]) == told
    assert f"/dev/sda{number}" not in volumes


@pytest.mark.parametrize("told", ["raid1", "raid5"])
def test_an_array_over_several_disks_is_assembled(
    told: str, machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    arrays = [v for device, v in volumes.items() if device.startswith("/dev/md")]
    assert told in [who(machine, array) for array in arrays]
    assert len(arrays) == 2


def test_subvolumes_of_btrfs_are_volumes_of_their_own_and_found_once(
    machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    home, inner = (volumes[f"btrfsvol:/dev/sdc2/{path}"] for path in ("@home", "@home/inner"))
    assert (who(machine, home), who(machine, inner)) == ("home", "inner")
    walked = {device: _walked(machine, volumes[device]) for device in ("/dev/sdc2", home.device, inner.device)}
    assert walked["/dev/sdc2"] == {b"/@home", b"/who", b"/dir", b"/dir/file"}
    assert walked[home.device] == {b"/inner", b"/who"}
    assert walked[inner.device] == {b"/who"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("/dev/sdc1", "/dev/sdd1", id="XFS"),
        pytest.param("/dev/sdc2", "/dev/sdd2", id="btrfs"),
        pytest.param("/dev/sdc3", "/dev/sdd3", id="ext4"),
        pytest.param("/dev/twin/root", "/dev/twin.copy2/root", id="LVM"),
    ],
)
def test_clones_with_equal_uuids_are_both_read_and_not_mixed_up(
    first: str, second: str, machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    one, two = volumes[first], volumes[second]
    assert one.uuid == two.uuid
    assert (one.id, two.id) == (f"device:{first}", f"device:{second}")
    assert (who(machine, one)[:6], who(machine, two)[:6]) == ("first ", "second")


@pytest.mark.parametrize(
    ("device", "detail"), [("/dev/sda3", "needs_recovery"), ("/dev/sda4", "")], ids=["ext4", "XFS"]
)
def test_a_dirty_log_is_told_and_replayed(
    device: str, detail: str, machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    volume = volumes[device]
    assert volume.state is VolumeState.DIRTY
    assert detail in volume.state_detail
    assert b"".join(machine.read(volume, b"/late")) == b"in the log only"


def test_what_was_left_clean_is_told_as_clean(volumes: dict[str, Volume]) -> None:
    left = {
        device: volumes[device].state for device in ("/dev/sda1", "/dev/sda2", "/dev/sda5", "/dev/sdc1", "/dev/sdh")
    }
    assert set(left.values()) == {VolumeState.CLEAN}


def test_what_cannot_be_opened_is_listed_with_its_reason(zoo: Zoo, volumes: dict[str, Volume]) -> None:
    problems = {device: str(volume.problem) for device, volume in volumes.items() if volume.problem is not None}
    assert problems == {
        "/dev/sda12": "encrypted (LUKS): none of the 2 keys opens it",
        "/dev/sda13": "no file system that we know",
        "/dev/sdg1": "member of a RAID array that cannot be assembled: disks of it are missing",
        "/dev/half/torn": "logical volume that cannot be activated: disks of its volume group are missing",
    }


def test_swap_and_partitions_that_hold_no_files_are_not_listed(volumes: dict[str, Volume]) -> None:
    assert {"/dev/sda8", "/dev/sda14", "/dev/sdb2", "/dev/sdi1", "/dev/sdj1"} & volumes.keys() == set()
    assert "swap" not in {volume.type for volume in volumes.values()}


def test_entries_tell_links_devices_and_what_files_take_on_disk(
    machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    found = {e.name.decode(): e for e in machine.list_directory(volumes["/dev/sdh"], b"/kinds")}
    assert {name: (e.type, e.device) for name, e in found.items()} == {
        "file": (FileType.FILE, (0, 0)),
        "other-name": (FileType.FILE, (0, 0)),
        "sparse": (FileType.FILE, (0, 0)),
        "fifo": (FileType.FIFO, (0, 0)),
        "character": (FileType.CHARACTER_DEVICE, (1, 3)),
        "block": (FileType.BLOCK_DEVICE, (8, 300)),
    }
    assert found["file"].inode == found["other-name"].inode
    assert (found["file"].links, found["other-name"].links, found["sparse"].links) == (2, 2, 1)
    assert found["sparse"].size == MiB
    assert 0 < found["sparse"].allocated < 16 * KiB


def test_extended_attributes_and_acls_are_what_the_kernel_gives(
    machine: GuestFilesystem, volumes: dict[str, Volume]
) -> None:
    bare = volumes["/dev/sdh"]
    assert dict(machine.xattrs(bare, b"/kinds/file")) == {b"user.note": NOTE, b"system.posix_acl_access": ACL}
    assert dict(machine.xattrs(bare, b"/kinds/sparse")) == {}
    assert dict(machine.xattrs(volumes["/dev/sda5"], b"/who")) == {}


def test_no_secret_is_in_a_process_list_or_a_file_of_the_session(zoo: Zoo, machine: GuestFilesystem) -> None:
    """The worker and its appliance run now: what they were started with, and what lies in the session's directory."""
    secrets = (PASSPHRASE, RECOVERY.encode(), KEY_FILE[1:17], WRONG)
    seen = b"".join(_started_with())
    assert b"mounter.worker" in seen
    assert [secret for secret in secrets if secret in seen] == []
    directory: Path = machine._directory.parent  # type: ignore[attr-defined]
    logs = [path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.stat().st_size < 1 << 22]
    assert logs
    assert [secret for secret in secrets if any(secret in log for log in logs)] == []


def _started_with() -> Iterator[bytes]:
    for process in Path("/proc").iterdir():
        for name in ("cmdline", "environ"):
            try:
                if process.name.isdigit():
                    yield (process / name).read_bytes()
            except OSError:
                continue  # gone meanwhile


def _walked(machine: GuestFilesystem, volume: Volume) -> set[bytes]:
    entries = [entry for batch in machine.walk(volume) for entry in batch]
    assert all(entry.type in (FileType.FILE, FileType.DIRECTORY) for entry in entries)
    assert len(entries) == len({entry.path for entry in entries})
    return {entry.path for entry in entries}
