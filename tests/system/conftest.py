"""One lab for the whole directory, and the product's commands as a user runs them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.lab.lab import Lab

TIMEOUT = 240.0


class Product:
    """The ``lanfree`` command on one configuration file."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "appliance.cli", "--config", str(self.config), "--json", *words]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})

    def ended(self, process: subprocess.Popen[bytes]) -> tuple[int, Any, str]:
        """Exit code, the JSON document, and everything that was said."""
        out, err = process.communicate(timeout=TIMEOUT)
        document = json.loads(out) if out.strip() else None
        return process.returncode, document, (out + err).decode()

    def run(self, *words: str) -> tuple[int, Any, str]:
        return self.ended(self.start(*words))

    def good(self, *words: str) -> Any:
        code, document, said = self.run(*words)
        assert code == 0, said
        return document

    def with_configuration(self, change: Callable[[str], str], name: str) -> "Product":
        """The same, with another configuration beside it."""
        path = self.config.with_name(name)
        path.write_text(change(self.config.read_text()))
        return Product(path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab.up(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def product(lab: Lab) -> Product:
    path = lab.directory / "lanfree.toml"
    path.write_text(lab.configuration() + "\n[files]\nindex = false\n")  # recorded where a test looks at them
    product = Product(path)
    product.good("init")
    return product


def wait_for(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    return wait_for


def _has_snapshot(record: Path) -> bool:
    try:
        return json.loads(record.read_text())["snapshot"] is not None
    except FileNotFoundError:
        return False  # the run is over


@pytest.fixture(scope="session")
def frozen(lab: Lab) -> Callable[[], bool]:
    """Whether a run has noted that its snapshot is there."""
    records = lab.directory / "state" / "kvm" / "runs"
    return lambda: any(_has_snapshot(path) for path in records.glob("*.json"))


def overlays(lab: Lab) -> list[str]:
    """Our overlays: as files, and as what machines run on."""
    files = [str(path) for path in (lab.shared / "overlays").rglob("*") if path.is_file()]
    in_use = [
        name
        for name in ("raw-lun", "qcow2-lun", "two-disks", "qcow2-file", "powered-off")
        if "/overlays/" in lab.host_of(name).virsh("domblklist", name).text
    ]
    return files + in_use


@pytest.fixture
def left_on_hosts(lab: Lab) -> Callable[[], list[str]]:
    return lambda: overlays(lab)


@pytest.fixture
def journal(lab: Lab) -> Callable[[str], int]:
    """Transactions of a machine's application so far."""
    return lambda machine: len(lab.guest_read(machine, "/data/journal").splitlines())
