"""Every ``BlockSource`` against the contract of its port."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import ChangesUnknown, ReadFailed
from proxy.extents import Extent, Kind, is_map, normal
from proxy.ports import BlockSource
from proxy.units import KiB
from tests.contract.block_adapters import SOURCES, MakeSource

SIZE = 1024 * KiB + 3 * 512


def content() -> bytes:
    """Random bytes and zeroes in turn, in runs of odd lengths; ends with bytes that are not zero."""
    chosen = random.Random(7)
    data = bytearray()
    while len(data) < SIZE:
        data += chosen.randbytes(chosen.randrange(1, 80 * KiB))
        data += bytes(chosen.randrange(1, 80 * KiB))
    data[SIZE - 2 * KiB : SIZE] = chosen.randbytes(2 * KiB)
    return bytes(data[:SIZE])


DATA = content()


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockSource]:
    make: MakeSource = request.param
    with make(tmp_path, DATA) as made:
        yield made


def read(source: BlockSource, offset: int, length: int) -> bytes:
    """Into the middle of a buffer full of rubbish: what is read must fill it, and nothing else be touched."""
    buffer = bytearray(b"\xee" * (length + 16))
    source.read_into(offset, memoryview(buffer)[8 : 8 + length])
    assert buffer[:8] == buffer[8 + length :] == b"\xee" * 8
    return bytes(buffer[8 : 8 + length])


def test_it_knows_its_size_and_its_name(source: BlockSource) -> None:
    assert source.size == SIZE
    assert source.identity


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, SIZE), (0, 1), (1, 511), (511, 2), (4095, 4098), (SIZE - 1, 1), (SIZE - 600, 600), (300_001, 400_003)],
)
def test_a_read_fills_the_whole_buffer(source: BlockSource, offset: int, length: int) -> None:
    assert read(source, offset, length) == DATA[offset : offset + length]


def test_an_empty_read_is_fine_anywhere(source: BlockSource) -> None:
    for offset in (0, 513, SIZE):
        assert read(source, offset, 0) == b""


@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE - 1, 2), (SIZE, 1), (SIZE + 10 * KiB, 512), (-1, 1), (0, SIZE + 1)]
)
def test_a_read_that_leaves_the_disk_fails(source: BlockSource, offset: int, length: int) -> None:
    with pytest.raises(ReadFailed):
        source.read_into(offset, memoryview(bytearray(length)))


def test_the_map_is_normal_has_no_gap_and_tells_no_data_to_be_zero(source: BlockSource) -> None:
    extents = source.extents()
    assert is_map(extents, SIZE)
    assert list(extents) == normal(extents)
    for e in extents:
        assert e.kind is Kind.DATA or not any(DATA[e.start : e.end])
    if not source.can_report_extents:
        assert list(extents) == [Extent(0, SIZE)]


def test_holes_fill_the_buffer_with_zeroes(source: BlockSource) -> None:
    for e in source.extents():
        if e.kind is Kind.ZERO:
            assert read(source, e.start, e.length) == bytes(e.length)


def test_many_threads_at_once_get_the_right_bytes(source: BlockSource) -> None:
    wrong: list[int] = []

    def reader(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(30):
            offset = order.randrange(SIZE - 70 * KiB)
            length = order.randrange(1, 70 * KiB)
            if read(source, offset, length) != DATA[offset : offset + length]:
                wrong.append(offset)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


def test_what_it_never_tracked_it_does_not_know(source: BlockSource) -> None:
    with pytest.raises(ChangesUnknown) as unknown:
        source.changed("never set")
    assert unknown.value.reason


def test_closing_twice_is_allowed_and_reading_afterwards_fails(source: BlockSource) -> None:
    source.close()
    source.close()
    with pytest.raises(ReadFailed):
        source.read_into(0, memoryview(bytearray(512)))


def test_a_map_of_a_closed_source_is_our_error_or_still_true(source: BlockSource) -> None:
    before = source.extents()
    source.close()
    try:
        after = source.extents()
    except ReadFailed:
        return
    assert after == before


def test_leaving_the_context_closes_it(source: BlockSource) -> None:
    with source as same:
        assert same is source
    with pytest.raises(ReadFailed):
        source.read_into(0, memoryview(bytearray(512)))
