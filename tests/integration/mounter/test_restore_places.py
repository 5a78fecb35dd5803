"""Directories that cannot hold everything: a full one, and a file system of another world."""

import os
import subprocess
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
