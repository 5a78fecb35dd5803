"""Writers as real processes: several at once, and killed at any moment."""

import importlib.util
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from proxy import repository as repositories
from proxy.model import RestorePoint
from proxy.repository import PosixStore, Repository, verify

SECRET = repositories.KeyFile(bytes(range(32)))

pytestmark = pytest.mark.tools

Start = Callable[..., "subprocess.Popen[bytes]"]
KILLS = 20


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("writer_process", Path(__file__).with_name("writer_process.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


writing = load()


def restored(repository: Repository, point: RestorePoint) -> bytes:
    with repository.open_image(point, "vda") as image:
        out = bytearray(image.size)
        image.read_into(0, memoryview(out))
        return bytes(out)


def check(repository: Repository, machine: str, seed: int) -> int:
    """Every point holds the disk of its number; how many there are."""
    points = repository.points(machine)
    for number, point in enumerate(points):
        assert point.run == f"run-{number}"
        assert restored(repository, point) == writing.disk(seed, number)
    return len(points)


def test_two_processes_write_at_once_share_chunks_and_are_right(root: Path, writer: Start) -> None:
    processes = [writer(root, machine, seed, 4) for machine, seed in (("a", 1), ("b", 2))]
    for process in processes:
        assert process.wait(120) == 0
    with repositories.open(PosixStore(root), secret=SECRET) as repository:
        assert check(repository, "a", 1) == 4
        assert check(repository, "b", 2) == 4
        assert list(verify(repository)) == []
        figures = repositories.statistics(repository)
        distinct = writing.SHARED + 2 * (writing.OWN + 3)
        # What both brought in the same moment may be there twice, but no more than that.
        assert distinct <= figures.chunks <= distinct + writing.SHARED
        assert repositories.unreferenced(repository).packs == ()


def test_a_writer_killed_at_any_moment_leaves_whole_points_and_the_next_goes_on(root: Path, writer: Start) -> None:
    chooser = random.Random(20)
    sealed = 0
    interrupted = 0
    for _ in range(KILLS):
        process = writer(root, "m", 5, 50)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        killer = threading.Timer(chooser.uniform(0, 0.25), process.kill)
        killer.start()
        lines = process.stdout.read().splitlines()
        process.wait(60)
        killer.join()
        sealed += sum(line.startswith(b"sealed") for line in lines)
        interrupted += process.returncode == -9
        with repositories.open(PosixStore(root), secret=SECRET) as repository:
            assert list(verify(repository)) == []
            there = len(repository.points("m"))
            # A point whose manifest was put and that could not be reported any more is a whole one.
            assert sealed <= there <= sealed + 1
            sealed = there
    assert interrupted > KILLS / 2
    with repositories.open(PosixStore(root), secret=SECRET) as repository:
        writing.back_up(repository, "m", 5, sealed)
        assert check(repository, "m", 5) == sealed + 1
        assert list(verify(repository)) == []
