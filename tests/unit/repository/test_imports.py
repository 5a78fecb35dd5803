"""What the package imports, and when."""

import subprocess
import sys
from pathlib import Path

import pytest

from proxy import repository

pytestmark = pytest.mark.slow

LOADED = "import sys, proxy.repository; print([name for name in sys.modules if name.startswith('proxy.repository.checking')])"


def test_backups_and_restores_import_nothing_of_what_only_checks() -> None:
    told = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[]"


# Each takes about as long to load as a small incremental works.
HEAVY = ("numpy", "pydantic")

NIGHTS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from proxy import repository as repositories
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint

place, secret = Path(sys.argv[1]), repositories.KeyFile(bytes(32))
(place / "objects").mkdir()
store = repositories.PosixStore(place / "objects")
repositories.create(store, secret=secret, cache=place / "cache").close()
for night in range(2):
    with repositories.open(store, secret=secret, cache=place / "cache") as repository:
        parent = repository.points()[-1].images[0] if night else None
        with repository.image_writer("vda", 8 << 20, parent) as writer:
            writer.write(0, memoryview(bytes([night + 1]) * (1 << 20)))
            image = writer.seal()
        now, configuration = datetime.now(UTC), MachineConfiguration("none", "")
        point = RestorePoint(
            "", "m", "web", "h", str(night), now, Level.FULL, Consistency.CRASH, (image,), configuration
        )
        point = repository.seal(point)
        found = bytearray(1 << 20)
        with repository.open_image(point, "vda") as reader:
            reader.read_into(0, memoryview(found))
        assert found == bytes([night + 1]) * (1 << 20)
print([name for name in sys.modules if name in sys.argv[2:]])
"""


def test_a_full_and_an_incremental_load_nothing_heavy(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", NIGHTS, tmp_path, *HEAVY], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr


def test_all_that_the_package_offers_is_there() -> None:
    assert [name for name in repository.__all__ if not hasattr(repository, name)] == []


def test_what_it_does_not_have_is_told_as_any_module_tells_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'backup'"):
        _ = repository.backup  # type: ignore[attr-defined]
