import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from appliance.file_restore import STDOUT, Format, archive_target, format_of
from mounter.memory import MemoryFilesystem, MemoryVolume
from mounter.ports import Volume
from mounter.restore.directory import Existing
from mounter.restore.tree import restore_files
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.errors import ConfigurationError, RestoreRefused


def session() -> MountSession:
    root = MemoryVolume(Volume("root", "/dev/sda1", "ext4", "", "u1", 100, "/"))
    root.add_file(b"/etc/hostname", b"guest\n")
    return MountSession([], lambda _served, _directory: MemoryFilesystem([root]), clock=SystemClock())


def make(archive: Path, kind: Format, existing: Existing = Existing.REFUSE) -> None:
    with session() as opened, archive_target(archive, kind, existing) as target:
        assert restore_files(opened, [b"/etc"], target).complete


@pytest.mark.parametrize("kind", Format)
def test_an_archive_has_the_format_that_was_asked_for_and_is_private(kind: Format, tmp_path: Path) -> None:
    archive = tmp_path / "a"
    make(archive, kind)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    if kind is Format.ZIP:
        with zipfile.ZipFile(archive) as opened:
            assert opened.read("etc/hostname") == b"guest\n"
        return
    if kind is Format.TAR_ZST:
        archive.write_bytes(zstandard.ZstdDecompressor().decompressobj().decompress(archive.read_bytes()))
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["etc", "etc/hostname"]


def test_an_archive_replaces_another_only_when_asked_to(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_text("mine")
    with pytest.raises(RestoreRefused):
        make(archive, Format.TAR)
    assert archive.read_text() == "mine"
    make(archive, Format.TAR, Existing.OVERWRITE)
    assert tarfile.is_tarfile(archive)
    assert os.listdir(tmp_path) == ["a.tar"]  # noqa: PTH208  names


def test_an_archive_that_was_given_up_is_not_there(tmp_path: Path) -> None:
    class Stopped(Exception):
        """By whatever."""

    with pytest.raises(Stopped), archive_target(tmp_path / "a.tar", Format.TAR, Existing.REFUSE):
        raise Stopped
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_archive_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused), archive_target(tmp_path / "none" / "a.tar", Format.TAR, Existing.REFUSE):
        pytest.fail("no such directory")


def test_the_format_is_asked_for_or_told_by_the_name() -> None:
    found = [format_of(Path(name), None) for name in ("x.tar", "x.TAR.zst", "x.tzst", "x.y.zip")]
    assert found == [Format.TAR, Format.TAR_ZST, Format.TAR_ZST, Format.ZIP]
    assert (format_of(STDOUT, None), format_of(STDOUT, Format.ZIP)) == (Format.TAR, Format.ZIP)
    assert format_of(Path("x.tar"), Format.ZIP) is Format.ZIP
    with pytest.raises(ConfigurationError, match="does not tell"):
        format_of(Path("x.rar"), None)
