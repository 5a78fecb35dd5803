import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mounter.extract import into_directory, to_stream
from mounter.memory import MemoryFilesystem
from mounter.ports import FileEntry
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.errors import GuestFileNotFound, MountFailed, RestoreRefused


@pytest.fixture
def session(filesystem: MemoryFilesystem) -> Iterator[MountSession]:
    with MountSession([], lambda _served, _directory: filesystem, clock=SystemClock()) as opened:
        yield opened


class Shortened:
    """A session whose files end early, as a damaged file system's may."""

    def __init__(self, below: MountSession) -> None:
        self._below = below

    def entry(self, path: bytes) -> FileEntry:
        """Says more than there is."""
        found = self._below.entry(path)
        return replace(found, size=found.size + 1)

    def read(self, path: bytes) -> Iterator[bytes]:
        """As below."""
        return self._below.read(path)


def test_a_file_is_restored_with_its_bytes_mode_and_time(session: MountSession, tmp_path: Path) -> None:
    done = into_directory(session, b"/etc/hostname", tmp_path)
    assert done.target == tmp_path / "hostname"
    assert done.target.read_bytes() == b"guest\n"
    assert (done.size, done.sha256) == (6, hashlib.sha256(b"guest\n").hexdigest())
    status = done.target.stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 1_700_000_000_123_456_789)
    assert [p.name for p in tmp_path.iterdir()] == ["hostname"]


def test_a_file_goes_to_a_stream(session: MountSession) -> None:
    stream = io.BytesIO()
    done = to_stream(session, b"/data/journal", stream)
    assert stream.getvalue() == b"0123456789" * 1000
    assert (done.size, done.sha256) == (10_000, hashlib.sha256(stream.getvalue()).hexdigest())


def test_a_taken_name_is_refused_unless_asked(session: MountSession, tmp_path: Path) -> None:
    (tmp_path / "hostname").write_text("mine")
    with pytest.raises(RestoreRefused):
        into_directory(session, b"/etc/hostname", tmp_path)
    assert (tmp_path / "hostname").read_text() == "mine"
    into_directory(session, b"/etc/hostname", tmp_path, overwrite=True)
    assert (tmp_path / "hostname").read_bytes() == b"guest\n"


def test_a_link_in_the_targets_place_is_replaced_and_not_followed(session: MountSession, tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "folder"
    precious.write_text("mine")
    folder.mkdir()
    (folder / "hostname").symlink_to(precious)
    into_directory(session, b"/etc/hostname", folder, overwrite=True)
    assert (precious.read_text(), (folder / "hostname").is_symlink()) == ("mine", False)


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc/cron.d/x", b"a\0b"])
def test_a_hostile_name_cannot_leave_the_directory(name: bytes, session: MountSession, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RestoreRefused):
        into_directory(session, b"/etc/hostname", folder, name=name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert list(folder.iterdir()) == []


def test_a_file_that_ends_early_leaves_nothing(session: MountSession, tmp_path: Path) -> None:
    with pytest.raises(MountFailed, match="10000 bytes could be read of 10001"):
        into_directory(Shortened(session), b"/data/journal", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [b"/etc", b"/link", b"/nothing"])
def test_only_regular_files_are_extracted(path: bytes, session: MountSession, tmp_path: Path) -> None:
    with pytest.raises(GuestFileNotFound):
        into_directory(session, path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_refused(session: MountSession, tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused):
        into_directory(session, b"/etc/hostname", tmp_path / "nowhere")
