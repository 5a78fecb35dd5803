"""Restoring to files: what is refused, what is written, what stays a hole."""

import os
from pathlib import Path

import pytest

from proxy.errors import RestoreRefused, WriteFailed
from proxy.ports import DiskPlace
from proxy.transport.iscsi import RestoreToken
from proxy.transport.raw import SharedFiles
from proxy.transport.san import SanFabric
from proxy.transport.target import FileTarget, SiteTargets
from proxy.units import KiB, MiB

SIZE = 4 * MiB


@pytest.fixture
def shared(tmp_path: Path) -> SharedFiles:
    return SharedFiles([tmp_path])


def token(path: Path, *, overwrite: bool = False) -> RestoreToken:
    return RestoreToken(str(path), SIZE, overwrite)


def test_a_new_file_has_the_size_and_only_what_was_written(shared: SharedFiles, tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with FileTarget(shared, token(path)) as target:
        target.write(MiB, memoryview(b"x" * 100 * KiB))
        target.zero(2 * MiB, 2 * MiB)
        target.flush()
    data = path.read_bytes()
    assert data == bytes(MiB) + b"x" * 100 * KiB + bytes(SIZE - MiB - 100 * KiB)
    assert path.stat().st_blocks * 512 == 100 * KiB
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_was_made_and_never_flushed_is_gone(shared: SharedFiles, tmp_path: Path) -> None:
    FileTarget(shared, token(tmp_path / "new.img")).close()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_is_refused_unless_it_may_go_and_then_its_holes_are_real(
    shared: SharedFiles, tmp_path: Path
) -> None:
    path = tmp_path / "old.img"
    path.write_bytes(b"QFI\xfb" + b"\xaa" * (SIZE + MiB))
    with pytest.raises(RestoreRefused, match="qcow2"):
        FileTarget(shared, token(path))
    assert path.stat().st_size == SIZE + MiB + 4
    with FileTarget(shared, token(path, overwrite=True)) as target:
        target.zero(0, SIZE)
        target.write(5, memoryview(b"y"))
        target.flush()
    assert path.read_bytes() == bytes(5) + b"y" + bytes(SIZE - 6)
    assert path.stat().st_blocks * 512 <= 4 * KiB


def test_an_old_file_stays_when_it_is_closed_without_a_flush(shared: SharedFiles, tmp_path: Path) -> None:
    path = tmp_path / "old.img"
    path.touch()
    FileTarget(shared, token(path)).close()
    assert path.exists()


def test_places_that_are_not_ours_are_refused(shared: SharedFiles, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.img"
    (tmp_path / "link").symlink_to(outside)
    for path in (outside, tmp_path / "link", tmp_path / ".." / "outside.img"):
        with pytest.raises(RestoreRefused, match="shared directory"):
            FileTarget(shared, token(path))
    for path in (tmp_path, tmp_path / "missing" / "x.img"):
        with pytest.raises(RestoreRefused):
            FileTarget(shared, token(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RestoreRefused, match="regular"):
        FileTarget(shared, token(tmp_path / "pipe"))
    assert not outside.exists()


def test_writes_stay_within_the_disk_and_end_with_it(shared: SharedFiles, tmp_path: Path) -> None:
    target = FileTarget(shared, token(tmp_path / "new.img"))
    with pytest.raises(WriteFailed, match="leaves"):
        target.write(SIZE - 1, memoryview(b"xy"))
    with pytest.raises(WriteFailed, match="leaves"):
        target.zero(SIZE - 1, 2)
    target.close()
    target.close()
    for call in (lambda: target.write(0, memoryview(b"x")), lambda: target.zero(0, 1), target.flush):
        with pytest.raises(WriteFailed, match="closed"):
            call()


def test_a_site_opens_files_by_path_and_reads_them_back(shared: SharedFiles, tmp_path: Path) -> None:
    targets, place = SiteTargets(SanFabric(()), shared), DiskPlace(path=str(tmp_path / "new.img"))
    with targets.open(place, SIZE, overwrite=False) as target:
        target.write(0, memoryview(b"hello"))
        target.flush()
    with targets.read_back(place, SIZE) as source:
        data = bytearray(5)
        source.read_into(0, memoryview(data))
    assert data == b"hello"
    with pytest.raises(RestoreRefused, match="none of 0") as refused:
        targets.open(DiskPlace(target="iqn.x:y", lun=1), SIZE, overwrite=True)
    assert refused.value.hint
