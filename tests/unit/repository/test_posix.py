"""The directory store beyond the common contract: durability steps, leftovers, and errors of the operating system."""

import errno
import os
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigurationError, FormatError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.repository import PosixStore
from proxy.repository.scratch import Scratch, anonymous
from proxy.repository.stores.posix import _KEPT, ORPHAN_SECONDS, TEMPORARY
from proxy.units import MiB


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
    with pytest.raises(RepositoryUnavailable, match="gone"):
        list(store.list(""))
    with pytest.raises(RepositoryUnavailable, match="gone"):
        store.get("config")
    with pytest.raises(RepositoryUnavailable, match="gone"):
        store.delete("config")


def test_another_file_system_in_its_place_is_not_an_empty_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    store = PosixStore(root)
    store.put("packs/00/one", b"data")
    root.rename(tmp_path / "unmounted")
    root.mkdir()  # the mount point beneath
    with pytest.raises(RepositoryUnavailable, match="another file system"):
        list(store.list(""))
    with pytest.raises(RepositoryUnavailable, match="another file system"):
        store.size("packs/00/one")


def test_a_store_that_vanishes_while_it_is_listed_does_not_give_a_part(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    store = PosixStore(root)
    for name in ("packs/00/one", "packs/01/two"):
        store.put(name, b"data")
    names = store.list("packs/")
    assert next(names) == "packs/00/one"
    root.rename(tmp_path / "unmounted")
    with pytest.raises(RepositoryUnavailable):
        list(names)


def test_a_temporary_directory_that_was_removed_is_told(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    (tmp_path / TEMPORARY).rmdir()
    with pytest.raises(RepositoryUnavailable, match="is gone"):
        store.put("name", b"data")


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


def test_a_link_whose_answer_was_lost_on_nfs_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    real = os.link

    def link_and_lose_the_answer(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    store.put("name", b"data")
    assert store.get("name") == b"data"
    monkeypatch.setattr(os, "link", real)
    with pytest.raises(FileExistsError):
        store.put("name", b"other")


def test_ages_are_those_of_the_file_servers_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PosixStore(tmp_path)
    store.put("name", b"data")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert store.age("name") < 60
    now = (tmp_path / "name").stat().st_mtime
    os.utime(tmp_path / "name", (now - 7200, now - 7200))
    assert 7200 <= store.age("name") < 7260
    os.utime(tmp_path / "name", (now + 7200, now + 7200))
    assert store.age("name") == 0
    assert list((tmp_path / TEMPORARY).iterdir()) == []


def test_keeping_objects_for_a_time_needs_the_helper(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="helper"):
        PosixStore(tmp_path, retain_for=timedelta(days=1))


class Recorder:
    """Stands where the helper's client does: keeps by name, does not answer, or looks elsewhere."""

    def __init__(self, *, answers: bool = True, sees: bool = True) -> None:
        self.kept: dict[str, timedelta] = {}
        self.answers = answers
        self.sees = sees

    def retain(self, name: str, duration: timedelta) -> None:
        if not self.answers:
            raise RepositoryUnavailable("helper", "does not answer")
        if not self.sees:
            raise FileNotFoundError(name)
        self.kept[name] = duration

    def release(self, name: str) -> None:
        del self.kept[name]


def test_what_restore_points_are_made_of_is_retained_as_it_is_put(tmp_path: Path) -> None:
    recorder = Recorder()
    store = PosixStore(tmp_path, retainer=recorder, retain_for=timedelta(days=14))
    retained = ["config", "indexes/00/a", "packs/00/a", "points/m/p"]
    for name in [*retained, "leases/a", "states/m/p", "keys/0000", "tombstones/m/p"]:
        store.put(name, b"data")
    assert recorder.kept == dict.fromkeys(retained, timedelta(days=14))


def test_an_object_that_could_not_be_retained_is_not_there(tmp_path: Path) -> None:
    store = PosixStore(tmp_path, retainer=Recorder(answers=False), retain_for=timedelta(days=14))
    with pytest.raises(RepositoryUnavailable, match="does not answer"):
        store.put("packs/00/a", b"data")
    assert list(store.list("")) == []
    store.put("leases/a", b"data")
    assert list(store.list("")) == ["leases/a"]


def test_a_temporary_name_that_a_power_cut_left_does_not_hinder_retention(tmp_path: Path) -> None:
    recorder = Recorder()
    store = PosixStore(tmp_path, retainer=recorder)
    store.put("packs/00/a", b"data")
    os.link(tmp_path / "packs/00/a", tmp_path / TEMPORARY / "left")
    store.retain("packs/00/a", datetime.now(UTC) + timedelta(days=1))
    assert (tmp_path / "packs/00/a").stat().st_nlink == 1
    assert list(recorder.kept) == ["packs/00/a"]


def test_an_object_that_the_helper_does_not_see_is_not_there_and_the_reason_is_told(tmp_path: Path) -> None:
    store = PosixStore(tmp_path, retainer=Recorder(sees=False), retain_for=timedelta(days=14))
    with pytest.raises(RepositoryUnavailable, match="does not see object packs/00/a"):
        store.put("packs/00/a", b"data")
    assert list(store.list("")) == []
    store.put("leases/a", b"data")
    with pytest.raises(RepositoryUnavailable, match="does not see"):
        store.retain("leases/a", datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(FileNotFoundError):
        store.retain("leases/none", datetime.now(UTC) + timedelta(days=1))


@pytest.mark.parametrize("recorder", [Recorder(answers=False), Recorder(sees=False)], ids=["silent", "blind"])
def test_a_replaced_object_that_could_not_be_retained_stays(tmp_path: Path, recorder: Recorder) -> None:
    PosixStore(tmp_path).put("indexes/00/a", b"damaged")
    store = PosixStore(tmp_path, retainer=recorder, retain_for=timedelta(days=14))
    with pytest.raises(RepositoryUnavailable):
        store.put("indexes/00/a", b"mended", new=False)
    assert store.get("indexes/00/a") == b"mended"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_where_no_file_can_be_made_what_is_there_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    PosixStore(tmp_path).put("packs/00/one", b"data")
    real = os.open

    def open_only(path: Any, flags: int, *words: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *words, **named)

    monkeypatch.setattr(os, "open", open_only)
    store = PosixStore(tmp_path)
    assert list(store.list("")) == ["packs/00/one"]
    assert store.get("packs/00/one") == b"data"
    with pytest.raises(RepositoryFull if number != errno.EROFS else RepositoryUnavailable):
        store.put("packs/00/two", b"data")


@pytest.mark.parametrize("backed", [False, True], ids=["memory alone", "a mapped file"])
def test_what_is_put_is_whole_whether_a_file_backs_it_or_not(tmp_path: Path, backed: bool) -> None:
    """Packs are filled in memory that no file backs. Pages of a mapped file go once they are written; these would read as
    zeroes."""
    size = 3 * _KEPT
    with closing(Scratch(tmp_path)) as scratch, scratch.map(size) if backed else anonymous(size) as there:
        there.write(os.urandom(MiB) * (size // MiB))
        before = there[:]
        store = PosixStore(tmp_path)
        with memoryview(there) as view:
            store.put("packs/x", view)
        assert store.get("packs/x") == before
        assert there[:] == before
