"""Real processes and real small file systems for the repository."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import command
from proxy import repository as repositories

SECRET = repositories.KeyFile(bytes(range(32)))

CHUNK = 4096
WRITER = Path(__file__).with_name("writer_process.py")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty repository on disk: chunks of 4 KiB, packs of 64 KiB."""
    path = tmp_path / "repository"
    path.mkdir()
    repositories.create(repositories.PosixStore(path), chunk_size=CHUNK, pack_size=64 * 1024, secret=SECRET).close()
    return path


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start the writing process; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(root: Path, machine: str, seed: int, count: int) -> "subprocess.Popen[bytes]":
        words = [sys.executable, WRITER, root, tmp_path / f"cache-{machine}", machine, str(seed), str(count)]
        process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        command.stop(process, grace=0.1)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    command.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], timeout=20)
    yield path
    command.run(["umount", path], timeout=20)
