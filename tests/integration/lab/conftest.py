"""One lab for all tests of this directory: its start takes most of the time."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.lab.lab import Lab


@pytest.fixture(scope="session")
def lab_seconds() -> dict[str, float]:
    """How long ``up`` took, for the test that holds it to its limit."""
    return {}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, lab_seconds: dict[str, float]) -> Iterator[Lab]:
    from appliance.lab.guest import guest_image  # noqa: PLC0415

    guest_image()  # what a second lab finds in the cache is not the start that is measured
    lab_seconds["load"] = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    directory: Path = tmp_path_factory.mktemp("lab") / "main"
    begun = time.monotonic()
    with Lab.up(directory) as running:
        lab_seconds["up"] = time.monotonic() - begun
        yield running
