"""The rescue program in a Python that has nothing but its three libraries: no Lanfree, no site-packages, no environment."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository, keys
from proxy.repository.collection.collect import collect

pytestmark = pytest.mark.tools

CHUNK = 64 * 1024
KEY = bytes(range(32))

# What the three libraries bring with them: cryptography needs cffi's compiled part, nothing else.
LIBRARIES = ("blake3", "zstandard", "cryptography", "_cffi_backend")

# -I and -S leave only the standard library; then exactly one directory is added. What was loaded is told at the end.
LAUNCH = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    print("loaded:", *sorted(loaded), file=sys.stderr)
"""


@dataclass
class Bare:
    """Runs ``rescue.py``, as the repository has it, in a directory of its own."""

    directory: Path

    def run(self, *words: str | Path) -> "subprocess.CompletedProcess[bytes]":
        script = self.directory / "rescue.py"
        launch = [sys.executable, "-I", "-S", "-c", LAUNCH, self.directory / "libraries", script]
        return subprocess.run(
            [str(word) for word in (*launch, *words)],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    directory = tmp_path / "elsewhere"
    (directory / "libraries").mkdir(parents=True)
    for name in LIBRARIES:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (directory / "libraries" / origin.name).symlink_to(origin)
    return Bare(directory)


def back_up(repository: Repository, data: bytes, number: int, parent: ImageInfo | None = None) -> RestorePoint:
    with repository.image_writer("vda", len(data), parent) as writer:
        writer.write(0, memoryview(data))
        image = writer.seal()
    return repository.seal(
        RestorePoint(
            id="",
            machine="4c4c4544-0042-3510-8058-b4c04f4d3532",
            machine_name="web1",
            host="h1",
            run=f"run-{number}",
            created_at=datetime(2026, 1, number, tzinfo=UTC),
            level=Level.FULL,
            consistency=Consistency.CRASH,
            images=(image,),
            configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
        )
    )


def loaded(done: "subprocess.CompletedProcess[bytes]") -> set[str]:
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("loaded: ")
    return set(last.removeprefix("loaded: ").split())


def restored(bare: Bare, options: Sequence[str | Path], root: Path, point: RestorePoint) -> bytes:
    out = bare.directory / "disk.raw"
    out.unlink(missing_ok=True)
    done = bare.run(*options, root, "restore", point.id, "vda", out)
    assert done.returncode == 0, done.stderr.decode()
    # Names with an underscore are the compiled parts of the three.
    assert {name for name in loaded(done) if not name.startswith("_")} == {"blake3", "zstandard", "cryptography"}
    return out.read_bytes()


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "clear"])
def test_everything_comes_back_with_python_and_three_libraries(bare: Bare, tmp_path: Path, *, sealed: bool) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    store = repositories.PosixStore(root)
    secret = repositories.KeyFile(KEY) if sealed else None
    first = os.urandom(20 * CHUNK) + bytes(2000 * CHUNK) + b"to be compressed " * 20000 + b"end"
    second = os.urandom(5 * CHUNK) + first[5 * CHUNK :]
    with repositories.create(
        store, secret=secret, chunk_size=CHUNK, pack_size=16 * CHUNK, cache=tmp_path / "c"
    ) as made:
        old = back_up(made, first, 1)
        new = back_up(made, second, 2, old.images[0])
        shutil.copy(root / "rescue.py", bare.directory)
        ways: list[list[str | Path]] = [[]]
        if sealed:
            (bare.directory / "key").write_bytes(KEY)
            (bare.directory / "phrase").write_text("it was a dark and stormy night\n")
            (bare.directory / "paper").write_text(keys.to_paper(made.settings, made.keyring))
            phrase = repositories.Passphrase("it was a dark and stormy night")
            keys.add_slot(store, made.settings, made.keyring, phrase, label="", now=datetime.now(UTC))
            ways = [["--key-file", "key"], ["--passphrase-file", "phrase"], ["--paper", "paper"]]
        for way in ways:
            listed = bare.run(*way, root, "list")
            assert [line.split()[0].decode() for line in listed.stdout.splitlines()] == [old.id, new.id]
        assert restored(bare, ways[0], root, old) == first
        assert restored(bare, ways[-1], root, new) == second
        piped = bare.run(*ways[0], root, "restore", new.id, "vda", "-")
        assert piped.stdout == second
        _compact(made, old, root)
    assert restored(bare, ways[0], root, new) == second
    _damage(root)
    done = bare.run(*ways[0], root, "restore", new.id, "vda", bare.directory / "part.raw", "--keep-going")
    assert done.returncode == 1
    lost = [line for line in done.stderr.decode().splitlines() if line.startswith("unreadable: offset ")]
    assert len(lost) == 1
    offset = int(lost[0].split()[2].rstrip(","))
    assert (bare.directory / "part.raw").read_bytes() == second[:offset] + bytes(CHUNK) + second[offset + CHUNK :]


def _compact(repository: Repository, old: RestorePoint, root: Path) -> None:
    """Delete a point and collect at once: packs that held its chunks beside others' are rewritten."""
    before = set(root.glob("packs/*/*"))
    repository.delete(old.id)
    for _ in range(2):
        collect(repository, threshold=0.0, grace=0.0, settle=0.0, young=0.0)
    assert not before <= set(root.glob("packs/*/*"))


def _damage(root: Path) -> None:
    pack = min(root.glob("packs/*/*"))
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
