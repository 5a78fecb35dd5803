"""A machine for both readers: what the fast path must show exactly as the appliance does."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy.units import KiB, MiB

FSTAB = """\
# <file system> <mount point> <type> <options>
UUID={root} / ext4 errors=remount-ro 0 1
UUID={boot} /boot/efi vfat umask=0077 0 1
LABEL=LOGICAL /srv/with\\040space ext3 defaults 0 2
/dev/vda6 none swap sw 0 0
PARTUUID={data} /data ntfs-3g defaults 0 0
/dev/vdd /zoo ext4 defaults 0 2
tmpfs /tmp tmpfs defaults 0 0
server:/export /mnt/nfs nfs defaults 0 0
"""
OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
ROOT = "11111111-2222-3333-4444-555555555555"

# An ACL as the kernel gives it: owner rwx, user 1000 rw, group r, mask rwx, others r.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, number)
    for tag, rights, number in (
        (1, 7, 0xFFFFFFFF),
        (2, 6, 1000),
        (4, 4, 0xFFFFFFFF),
        (16, 7, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)


def tool(*words: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run([str(w) for w in words], check=True, timeout=120, capture_output=True, input=stdin)
    return done.stdout


def blank(path: Path, size: int) -> Path:
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


def tree(root: Path) -> None:
    """Everything that an ext file system can hold and whose name is awkward. Needs root."""
    at = os.fsencode(root)
    for name in (b"dir", b"dir/\xff\xfe not utf-8", b"dir/new\nline", b"many", b"empty"):
        Path(os.fsdecode(at + b"/" + name)).mkdir()
    for i in range(1500):
        Path(os.fsdecode(at + b"/many/a name that is long enough for several blocks %05d" % i)).touch()
    for i in range(0, 1500, 5):
        Path(os.fsdecode(at + b"/many/a name that is long enough for several blocks %05d" % i)).unlink()
    (root / "dir/file").write_bytes(os.urandom(100_001))
    with (root / "sparse").open("wb") as file:
        file.seek(5 * MiB)
        file.write(b"end of a hole")
        file.truncate(9 * MiB)
    os.link(root / "dir/file", root / "hard")
    for length in (1, 59, 60, 61, 200, 1000):
        (root / f"link{length}").symlink_to("x" * length)
    os.mkfifo(root / "fifo")
    os.mknod(root / "block", 0o060640, os.makedev(8, 17))
    os.mknod(root / "char", 0o020620, os.makedev(259, 70_000))
    os.chown(root / "dir/file", 70_000, 80_000)
    (root / "dir/file").chmod(0o4755)
    os.setxattr(root / "dir/file", "user.small", b"\0binary\xff")
    os.setxattr(root / "dir/file", "user.large", b"v" * 700)
    os.setxattr(root / "dir/file", "system.posix_acl_access", ACL)
    os.setxattr(root / "dir", "system.posix_acl_default", ACL)
    os.setxattr(root / "dir", "trusted.t", b"t")
    os.setxattr(root / "char", "security.selinux", b"system_u:object_r:tty_device_t:s0\0")
    os.utime(root / "fifo", ns=(0, -5_000_000_001))
    os.utime(root / "sparse", ns=(0, 2**33 * 10**9 + 7))


def linux_root(root: Path, facts: dict[str, str]) -> None:
    for name in ("etc", "usr/bin", "usr/lib", "data", "boot/efi"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/fstab").write_text(FSTAB.format(**facts))
    (root / "usr/lib/os-release").write_text(OS_RELEASE)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/hostname").write_text("guest1\n")


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """NTFS, in a FUSE process of its own; no kernel mount of what is tested."""
    at.mkdir(exist_ok=True)
    tool("ntfs-3g", "-o", "compression", image, at)
    try:
        yield at
    finally:
        tool("umount", at)


def point(path: Path, tag: int, body: bytes, *, directory: bool) -> None:
    """A reparse point, as ntfs-3g takes one."""
    path.mkdir() if directory else path.touch()
    os.setxattr(path, "system.ntfs_reparse_data", struct.pack("<IHH", tag, len(body), 0) + body)


def named(target: str, flags: int | None = None) -> bytes:
    """Body of a junction, of a symbolic link with ``flags``."""
    name = target.encode("utf-16-le")
    head = struct.pack("<HHHH", 0, len(name), len(name) + 2, len(name))
    return head + (b"" if flags is None else struct.pack("<I", flags)) + name + b"\0\0" + name + b"\0\0"


def ntfs_tree(at: Path) -> None:
    """What Windows and its tools leave behind."""
    (at / "small").write_text("hi")
    (at / "large").write_bytes(os.urandom(3 * MiB + 17))
    for name in ("Grüße 日本 😀.txt", "ctl\n\x01^name", "we?ird^\u0301"):
        (at / name).write_text("x")
    (at / "dir/Sub/deep").mkdir(parents=True)
    (at / "dir/Sub/deep/f").write_bytes(b"f" * 5000)
    for i in range(40):
        os.link(at / "small", at / f"dir/a hard link whose name makes the record overflow {i:03d}")
    os.setxattr(at / "large", "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    os.setxattr(at / "dir", "user.of a directory", b"d" * 5000)
    with (at / "sparse").open("wb") as file:
        file.seek(20 * MiB)
        file.write(b"z" * 70_000)
    (at / "comp").mkdir()
    os.setxattr(at / "comp", "system.ntfs_attrib", struct.pack("<I", 0x810))
    (at / "comp/well").write_bytes(b"abcdefgh" * 100_000)
    (at / "comp/badly").write_bytes(os.urandom(100_000))
    (at / "interix").symlink_to("dir/Sub")
    os.mkfifo(at / "fifo")
    os.mknod(at / "device", 0o060600, os.makedev(8, 1))
    (at / "many").mkdir()
    for i in range(1500):
        (at / f"many/file {i:05d}").touch()
    for i in range(0, 1500, 3):
        (at / f"many/file {i:05d}").unlink()
    point(at / "junction", 0xA0000003, named("\\??\\C:\\dir\\sub"), directory=True)
    point(at / "elsewhere", 0xA0000003, named("\\??\\D:\\Users\\All"), directory=True)
    point(at / "volume", 0xA0000003, named("\\??\\Volume{6c2aa3fb-0000-0000-0000-100000000000}\\"), directory=True)
    point(at / "absolute", 0xA000000C, named("\\??\\C:\\DIR\\sub", 0), directory=True)
    point(at / "relative", 0xA000000C, named("DIR\\Sub", 1), directory=True)
    point(at / "dir/up", 0xA000000C, named("..\\COMP\\Well", 1), directory=False)
    point(at / "nowhere", 0xA000000C, named("no\\such", 1), directory=False)
    point(at / "wof", 0x80000017, bytes(16), directory=False)
    point(at / "cloud", 0x9000001A, bytes(32), directory=False)
    for name, flags in (("hidden", 2), ("system", 4), ("read only", 1)):
        (at / name).write_text("0")
        os.setxattr(at / name, "system.ntfs_attrib", struct.pack("<I", flags))
    os.utime(at / "small", ns=(0, 10**18 + 123_456_789))
    os.utime(at / "sparse", ns=(0, -(10**18)))


def fat(image: Path, offset: int = 0) -> None:
    """Names of both kinds, and what mtools can do to them."""
    at = f"{image}@@{offset}"
    for name in ("EFI", "EFI/BOOT", "lower", "Long Directory Name"):
        tool("mmd", "-i", at, f"::/{name}")
    for i, name in enumerate(
        ("EFI/BOOT/BOOTX64.EFI", "Long Directory Name/Grüße 日本.txt", "readme.txt", "MixedCase.Txt")
    ):
        content = image.with_name(f"content{i}")
        content.write_bytes(os.urandom(i * 50_001))
        tool("mcopy", "-i", at, content, f"::/{name}")
        content.unlink()
    tool("mattrib", "-i", at, "+r", "+h", "::/readme.txt")
    tool("mdel", "-i", at, "::/MixedCase.Txt")


def partitioned(path: Path, size: int, script: str) -> Path:
    """With a partition table that sfdisk made."""
    tool("sfdisk", "--quiet", blank(path, size), stdin=script.encode())
    return path


def put(disk: Path, start: int, part: Path) -> None:
    """The content of a partition into its place, holes left out."""
    with part.open("rb") as source, disk.open("r+b") as target:
        at = start
        while piece := source.read(64 * KiB):
            if piece.strip(b"\0"):
                target.seek(at)
                target.write(piece)
            at += len(piece)
    part.unlink()


def machine(at: Path) -> list[Path]:
    """Four disks: MBR with logical partitions, GPT, NTFS without a table, ext4 without one, and an empty one."""
    vda = partitioned(
        at / "vda.img",
        130 * MiB,
        "label: dos\nlabel-id: 0xcafe1234\nunit: sectors\n"
        "start=2048, size=81920, type=ef\nstart=83968, size=81920, type=83, bootable\n"
        "start=165888, size=94208, type=5\nstart=167936, size=40960, type=83\nstart=210944, size=20480, type=82\n",
    )
    vdb = partitioned(
        at / "vdb.img",
        60 * MiB,
        "label: gpt\nunit: sectors\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n"
        "start=4096, size=40960, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid=0D0A0D0A-1111-2222-3333-444444444444\n"
        "start=45056, size=32768, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n"
        "start=77824, size=20480, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n",
    )
    esp = blank(at / "esp", 40 * MiB)
    tool("mkfs.vfat", "-F", "32", "-n", "ESP", "-i", "ABCD1234", esp)
    fat(esp)
    put(vda, 2048 * 512, esp)
    (at / "root").mkdir()
    linux_root(at / "root", {"root": ROOT, "boot": "ABCD-1234", "data": "0d0a0d0a-1111-2222-3333-444444444444"})
    root = blank(at / "rootfs", 40 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-U", ROOT, "-L", "Wurzel ü", "-d", at / "root", root)
    put(vda, 83968 * 512, root)
    logical = blank(at / "logical", 20 * MiB)
    tool("mke2fs", "-q", "-t", "ext3", "-L", "LOGICAL", logical)
    put(vda, 167936 * 512, logical)
    swap = blank(at / "swap", 10 * MiB)
    tool("mkswap", swap)
    put(vda, 210944 * 512, swap)
    data = blank(at / "data", 20 * MiB)
    tool("mkntfs", "-q", "-F", "-Q", "-L", "Données", data)
    put(vdb, 4096 * 512, data)
    old = blank(at / "old", 10 * MiB)
    tool("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-I", "128", old)
    put(vdb, 77824 * 512, old)
    vdc = blank(at / "vdc.img", 150 * MiB)
    tool("mkntfs", "-q", "-F", "-Q", vdc)
    with mounted(vdc, at / "ntfs") as mount:
        ntfs_tree(mount)
    (at / "tree").mkdir()
    tree(at / "tree")
    vdd = blank(at / "vdd.img", 64 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-d", at / "tree", vdd)
    vde = blank(at / "vde.img", 4 * MiB)
    return [vda, vdb, vdc, vdd, vde]
