"""The directory store beyond the common contract: durability steps, leftovers, and errors of the operating system."""

import errno
import os
from pathlib import Path

import pytest

from proxy.errors import FormatError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.repository import PosixStore
from proxy.repository.posix import ORPHAN_SECONDS, TEMPORARY


def fail(monkeypatch: pytest.MonkeyPatch, function: str, number: int) -> None:
    """Make a system call fail as a broken file system does."""

    def broken(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, broken)


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnavailable, match="no such directory"):
        PosixStore(tmp_path / "unmounted")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_vanishes_is_not_an_empty_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    store = PosixStore(root)
    (root / TEMPORARY).rmdir()
    root.rmdir()
    with pytest.raises(RepositoryUnavailable):
        store.list("")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_file_system_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = PosixStore(tmp_path)
    with monkeypatch.context() as patch:
        fail(patch, call, number)
        with pytest.raises(RepositoryFull):
            store.put("packs/00/name", b"data")
    assert list(store.list("")) == []
    assert list((tmp_path / TEMPORARY).iterdir()) == []
    store.put("packs/00/name", b"data")
    assert store.get("packs/00/name") == b"data"


def test_file_and_directories_are_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    synced: list[str] = []
    real = os.fsync

    def watch(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        synced.append("file" if path.parent.name == TEMPORARY else str(path.relative_to(tmp_path)))
        real(file)

    monkeypatch.setattr(os, "fsync", watch)
    store.put("packs/00/one", b"data")
    assert synced[0] == "file"
    assert set(synced[1:]) == {".", "packs", "packs/00"}
    assert synced[-1] == "packs/00"
    synced.clear()
    store.put("packs/00/two", b"data")
    assert synced == ["file", "packs/00"]


def test_other_errors_are_the_repositorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    store.put("name", b"data")
    fail(monkeypatch, "open", errno.ESTALE)
    with pytest.raises(RepositoryUnavailable, match=r"[Ss]tale"):
        store.get("name")
    with pytest.raises(RepositoryUnavailable):
        store.put("other", b"data")


def test_a_sector_that_cannot_be_read_is_damage_of_its_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    store.put("name", b"data")
    fail(monkeypatch, "pread", errno.EIO)
    with pytest.raises(IntegrityError, match="object name"):
        store.get("name")


def test_short_answers_of_the_kernel_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, offset: real(file, min(length, 3), offset))
    monkeypatch.setattr(os, "write", lambda file, data, real=os.write: real(file, bytes(data)[:3]))
    store.put("name", b"0123456789")
    assert store.get("name") == b"0123456789"
    assert store.get("name", 2, 7) == b"2345678"
    with pytest.raises(FormatError):
        store.get("name", 2, 9)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = PosixStore(tmp_path)
    fail(monkeypatch, "link", number)
    store.put("name", b"first")
    with pytest.raises(FileExistsError):
        store.put("name", b"second")
    assert store.get("name") == b"first"
    assert list((tmp_path / TEMPORARY).iterdir()) == []


def test_old_leftovers_go_when_the_store_is_opened_and_young_ones_stay(tmp_path: Path) -> None:
    PosixStore(tmp_path).put("name", b"data")
    old, young = tmp_path / TEMPORARY / "old", tmp_path / TEMPORARY / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    now = young.stat().st_mtime
    os.utime(old, (now - ORPHAN_SECONDS - 60,) * 2)
    os.utime(young, (now - ORPHAN_SECONDS + 60,) * 2)
    store = PosixStore(tmp_path)
    assert list((tmp_path / TEMPORARY).iterdir()) == [young]
    assert list(store.list("")) == ["name"]


def test_objects_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.put("name", b"data")
    assert (tmp_path / "name").stat().st_mode & 0o077 == 0
