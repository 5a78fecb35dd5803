"""Shares of an increment: they add up, whatever they are divided among."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.index.attribution import Cause, by_index, directories
from mounter.layout.owners import Part

pytestmark = pytest.mark.slow


def file(path: bytes, size: int, device: str = "/dev/sda1") -> Cause:
    return Cause(Part.FILE, path, device, size)


@given(st.integers(0, 10**15), st.lists(st.integers(-5, 10**12), max_size=30))
def test_what_the_catalog_tells_adds_up(size: int, sizes: list[int]) -> None:
    cause = Cause(Part.OTHER, b"", "/dev/sda1", size)
    found = by_index(cause, [(b"/f%d" % n, s) for n, s in enumerate(sizes)])
    assert sum(c.bytes for c in found) == size
    for c in found:
        if c.path:
            assert c.guessed
            assert 0 < c.bytes <= sizes[int(c.path[2:])]


def test_directories_count_all_below_them() -> None:
    found = directories([file(b"/a/b/x", 50), file(b"/a/c/y", 30), file(b"/z", 20)])
    assert found == [(b"/", 100), (b"/a", 80), (b"/a/b", 50), (b"/a/c", 30)]


def test_a_directory_that_only_holds_the_cause_is_left_out() -> None:
    assert directories([file(b"/var/lib/db/data", 100)]) == [(b"/var/lib/db", 100)]


def test_volumes_that_are_not_mounted_and_drives_have_their_own_roots() -> None:
    found = directories([file(b"/dev/sdb1:/x", 10, "/dev/sdb1"), file(b"C:/Users/y", 5), file(b"C:/z", 5)])
    assert found == [(b"/dev/sdb1:", 10), (b"C:", 10), (b"C:/Users", 5)]


def test_a_directory_counts_for_itself_and_those_above() -> None:
    causes = [Cause(Part.DIRECTORY, b"/a", "/dev/sda1", 8), file(b"/a/x", 1), file(b"/y", 50)]
    assert directories(causes) == [(b"/", 59), (b"/a", 9)]
