from typing import Any

import pytest

from mounter.ports import FileEntry, FileType, Volume
from mounter.restore.selection import chosen_of, harmless
from mounter.restore.tree import Options, RestoreProgress, restore_files
from mounter.targets import Action, Placed, Problem
from proxy.closing import Closeable
from proxy.errors import (
    Cancelled,
    FileNotRestored,
    IntegrityError,
    MountEnded,
    MountFailed,
    RepositoryUnavailable,
    RestoreRefused,
    TargetFailed,
)


class Recorder(Closeable):
    """A target that writes down what it is given."""

    def __init__(self, refuse: bytes = b"\0") -> None:
        self.calls: list[str] = []
        self.contents: dict[bytes, bytes] = {}
        self._refuse = refuse

    def _said(self, what: str, path: bytes, more: bytes = b"") -> Placed:
        if path == self._refuse:
            raise FileNotRestored(path.decode(), "refused")
        self.calls.append(f"{what} {path.decode()}{' ' + more.decode() if more else ''}")
        return Placed(losses=("owner",) if what == "file" else ())

    def directory(self, path: bytes, item: Any) -> Placed:
        return self._said("enter", path)

    def leave_directory(self, path: bytes, item: Any) -> Placed:
        return self._said("leave", path)

    def file(self, path: bytes, item: Any) -> Placed:
        self.contents[path] = b"".join(item.pieces())
        return self._said("file", path)

    def symlink(self, path: bytes, item: Any) -> Placed:
        return self._said("symlink", path, item.entry.link_target)

    def hard_link(self, path: bytes, item: Any, existing: bytes) -> Placed:
        return self._said("link", path, existing)

    def special(self, path: bytes, item: Any) -> Placed:
        return self._said(item.entry.type.value, path)

    def finish(self) -> list[Problem]:
        self.calls.append("finish")
        return []


def handed_over(guest: Any, *paths: bytes, options: Options | None = None) -> list[str]:
    target = Recorder()
    with guest.session() as session:
        restore_files(session, paths, target, options=options or Options())
    return target.calls


@pytest.fixture
def machine(guest: Any) -> Any:
    """/ with /data mounted over a directory that hides something, /srv/deep mounted where / has no directory."""
    guest.file(b"/etc/hosts", b"h")
    guest.file(b"/etc/ssh/config", b"c")
    guest.file(b"/data/hidden", b"")
    guest.put(b"/srv", FileType.DIRECTORY)
    guest.file(b"/journal", b"j", guest.volume("/data"))
    guest.file(b"/x", b"x", guest.volume("/srv/deep"))
    guest.file(b"/loose", b"l", guest.volume(None))
    guest.file(b"/Users/x", b"w", guest.volume("C:"))
    guest.volume("/broken", problem="bad superblock")
    return guest


def test_a_tree_is_handed_over_depth_first_and_ends_once(machine: Any) -> None:
    assert handed_over(machine, b"/etc") == [
        "enter etc", "file etc/hosts", "enter etc/ssh", "file etc/ssh/config", "leave etc/ssh", "leave etc", "finish",
    ]  # fmt: skip


def test_mounted_volumes_are_entered_as_the_guest_sees_them(machine: Any) -> None:
    calls = handed_over(machine, b"/")
    assert [c for c in calls if "data" in c or "srv" in c] == [
        "enter data", "file data/journal", "leave data",
        "enter srv", "enter srv/deep", "file srv/deep/x", "leave srv/deep", "leave srv",
    ]  # fmt: skip
    alone = handed_over(machine, b"/", options=Options(one_file_system=True))
    assert [c for c in alone if "data" in c or "srv" in c] == ["enter data", "leave data", "enter srv", "leave srv"]


def test_everything_means_every_volume_once_and_tells_what_cannot_be_read(machine: Any) -> None:
    target = Recorder()
    with machine.session() as session:
        report = restore_files(session, [], target)
    assert sorted(target.contents) == [
        b"C/Users/x",
        b"data/journal",
        b"etc/hosts",
        b"etc/ssh/config",
        b"srv/deep/x",
        b"vg-3/loose",
    ]
    assert [p.path for p in report.problems] == [b"/broken"]


def test_full_paths_bring_the_directories_above_once(machine: Any) -> None:
    paths = (b"/etc/ssh/config", b"C:/Users/x", b"/etc/hosts", b"/etc/ssh", b"/dev/vg/3:/loose")
    assert handed_over(machine, *paths, options=Options(full_paths=True)) == [
        "enter C", "enter C/Users", "file C/Users/x", "leave C/Users", "leave C",
        "enter etc", "file etc/hosts", "enter etc/ssh", "file etc/ssh/config", "leave etc/ssh", "leave etc",
        "enter vg-3", "file vg-3/loose", "leave vg-3", "finish",
    ]  # fmt: skip


def test_by_last_names_every_path_lands_in_the_target(machine: Any) -> None:
    assert handed_over(machine, b"/etc/hosts", b"/data/journal/", b"C:", b"/dev/vg/3:/loose") == [
        "enter C", "enter C/Users", "file C/Users/x", "leave C/Users", "leave C",
        "file hosts", "file journal", "file loose", "finish",
    ]  # fmt: skip


@pytest.mark.parametrize("paths", [[b"/a/x", b"/b/x"], [b"/", b"/a"], [b"/a/.."]])
def test_two_paths_for_one_place_are_refused_before_anything_is_written(guest: Any, paths: list[bytes]) -> None:
    target = Recorder()
    with guest.session() as session, pytest.raises(RestoreRefused):
        restore_files(session, paths, target)
    assert target.calls == []


def test_hard_links_are_linked_to_the_first_name_within_their_volume(machine: Any) -> None:
    for path in (b"/etc/a", b"/etc/b", b"/etc/c"):
        machine.file(path, b"", inode=7, links=3)
    machine.file(b"/d", b"", machine.volumes["/data"], inode=7, links=3)
    calls = handed_over(machine, b"/")
    assert [c for c in calls if c.split()[1:] and c.split()[1] in ("etc/a", "etc/b", "etc/c", "data/d")] == [
        "file data/d", "file etc/a", "link etc/b etc/a", "link etc/c etc/a",
    ]  # fmt: skip


def test_one_entry_that_fails_is_told_and_the_others_come(machine: Any, failing: Any) -> None:
    failures = {
        b"/etc/hosts": (0, IntegrityError("chunk", "not what was stored")),
        b"/etc/ssh": (0, MountFailed("/etc/ssh", "damaged directory")),
    }
    machine.put(b"/etc/odd", FileType.OTHER)
    target = Recorder(refuse=b"data/journal")
    with machine.session() as below:
        report = restore_files(failing(below, failures), [b"/", b"/nothing"], target, options=Options(full_paths=True))
    told = {(p.path, p.code) for p in report.problems}
    assert told == {
        (b"/etc/hosts", "integrity"),
        (b"/etc/ssh", "mount-failed"),
        (b"/etc/odd", "file-not-restored"),
        (b"/data/journal", "file-not-restored"),
        (b"/broken", "mount-failed"),
    }
    assert (report.failed, report.complete) == (5, False)
    assert {"enter etc/ssh", "leave etc/ssh", "file srv/deep/x", "finish"} <= set(target.calls)


def test_a_path_that_is_not_there_is_told_with_the_others_restored(machine: Any) -> None:
    target = Recorder()
    with machine.session() as session:
        report = restore_files(session, [b"/etc/hosts", b"/nothing"], target)
    assert (target.contents, [p.code for p in report.problems]) == ({b"hosts": b"h"}, ["guest-file-not-found"])


def test_a_path_through_a_link_is_told_and_nothing_is_put_below_the_link(machine: Any) -> None:
    machine.put(b"/bin", FileType.SYMLINK, link_target=b"usr/bin")
    machine.root.entries[b"/bin/ls"] = FileEntry(b"/bin/ls", FileType.FILE, 0, 0o755, 0, 0, 0, 0, 77)
    target = Recorder()
    with machine.session() as session:
        report = restore_files(session, [b"/bin/ls", b"/etc/hosts"], target, options=Options(full_paths=True))
    assert target.calls == ["enter etc", "file etc/hosts", "leave etc", "finish"]
    assert [(p.path, "name the path" in p.message) for p in report.problems] == [(b"/bin", True)]


@pytest.mark.parametrize(
    "error", [MountEnded("it crashed"), RepositoryUnavailable("r", "gone"), TargetFailed("t", "full")]
)
def test_what_no_other_file_would_survive_ends_the_restore(machine: Any, failing: Any, error: Exception) -> None:
    target = Recorder()
    with machine.session() as below, pytest.raises(type(error)) as caught:
        restore_files(failing(below, {b"/etc/hosts": (0, error)}), [b"/data", b"/etc"], target)
    assert "finish" not in target.calls
    assert any("3 entries with 1 bytes were restored" in note for note in caught.value.__notes__)


def test_it_can_be_cancelled_between_pieces_and_tells_how_far_it_is(machine: Any) -> None:
    machine.file(b"/large", bytes(100_000))
    told: list[RestoreProgress] = []
    target = Recorder()
    with machine.session() as session, pytest.raises(Cancelled):
        restore_files(
            session, [b"/large"], target, progress=told.append, cancelled=lambda: bool(told) and told[-1].content > 5000
        )
    assert (told[-1].path, told[-1].content) == (b"/large", 6000)
    assert target.calls == []


@pytest.mark.parametrize("difference", [-1, 1])
def test_content_of_another_length_than_told_is_never_whole(guest: Any, difference: int) -> None:
    guest.file(b"/f", b"x" * 5000, size=5000 + difference)
    target = Recorder()
    with guest.session() as session:
        report = restore_files(session, [b"/f"], target)
    assert (target.contents, report.problems[0].code) == ({}, "mount-failed")


class Hostile:
    """A reader that was taken over: it lists what it likes, without end."""

    def __init__(self, names: list[bytes], *, kind: FileType = FileType.FILE, same_inode: bool = False) -> None:
        self._entries = [FileEntry(b"/" + n, kind, 0, 0o777, 0, 0, 0, 0, 9 if same_inode else 0) for n in names]
        self._volume = Volume("v", "/dev/sda", "ext4", "", "", 0, "/")

    def volumes(self) -> list[Volume]:
        return [self._volume]

    def locate(self, path: bytes) -> tuple[Volume, bytes]:
        return self._volume, path

    def entry(self, path: bytes) -> FileEntry:
        return FileEntry(b"/", FileType.DIRECTORY, 0, 0o777, 0, 0, 0, 0, 2)

    def list_directory(self, path: bytes) -> list[FileEntry]:
        return self._entries

    def read(self, path: bytes) -> Any:
        return iter(())

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return {}


def test_names_that_are_none_are_told_and_never_reach_a_target() -> None:
    target = Recorder()
    # The name of an entry is the last part of its path: b"/" at the end makes an empty one.
    report = restore_files(Hostile([b"..", b".", b"x/", b"a\0b", b"good", b"good"]), [b"/"], target)
    assert target.calls == ["enter ", "file good", "leave ", "finish"]
    assert report.failed == 5
    assert any("twice" in p.message for p in report.problems)


def test_a_directory_that_contains_itself_ends_by_its_inode_or_by_its_depth() -> None:
    target = Recorder()
    report = restore_files(Hostile([b"d"], kind=FileType.DIRECTORY, same_inode=True), [b"/"], target)
    assert (report.failed, target.calls) == (
        1,
        ["enter ", "enter d", "enter d/d", "leave d/d", "leave d", "leave ", "finish"],
    )
    deep = Recorder()
    report = restore_files(Hostile([b"d"], kind=FileType.DIRECTORY), [b"/"], deep)
    assert (report.failed, len([c for c in deep.calls if c.startswith("enter")])) == (1, 500)


def test_losses_and_problems_are_counted_and_only_some_are_kept(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mounter.restore.tree.PROBLEMS_KEPT", 2)
    for number in range(9):
        guest.file(b"/f%d" % number, b"", size=number % 3)
    with guest.session() as session:
        report = restore_files(session, [b"/"], Recorder())
    assert (report.failed, len(report.problems)) == (6, 2)
    assert [(loss.what, loss.count, loss.example) for loss in report.losses] == [("owner", 3, b"/f0")]
    assert report.entries == {Action.WRITTEN: 4}


def test_paths_below_the_target_are_made_of_names() -> None:
    assert [harmless(p) for p in (b"a", b"a/b", b"", b"/a", b"a//b", b"a/..", b".", b"a\0")] == [True, True] + [
        False
    ] * 6
    volume = Volume("v", "/dev/vg/old", "ext4", "", "", 0)
    assert [(c.guest, c.path) for c in chosen_of([b"/dev/vg/old:/a/x"], [volume], full=True)] == [
        (b"/dev/vg/old:/a/x", b"vg-old/a/x")
    ]
