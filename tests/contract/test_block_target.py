"""Every ``BlockTarget`` against the contract of its port. All begin as a device full of rubbish."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.errors import WriteFailed
from proxy.units import KiB
from tests.contract.block_adapters import GARBAGE, TARGETS, MakeTarget, Opened

SIZE = 1024 * KiB + 3 * 512


@pytest.fixture(params=TARGETS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    make: MakeTarget = request.param
    with make(tmp_path, SIZE) as made:
        yield made


def test_it_knows_its_size_and_its_name(opened: Opened) -> None:
    assert opened.target.size == SIZE
    assert opened.target.identity


def test_what_was_written_and_flushed_is_on_the_device_and_nothing_else_changed(opened: Opened) -> None:
    model = bytearray(GARBAGE * SIZE)
    for offset, length in ((0, 4096), (8192, 65536), (100 * KiB + 512, 512), (200_001, 70_003), (SIZE - 512, 512)):
        data = random.Random(offset).randbytes(length)
        model[offset : offset + length] = data
        opened.target.write(offset, memoryview(data))
    opened.target.flush()
    assert opened.content() == model


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (0, 4096), (64 * KiB, 256 * KiB), (1, 510), (511, 70_002), (SIZE - 700, 700)]
)
def test_a_range_reads_as_zero_after_zero(opened: Opened, offset: int, length: int) -> None:
    opened.target.zero(offset, length)
    opened.target.flush()
    model = bytearray(GARBAGE * SIZE)
    model[offset : offset + length] = bytes(length)
    assert opened.content() == model


def test_a_zeroed_range_can_be_written_again(opened: Opened) -> None:
    opened.target.zero(0, SIZE)
    opened.target.write(5 * 4096, memoryview(b"x" * 4096))
    opened.target.flush()
    assert opened.content() == bytes(5 * 4096) + b"x" * 4096 + bytes(SIZE - 6 * 4096)


def test_a_part_of_a_larger_buffer_is_written(opened: Opened) -> None:
    buffer = bytearray(b"-" * 512 + b"x" * 1024 + b"-" * 512)
    opened.target.write(512, memoryview(buffer)[512:1536])
    opened.target.flush()
    buffer[:] = b"?" * 2048
    assert opened.content()[:2048] == GARBAGE * 512 + b"x" * 1024 + GARBAGE * 512


def test_empty_writes_and_zeroes_change_nothing(opened: Opened) -> None:
    opened.target.write(SIZE, memoryview(b""))
    opened.target.zero(0, 0)
    opened.target.flush()
    assert opened.content() == GARBAGE * SIZE


@pytest.mark.parametrize(("offset", "length"), [(SIZE - 1, 2), (SIZE, 512), (-512, 512), (0, SIZE + 512)])
def test_what_leaves_the_disk_fails_and_changes_nothing(opened: Opened, offset: int, length: int) -> None:
    with pytest.raises(WriteFailed):
        opened.target.write(offset, memoryview(bytes(length)))
    with pytest.raises(WriteFailed):
        opened.target.zero(offset, length)
    opened.target.flush()
    assert opened.content() == GARBAGE * SIZE


def test_many_threads_write_side_by_side(opened: Opened) -> None:
    piece = 16 * KiB
    model = bytearray(GARBAGE * SIZE)
    failures: list[BaseException] = []

    def writer(first: int) -> None:
        try:
            for number in range(first, SIZE // piece, 4):
                if number % 3:
                    opened.target.write(number * piece, memoryview(bytes([number]) * piece))
                else:
                    opened.target.zero(number * piece, piece)
        except BaseException as error:  # noqa: BLE001  a thread's error must reach the test
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    opened.target.flush()
    for number in range(SIZE // piece):
        model[number * piece : (number + 1) * piece] = (bytes([number]) if number % 3 else b"\0") * piece
    assert failures == []
    assert opened.content() == model


def test_closing_twice_is_allowed_and_writing_afterwards_fails(opened: Opened) -> None:
    opened.target.flush()
    opened.target.close()
    opened.target.close()
    with pytest.raises(WriteFailed):
        opened.target.write(0, memoryview(bytes(512)))
    with pytest.raises(WriteFailed):
        opened.target.zero(0, 512)
    with pytest.raises(WriteFailed):
        opened.target.flush()
