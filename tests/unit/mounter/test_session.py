from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mounter.export import Served
from mounter.memory import MemoryFilesystem
from mounter.ports import GuestFilesystem
from mounter.session import MountSession
from proxy.errors import GuestFileNotFound, MountEnded, MountFailed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Stands still."""

    def now(self) -> datetime:
        """Always the same."""
        return NOW


def open_session(filesystem: MemoryFilesystem, **more: timedelta) -> MountSession:
    return MountSession([], lambda _served, _directory: filesystem, clock=Clock(), **more)


def test_guest_paths_lead_to_the_volume_that_is_mounted_there(filesystem: MemoryFilesystem) -> None:
    with open_session(filesystem) as session:
        assert b"".join(session.read(b"/etc/hostname")) == b"guest\n"
        assert session.entry(b"/data/journal").size == 10_000
        assert [e.name for e in session.list_directory(b"/data")] == [b"database", b"journal"]
        assert b"".join(session.read(b"/dev/sdc:/x")) == b"loose"
        with pytest.raises(GuestFileNotFound):
            session.entry(b"/data/hidden")


def test_a_name_that_only_begins_like_a_mount_point_is_below(filesystem: MemoryFilesystem) -> None:
    with open_session(filesystem) as session:
        assert session.locate(b"/database")[0].id == "root"
        assert session.locate(b"/data")[0].id == "data"


def test_a_volume_with_a_problem_is_listed_and_the_others_are_open(filesystem: MemoryFilesystem) -> None:
    with open_session(filesystem) as session:
        assert [v.problem for v in session.volumes()] == [None, None, None, "bad superblock"]
        with pytest.raises(MountFailed, match="bad superblock"):
            session.entry(b"/broken/x")


def test_a_session_ends_by_itself(filesystem: MemoryFilesystem) -> None:
    with open_session(filesystem, lifetime=timedelta(seconds=0.05)) as session:
        assert session.expires_at == NOW + timedelta(seconds=0.05)
        assert filesystem._closed.wait(10)
        with pytest.raises(MountEnded, match="deadline"):
            session.entry(b"/etc")


def test_everything_on_this_proxy_is_gone_after_the_end(filesystem: MemoryFilesystem, tmp_path: Path) -> None:
    seen: list[Path] = []

    def opens(_served: Sequence[Served], directory: Path) -> GuestFilesystem:
        seen.append(directory)
        assert directory.stat().st_mode & 0o777 == 0o700
        return filesystem

    with MountSession([], opens, clock=Clock(), directory=tmp_path):
        assert seen[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert filesystem._closed.is_set()


def test_a_file_system_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    def refuses(_served: Sequence[Served], _directory: Path) -> GuestFilesystem:
        raise MountFailed("the disks", "no")

    with pytest.raises(MountFailed, match="no"):
        MountSession([], refuses, clock=Clock(), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []
