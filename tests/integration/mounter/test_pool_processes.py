"""Sessions that are kept open, with their real processes: fast when they are warm, gone when ours is killed."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mounter.choose import directly
from mounter.export import ImageToExport
from mounter.pool import SessionPool
from mounter.session import MountSession

pytestmark = [pytest.mark.tools, pytest.mark.requires("nbdkit", "mke2fs", "module:pytsk3")]

Eventually = Callable[[Callable[[], bool]], bool]


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/hostname").write_text("guest\n")
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    make = ["mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "root"), str(path)]
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    return path


def test_a_warm_session_lists_within_300_ms_and_ends_with_the_pool(
    disk: Path, short_path: Path, mentioning: Callable[[str], list[int]], eventually: Eventually
) -> None:
    @contextmanager
    def opens() -> Iterator[MountSession]:
        images = [ImageToExport("vda", "openers:file_image", {"path": str(disk)})]
        with MountSession(images, directly, clock=Clock(), directory=short_path) as session:
            yield session

    with SessionPool(clock=Clock()) as pool:
        with pool.use("p1", opens) as session:
            top = session.volumes()[0].guest_path(b"/etc")
            assert [e.name for e in session.list_directory(top)] == [b"hostname"]
        took: list[float] = []
        for _ in range(5):
            start = time.monotonic()
            with pool.use("p1", opens) as session:
                assert [e.name for e in session.list_directory(top)] == [b"hostname"]
            took.append(time.monotonic() - start)
        assert min(took) < 0.3
        assert mentioning(str(short_path))
    assert eventually(lambda: not mentioning(str(short_path)))
    assert list(short_path.iterdir()) == []


def test_nothing_is_left_of_a_pool_whose_process_is_killed(
    disk: Path,
    short_path: Path,
    abandoned: Callable[[str], tuple[subprocess.Popen[bytes], str]],
    mentioning: Callable[[str], list[int]],
    eventually: Eventually,
) -> None:
    code = (
        "import pathlib, time\n"
        "from mounter.choose import directly\n"
        "from mounter.export import ImageToExport\n"
        "from mounter.pool import SessionPool\n"
        "from mounter.session import MountSession\n"
        "from proxy.clock import SystemClock\n"
        f"images = [ImageToExport('vda', 'openers:file_image', {{'path': {str(disk)!r}}})]\n"
        "def opens():\n"
        f"    return MountSession(images, directly, clock=SystemClock(), directory=pathlib.Path({str(short_path)!r}))\n"
        "pool = SessionPool(clock=SystemClock())\n"
        "with pool.use('p1', opens):\n"
        "    pass\n"
        "print('kept', pool.open_sessions, flush=True)\n"
        "time.sleep(60)\n"
    )
    process, said = abandoned(code)
    assert said == "kept 1"
    assert mentioning(str(short_path))
    process.kill()
    assert eventually(lambda: not mentioning(str(short_path)))
