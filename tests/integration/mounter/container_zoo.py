"""One machine with every kind of container and file system that there is, made by tools and one appliance.

Every volume holds ``/who`` (what it is) and ``/dir/file``; see ``test_zoo.py`` for what is expected of each. Disks, in order::

    linux    GPT   1 ext2  2 ext3  3 ext4 (dirty)  4 xfs (dirty)  5 vfat  6 exfat  7 ntfs  8 swap  9 LUKS1
                   10 LUKS2 (key file with NULs)  11 LUKS2 with LVM in it  12 LUKS2 (of a lost key)  13 rubbish  14 BIOS boot
    windows  MBR   1 ntfs  2 extended with 5 vfat  3 BitLocker
    first    GPT   1 xfs  2 btrfs with subvolumes  3 ext4  4 LVM         second: its clone
    a b c    GPT   1 RAID 1 (a b)  2 RAID 5 (a b c)  3 LVM over a and b, with a thin pool; on c: half of a volume group
    bare     no partition table
    dynamic1 dynamic2   Windows dynamic disks: a volume over both and one on the second
    gone     holds what c lacks; it is not in the machine
"""

import os
import struct
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.mounter.zoo_ldm import Piece, dynamic_disks
from tests.integration.mounter.zoo_sealed import MiB, bitlocker, luks, recovery_key

DISKS = ("linux", "windows", "first", "second", "a", "b", "c", "bare", "dynamic1", "dynamic2")
PASSPHRASE = b"correct horse"
KEY_FILE = b"\0" + bytes(range(255, -1, -1)) + b"\n"
RECOVERY = recovery_key(bytes(range(40, 56)))
NOTE = b"v\0alue\xff"
# rw for the owner, r for user 1234, the group and the mask, nothing for others: linux/posix_acl_xattr.h.
_ALL = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, _ALL), (2, 4, 1234), (4, 4, _ALL), (0x10, 4, _ALL), (0x20, 0, _ALL))
)
_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_MARK = "first "  # at the beginning of a block, where the clone gets another word


@dataclass(frozen=True, slots=True)
class Zoo:
    """``uuids``: of the encrypted volumes by their partition number on the first disk."""

    directory: Path
    uuids: Mapping[int, str]

    def images(self, names: Iterable[str] = DISKS) -> dict[str, Path]:
        """Disks of the machine in order."""
        return {name: self.directory / f"{name}.img" for name in names}


def make(directory: Path) -> Zoo:
    """All disks; half a minute on a quiet machine under software emulation."""
    made = _Maker(directory)
    made.tables()
    uuids = made.encrypted()
    made.dynamic()
    made.in_an_appliance()
    made.clone()
    return Zoo(directory, uuids)


def _tool(*words: object, given: str | None = None) -> None:
    subprocess.run([str(w) for w in words], check=True, timeout=60, capture_output=True, input=given and given.encode())


class _Maker:
    def __init__(self, directory: Path) -> None:
        self.at = directory
        self.starts: dict[str, list[int]] = {}

    def blank(self, name: str, size: int) -> Path:
        path = self.at / f"{name}.img"
        path.touch()
        os.truncate(path, size)
        return path

    def gpt(self, name: str, *sizes: int, types: Mapping[int, str] | None = None) -> None:
        """Partitions of so many MiB each."""
        path = self.blank(name, (sum(sizes) + 2) * MiB)
        lines = ["label: gpt"]
        lines += [f"size={s}MiB, type={(types or {}).get(n, 'L')}" for n, s in enumerate(sizes, 1)]
        _tool("sfdisk", "-q", path, given="\n".join(lines))
        self.starts[name] = [1 + sum(sizes[:n]) for n in range(len(sizes))]

    def put(self, name: str, number: int, content: Path) -> None:
        """Copy an image into a partition, holes left holes."""
        offset = self.starts[name][number - 1] * MiB
        with content.open("rb") as source, (self.at / f"{name}.img").open("r+b") as target:
            for at in range(0, content.stat().st_size, MiB):
                piece = source.read(MiB)
                if any(piece):
                    target.seek(offset + at)
                    target.write(piece)

    def ext4(self, who: str, size: int) -> bytes:
        """An ext4 file system with ``who`` in it."""
        root, path = self.at / f"root-{who}", self.at / f"{who}.ext4"
        (root / "dir").mkdir(parents=True, exist_ok=True)
        (root / "who").write_text(who)
        (root / "dir/file").write_text(who * 1000)
        path.touch()
        os.truncate(path, size)
        _tool("mke2fs", "-q", "-t", "ext4", "-d", root, path)
        return path.read_bytes()

    def tables(self) -> None:
        sizes = (8, 8, 8, 310, 8, 8, 8, 2, 12, 26, 32, 26, 2, 1)
        self.gpt("linux", *sizes, types={14: _BIOS_BOOT})
        rubbish = self.at / "rubbish"
        rubbish.write_bytes(os.urandom(MiB))
        self.put("linux", 13, rubbish)
        windows = self.blank("windows", 56 * MiB)
        _tool("sfdisk", "-q", windows, given="label: dos\n1M,8M,7\n10M,18M,5\n29M,24M,7\n11M,16M,6\n")
        self.starts["windows"] = [1, 10, 29, 0, 11]
        self.gpt("first", 310, 112, 8, 16)
        self.blank("second", (self.at / "first.img").stat().st_size)
        for name in "abc":
            self.gpt(name, 12, 12, 48)
        self.blank("gone", 16 * MiB)
        _kinds(self.at / "root-bare")
        (self.at / "bare.img").write_bytes(self.ext4("bare", 8 * MiB))

    def encrypted(self) -> dict[int, str]:
        made: dict[int, str] = {}
        for number, kind, secret in ((9, "luks1", PASSPHRASE), (10, "luks2", KEY_FILE), (12, "luks2", os.urandom(32))):
            path = self.at / f"luks{number}"
            made[number] = luks(path, kind, secret, self.ext4(f"luks{number}", 8 * MiB))
            self.put("linux", number, path)
        volume_group = self.at / "luks11"
        made[11] = luks(volume_group, "luks2", PASSPHRASE, bytes(15 * MiB))
        self.put("linux", 11, volume_group)
        parts = struct.pack("<8H", *(int(n) // 11 for n in RECOVERY.split("-")))
        bitlocker(self.at / "bitlocker", parts, self.ext4("bitlocker", 8 * MiB))
        self.put("windows", 3, self.at / "bitlocker")
        return made

    def dynamic(self) -> None:
        contents = []
        for who in ("spanned", "simple"):
            path = self.blank(who, 8 * MiB)
            (self.at / who).write_text(who)
            _tool("mkntfs", "-q", "-F", "-Q", "-L", who.upper(), path)
            _tool("ntfscp", "-f", path, self.at / who, "who")
            contents.append(path.read_bytes())
        sectors = 8 * MiB // 512
        spanned = (contents[0], [Piece(0, 100, sectors // 2), Piece(1, 0, sectors - sectors // 2)])
        disks = [self.at / f"dynamic{n}.img" for n in (1, 2)]
        dynamic_disks(disks, 20 * MiB, {"Spanned": spanned, "Simple": (contents[1], [Piece(1, 10_000, sectors)])})

    def in_an_appliance(self) -> None:
        """What needs a kernel; the machine's own is left out of it. It ends like a power cut, with two dirty logs."""
        import guestfs  # noqa: PLC0415  only where the module is required

        os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        g = guestfs.GuestFS(python_return_dict=True)
        try:
            g.set_backend("direct")
            g.set_autosync(False)  # it would unmount at the end, and leave all clean
            for name in ("linux", "windows", "first", "a", "b", "c", "gone"):
                g.add_drive_opts(str(self.at / f"{name}.img"), format="raw", cachemode="unsafe")
            g.launch()
            self._single(g)
            self._first(g)
            self._arrays(g)
            g.mkmountpoint("/xfs")
            g.mkmountpoint("/ext4")
            g.mount("/dev/sda4", "/xfs")
            g.mount("/dev/sda3", "/ext4")
            g.write("/xfs/late", "in the log only")
            g.write("/ext4/late", "in the log only")
            g.sync()
        finally:
            g.close()

    def _single(self, g) -> None:  # type: ignore[no-untyped-def]
        for device, kind in ((1, "ext2"), (2, "ext3"), (3, "ext4"), (4, "xfs"), (5, "vfat"), (6, "exfat"), (7, "ntfs")):
            _filled(g, f"/dev/sda{device}", kind, kind)
        g.mkswap("/dev/sda8")
        try:
            g.cryptsetup_open("/dev/sda11", PASSPHRASE.decode(), "sealed")
        except RuntimeError:  # on a busy machine the appliance's kernel waits too long for its first cipher
            g.cryptsetup_open("/dev/sda11", PASSPHRASE.decode(), "sealed")
        g.pvcreate("/dev/mapper/sealed")
        g.vgcreate("sealed", ["/dev/mapper/sealed"])
        g.lvcreate("inside", "sealed", 8)
        _filled(g, "/dev/sealed/inside", "ext4", "lvm in luks")
        g.vg_activate(False, ["sealed"])
        g.cryptsetup_close("/dev/mapper/sealed")
        _filled(g, "/dev/sdb1", "ntfs", "windows")
        _filled(g, "/dev/sdb5", "vfat", "logical")

    def _first(self, g) -> None:  # type: ignore[no-untyped-def]
        """Blocks of ``/who`` are changed in the clone: without checksums, and longer than what an inode holds itself."""
        block = _MARK.ljust(8192, "x")
        _filled(g, "/dev/sdc1", "xfs", block)
        g.mkfs("btrfs", "/dev/sdc2")
        g.mount("/dev/sdc2", "/")
        for name, who in (("/@home", "home"), ("/@home/inner", "inner")):
            g.btrfs_subvolume_create(name)
            g.write(f"{name}/who", who)
        g.umount("/")
        _filled(g, "/dev/sdc2", "", block, "nodatacow,nodatasum")
        _filled(g, "/dev/sdc3", "ext4", block)
        g.pvcreate("/dev/sdc4")
        g.vgcreate("twin", ["/dev/sdc4"])
        g.lvcreate("root", "twin", 8)
        _filled(g, "/dev/twin/root", "ext4", block)

    def _arrays(self, g) -> None:  # type: ignore[no-untyped-def]
        g.md_create("one", ["/dev/sdd1", "/dev/sde1"], level="raid1")
        g.md_create("five", ["/dev/sdd2", "/dev/sde2", "/dev/sdf2"], level="raid5")
        g.md_create("lost", ["/dev/sdf1", "/dev/sdg"], level="raid0")
        _filled(g, "/dev/md/one", "ext4", "raid1")
        _filled(g, "/dev/md/five", "ext4", "raid5")
        g.vgcreate("pair", ["/dev/sdd3", "/dev/sde3"])
        g.lvcreate("wide", "pair", 60)
        g.debug("sh", ["lvm lvcreate -y -L 8M --thinpool pool pair && lvm lvcreate -y -V 32M --thin -n thin pair/pool"])
        _filled(g, "/dev/pair/wide", "ext4", "wide")
        _filled(g, "/dev/pair/thin", "ext4", "thin")
        g.vgcreate("half", ["/dev/sdf3", "/dev/md/lost"])
        g.lvcreate_free("torn", "half", 100)

    def clone(self) -> None:
        """The second disk is the first, but for the word in its marks."""
        with (self.at / "first.img").open("rb") as source, (self.at / "second.img").open("r+b") as target:
            for at in range(0, (self.at / "first.img").stat().st_size, MiB):
                piece = source.read(MiB)
                if any(piece):
                    target.seek(at)
                    target.write(piece.replace(_MARK.encode() + b"x" * 100, b"second" + b"x" * 100))


def _kinds(root: Path) -> None:
    """Everything that a POSIX file can be or carry."""
    at = root / "kinds"
    at.mkdir(parents=True)
    (at / "file").write_text("x")
    (at / "other-name").hardlink_to(at / "file")
    os.setxattr(at / "file", "user.note", NOTE)
    os.setxattr(at / "file", "system.posix_acl_access", ACL)
    with (at / "sparse").open("wb") as file:
        file.truncate(MiB)
        file.seek(MiB // 2)
        file.write(b"y")
    os.mkfifo(at / "fifo")
    os.mknod(at / "character", 0o020600, os.makedev(1, 3))
    os.mknod(at / "block", 0o060600, os.makedev(8, 300))


def _filled(g, device: str, kind: str, who: str, options: str = "") -> None:  # type: ignore[no-untyped-def]
    if kind:
        g.mkfs(kind, device)
    g.mount_options(options, device, "/")
    g.write("/who", who)
    g.mkdir("/dir")
    g.write("/dir/file", who)
    g.umount("/")
