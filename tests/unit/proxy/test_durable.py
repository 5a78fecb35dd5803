import os
import stat
from pathlib import Path

import pytest

from proxy.durable import create_durably, replace_durably, sync_directory


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced, in order, and which names its directory had by then; renames as they come."""
    seen: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def watched(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        at = sorted(p.name for p in path.iterdir()) if stat.S_ISDIR(os.fstat(file).st_mode) else path.read_text()
        seen.append(f"{path.name}: {at}")
        fsync(file)

    def renamed(path: Path, target: Path) -> Path:
        seen.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


def test_a_replaced_file_is_synced_before_it_gets_its_name_and_its_name_before_this_returns(tmp_path, synced):
    path = tmp_path / "d" / "note"
    path.parent.mkdir()
    path.write_bytes(b"old")
    replace_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert synced == ["note.new: new", "note.new -> note", "d: ['note']"]


def test_a_new_file_is_synced_with_its_name_and_has_its_permissions_from_the_start(tmp_path, synced):
    path = tmp_path / "d" / "key"
    path.parent.mkdir()
    create_durably(path, b"secret", mode=0o600)
    assert synced == ["key: secret", "d: ['key']"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_is_left_as_it_is(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        create_durably(path, b"yours", mode=0o600)
    assert path.read_bytes() == b"mine"


def test_what_cannot_be_replaced_stands(tmp_path):
    path = tmp_path / "note"
    path.write_bytes(b"old")
    (tmp_path / "note.new").mkdir()
    with pytest.raises(OSError, match=r"note\.new"):
        replace_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_directory_that_is_none_is_an_error(tmp_path):
    with pytest.raises(NotADirectoryError):
        (tmp_path / "file").touch()
        sync_directory(tmp_path / "file")
