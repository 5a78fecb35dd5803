"""Restores into a running guest, which is in memory here; ``tests/contract/test_guest_files.py`` holds it to the real ones."""

from typing import Any

import pytest

from mounter.ports import FileType
from mounter.restore.guest import BATCH, GuestTarget
from mounter.restore.tree import RestoreReport, restore_files
from mounter.targets import Action
from proxy.errors import TargetFailed
from proxy.guest_files import GuestFileKind, Outcome
from proxy.hypervisor.memory_guest_files import Content, MemoryGuest, MemoryGuestFiles

TIME = 1_700_000_000_123_456_789
TO = b"/srv/back"


class Limited(MemoryGuestFiles):
    """A guest whose agent makes no links."""

    can_symlink = False
    can_hard_link = False


@pytest.fixture
def running() -> MemoryGuest:
    return MemoryGuest()


def push(guest: Any, running: MemoryGuest, *paths: bytes, overwrite: bool = False) -> tuple[RestoreReport, GuestTarget]:
    files = MemoryGuestFiles(running, TO)
    with guest.session() as session, GuestTarget(files, overwrite=overwrite) as target:
        return restore_files(session, paths or [b"/etc"], target), target


def below(running: MemoryGuest) -> dict[bytes, Content]:
    """What is in the target, by relative path."""
    return {path[len(TO) + 1 :]: what for path, what in running.entries.items() if path.startswith(TO + b"/")}


def test_a_tree_arrives_with_its_attributes(guest: Any, running: MemoryGuest) -> None:
    guest.put(b"/etc", FileType.DIRECTORY, mode=0o755, mtime_ns=TIME, uid=7)
    guest.file(b"/etc/app/app.conf", b"listen 80\n", mode=0o4640, uid=33, gid=44, mtime_ns=TIME)
    guest.put(b"/etc/link", FileType.SYMLINK, link_target=b"../../etc/passwd")
    report, _ = push(guest, running)
    found = below(running)
    conf = found[b"etc/app/app.conf"]
    assert (conf.data, conf.mode, conf.uid, conf.gid, conf.mtime_ns) == (b"listen 80\n", 0o4640, 33, 44, TIME)
    assert (found[b"etc"].mode, found[b"etc"].uid, found[b"etc"].mtime_ns) == (0o755, 7, TIME)
    assert (found[b"etc/link"].kind, found[b"etc/link"].data) == (GuestFileKind.SYMLINK, b"../../etc/passwd")
    assert report.complete
    assert report.entries == {Action.PENDING: 4}


def test_what_is_there_with_the_same_size_and_time_is_not_sent_again(guest: Any, running: MemoryGuest) -> None:
    for number in range(10):
        guest.file(b"/etc/%d" % number, b"%d" % number * 100, mtime_ns=TIME + number)
    push(guest, running)
    running.entries[TO + b"/etc/3"].data = b"cut"
    running.entries[TO + b"/etc/3"].mtime_ns = TIME - 1
    report, _ = push(guest, running, overwrite=True)
    assert report.entries == {Action.UNCHANGED: 9, Action.PENDING: 2}
    assert below(running)[b"etc/3"].data == b"3" * 100
    assert report.written == 100


def test_another_file_in_the_guest_is_never_replaced_unless_it_is_asked_for(guest: Any, running: MemoryGuest) -> None:
    guest.file(b"/etc/hosts", b"of the restore point")
    guest.file(b"/etc/other", b"x")
    running.entries[TO] = running.entries[TO + b"/etc"] = Content(GuestFileKind.DIRECTORY)
    running.entries[TO + b"/etc/hosts"] = Content(GuestFileKind.FILE, b"of today")
    report, _ = push(guest, running)
    assert below(running)[b"etc/hosts"].data == b"of today"
    assert [problem.path for problem in report.problems] == [b"/etc/hosts"]
    assert below(running)[b"etc/other"].data == b"x"
    report, _ = push(guest, running, overwrite=True)
    assert report.complete
    assert below(running)[b"etc/hosts"].data == b"of the restore point"


def test_a_file_that_appears_meanwhile_stays_and_is_told(guest: Any, running: MemoryGuest) -> None:
    guest.file(b"/etc/hosts", b"of the restore point")

    class Racing(MemoryGuestFiles):
        def apply(self, actions: Any) -> Any:
            running.entries.setdefault(TO + b"/etc", Content(GuestFileKind.DIRECTORY))
            running.entries[TO + b"/etc/hosts"] = Content(GuestFileKind.FILE, b"of just now")
            return super().apply(actions)

    with guest.session() as session, GuestTarget(Racing(running, TO)) as target:
        report = restore_files(session, [b"/etc"], target)
    assert below(running)[b"etc/hosts"].data == b"of just now"
    assert [(problem.path, problem.code) for problem in report.problems] == [(b"etc/hosts", "file-not-restored")]


def test_a_link_in_the_place_of_a_directory_leads_nowhere(guest: Any, running: MemoryGuest) -> None:
    guest.file(b"/etc/app/secret", b"x")
    running.entries[TO] = running.entries[TO + b"/etc"] = Content(GuestFileKind.DIRECTORY)
    running.entries[TO + b"/etc/app"] = Content(GuestFileKind.SYMLINK, b"/root")
    report, _ = push(guest, running, overwrite=True)
    assert [problem.path for problem in report.problems] == [b"/etc/app"]
    assert set(below(running)) == {b"etc", b"etc/app"}


def test_hard_links_stay_together(guest: Any, running: MemoryGuest) -> None:
    for name in (b"/etc/one", b"/etc/two"):
        guest.file(name, b"shared", inode=77, links=2)
    push(guest, running)
    assert below(running)[b"etc/one"] is below(running)[b"etc/two"]
    report, _ = push(guest, running)
    assert report.complete
    assert report.written == 0


def test_an_agent_without_links_gets_copies_and_says_what_is_left_out(guest: Any, running: MemoryGuest) -> None:
    for name in (b"/etc/one", b"/etc/two"):
        guest.file(name, b"shared", inode=77, links=2)
    guest.put(b"/etc/link", FileType.SYMLINK, link_target=b"one")
    with guest.session() as session, GuestTarget(Limited(running, TO)) as target:
        report = restore_files(session, [b"/etc"], target)
    found = below(running)
    assert found[b"etc/one"].data == found[b"etc/two"].data == b"shared"
    assert found[b"etc/one"] is not found[b"etc/two"]
    assert b"etc/link" not in found
    assert {loss.what for loss in report.losses} == {
        "hard link (made a copy)",
        "symbolic links (its agent cannot make them)",
    }


def test_what_an_agent_cannot_hold_is_told_by_name_and_number(guest: Any, running: MemoryGuest) -> None:
    running.root_user = False
    guest.file(b"/etc/acl", b"x", uid=5, xattrs={b"system.posix_acl_access": b"\2"})
    guest.put(b"/etc/pipe", FileType.FIFO)
    report, target = push(guest, running)
    assert {loss.what: loss.count for loss in report.losses} == {
        "extended attribute system.posix_acl_access": 1,
        "fifo (its agent cannot make it)": 1,
    }
    assert target.late_losses == {"owner": 2}  # the file, and the directory


def test_many_small_files_share_few_calls(guest: Any, running: MemoryGuest) -> None:
    for number in range(BATCH):
        guest.file(b"/etc/%04d" % number, b"x")
    files = MemoryGuestFiles(running, TO)
    with guest.session() as session, GuestTarget(files) as target:
        assert restore_files(session, [b"/etc"], target).complete
    assert files.calls.count("apply") <= 3
    assert files.calls.count("list_directory") == 1


def test_directories_that_are_new_are_not_looked_into(guest: Any, running: MemoryGuest) -> None:
    for number in range(20):
        guest.file(b"/etc/%d/x" % number, b"x")
    files = MemoryGuestFiles(running, TO)
    with guest.session() as session, GuestTarget(files) as target:
        restore_files(session, [b"/etc"], target)
    assert files.calls.count("list_directory") == 1


def test_a_full_guest_and_a_lost_agent_end_the_push_and_whole_files_stay(guest: Any, running: MemoryGuest) -> None:
    guest.file(b"/etc/a", b"x" * 2_000_000)
    guest.file(b"/etc/b", b"x" * 3_000_000)
    running.full = 2_500_000
    with pytest.raises(TargetFailed, match="no space"):
        push(guest, running)
    assert set(below(running)) == {b"etc", b"etc/a"}


def test_an_agent_that_goes_away_in_the_middle_ends_the_push(guest: Any, running: MemoryGuest) -> None:
    guest.file(b"/etc/a", b"x")

    class Dying(MemoryGuestFiles):
        def stage(self, size: int, pieces: Any) -> Any:
            running.answers = False
            return super().stage(size, pieces)

    with guest.session() as session, GuestTarget(Dying(running, TO)) as target, pytest.raises(TargetFailed) as told:
        restore_files(session, [b"/etc"], target)
    assert told.value.hint


def test_a_tree_of_which_nothing_can_be_placed_does_not_fill_the_memory(
    guest: Any, running: MemoryGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mounter.restore.guest.PROBLEMS_KEPT", 3)

    class Refusing(MemoryGuestFiles):
        def apply(self, actions: Any) -> list[Outcome]:
            return [Outcome("read-only file system") for _ in actions]

    for number in range(8):
        guest.file(b"/etc/%d" % number, b"x")
    with guest.session() as session, GuestTarget(Refusing(running, TO)) as target:
        report = restore_files(session, [b"/etc"], target)
    assert report.failed == 4
    assert "7 more" in report.problems[-1].message
