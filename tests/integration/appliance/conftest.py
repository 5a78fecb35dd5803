"""For tests of whole commands."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose sockets have names short enough, wherever the suite keeps its other files."""
    with tempfile.TemporaryDirectory(prefix="lanfree-") as directory:
        yield Path(directory)
