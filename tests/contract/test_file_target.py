"""What every target of restored files keeps whose files can be looked at afterwards: a directory here, a running guest.

Archives are read back by other programs, in ``tests/unit/mounter/restore``.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import FileEntry, FileType, Volume
from mounter.restore.directory import DirectoryTarget
from mounter.restore.guest import GuestTarget
from mounter.restore.tree import RestoreReport, restore_files
from mounter.session import MountSession
from mounter.targets import Action, FileTarget
from proxy.clock import SystemClock
from proxy.errors import MountFailed
from proxy.hypervisor.memory_guest_files import Content, GuestFileKind, MemoryGuest, MemoryGuestFiles

pytestmark = pytest.mark.slow

TIME = 1_700_000_000 * 10**9


class Rig(Protocol):
    def target(self) -> FileTarget: ...
    def read(self, path: str) -> bytes | None: ...
    def facts(self, path: str) -> tuple[str, int, int]:
        """Kind, permission bits, seconds."""
        ...

    def put(self, path: str, content: bytes) -> None: ...
    def names(self) -> set[str]: ...


class Here:
    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "target"

    def target(self) -> FileTarget:
        return DirectoryTarget(self.root)

    def read(self, path: str) -> bytes | None:
        place = self.root / path
        return place.read_bytes() if place.is_file() else None

    def facts(self, path: str) -> tuple[str, int, int]:
        place = self.root / path
        found = place.lstat()
        kind = "symlink" if place.is_symlink() else "directory" if place.is_dir() else "file"
        return kind, found.st_mode & 0o7777, int(found.st_mtime)

    def put(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def names(self) -> set[str]:
        return {str(place.relative_to(self.root)) for place in self.root.rglob("*")}


class InAGuest:
    def __init__(self, _tmp_path: Path) -> None:
        self.guest = MemoryGuest()

    def target(self) -> FileTarget:
        return GuestTarget(MemoryGuestFiles(self.guest, b"/target"))

    def read(self, path: str) -> bytes | None:
        found = self.guest.entries.get(b"/target/" + path.encode())
        return found.data if found is not None else None

    def facts(self, path: str) -> tuple[str, int, int]:
        found = self.guest.entries[b"/target/" + path.encode()]
        return found.kind.value, found.mode, found.mtime_ns // 10**9

    def put(self, path: str, content: bytes) -> None:
        above = b"/target"
        self.guest.entries.setdefault(above, Content(GuestFileKind.DIRECTORY))
        *parts, name = path.encode().split(b"/")
        for part in parts:
            above += b"/" + part
            self.guest.entries.setdefault(above, Content(GuestFileKind.DIRECTORY))
        self.guest.entries[above + b"/" + name] = Content(GuestFileKind.FILE, content)

    def names(self) -> set[str]:
        return {os.fsdecode(p.removeprefix(b"/target/")) for p in self.guest.entries if p.startswith(b"/target/")}


@pytest.fixture(params=[pytest.param(Here, id="directory"), pytest.param(InAGuest, id="guest")])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    make: Callable[[Path], Rig] = request.param
    return make(tmp_path)


@pytest.fixture
def volume() -> MemoryVolume:
    made = MemoryVolume(Volume("v", "/dev/sda1", "ext4", "", "u", 1 << 30, "/"))
    made.add_file(b"/d/a", b"first", mtime_ns=TIME, mode=0o640)
    made.add_file(b"/d/sub/b", b"second" * 1000, mtime_ns=TIME)
    made.add_link(b"/d/link", b"../../etc/passwd")
    return made


def restore(rig: Rig, volume: MemoryVolume) -> RestoreReport:
    filesystem = MemoryFilesystem([volume])
    with (
        MountSession([], lambda _served, _directory: filesystem, clock=SystemClock()) as session,
        rig.target() as target,
    ):
        return restore_files(session, [b"/d"], target)


def test_a_tree_arrives_whole_with_modes_and_times(rig: Rig, volume: MemoryVolume) -> None:
    assert restore(rig, volume).complete
    assert rig.names() == {"d", "d/a", "d/sub", "d/sub/b", "d/link"}
    assert (rig.read("d/a"), rig.read("d/sub/b")) == (b"first", b"second" * 1000)
    assert rig.facts("d/a") == ("file", 0o640, TIME // 10**9)
    assert rig.facts("d/sub")[:2] == ("directory", 0o755)
    assert rig.facts("d/link")[0] == "symlink"


def test_what_is_there_whole_and_the_same_is_not_written_again(rig: Rig, volume: MemoryVolume) -> None:
    restore(rig, volume)
    again = restore(rig, volume)
    assert again.complete
    assert again.written == 0
    assert again.entries[Action.UNCHANGED] >= 2


def test_another_file_of_the_name_stays_and_the_rest_arrives(rig: Rig, volume: MemoryVolume) -> None:
    rig.put("d/a", b"somebody else's")
    report = restore(rig, volume)
    assert not report.complete
    assert rig.read("d/a") == b"somebody else's"
    assert rig.read("d/sub/b") == b"second" * 1000


def test_a_file_that_cannot_be_read_to_its_end_has_no_name(rig: Rig, volume: MemoryVolume) -> None:
    volume.contents[b"/d/sub/b"] = b"short"  # its entry says more
    report = restore(rig, volume)
    assert [(problem.path, problem.code) for problem in report.problems] == [(b"/d/sub/b", MountFailed.code)]
    assert rig.names() == {"d", "d/a", "d/sub", "d/link"}


def test_two_names_of_one_file_stay_two_names_of_one_file(rig: Rig, volume: MemoryVolume) -> None:
    for name in (b"/d/one", b"/d/two"):
        volume.entries[name] = FileEntry(name, FileType.FILE, 4, 0o644, 0, 0, TIME, TIME, 77, links=2)
        volume.contents[name] = b"both"
    report = restore(rig, volume)
    assert report.complete
    assert report.written <= len(b"first") + 6000 + len(b"both")
    assert rig.read("d/one") == rig.read("d/two") == b"both"


def test_a_device_is_left_out_and_told(rig: Rig, volume: MemoryVolume) -> None:
    name = b"/d/null"
    volume.entries[name] = FileEntry(name, FileType.CHARACTER_DEVICE, 0, 0o666, 0, 0, TIME, TIME, 88, device=(1, 3))
    report = restore(rig, volume)
    assert report.entries[Action.LEFT_OUT] == 1
    assert any("character-device" in loss.what for loss in report.losses)
    assert "d/null" not in rig.names()
