"""Storage that means harm, as a directory: sizes, versions, links and pipes, met by a process that is held to limits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from proxy import repository as repositories
from proxy.errors import LanfreeError
from proxy.model import RestorePoint
from proxy.repository import PosixStore, settings, verify
from proxy.units import GiB

CHUNK = 4096
SECRET = repositories.KeyFile(bytes(range(32)))
Backup = Callable[..., RestorePoint]


def resigned(document: dict[str, Any]) -> bytes:
    """A configuration with the digest that it needs: nobody needs a key for that."""
    plain = {key: value for key, value in document.items() if key != "digest"}
    return settings.text({**plain, "digest": blake3(settings.text(plain)).hexdigest()})


KINDS = ("config", "keys/", "points/", "tombstones/", "holds/", "indexes/", "packs/")


@pytest.fixture
def on_disk(tmp_path: Path, backup: Backup) -> Path:
    """An encrypted repository in a directory, with an object of every kind."""
    root = tmp_path / "store"
    root.mkdir()
    with repositories.create(PosixStore(root), chunk_size=CHUNK, secret=SECRET, cache=tmp_path / "c") as repository:
        old, held = backup(repository, os.urandom(5 * CHUNK)), backup(repository, os.urandom(5 * CHUNK))
        backup(repository, os.urandom(5 * CHUNK))
        repository.delete(old.id)
        repository.ledger.hold(held.id, "evidence")
    return root


def of_kind(root: Path, kind: str) -> list[Path]:
    """All objects of a kind."""
    return [root / kind] if kind == "config" else [path for path in (root / kind).rglob("*") if path.is_file()]


PROGRAM = f"""
import resource, sys
from pathlib import Path
from proxy import repository as r
from proxy.errors import LanfreeError
limit = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (3 * limit, 3 * limit))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
noticed = 0
try:
    with r.open(r.PosixStore(Path(sys.argv[1])), secret=r.KeyFile({SECRET.data!r})) as opened:
        points, damaged = opened.survey()
        noticed += len(damaged)
        noticed += len(list(r.verify(opened)))
        for point in points:
            try:
                with opened.open_image(point, "vda") as image:
                    image.read_into(0, memoryview(bytearray(image.size)))
            except LanfreeError:
                noticed += 1
except LanfreeError as error:
    noticed += 1
# Not ru_maxrss, which begins with the size of the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(noticed, int(status["VmHWM"].split()[0]) // 1024)
"""


def attempted(root: Path) -> tuple[int, int]:
    """Open, list, verify and read a repository in a process of its own with 3 GiB of addresses and 30 s: how much it noticed,
    and its peak memory in MiB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, root], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    noticed, peak = done.stdout.split()
    return int(noticed), int(peak)


@pytest.mark.tools
@pytest.mark.parametrize("kind", KINDS)
def test_objects_that_are_larger_than_any_of_ours_are_not_read(on_disk: Path, kind: str) -> None:
    for path in of_kind(on_disk, kind):
        os.truncate(path, 100 * GiB)  # sparse: it takes no space, and would be read as zeroes
    noticed, peak = attempted(on_disk)
    assert noticed
    assert peak < 300


@pytest.mark.tools
def test_a_repository_as_it_is_stays_far_below_those_limits(on_disk: Path) -> None:
    noticed, peak = attempted(on_disk)
    assert noticed == 0
    assert peak < 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_a_version_from_the_future_are_refused(on_disk: Path, kind: str) -> None:
    for path in of_kind(on_disk, kind):
        data = path.read_bytes()
        if kind in ("config", "keys/"):
            document = {**json.loads(data), "version": 3}
            path.write_bytes(resigned(document) if kind == "config" else settings.text(document))
        else:
            assert data[8:10] == b"\x02\x00"
            path.write_bytes(data[:8] + b"\x03\x00" + data[10:])
    store = PosixStore(on_disk)
    seen: list[str] = []
    try:
        with repositories.open(store, secret=SECRET) as repository:
            seen += [damage.why for damage in verify(repository)]
    except LanfreeError as error:
        seen.append(error.message)
    assert seen
    if kind not in ("keys/", "packs/"):  # a slot opens nothing, a pack's header counts into its footer's digest
        assert "version 3" in seen[0]


@pytest.mark.slow
def test_objects_of_another_repository_are_refused(on_disk: Path, tmp_path: Path, backup: Backup) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with repositories.create(PosixStore(other), chunk_size=CHUNK, secret=SECRET) as repository:
        point = backup(repository, os.urandom(5 * CHUNK))
        name = repository.ledger.name(point)
        index = point.images[0].index
    with repositories.open(PosixStore(on_disk), secret=SECRET) as repository:
        mine = repository.points()[0]
        (on_disk / mine.images[0].index).write_bytes((other / index).read_bytes())
        (on_disk / repository.ledger.name(mine)).with_name("20270101T000000.000000Z-00000000").write_bytes(
            (other / name).read_bytes()
        )
        why = {damage.why.partition(": ")[2] or damage.why for damage in verify(repository)}
    assert all("another repository" in each for each in why)
    assert len(why) > 0


@pytest.mark.tools
def test_links_and_pipes_among_the_objects_are_not_followed(on_disk: Path) -> None:
    (on_disk / "packs" / "loop").symlink_to(on_disk)
    (on_disk / "points" / "loop").symlink_to(on_disk / "points")
    os.mkfifo(on_disk / "packs" / "pipe")
    folder = on_disk / "packs" / "ab"
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / ("ab" * 16))
    os.mkfifo(on_disk / "keys" / "0badf00d")
    noticed, _ = attempted(on_disk)
    assert noticed == 0
