import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mounter import remote
from mounter.keys import Key
from mounter.ports import Volume
from mounter.remote import RemoteFilesystem
from proxy.errors import FastPathRefused, MountEnded, MountFailed

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def hostile_is_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


def processes_of(group: int) -> list[int]:
    """Processes of a process group that are not zombies."""
    found: list[int] = []
    for directory in Path("/proc").iterdir():
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(group) and fields[0] != "Z":
            found.append(int(directory.name))
    return found


@pytest.mark.slow
def test_an_opening_that_hangs_is_ended_at_its_deadline_with_all_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "END_SECONDS", 0.5)
    groups: list[int] = []
    real = os.killpg
    monkeypatch.setattr(os, "killpg", lambda group, number: (groups.append(group), real(group, number)))
    began = time.monotonic()
    with pytest.raises(MountEnded, match="'open' within 2 s"):
        RemoteFilesystem("hostile:never_opens", {}, tmp_path, open_seconds=2)
    assert time.monotonic() - began < 20
    deadline = time.monotonic() + 10
    while processes_of(groups[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(groups[0]) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_crashes_ends_the_session_with_an_error(tmp_path: Path) -> None:
    with RemoteFilesystem("hostile:opens_and_dies_later", {"seconds": 0.2}, tmp_path) as filesystem:
        filesystem._process.wait(30)
        with pytest.raises(MountEnded, match="its process ended"):
            filesystem.entry(Volume("v", "d", "t", "", "", 0), b"/x")


def test_an_error_that_nobody_foresaw_is_a_mount_that_failed(tmp_path: Path) -> None:
    with pytest.raises(MountFailed, match="ZeroDivisionError: hostile"):
        RemoteFilesystem("hostile:raises", {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_close_ends_a_call_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "END_SECONDS", 0.5)
    with RemoteFilesystem("hostile:opens_and_dies_later", {"seconds": 3600}, tmp_path) as filesystem:
        worker = filesystem._process.pid
        os.kill(worker, 19)  # SIGSTOP: it answers no more
        closer = threading.Timer(0.3, filesystem.close)
        closer.start()
        with pytest.raises(MountEnded):
            filesystem.entry(Volume("v", "d", "t", "", "", 0), b"/x")
        closer.join(30)
    assert processes_of(worker) == []


def test_a_directory_with_too_long_a_name_is_told(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(MountFailed, match="no socket can be made"):
        RemoteFilesystem("hostile:never_opens", {}, deep)


def test_keys_reach_the_worker_byte_by_byte_and_nobody_else_sees_them(tmp_path: Path) -> None:
    secret = bytes(range(256)) + b"a secret that nobody sees"
    keys = [Key("sda3", secret), Key("sda4", b"another")]
    with RemoteFilesystem("hostile:shows_its_keys", {}, tmp_path, keys=keys) as filesystem:
        (volume,) = filesystem.volumes()
        assert b"".join(filesystem.read(volume, b"/keys/sda3")) == secret
        assert b"".join(filesystem.read(volume, b"/keys/sda4")) == b"another"
        seen = b"".join(b"".join(filesystem.read(volume, path)) for path in (b"/seen/cmdline", b"/seen/environ"))
        assert b"mounter.worker" in seen
        assert b"nobody sees" not in seen
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        assert not any(b"nobody sees" in path.read_bytes() for path in files)


def test_a_refusal_of_the_fast_path_keeps_its_reason(tmp_path: Path) -> None:
    with pytest.raises(FastPathRefused, match="physical volume") as refused:
        RemoteFilesystem("hostile:refuses", {}, tmp_path)
    assert refused.value.reason == "lvm"
