"""Fixtures: a tgtd of our own for each test that asks, with the same LUN in three targets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.transport.tgt_array import BACKUP, HOSTS, RESTORE, Array, disk_image


@pytest.fixture
def array() -> Iterator[Array]:
    """An array without targets."""
    made = Array()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Backing file of LUN 1, 32 MiB."""
    return disk_image(tmp_path / "lun1.img")


@pytest.fixture
def served(array: Array, image: Path) -> Array:
    """The array with three views of one LUN: hosts (tid 1), backup (tid 2, read-only, CHAP), restore (tid 3)."""
    array.target(1, HOSTS)
    array.target(2, BACKUP, chap=True)
    array.target(3, RESTORE)
    for tid in (1, 2, 3):
        array.lun(tid, 1, image, "lanfree-lun-0001", readonly=tid == 2)
    return array
