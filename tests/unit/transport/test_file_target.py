"""Restoring to files: what is refused, what is written, what stays a hole."""

import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.errors import RestoreRefused, WriteFailed
from proxy.ports import DiskPlace
from proxy.transport.file_target import HOLE, data_runs, first_data
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
    with FileTarget(shared, token(tmp_path / "new.img")) as target:
        target.write(0, memoryview(b"x"))
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def snapshot(path: Path) -> tuple[bytes, int, int, int]:
    status = path.stat()
    return path.read_bytes(), status.st_blocks, status.st_mtime_ns, status.st_ctime_ns


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("size", [0, MiB, SIZE, SIZE + MiB])
def test_opening_changes_nothing_of_an_old_file(
    shared: SharedFiles, tmp_path: Path, size: int, overwrite: bool
) -> None:
    path = tmp_path / "old.img"
    path.write_bytes((b"x" if overwrite else b"\0") * size)
    before = snapshot(path)
    FileTarget(shared, token(path, overwrite=overwrite)).close()
    assert snapshot(path) == before


def test_a_new_file_is_made_by_the_first_change_and_not_by_the_opening(shared: SharedFiles, tmp_path: Path) -> None:
    changes: list[Callable[[FileTarget], None]] = [
        lambda target: target.write(5, memoryview(b"y")),
        lambda target: target.zero(0, 1),
        lambda target: target.flush(),
    ]
    for number, change in enumerate(changes):
        path = tmp_path / f"{number}.img"
        with FileTarget(shared, token(path)) as target:
            target.write(0, memoryview(b""))
            target.zero(0, 0)
            assert not path.exists()
            change(target)
            assert path.stat().st_size == SIZE
            target.flush()
        assert path.stat().st_size == SIZE


@pytest.mark.parametrize("size", [0, MiB, SIZE + MiB])
def test_an_old_file_gets_its_size_with_the_first_change(shared: SharedFiles, tmp_path: Path, size: int) -> None:
    path = tmp_path / "old.img"
    path.write_bytes(b"x" * size)
    with FileTarget(shared, token(path, overwrite=True)) as target:
        target.zero(0, SIZE)
        assert path.read_bytes() == bytes(SIZE)


def test_first_writes_from_many_threads_make_one_file(shared: SharedFiles, tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with FileTarget(shared, token(path)) as target, ThreadPoolExecutor(8) as pool:
        piece = SIZE // 64
        list(pool.map(lambda n: target.write(n * piece, memoryview(bytes([n + 1]) * piece)), range(64)))
        target.flush()
    assert path.read_bytes() == b"".join(bytes([n + 1]) * piece for n in range(64))


def test_a_file_that_somebody_made_since_the_opening_is_not_written_to(shared: SharedFiles, tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with FileTarget(shared, token(path)) as target:
        path.write_bytes(b"theirs")
        with pytest.raises(WriteFailed, match="exists"):
            target.write(0, memoryview(b"x"))
    assert path.read_bytes() == b"theirs"


@pytest.mark.slow
@pytest.mark.parametrize("position", [0, 2 * MiB, 3 * MiB - 1, 40 * MiB + 12_345, 64 * MiB - 1])
def test_one_byte_anywhere_in_an_old_file_is_enough_for_a_refusal(
    shared: SharedFiles, tmp_path: Path, position: int
) -> None:
    path = tmp_path / "old.img"
    with path.open("wb") as f:
        f.truncate(64 * MiB)
        f.seek(2 * MiB)
        f.write(bytes(MiB))  # allocated, and nothing in it
        f.seek(position)
        f.write(b"\x01")
    before = snapshot(path)
    with pytest.raises(RestoreRefused, match="data of unknown kind") as refused:
        FileTarget(shared, token(path))
    assert "--overwrite" in refused.value.hint
    assert snapshot(path) == before
    with path.open("rb") as f:
        assert first_data(f.fileno(), 64 * MiB, "old") == position


def test_a_large_file_without_data_is_looked_through_in_little_memory(shared: SharedFiles, tmp_path: Path) -> None:
    path = tmp_path / "old.img"
    with path.open("wb") as f:
        f.truncate(1 << 40)
        f.seek(1 << 39)
        for _ in range(16):
            f.write(bytes(MiB))
    tracemalloc.start()
    try:
        FileTarget(shared, token(path)).close()
        assert tracemalloc.get_traced_memory()[1] < 6 * MiB
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == 1 << 40


def test_a_directory_where_no_file_can_be_made_is_refused_before_anything_is_written(
    shared: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RestoreRefused, match="there is no directory"):
        FileTarget(shared, token(tmp_path / "missing" / "x.img"))
    # root may write everywhere, so the answer of the system is made up here
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RestoreRefused, match="no file can be made"):
        FileTarget(shared, token(tmp_path / "x.img"))
    assert list(tmp_path.iterdir()) == []


def test_one_file_has_one_identity_whatever_it_is_called(shared: SharedFiles, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    names = [tmp_path / "a", tmp_path / "link", tmp_path / "x" / ".." / "a"]
    assert {FileTarget(shared, token(name)).identity for name in names} == {str((tmp_path / "a").resolve())}


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


D, Z = b"d" * HOLE, bytes(HOLE)


@pytest.mark.parametrize(
    ("data", "offset", "runs"),
    [
        pytest.param(b"", 0, [], id="nothing"),
        pytest.param(D + D, 0, [(0, 2)], id="|dd|dd|"),
        pytest.param(Z + Z, 0, [], id="|00|00|"),
        pytest.param(D + Z + D, 0, [(0, 1), (2, 3)], id="|dd|00|dd|"),
        pytest.param(Z + D + Z, 8 * HOLE, [(1, 2)], id="|00|dd|00|"),
        pytest.param(Z[:-1] + b"d" + Z, 0, [(0, 1)], id="|0d|00|"),
        pytest.param(D + Z[:512], 0, [(0, 1)], id="|dd|0 the end of what is given ends a block"),
        pytest.param(D + Z[:512] + b"d", 0, [(0, 1 + 513 / HOLE)], id="|dd|0d the end is no hole"),
        pytest.param(Z + D, HOLE - 512, [(0, 2)], id="0|0dd|d blocks are those of the file"),
        pytest.param(b"\0" * 100, 7, [(0, 100 / HOLE)], id="0 within a block"),
    ],
)
def test_whole_blocks_of_zeroes_are_left_out(data: bytes, offset: int, runs: list[tuple[float, float]]) -> None:
    assert data_runs(memoryview(data), offset) == [(int(start * HOLE), int(end * HOLE)) for start, end in runs]


def test_zeroes_within_what_is_written_stay_holes_in_a_new_file_only(shared: SharedFiles, tmp_path: Path) -> None:
    data = memoryview((D + 7 * Z) * 64)
    for name, old in (("new", False), ("old", True)):
        path = tmp_path / name
        if old:
            path.write_bytes(b"o" * SIZE)
        with FileTarget(shared, token(path, overwrite=True)) as target:
            target.write(0, data)
            target.flush()
        assert path.read_bytes()[: len(data)] == data
        allocated = path.stat().st_blocks * 512
        assert allocated == SIZE if old else allocated <= 64 * HOLE + 16 * KiB, "beside the file system's own blocks"


def test_zeroes_that_are_written_over_data_are_zeroes(shared: SharedFiles, tmp_path: Path) -> None:
    with FileTarget(shared, token(tmp_path / "new")) as target:
        target.write(0, memoryview(D * 8))
        target.write(HOLE, memoryview(Z * 2))
        target.flush()
    assert (tmp_path / "new").read_bytes()[: 8 * HOLE] == D + Z * 2 + D * 5
