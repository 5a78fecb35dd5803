"""What the fast path does by itself: whom it refuses, what it reads, and what it never lists."""

import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mounter.choose import Chosen, available, best, directly
from mounter.export import Export, ImageToExport
from mounter.ports import FileType, GuestFilesystem, VolumeState
from mounter.tsk.filesystem import TskFilesystem
from mounter.tsk.image import Disk
from proxy.errors import FastPathRefused, LanfreeError, MountEnded
from proxy.model import ReasonCode
from proxy.units import MiB
from tests.integration.mounter.zoo import blank, fat, mounted, partitioned, put, tool
from tests.unit.mounter.hive import hive, number, text
from tests.unit.mounter.tsk.disks import Bytes

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires(
        "root", "nbdkit", "mke2fs", "debugfs", "mkntfs", "ntfs-3g", "mkfs.xfs", "cryptsetup", "mcopy", "module:pytsk3"
    ),
]


@contextmanager
def opened(*disks: Path) -> Iterator[GuestFilesystem]:
    images = [ImageToExport(p.stem, "openers:file_image", {"path": str(p)}) for p in disks]
    with Export(images) as export, directly(export.served, export.directory) as filesystem:
        yield filesystem


@contextmanager
def chosen(disk: Path) -> Iterator[Chosen]:
    images = [ImageToExport("vda", "openers:file_image", {"path": str(disk)})]
    with Export(images) as export, best(accelerate=False)(export.served, export.directory) as filesystem:
        assert isinstance(filesystem, Chosen)
        yield filesystem


def ext4(path: Path, *options: str) -> Path:
    tool("mke2fs", "-q", "-t", "ext4", *options, blank(path, 16 * MiB))
    return path


def needs_recovery(path: Path) -> None:
    tool("debugfs", "-w", "-R", "feature +needs_recovery", ext4(path))


def marked_dirty(path: Path) -> None:
    """The dirty bit of $Volume: offset of its flags found by the mark of its attribute (0x70, $VOLUME_INFORMATION)."""
    tool("mkntfs", "-q", "-F", "-Q", blank(path, 16 * MiB))
    data = bytearray(path.read_bytes())
    cluster = data[13] * 512
    mft = int.from_bytes(data[48:56], "little") * cluster
    record = mft + 3 * 1024
    at = record + int.from_bytes(data[record + 20 : record + 22], "little")
    while int.from_bytes(data[at : at + 4], "little") != 0x70:
        at += int.from_bytes(data[at + 4 : at + 8], "little")
    data[at + int.from_bytes(data[at + 20 : at + 22], "little") + 10] |= 1
    path.write_bytes(data)


def xfs(path: Path) -> None:
    tool("mkfs.xfs", "-q", blank(path, 320 * MiB))


def luks(path: Path) -> None:
    tool(
        "cryptsetup",
        "luksFormat",
        "-q",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        blank(path, 32 * MiB),
        stdin=b"x",
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (needs_recovery, "dirty"),
        (marked_dirty, "dirty"),
        (lambda path: ext4(path, "-O", "encrypt"), "ext-features"),
        (lambda path: ext4(path, "-O", "inline_data"), "ext-features"),
        (lambda path: ext4(path, "-O", "bigalloc"), "ext-features"),
        (lambda path: ext4(path, "-O", "ea_inode"), "ext-features"),
        (lambda path: ext4(path, "-O", "casefold"), "ext-features"),
        (lambda path: ext4(path, "-O", "meta_bg,^resize_inode"), "ext-features"),
        (xfs, "xfs"),
        (luks, "encrypted"),
        (lambda path: path.write_bytes(os.urandom(MiB)), "unknown"),
    ],
    ids=[
        "journal",
        "ntfs-dirty",
        "encrypt",
        "inline",
        "bigalloc",
        "ea",
        "casefold",
        "meta_bg",
        "xfs",
        "luks",
        "rubbish",
    ],
)
def test_one_volume_of_another_kind_refuses_the_whole_machine(
    make: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    good, other = ext4(tmp_path / "good.img"), tmp_path / "other.img"
    make(other)
    with pytest.raises(FastPathRefused) as refused, opened(good, other):
        pass
    assert refused.value.reason == reason


@pytest.mark.requires("module:guestfs")
def test_what_is_refused_is_opened_by_the_appliance_and_the_reason_is_kept(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    xfs(disk)
    with chosen(disk) as filesystem:
        assert filesystem.opened_by.code is ReasonCode.FILES_READ_BY_APPLIANCE
        assert filesystem.opened_by.detail.startswith("xfs: ")
        (volume,) = filesystem.volumes()
        assert (volume.type, volume.problem) == ("xfs", None)


def test_what_is_not_refused_is_read_directly(tmp_path: Path) -> None:
    disk = ext4(tmp_path / "disk.img", "-L", "HERE")
    with chosen(disk) as filesystem:
        assert filesystem.opened_by.code is ReasonCode.FILES_READ_DIRECTLY
        (volume,) = filesystem.volumes()
        assert (volume.label, volume.state, volume.problem) == ("HERE", VolumeState.CLEAN, None)
    assert available().works


def test_deleted_files_are_never_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("kept", "gone"):
        (root / name).write_text(name)
    disks = [ext4(tmp_path / "ext.img", "-d", str(root)), blank(tmp_path / "ntfs.img", 16 * MiB)]
    tool("debugfs", "-w", "-R", "rm /gone", disks[0])
    tool("mkntfs", "-q", "-F", "-Q", disks[1])
    with mounted(disks[1], tmp_path / "mount") as mount:
        for name in ("kept", "gone"):
            (mount / name).write_text(name)
        (mount / "gone").unlink()
    disks.append(blank(tmp_path / "fat.img", 16 * MiB))
    tool("mkfs.vfat", disks[2])
    fat(disks[2])
    with opened(*disks) as filesystem:
        for volume in filesystem.volumes():
            names = [e.path for batch in filesystem.walk(volume) for e in batch]
            assert not any(b"gone" in n or b"MixedCase" in n or b"Orphan" in n or b"$" in n for n in names)
            assert b"/kept" in names or b"/EFI" in names


def test_a_windows_machine_has_its_drive_letters_and_its_name(tmp_path: Path) -> None:
    script = "label: dos\nlabel-id: 0xcafe1234\nstart=2048, size=40960, type=7\nstart=43008, size=20480, type=7"
    disk = partitioned(tmp_path / "disk.img", 32 * MiB, script)
    letters = {
        f"\\DosDevices\\{x}:": (3, struct.pack("<IQ", 0xCAFE1234, at * 512)) for x, at in (("C", 2048), ("E", 43008))
    }
    tcpip = {"Services": {"Tcpip": {"Parameters": {"Hostname": text("WÜRFEL")}}}}
    system = {"Select": {"Current": number(1)}, "MountedDevices": letters, "ControlSet001": tcpip}
    software = {"Microsoft": {"Windows NT": {"CurrentVersion": {"ProductName": text("Windows Server 2022")}}}}
    for start, size, label in ((2048, 40960, "System"), (43008, 20480, "Daten")):
        part = blank(tmp_path / label, size * 512)
        tool("mkntfs", "-q", "-F", "-Q", "-L", label, part)
        if label == "System":
            with mounted(part, tmp_path / "mount") as mount:
                config = mount / "WINDOWS/system32/Config"  # the case is what some release made it
                config.mkdir(parents=True)
                (config / "SYSTEM").write_bytes(hive(system))
                (config / "software").write_bytes(hive(software, b"ri"))
        put(disk, start * 512, part)
    with opened(disk) as filesystem:
        assert {v.label: v.mountpoint for v in filesystem.volumes()} == {"System": "C:", "Daten": "E:"}
        (found,) = filesystem.operating_systems()
    assert (found.type, found.product, found.hostname) == ("windows", "Windows Server 2022", "WÜRFEL")


def test_a_worker_that_dies_ends_its_session_and_nothing_else(tmp_path: Path) -> None:
    disk = ext4(tmp_path / "disk.img")
    with Export([ImageToExport("vda", "openers:file_image", {"path": str(disk)})]) as export:
        with directly(export.served, export.directory) as filesystem:
            (volume,) = filesystem.volumes()
            os.kill(filesystem._process.pid, 11)  # type: ignore[attr-defined]  # as a fault in a parser would
            with pytest.raises(MountEnded):
                list(filesystem.walk(volume))
        with directly(export.served, export.directory) as again:
            assert list(again.volumes()) == [volume]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One of each kind, with a tree."""
    at = tmp_path_factory.mktemp("images")
    root = at / "root"
    (root / "d").mkdir(parents=True)
    for i in range(150):
        (root / f"d/file number {i:03d}").write_text("x" * i)
    (root / "link").symlink_to("d")
    ext = ext4(at / "ext.img", "-d", str(root))
    ntfs = blank(at / "ntfs.img", 12 * MiB)
    tool("mkntfs", "-q", "-F", "-Q", ntfs)
    with mounted(ntfs, at / "mount") as mount:
        tool("cp", "-r", f"{root}/.", mount)
    small = blank(at / "fat.img", 4 * MiB)
    tool("mkfs.vfat", small)
    fat(small)
    return {"ext4": ext.read_bytes(), "ntfs": ntfs.read_bytes(), "vfat": small.read_bytes()}


@pytest.mark.parametrize("kind", ["ext4", "ntfs", "vfat"])
def test_damaged_volumes_are_refused_or_read_as_far_as_they_go(kind: str, images: dict[str, bytes]) -> None:
    good = images[kind]
    pages = [at for at in range(0, len(good), 4096) if any(good[at : at + 4096])][:40]
    chance = random.Random(kind)
    outcomes = set()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.choice((1, 5, 50))):
            at = chance.choice(pages) + chance.randrange(4096)
            data[at] = chance.choice((0, 0xFF, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))
        outcomes.add(_outcome(bytes(data)))
    assert outcomes <= {"read", "refused"}
    assert "read" in outcomes


def _outcome(data: bytes) -> str:
    """Reads everything there is; only our own errors may come."""
    try:
        filesystem = TskFilesystem([Disk(Bytes(data))])
    except LanfreeError:
        return "refused"
    for volume in filesystem.volumes():
        try:
            entries = [e for batch in filesystem.walk(volume) for e in batch]
        except LanfreeError:
            continue
        for entry in entries[:50]:
            try:
                filesystem.xattrs(volume, entry.path)
                if entry.type is FileType.FILE and entry.size < MiB:
                    list(filesystem.read(volume, entry.path))
            except LanfreeError:
                continue
    return "read"
