"""Collection under real processes: writers, deleters, readers, two collectors that are killed at any moment; nothing is lost.

20 seconds, or as many as ``LANFREE_STRESS_SECONDS`` says (600 for the ten minutes that a release is held to).
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import command
from proxy import repository as repositories
from proxy.model import RestorePoint
from proxy.repository import PosixStore
from proxy.repository.collection.collect import collect
from tests.integration.repository import collect_process as process

pytestmark = pytest.mark.tools

SECONDS = float(os.environ.get("LANFREE_STRESS_SECONDS", "20"))
SEED = int(os.environ.get("LANFREE_STRESS_SEED", str(time.time_ns() % 10**6)))
SCRIPT = Path(process.__file__)


class Crew:
    """Processes of the test, and what they said."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.lines: Counter[str] = Counter()
        self.sealed: set[str] = set()
        self.deleted: set[str] = set()
        self.failures: list[str] = []
        self.kills = 0
        self._scratch = scratch
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def start(self, role: str, name: str, seconds: float, seed: int) -> "subprocess.Popen[str]":
        words = [sys.executable, SCRIPT, role, self.root, self._scratch / name, f"{seconds:.3f}", seed]
        running = subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._running.append(running)
        thread = threading.Thread(target=self._listen, args=(name, running))
        thread.start()
        self._threads.append(thread)
        return running

    def kill(self, running: "subprocess.Popen[str]") -> None:
        if running.poll() is None:
            self.kills += 1
            running.kill()
        running.wait()

    def end(self, timeout: float) -> None:
        for running in self._running:
            try:
                running.wait(timeout)
            except subprocess.TimeoutExpired:
                self.failures.append(f"{running.args} hangs")
                command.stop(running, grace=0.1)
        for thread in self._threads:
            thread.join()

    def _listen(self, name: str, running: "subprocess.Popen[str]") -> None:
        assert running.stdout is not None
        said: list[str] = []
        with running.stdout as lines:
            for line in lines:
                self._note(line.split())
                said.append(line)
        if running.wait() not in (0, -9):
            self.failures.append(f"{name}: {''.join(said[-25:])}")

    def _note(self, words: list[str]) -> None:
        with self._lock:
            if words:
                self.lines[words[0]] += 1
            if words[:1] == ["sealed"]:
                self.sealed.add(words[2])
            if words[:1] == ["deleted"]:
                self.deleted.add(words[2])
            if words[:1] == ["collected"]:
                for what, count in zip(("gone", "compacted", "kept", "waiting"), words[1:], strict=True):
                    self.lines[what] += int(count)


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    root = tmp_path / "repository"
    root.mkdir()
    repositories.create(PosixStore(root), chunk_size=process.CHUNK, pack_size=64 * 1024, secret=process.SECRET).close()
    made = Crew(root, tmp_path)
    yield made
    made.end(5)


@pytest.mark.timeout(SECONDS * 3 + 300)
def test_no_chunk_is_lost_while_two_collectors_writers_and_deleters_work_and_are_killed(crew: Crew) -> None:
    chooser = random.Random(SEED)
    print(f"seed {SEED}")
    end = time.monotonic() + SECONDS
    for n, role in enumerate(("writer", "deleter", "reader")):
        crew.start(role, f"{role}{n}", SECONDS, SEED + n)
    killable = {name: crew.start(name[:-1], name, SECONDS, SEED) for name in ("collector1", "collector2", "writer2")}
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(chooser.uniform(0.3, 3.0), left))
        victim = chooser.choice(sorted(killable))
        crew.kill(killable[victim])
        killable[victim] = crew.start(victim[:-1], victim, max(end - time.monotonic(), 0.1), chooser.randrange(10**6))
    crew.end(120)
    print(dict(crew.lines), f"{crew.kills} kills")
    assert crew.failures == []
    check(crew)


def check(crew: Crew) -> None:
    """Every point that was sealed and not deleted is there and right, before and after a last collection."""
    store = PosixStore(crew.root)
    with repositories.open(store, secret=process.SECRET) as repository:
        points = there(repository)
        # A deletion, or a seal, of a process that was killed may be done without having been told.
        assert crew.sealed - crew.deleted - points.keys() == set()
        assert all(process.is_right(repository, point) for point in points.values())
        assert list(repositories.verify(repository)) == []
        time.sleep(process.EXPIRY)
        repository.use_leases(process.Leases(store, repository.sealer, renew=process.RENEW, expiry=process.EXPIRY))
        for _ in range(3):
            report = collect(repository, grace=0, settle=0, young=0)
        assert report.waiting == ()
        assert list(store.list("dooms/")) == []
        assert list(store.list("leases/")) == []
        assert repositories.unreferenced(repository).indexes == ()
    with repositories.open(store, secret=process.SECRET) as repository:
        assert all(process.is_right(repository, point) for point in there(repository).values())
        assert list(repositories.verify(repository)) == []
    assert crew.lines["sealed"] > 5
    assert crew.lines["gone"] > 5
    assert crew.lines["compacted"] > 0
    assert crew.kills > 3


def there(repository: repositories.Repository) -> dict[str, RestorePoint]:
    return {point.id: point for point in repository.points()}
