"""Images for the mounter's real tools."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="session")
def openers_are_importable() -> Iterator[None]:
    """Also in nbdkit, which is given our import path."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose sockets have names short enough, wherever the suite keeps its other files."""
    with tempfile.TemporaryDirectory(prefix="lanfree-") as directory:
        yield Path(directory)


@pytest.fixture
def sparse_image(tmp_path: Path) -> Path:
    """1 MiB and a bit, in chunks of 64 KiB: data, a hole, data, and a last piece that is no whole chunk."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(os.urandom(65536))
        file.seek(8 * 65536)
        file.write(os.urandom(65536 * 8 + 512))
    return path


@pytest.fixture
def abandoned() -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], str]]]:
    """``abandoned(code)`` runs Python code in another process until it prints a line; the test may kill it."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> tuple[subprocess.Popen[bytes], str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[2])])}
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().decode().strip()

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """``eventually(condition)``: whether it becomes true within a minute."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return wait


@pytest.fixture
def mentioning() -> Callable[[str], list[int]]:
    """``mentioning(text)``: processes whose command line has it."""

    def find(text: str) -> list[int]:
        found: list[int] = []
        for directory in Path("/proc").iterdir():
            try:
                if directory.name.isdigit() and text.encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
        return found

    return find
