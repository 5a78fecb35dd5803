"""Memory does not grow with the number of files."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from mounter.restore.hard_links import HardLinks
from mounter.restore.sink import PlainSink
from mounter.restore.tar import TarTarget
from mounter.restore.tree import RestoreProgress, restore_files
from mounter.restore.zip import ZipTarget
from mounter.targets import FileTarget
from proxy.units import KiB, MiB
from tests.unit.mounter.restore.many_files import ManyFiles

pytestmark = pytest.mark.slow


class Nowhere:
    """Counts."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes, /) -> int:
        """Gone."""
        self.written += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""


def peak_of(make: Callable[[PlainSink], FileTarget], directories: int, *, linked: bool) -> int:
    """Bytes that Python had at most while it was restored, above what it had before."""
    tracemalloc.start()
    try:
        with make(PlainSink(Nowhere(), "nowhere")) as target:
            report = restore_files(ManyFiles(directories, 100, linked=linked), [b"/"], target)
        assert sum(report.entries.values()) == directories * 101 + 1
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("linked", [False, True], ids=["plain", "linked"])
@pytest.mark.parametrize("make", [TarTarget, ZipTarget], ids=["tar", "zip"])
def test_eight_times_the_files_take_no_more_memory(
    make: Callable[[PlainSink], FileTarget], linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mounter.restore.zip.DIRECTORY_IN_MEMORY", 64 * KiB)
    few, many = peak_of(make, 10, linked=linked), peak_of(make, 80, linked=linked)
    assert many < few + MiB // 4, (few, many)


def test_progress_is_told_for_every_entry_and_names_it() -> None:
    told: list[RestoreProgress] = []
    with TarTarget(PlainSink(Nowhere(), "nowhere")) as target:
        restore_files(ManyFiles(2, 10), [b"/"], target, progress=told.append)
    assert {p.path for p in told} >= {b"/", b"/d000001", b"/d000001/f000009"}
    assert [p.entries for p in told] == sorted(p.entries for p in told)


def test_names_of_files_are_forgotten_when_the_last_was_seen(tmp_path: Path) -> None:
    (entry, *_) = ManyFiles(2, 1, linked=True).list_directory(b"/d000000")
    with HardLinks() as links:
        assert links.first("v", entry) is None
        links.restored("v", entry, b"first")
        assert links.first("w", entry) is None
        assert links.first("v", entry) == b"first"
        assert links.first("v", entry) is None
