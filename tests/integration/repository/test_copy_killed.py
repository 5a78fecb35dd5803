"""A copy that is killed at any moment leaves whole points, and the next one goes on."""

import random
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.repository.checking.audit import audit
from tests.integration.repository.copy_process import OTHER, SECRET
from tests.integration.repository.points import back_up, contents

pytestmark = pytest.mark.tools

CHUNK = 4096
COPIER = Path(__file__).with_name("copy_process.py")


def start(*words: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, str(COPIER), *map(str, words)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _kill(process: "subprocess.Popen[bytes]", dice: random.Random) -> None:
    """Some moment after a point that was copied now."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"copied"):
            break
    with suppress(subprocess.TimeoutExpired):
        process.wait(dice.uniform(0.0, 0.06))
    process.kill()
    process.wait(10)
    process.stdout.close()


def test_a_killed_copy_leaves_whole_points_and_the_next_goes_on(root: Path, tmp_path: Path) -> None:
    dice = random.Random(3)
    data = dice.randbytes(200 * CHUNK)
    with repositories.open(repositories.PosixStore(root), secret=SECRET, cache=tmp_path / "c1") as source:
        parent = None
        for number in range(8):
            data = dice.randbytes(90 * CHUNK) + data[90 * CHUNK :]
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
            parent = back_up(source, f"run-{number}", data, moment, parent).images[0]
        expected = contents(source)
    target, cache = tmp_path / "target", tmp_path / "c2"
    target.mkdir()
    store = repositories.PosixStore(target)
    repositories.create(store, secret=OTHER, chunk_size=2 * CHUNK, pack_size=64 * 1024).close()
    seen = [0]
    while seen[-1] < len(expected) and len(seen) < 40:
        _kill(start(root, target, cache), dice)
        with repositories.open(store, secret=OTHER, cache=tmp_path / "c3") as there:
            found = contents(there)
            assert found == dict(list(expected.items())[: len(found)])
            assert list(repositories.verify(there)) == []
            assert [f for f in audit(there) if not f.trouble.notice] == []
        seen.append(len(found))
    assert seen == sorted(seen)
    assert len(set(seen)) > 2  # it was killed in the middle
    last = start(root, target, cache)
    assert last.stdout is not None
    told = last.stdout.read().split()
    assert last.wait(60) == 0
    last.stdout.close()
    assert told[1::2] == [point.encode() for point in expected]
    assert set(told[::2]) <= {b"copied", b"present"}
    with repositories.open(store, secret=OTHER, cache=tmp_path / "c3") as there:
        assert contents(there) == expected
        assert list(repositories.verify(there)) == []
