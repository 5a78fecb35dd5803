"""Directories that cannot hold everything: a full one, and a file system of another world."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FileType, Volume
from mounter.restore.directory import DirectoryTarget
from mounter.restore.tree import RestoreReport, restore_files
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.errors import TargetFailed
from proxy.units import MiB

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
TIME = 1_700_000_001_123_456_789


def tool(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=60, capture_output=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``mounted(words...)`` mounts something at a directory, named as the last word, until the test ends."""
    with ExitStack() as undo:

        def mount(*words: str | Path) -> Path:
            place = tmp_path / "mounted"
            place.mkdir()
            tool(*words, place)
            undo.callback(tool, "umount", place)
            return place

        yield mount


def restored(root: MemoryVolume, to: Path) -> RestoreReport:
    filesystem = MemoryFilesystem([root])
    with (
        MountSession([], lambda _served, _directory: filesystem, clock=SystemClock()) as session,
        DirectoryTarget(to) as target,
    ):
        return restore_files(session, [b"/d"], target)


def volume() -> MemoryVolume:
    return MemoryVolume(Volume("root", "/dev/sda1", "ext4", "", "u1", 100, "/"))


@pytest.mark.requires("root")
def test_on_a_full_disk_whole_files_stay_and_the_next_run_with_more_room_finishes(
    mounted: Callable[..., Path],
) -> None:
    root = volume()
    for name in (b"/d/1", b"/d/2", b"/d/3"):
        root.add_file(name, os.urandom(MiB), mtime_ns=TIME)
    place = mounted("mount", "-t", "tmpfs", "-o", "size=2560k", "lanfree-test")
    with pytest.raises(TargetFailed, match="No space left on device") as caught:
        restored(root, place)
    assert any("3 entries with 2097152 bytes" in note for note in caught.value.__notes__)
    assert sorted(p.name for p in (place / "d").iterdir()) == ["1", "2"]
    tool("mount", "-o", "remount,size=8m", place)
    report = restored(root, place)
    assert (report.complete, report.entries, report.written) == (True, {"written": 2, "unchanged": 2}, MiB)
    assert (place / "d/3").read_bytes() == root.contents[b"/d/3"]


@pytest.mark.requires("root", "mkntfs", "ntfs-3g")
def test_a_file_system_that_keeps_less_says_what_and_a_second_run_knows_its_files(
    mounted: Callable[..., Path], tmp_path: Path
) -> None:
    root = volume()
    root.add_file(b"/d/odd time", b"x", mtime_ns=TIME, mode=0o640)
    root.add_file(b"/d/\xff", b"no name there", mtime_ns=TIME)
    root.add_file(b"/d/sparse", bytes(4 * MiB) + b"x", mtime_ns=TIME)
    root.entries[b"/d/two"] = FileEntry(b"/d/two", FileType.FILE, 1, 0o644, 5, 6, TIME, 0, 7, links=2)
    root.entries[b"/d/one"] = FileEntry(b"/d/one", FileType.FILE, 1, 0o644, 5, 6, TIME, 0, 7, links=2)
    root.contents[b"/d/one"] = root.contents[b"/d/two"] = b"1"
    root.add_link(b"/d/link", b"odd time")
    image = tmp_path / "ntfs.img"
    image.touch()
    os.truncate(image, 16 * MiB)
    tool("mkntfs", "-q", "-F", "-Q", image)
    place = mounted("ntfs-3g", image)
    report = restored(root, place)
    assert [p.path for p in report.problems] == [b"/d/\xff"]
    assert {loss.what for loss in report.losses} >= {
        "owner (the target's file system keeps none)",
        "mode (the target's file system keeps another)",
        "times (the target's file system rounds them)",
    }
    assert (place / "d/odd time").read_bytes() == b"x"
    assert (place / "d/one").stat().st_ino == (place / "d/two").stat().st_ino
    again = restored(root, place)
    assert (again.written, again.entries) == (0, {"written": 1, "unchanged": 5})
    assert not [p for p in (place / "d").iterdir() if p.name.startswith(".lanfree")]


AS_NOBODY = """
import os, sys
os.setgid(65534); os.setuid(65534)
from pathlib import Path
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FileType, Volume
from mounter.restore.directory import DirectoryTarget
from mounter.restore.tree import restore_files
from mounter.session import MountSession
from proxy.clock import SystemClock

root = MemoryVolume(Volume("root", "/dev/sda1", "ext4", "", "u1", 100, "/"))
root.add_file(b"/d/f", b"x", mode=0o400)
root.xattrs[b"/d/f"] = {b"trusted.x": b"1", b"user.x": b"2"}
root.entries[b"/d"] = FileEntry(b"/d", FileType.DIRECTORY, 0, 0o555, 0, 0, 5, 0, 9)
root.entries[b"/null"] = FileEntry(b"/null", FileType.CHARACTER_DEVICE, 0, 0o666, 0, 0, 5, 0, 10, device=(1, 3))
for number in (1, 2):
    with (
        MountSession([], lambda *_: MemoryFilesystem([root]), clock=SystemClock()) as session,
        DirectoryTarget(Path(sys.argv[1]), specials=True) as target,
    ):
        report = restore_files(session, [b"/"], target)
    print(sorted(report.entries.items()), [(p.path, p.message) for p in report.problems], [l.what for l in report.losses])
    root.add_file(b"/d/later", b"y")
"""


@pytest.mark.requires("root")
def test_somebody_without_privileges_gets_what_he_may_have_and_can_go_on() -> None:
    with tempfile.TemporaryDirectory() as place:
        to = Path(place)
        to.chmod(0o777)
        words = [sys.executable, "-c", AS_NOBODY, str(to / "to")]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        first, second = done.stdout.decode().splitlines()
        assert "[('written', 3)] [(b'/null', 'null was not restored: Operation not permitted')]" in first
        assert "'extended attribute trusted.x'" in first
        assert "'owner'" in first
        assert "('unchanged', 1), ('written', 3)" in second
        found = to / "to/d"
        assert (os.getxattr(found / "f", "user.x"), found.stat().st_mode & 0o777) == (b"2", 0o555)
        assert sorted(p.name for p in found.iterdir()) == ["f", "later"]
