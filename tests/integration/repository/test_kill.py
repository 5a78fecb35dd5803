"""A thousand backups, each killed at a random moment: nothing that was sealed is lost, and the next one is fine."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from proxy import command
from proxy import repository as repositories
from proxy.repository import PosixStore, verify

pytestmark = pytest.mark.tools

KILLS = int(os.environ.get("LANFREE_KILLS", "1000"))
PROGRAM = Path(__file__).with_name("writer_process_forks.py")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("writer_process_forks", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


forks = load()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory: a kill loses nothing that was written, so that waiting for a disk would prove nothing more."""
    path = tmp_path / "memory"
    path.mkdir()
    command.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", path], timeout=20)
    yield path
    command.run(["umount", path], timeout=20)


@pytest.mark.timeout(60 + KILLS)
def test_a_thousand_killed_backups_lose_nothing_that_was_sealed(memory: Path) -> None:
    root, cache = memory / "repository", memory / "cache"
    root.mkdir()
    store = PosixStore(root)
    repositories.create(store, chunk_size=forks.CHUNK, pack_size=64 * 1024, secret=forks.SECRET, cache=cache).close()
    words = [sys.executable, PROGRAM, root, cache, str(KILLS), "7"]
    figures = json.loads(command.run(words, timeout=30 + KILLS).stdout)
    print(figures)
    assert figures["failed"] == 0
    assert figures["killed"] > 0.6 * KILLS
    with repositories.open(store, secret=forks.SECRET, cache=cache) as repository:
        assert list(verify(repository)) == []
        points = repository.points("m")
        numbers = [forks.number_of(point) for point in points]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len(numbers) >= min(forks.KEPT, numbers[-1])
        for point, number in zip(points, numbers, strict=True):
            with repository.open_image(point, "vda") as image:
                out = bytearray(image.size)
                image.read_into(0, memoryview(out))
                assert out == forks.disk(7, number)
        assert repository.damaged_points() == []
        assert list(store.list("damaged/")) == []
    forks.run(root, cache, 7)
    with repositories.open(store, secret=forks.SECRET) as fresh:  # with no cache of the killed ones
        assert forks.number_of(fresh.points("m")[-1]) == numbers[-1] + 1
        assert list(verify(fresh)) == []
