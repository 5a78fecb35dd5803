import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mounter.ports import FileType
from mounter.restore import new_file
from mounter.restore.attributes import Attributes
from mounter.restore.directory import DirectoryTarget, Existing
from mounter.restore.tree import RestoreReport, restore_files
from proxy.errors import FileNotRestored, MountFailed, RestoreRefused, TargetFailed

pytestmark = pytest.mark.slow

TIME = 1_700_000_000_123_456_789


def restored(guest: Any, to: Path, *paths: bytes, **how: Any) -> RestoreReport:
    with guest.session() as session, DirectoryTarget(to, **how) as target:
        return restore_files(session, paths, target)


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_tree_comes_with_its_bytes_modes_times_and_links(guest: Any, tmp_path: Path) -> None:
    guest.put(b"/etc", FileType.DIRECTORY, mode=0o2750, mtime_ns=TIME)
    guest.file(b"/etc/empty", b"", mode=0o400, mtime_ns=-1_500_000_000)
    guest.file(b"/etc/large", b"0123456789" * 1000, mtime_ns=TIME)
    guest.put(b"/etc/link", FileType.SYMLINK, link_target=b"/etc/\xff", mtime_ns=TIME)
    report = restored(guest, tmp_path, b"/etc")
    at = tmp_path / "etc"
    assert (at / "large").read_bytes() == b"0123456789" * 1000
    assert os.fsencode((at / "link").readlink()) == b"/etc/\xff"
    status = {name: (at / name).lstat() for name in ("", "empty", "large", "link")}
    assert {name: s.st_mtime_ns for name, s in status.items()} == {
        "": TIME,
        "empty": -1_500_000_000,
        "large": TIME,
        "link": TIME,
    }
    assert [stat.S_IMODE(status[name].st_mode) for name in ("", "empty", "large")] == [0o2750, 0o400, 0o644]
    assert (report.complete, report.entries, report.content, report.losses) == (True, {"written": 4}, 10_000, ())


def test_hard_links_stay_links_also_between_directories(guest: Any, tmp_path: Path) -> None:
    guest.file(b"/a/one", b"x", inode=7, links=3)
    guest.file(b"/a/two", b"x", inode=7, links=3)
    guest.file(b"/b/three", b"x", inode=7, links=3)
    guest.file(b"/b/other", b"x", inode=7, links=1)
    report = restored(guest, tmp_path, b"/")
    inodes = {(tmp_path / name).stat().st_ino for name in ("a/one", "a/two", "b/three")}
    assert (len(inodes), (tmp_path / "a/one").stat().st_nlink) == (1, 3)
    assert (tmp_path / "b/other").stat().st_nlink == 1
    assert report.complete
    again = restored(guest, tmp_path, b"/")
    assert again.entries["unchanged"] == 4


def test_a_sparse_file_has_holes_and_a_full_one_has_none(guest: Any, tmp_path: Path) -> None:
    content = bytes(1 << 20) + b"data" + bytes((1 << 20) - 1)
    guest.file(b"/sparse", content, allocated=4096)
    guest.file(b"/full", content, allocated=len(content))
    guest.file(b"/end", b"x" + bytes(1 << 20), allocated=-1)
    report = restored(guest, tmp_path, b"/")
    for name in ("sparse", "full"):
        assert (tmp_path / name).read_bytes() == content
    assert (tmp_path / "end").stat().st_size == (1 << 20) + 1
    assert (tmp_path / "sparse").stat().st_blocks * 512 <= 8192
    assert (tmp_path / "full").stat().st_blocks * 512 >= len(content)
    assert report.written < len(content) + 3 * 8192


@pytest.mark.tools
@pytest.mark.requires("root")
def test_owners_attributes_and_access_rules_are_kept(guest: Any, tmp_path: Path) -> None:
    rules = struct.pack(
        "<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 4, 1234, 4, 4, 2**32 - 1, 16, 6, 2**32 - 1, 32, 0, 2**32 - 1
    )
    xattrs = {b"user.\xff": b"\0\1", b"system.posix_acl_access": rules, b"trusted.x": b"t"}
    guest.file(b"/f", b"x", uid=1234, gid=4321, mode=0o660, xattrs=xattrs)
    guest.put(b"/d", FileType.DIRECTORY, uid=5, xattrs={b"system.posix_acl_default": rules})
    guest.put(b"/d/l", FileType.SYMLINK, link_target=b"x", uid=77, xattrs={b"trusted.l": b"1"})
    guest.file(b"/d/inside", b"")
    to = tmp_path / "made"
    report = restored(guest, to, b"/")
    status = (to / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o660)
    at = os.fsencode(to)
    assert {name: os.getxattr(at + b"/f", name) for name in xattrs} == xattrs
    assert os.getxattr(at + b"/d", "system.posix_acl_default") == rules
    assert (to / "d/l").lstat().st_uid == 77
    assert os.getxattr(at + b"/d/l", "trusted.l", follow_symlinks=False) == b"1"
    assert os.listxattr(at + b"/d/inside") == []
    assert report.losses == ()


@pytest.mark.tools
@pytest.mark.requires("root")
def test_programs_that_run_as_somebody_else_only_come_when_asked_for(guest: Any, tmp_path: Path) -> None:
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    guest.file(b"/su", b"x", mode=0o6755)
    guest.file(b"/ping", b"x", mode=0o755, xattrs={b"security.capability": capability})
    report = restored(guest, tmp_path / "safe", b"/")
    assert stat.S_IMODE((tmp_path / "safe/su").stat().st_mode) == 0o755
    assert os.listxattr(tmp_path / "safe/ping") == []
    assert {(loss.what, loss.example) for loss in report.losses} == {
        ("set-user-id or set-group-id bit (not asked for)", b"/su"),
        ("capabilities of the program (not asked for)", b"/ping"),
    }
    assert report.complete
    restored(guest, tmp_path / "asked", b"/", attributes=Attributes(set_id=True))
    assert stat.S_IMODE((tmp_path / "asked/su").stat().st_mode) == 0o6755
    assert os.getxattr(tmp_path / "asked/ping", "security.capability") == capability


@pytest.mark.tools
@pytest.mark.requires("root")
def test_devices_are_left_out_unless_asked_for(guest: Any, tmp_path: Path) -> None:
    guest.put(b"/null", FileType.CHARACTER_DEVICE, device=(1, 3), mode=0o666)
    guest.put(b"/disk", FileType.BLOCK_DEVICE, device=(8, 300), mode=0o600)
    guest.put(b"/fifo", FileType.FIFO, mode=0o622, uid=9)
    guest.put(b"/socket", FileType.SOCKET, mtime_ns=TIME)
    report = restored(guest, tmp_path, b"/")
    assert names(tmp_path) == set()
    assert (report.entries["left-out"], len(report.losses)) == (4, 5)
    report = restored(guest, tmp_path, b"/", specials=True)
    null, disk, fifo = ((tmp_path / n).lstat() for n in ("null", "disk", "fifo"))
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, stat.S_IMODE(null.st_mode)) == (True, os.makedev(1, 3), 0o666)
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev) == (True, os.makedev(8, 300))
    assert (stat.S_ISFIFO(fifo.st_mode), stat.S_IMODE(fifo.st_mode), fifo.st_uid) == (True, 0o622, 9)
    assert (tmp_path / "socket").lstat().st_mtime_ns == TIME
    assert restored(guest, tmp_path, b"/", specials=True).entries == {"written": 1, "unchanged": 4}


@pytest.mark.parametrize("named", [False, True], ids=["without-a-name", "under-a-partial-name"])
def test_policies_for_names_that_are_taken(
    guest: Any, tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setattr(os, "O_TMPFILE", 1 << 62, raising=False)
        monkeypatch.setattr(new_file.os, "open", _without_tmpfile(os.open))
    guest.file(b"/f", b"guest", mtime_ns=TIME)
    guest.put(b"/l", FileType.SYMLINK, link_target=b"guest")
    (tmp_path / "f").write_text("mine")
    (tmp_path / "l").symlink_to("mine")
    report = restored(guest, tmp_path, b"/")
    assert (report.failed, report.complete) == (2, False)
    assert [p.path for p in report.problems] == [b"/f", b"/l"]
    assert ((tmp_path / "f").read_text(), str((tmp_path / "l").readlink())) == ("mine", "mine")
    report = restored(guest, tmp_path, b"/", existing=Existing.NEWER)
    assert ((tmp_path / "f").read_text(), report.entries["kept"], report.complete) == ("mine", 2, True)
    report = restored(guest, tmp_path, b"/", existing=Existing.KEEP_BOTH)
    assert names(tmp_path) == {"f", "l", "f.restored-1", "l.restored-1"}
    assert restored(guest, tmp_path, b"/", existing=Existing.KEEP_BOTH).entries["unchanged"] == 2
    assert names(tmp_path) == {"f", "l", "f.restored-1", "l.restored-1"}
    os.utime(tmp_path / "f", ns=(TIME - 1, TIME - 1))
    restored(guest, tmp_path, b"/f", existing=Existing.NEWER)
    assert (tmp_path / "f").read_text() == "guest"
    restored(guest, tmp_path, b"/", existing=Existing.OVERWRITE)
    assert str((tmp_path / "l").readlink()) == "guest"
    assert names(tmp_path) == {"f", "l", "f.restored-1", "l.restored-1"}


def _without_tmpfile(real: Callable[..., int]) -> Callable[..., int]:
    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (1 << 62):
            raise OSError(errno.EOPNOTSUPP, "no such thing here")
        return real(path, flags, *rest, **more)

    return open_


def test_a_second_run_sends_only_what_is_not_whole(guest: Any, failing: Any, tmp_path: Path) -> None:
    for number in range(5):
        guest.file(b"/d/%d" % number, b"x" * 3000, mtime_ns=TIME)
    guest.put(b"/d", FileType.DIRECTORY, mode=0o500, mtime_ns=TIME)
    broken = MountFailed("/d/3", "reading at 2000: damaged")
    with guest.session() as below, DirectoryTarget(tmp_path) as target:
        report = restore_files(failing(below, {b"/d/3": (2, broken)}), [b"/d"], target)
    assert [(p.path, p.code) for p in report.problems] == [(b"/d/3", "mount-failed")]
    assert names(tmp_path) == {"d", "d/0", "d/1", "d/2", "d/4"}
    with guest.session() as below, DirectoryTarget(tmp_path) as target:
        session = failing(below, {})
        report = restore_files(session, [b"/d"], target)
    assert session.read_paths == [b"/d/3"]
    assert (report.complete, report.entries) == (True, {"written": 2, "unchanged": 4})
    assert ((tmp_path / "d").stat().st_mtime_ns, stat.S_IMODE((tmp_path / "d").stat().st_mode)) == (TIME, 0o500)


def test_a_full_disk_ends_the_restore_and_leaves_nothing_half(
    guest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.file(b"/a", b"x" * 3000)
    guest.file(b"/b", b"y" * 3000)
    written = 0
    real = os.pwrite

    def fills_up(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 5000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(TargetFailed, match="No space left") as caught:
        restored(guest, tmp_path, b"/")
    assert "not sent a second time" in caught.value.hint
    assert names(tmp_path) == {"a"}


def test_without_privileges_what_cannot_be_set_is_counted(
    guest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    monkeypatch.setattr(os, "setxattr", refused)
    for number in range(3):
        guest.file(b"/%d" % number, b"x", uid=77, xattrs={b"security.selinux": b"s"})
    report = restored(guest, tmp_path, b"/")
    assert [(loss.what, loss.count) for loss in report.losses if loss.what != "mode, owner"][:2] == [
        ("extended attribute security.selinux", 3),
        ("mode, owner and times of the target directory itself, which was there before", 1),
    ]
    assert ("owner", 3) in [(loss.what, loss.count) for loss in report.losses]
    assert report.complete
    assert names(tmp_path) == {"0", "1", "2"}


def test_a_target_that_ignores_case_is_told_names_it_cannot_tell_apart(guest: Any, tmp_path: Path) -> None:
    guest.file(b"/readme", b"1")
    guest.file(b"/README", b"2")
    report = restored(guest, tmp_path, b"/", ignores_case=True, existing=Existing.OVERWRITE)
    assert names(tmp_path) == {"README"}
    assert [(p.path, "ignores case" in p.message) for p in report.problems] == [(b"/readme", True)]


def test_where_hard_links_cannot_be_made_the_content_comes_again(
    guest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.file(b"/one", b"x", inode=7, links=2)
    guest.file(b"/two", b"x", inode=7, links=2)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "O_TMPFILE", 1 << 62, raising=False)
    monkeypatch.setattr(new_file.os, "open", _without_tmpfile(os.open))
    report = restored(guest, tmp_path, b"/one", b"/two")
    assert [(tmp_path / name).read_bytes() for name in ("one", "two")] == [b"x", b"x"]
    assert [loss.what for loss in report.losses] == ["hard link (made a copy)"]
    assert names(tmp_path) == {"one", "two"}


def test_a_target_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RestoreRefused):
        DirectoryTarget(tmp_path / "file")
    with pytest.raises(RestoreRefused):
        DirectoryTarget(tmp_path / "file/below")


def test_a_made_target_is_private_until_the_guest_s_root_says_otherwise(guest: Any, tmp_path: Path) -> None:
    guest.file(b"/d/f", b"x")
    restored(guest, tmp_path / "one", b"/d")
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700
    restored(guest, tmp_path / "whole", b"/")
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == 0o755


def test_nothing_is_placed_in_a_directory_that_is_not_there(guest: Any, tmp_path: Path) -> None:
    entry = guest.file(b"/f", b"")

    class Item:
        def __init__(self) -> None:
            self.entry = entry

    with DirectoryTarget(tmp_path) as target, pytest.raises(FileNotRestored):
        target.file(b"a/b", Item())  # type: ignore[arg-type]  # never read
