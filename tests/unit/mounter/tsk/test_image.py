"""Disks that keep what they read."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.tsk.image import AHEAD, BLOCK, DIRECT, KEPT, Disk, Region, blank
from proxy.errors import MountEnded, MountFailed, ReadFailed
from tests.unit.mounter.tsk.disks import Bytes, disk, region

DATA = os.urandom(3 * BLOCK + 1000)


@given(st.integers(0, len(DATA) + 10), st.integers(0, len(DATA) + 10))
def test_any_piece_is_read_as_it_is_and_ends_with_the_disk(offset: int, length: int) -> None:
    assert disk(DATA).pread(offset, length) == DATA[offset : offset + length]


def test_a_region_is_counted_from_its_own_beginning_and_ends_where_it_ends() -> None:
    part = Region(disk(DATA), 100, 1000)
    assert part.pread(0, 50) == DATA[100:150]
    assert part.pread(990, 50) == DATA[1090:1100]
    assert part.pread(1000, 1) == b""
    assert part.pread(-1, 10) == b""


def test_what_was_read_is_not_fetched_again() -> None:
    source = Bytes(DATA)
    kept = Disk(source)
    for _ in range(5):
        kept.pread(10, 100)
        kept.pread(BLOCK - 5, 10)
    assert source.reads == [(0, BLOCK), (BLOCK, BLOCK)]
    assert (kept.bytes_read, kept.requests) == (2 * BLOCK, 2)


def test_who_reads_on_is_read_ahead_for() -> None:
    source = Bytes(bytes(40 * BLOCK))
    kept = Disk(source)
    for number in range(20):
        kept.pread(number * BLOCK, 10)
    assert [length // BLOCK for _, length in source.reads] == [1, 1, AHEAD, AHEAD]


def test_contents_go_past_the_cache() -> None:
    source = Bytes(bytes(4 * DIRECT))
    kept = Disk(source)
    kept.pread(0, DIRECT)
    kept.pread(0, DIRECT)
    assert source.reads == [(0, DIRECT)] * 2


def test_no_more_is_kept_than_was_promised() -> None:
    source = Bytes(bytes(1))
    source.size = (KEPT + 10) * BLOCK
    source.read_into = lambda _offset, _buffer: None  # type: ignore[method-assign]
    kept = Disk(source)
    for number in range(KEPT + 10):
        kept.pread(number * BLOCK, 1)
    assert len(kept._blocks) == KEPT


def test_a_failed_read_and_a_closed_disk_say_so() -> None:
    source = Bytes(DATA)
    kept = Disk(source)

    def fails(offset: int, buffer: memoryview) -> None:
        raise ReadFailed("nbd:", offset, len(buffer), "the server is gone")

    source.read_into = fails  # type: ignore[method-assign]
    with pytest.raises(MountFailed, match="the server is gone"):
        kept.pread(0, 10)
    kept.close()
    with pytest.raises(MountEnded):
        kept.pread(0, 10)


def test_a_region_is_blank_only_without_a_byte_at_either_end() -> None:
    assert blank(region({}))
    assert not blank(region({5000: b"x"}))
    assert not blank(region({4 * 1024 * 1024 - 1: b"x"}))
