"""``lanfree copy --from`` killed in the middle: whole restore points or none, and the next call stores only what is missing."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.wiring import Services
from proxy import repository as repositories
from proxy.units import MiB
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, seal

pytestmark = pytest.mark.tools

DISK = 160 * MiB
PACKS = 10  # of 16 MiB; random bytes do not compress


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Services]:
    """The other site: a disk of ten packs, and a point after it that differs in one chunk."""
    with appliance(tmp_path / "north") as made:
        data = bytearray(random.Random(7).randbytes(DISK))
        first = seal(made.repository, NOW - timedelta(days=1), data=bytes(data))
        data[-MiB:] = random.Random(8).randbytes(MiB)
        seal(made.repository, NOW, data=bytes(data), parent=first)
        yield made


def start(config: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "appliance.cli", "--config", str(config), "--json", "copy", "--from", "north"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def packs(directory: Path) -> list[Path]:
    return [file for file in (directory / "packs").rglob("*") if file.is_file()]


def files(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_a_pull_that_was_killed_is_gone_on_with(north: Services, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "north" / "repo", tmp_path / "south" / "repo"
    with appliance(tmp_path / "south"):
        pass
    config = tmp_path / "south.toml"
    config.write_text(
        f'[repository]\npath = "{ours}"\nkey_file = "{tmp_path}/south/repo.key"\n[state]\n'
        f'directory = "{tmp_path}/south/state"\n[[copy_from]]\nname = "north"\npath = "{theirs}"\n'
        f'key_file = "{tmp_path}/north/repo.key"\n'
    )
    before = files(theirs)
    killed = start(config)
    try:
        deadline = time.monotonic() + 60
        while len(packs(ours)) < 2 and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        killed.kill()
        killed.communicate(timeout=30)
    stored = packs(ours)
    assert 2 <= len(stored) < PACKS, "it was killed in the middle of the first point"
    # A pack is little more than its chunks.
    kept = sum(pack.stat().st_size for pack in stored) * 99 // 100
    secret = repositories.KeyFile(bytes.fromhex((tmp_path / "south" / "repo.key").read_text()))
    with repositories.open(repositories.PosixStore(ours), secret=secret) as there:
        assert list(there.points()) == []

    done = start(config)
    said, wrong = done.communicate(timeout=120)
    assert done.returncode == 0, wrong.decode()
    first, second = json.loads(said)
    assert (first["outcome"], second["outcome"]) == ("copied", "copied")
    assert first["bytes_new"] <= DISK - kept, "what the killed call had stored is not stored again"
    assert (second["bytes_read"], second["bytes_new"]) == (MiB, MiB)
    assert files(theirs) == before, "the other site's repository is only read"
    with repositories.open(repositories.PosixStore(ours), secret=secret) as there:
        assert [point.id for point in there.points()] == [point.id for point in north.repository.points()]
        assert list(repositories.verify(there)) == []
        for mine, his in zip(there.points(), north.repository.points(), strict=True):
            with there.open_image(mine, "vda") as copy, north.repository.open_image(his, "vda") as original:
                for at in range(0, DISK, 16 * MiB):
                    one, other = bytearray(16 * MiB), bytearray(16 * MiB)
                    copy.read_into(at, memoryview(one))
                    original.read_into(at, memoryview(other))
                    assert one == other

    again = start(config)
    said, _ = again.communicate(timeout=60)
    assert [(point["outcome"], point["bytes_read"]) for point in json.loads(said)] == [("present", 0)] * 2
