"""A real ext4 with everything that a file can have, restored and compared with the tree that it was made of."""

import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mounter.choose import best
from mounter.export import ImageToExport
from mounter.restore.attributes import Attributes
from mounter.restore.directory import DirectoryTarget
from mounter.restore.sink import PlainSink, ZstdSink
from mounter.restore.tar import TarTarget
from mounter.restore.tree import RestoreReport, restore_files
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.units import MiB

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("root", "nbdkit", "mke2fs", "debugfs", "tar", "module:guestfs", "module:pytsk3"),
]

NAMED = 2**32 - 1
RULES = struct.pack("<I" + "HHI" * 5, 2, 1, 6, NAMED, 2, 4, 1234, 4, 4, NAMED, 16, 6, NAMED, 32, 0, NAMED)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
NANOSECONDS = 123_456_789


@dataclass(frozen=True)
class Facts:
    """What must be equal. ``links``: all names of the same inode. ``xattrs``: with access rules and capabilities."""

    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    device: int
    content: bytes
    links: tuple[bytes, ...]
    xattrs: tuple[tuple[str, bytes], ...]


def facts(root: Path) -> dict[bytes, Facts]:
    """Of everything in a directory and the directory itself, by relative path."""
    top = os.fsencode(root)
    paths = [b""]
    for above, directories, files in os.walk(top):
        paths += [os.path.relpath(os.path.join(above, n), top) for n in (*directories, *files)]  # noqa: PTH118  bytes
    status = {path: os.lstat(os.path.join(top, path)) for path in paths}  # noqa: PTH118  bytes
    names: dict[int, list[bytes]] = {}
    for path in sorted(paths):
        names.setdefault(status[path].st_ino, []).append(path)
    found: dict[bytes, Facts] = {}
    for path, s in status.items():
        full = top + b"/" + path
        content = b""
        if stat.S_ISREG(s.st_mode):
            content = Path(os.fsdecode(full)).read_bytes()
        elif stat.S_ISLNK(s.st_mode):
            content = os.fsencode(Path(os.fsdecode(full)).readlink())
        held = os.listxattr(full, follow_symlinks=False)
        found[path] = Facts(
            s.st_mode,
            (s.st_uid, s.st_gid),
            0 if stat.S_ISDIR(s.st_mode) else s.st_size,
            s.st_mtime_ns,
            s.st_rdev,
            content,
            tuple(names[s.st_ino]),
            tuple(sorted((n, os.getxattr(full, n, follow_symlinks=False)) for n in held)),
        )
    return found


def original(at: Path) -> None:
    top = os.fsencode(at)
    (at / "dir/sub").mkdir(parents=True)
    (at / "dir/plain").write_bytes(os.urandom(300_000))
    (at / "dir/empty").touch()
    (at / "dir/other").hardlink_to(at / "dir/plain")
    (at / "dir/sub/third").hardlink_to(at / "dir/plain")
    Path(os.fsdecode(top + b"/dir/\xff\xfe\nname")).write_bytes(b"not UTF-8")
    (at / "dir/grüße").write_text("UTF-8")
    (at / ("n" * 255)).write_text("longest name")
    (at / "dir/link").symlink_to("../../../../etc/passwd")
    (at / "dir/long link").symlink_to("x" * 200)
    os.mknod(at / "dir/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at / "dir/disk", stat.S_IFBLK | 0o660, os.makedev(8, 300))
    os.mkfifo(at / "dir/fifo")
    with (at / "sparse").open("wb") as file:
        file.seek(3 * MiB)
        file.write(b"data" * 5000)
        file.truncate(9 * MiB + 1)
    (at / "su").write_bytes(b"#!")
    (at / "ping").write_bytes(b"#!")
    (at / "zeroes").write_bytes(bytes(100_000))
    os.chown(at / "dir/plain", 1234, 4321)
    os.chown(at / "dir/link", 77, 78, follow_symlinks=False)
    os.chown(at / "su", 5, 6)
    for name, mode in (("su", 0o6755), ("dir", 0o2770), ("dir/sub", 0o1777), ("dir/empty", 0), ("ping", 0o755)):
        (at / name).chmod(mode)
    os.setxattr(at / "dir/plain", "user.note", b"\0\1binary")
    os.setxattr(at / "dir/plain", "system.posix_acl_access", RULES)
    os.setxattr(at / "dir/sub", "system.posix_acl_default", RULES)
    os.setxattr(at / "dir/sub", "trusted.x", b"t" * 3000)
    os.setxattr(at / "ping", "security.capability", CAPABILITY)
    for number, name in enumerate(("dir/sub", "dir", "su", "zeroes", "dir/plain", "dir/link", "dir/null", "sparse")):
        moment = (1_000_000_000 + number if number else -1_000_000) * 10**9
        os.utime(at / name, ns=(moment, moment), follow_symlinks=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With whole seconds: mke2fs knows no others."""
    at = tmp_path_factory.mktemp("original") / "root"
    at.mkdir()
    original(at)
    for path in facts(at):
        full = os.path.join(os.fsencode(at), path)  # noqa: PTH118  bytes
        second = os.lstat(full).st_mtime_ns // 10**9 * 10**9
        os.utime(full, ns=(second, second), follow_symlinks=False)
    return at


@pytest.fixture(scope="module")
def image(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("disk") / "vda.img"
    made.touch()
    os.truncate(made, 48 * MiB)
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", str(tree), str(made))
    tool("debugfs", "-w", "-R", f"set_inode_field /dir/grüße mtime_extra {NANOSECONDS << 2}", str(made))
    return made


def tool(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60, capture_output=True)


@pytest.fixture(scope="module", params=["directly", "appliance"])
def session(request: pytest.FixtureRequest, image: Path) -> Iterator[MountSession]:
    images = [ImageToExport("vda", "openers:file_image", {"path": str(image)})]
    fast = request.param == "directly"
    with MountSession(images, best(accelerate=False, fast=fast), clock=SystemClock()) as opened:
        assert opened.opened_by is not None
        assert opened.opened_by.code.value.endswith("directly" if fast else "appliance")
        yield opened


@pytest.fixture
def expected(tree: Path) -> dict[bytes, Facts]:
    found = facts(tree)
    late = "dir/grüße".encode()
    fact = found[late]
    found[late] = Facts(**{**vars(fact), "mtime_ns": fact.mtime_ns + NANOSECONDS})
    del found[b""]  # mke2fs makes a root of its own
    return found


def restored(session: MountSession, target: Any) -> RestoreReport:
    with target:
        return restore_files(session, [session.volumes()[0].guest_path(b"/")], target)


def below(root: Path) -> dict[bytes, Facts]:
    found = facts(root)
    return {path: fact for path, fact in found.items() if path not in (b"", b"lost+found")}


def test_a_directory_on_the_proxy_gets_the_same_tree(
    session: MountSession, expected: dict[bytes, Facts], tmp_path: Path
) -> None:
    to = tmp_path / "to"
    report = restored(session, DirectoryTarget(to, specials=True, attributes=Attributes(set_id=True)))
    assert (report.problems, report.losses) == ((), ())
    (found,) = to.iterdir()
    assert below(found) == expected
    assert (found / "sparse").stat().st_blocks * 512 <= 32 * 1024
    again = restored(session, DirectoryTarget(to, specials=True, attributes=Attributes(set_id=True)))
    assert again.written == 0
    assert below(found) == expected


@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "zstd"])
def test_gnu_tar_makes_the_same_tree_of_an_archive(
    session: MountSession, expected: dict[bytes, Facts], tmp_path: Path, compressed: bool
) -> None:
    archive, to = tmp_path / "a.tar", tmp_path / "to"
    to.mkdir()
    with archive.open("wb") as stream:
        sink = ZstdSink(stream, "a.tar") if compressed else PlainSink(stream, "a.tar")
        report = restored(session, TarTarget(sink))
    assert (report.problems, report.losses) == ((), ())
    options = ["--xattrs", "--xattrs-include=*", "--acls", "-p", "--same-owner", *(["--zstd"] if compressed else [])]
    tool("tar", "-x", "-f", str(archive), "-C", str(to), *options)
    (found,) = to.iterdir()
    assert below(found) == expected
    assert (found / "sparse").stat().st_blocks * 512 <= 32 * 1024
    assert archive.stat().st_size < 1 * MiB
