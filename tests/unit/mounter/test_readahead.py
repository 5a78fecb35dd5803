"""Reading ahead: the same bytes, read before they are asked for where requests follow each other."""

import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import pytest

from mounter.readahead import AHEAD, BLOCK, ROOM, ReadAhead
from proxy.errors import IntegrityError
from proxy.extents import Extent, Kind
from proxy.model import ChangeId
from proxy.units import KiB, MiB

pytestmark = pytest.mark.slow


class Image:
    """An image in memory that notes what is read of it. Chunks whose numbers are in ``holes`` are zero."""

    identity = "image"
    can_report_extents = True
    granularity = 256 * KiB

    def __init__(self, size: int, holes: Sequence[int] = (), bad: int | None = None) -> None:
        self.size = size
        self.data = bytearray(os.urandom(size))
        self.holes = frozenset(holes)
        for chunk in holes:
            self.data[chunk * self.granularity : (chunk + 1) * self.granularity] = bytes(self.granularity)
        self.bad = bad
        self.reads: list[tuple[int, int]] = []
        self.noted = threading.Condition()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As the port."""
        with self.noted:
            self.reads.append((offset, len(buffer)))
            self.noted.notify_all()
        if self.bad is not None and offset <= self.bad < offset + len(buffer):
            raise IntegrityError("point p1", f"chunk at {self.bad} is not what was stored")
        buffer[:] = self.data[offset : offset + len(buffer)]

    def digest_at(self, offset: int) -> bytes | None:
        """As the port."""
        return None if offset // self.granularity in self.holes else b"digest"

    def has_read(self, wanted: Callable[[list[tuple[int, int]]], bool]) -> bool:
        """Whether it comes true."""
        with self.noted:
            return self.noted.wait_for(lambda: wanted(self.reads), timeout=10)

    def extents(self) -> Sequence[Extent]:
        """Not looked at."""
        return [Extent(0, self.size, Kind.DATA)]

    def map(self) -> Iterable[Extent]:
        """Not looked at."""
        return self.extents()

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Not looked at."""
        raise NotImplementedError(since)

    def will_read(self, extents: Iterable[Extent], ahead: int = 0) -> None:
        """Not told."""

    def chunk_digest(self, data: memoryview) -> bytes:
        """Not looked at."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to do."""


def read(ahead: ReadAhead, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    ahead.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_requests_in_order_get_their_bytes_and_later_ones_come_from_what_was_read_ahead() -> None:
    image = Image(20 * MiB + 777)
    with ReadAhead(image) as ahead:
        step = 64 * KiB
        got = b"".join(read(ahead, at, min(step, image.size - at)) for at in range(0, image.size, step))
    assert got == image.data
    blocks = [start for start, length in image.reads if length == BLOCK]
    assert len(blocks) >= 18
    assert len(blocks) == len(set(blocks))


def test_the_third_request_in_order_makes_what_follows_be_read() -> None:
    image = Image(32 * MiB)
    with ReadAhead(image) as ahead:
        for at in (0, 4096):
            read(ahead, at, 4096)
        assert image.reads == [(0, 4096), (4096, 4096)]
        read(ahead, 8192, 4096)
        assert image.has_read(lambda reads: (BLOCK, BLOCK) in reads)
        assert all(start <= 2 * MiB for start, _ in image.reads)


@pytest.mark.slow
def test_never_is_more_read_ahead_than_agreed() -> None:
    image = Image(64 * MiB)
    with ReadAhead(image) as ahead:
        for at in range(0, 8 * MiB, 256 * KiB):
            read(ahead, at, 256 * KiB)
    assert max(start + length for start, length in image.reads) <= 8 * MiB + AHEAD + BLOCK


def test_random_requests_are_passed_through_as_they_are() -> None:
    image = Image(16 * MiB)
    choice = random.Random(1)
    wanted = [(choice.randrange(0, 16 * MiB - 8192, 8192), 4096) for _ in range(200)]
    with ReadAhead(image) as ahead:
        assert all(read(ahead, at, length) == image.data[at : at + length] for at, length in wanted)
    assert image.reads == wanted


def test_holes_are_not_read_ahead() -> None:
    image = Image(16 * MiB, holes=range(8, 64))
    with ReadAhead(image) as ahead:
        for at in range(0, 16 * MiB, 256 * KiB):
            assert read(ahead, at, 256 * KiB) == image.data[at : at + 256 * KiB]
    assert not [start for start, length in image.reads if length == BLOCK and start >= 2 * MiB]


def test_several_streams_and_threads_get_their_own_bytes() -> None:
    image = Image(24 * MiB)
    wrong: list[int] = []
    with ReadAhead(image) as ahead:

        def follow(start: int) -> None:
            for at in range(start, start + 6 * MiB, 100_000):
                length = min(100_000, start + 6 * MiB - at)
                if read(ahead, at, length) != image.data[at : at + length]:
                    wrong.append(at)

        threads = [threading.Thread(target=follow, args=(n * 6 * MiB,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ahead._blocks) <= ROOM
    assert wrong == []


def test_damage_is_raised_for_the_request_that_meets_it_and_for_no_other() -> None:
    image = Image(8 * MiB, bad=3 * MiB + 5)
    step = 256 * KiB
    with ReadAhead(image) as ahead:
        for at in range(0, 8 * MiB, step):
            if at <= 3 * MiB + 5 < at + step:
                with pytest.raises(IntegrityError, match="not what was stored"):
                    read(ahead, at, step)
            else:
                assert read(ahead, at, step) == image.data[at : at + step]


def test_closed_in_the_middle_it_only_reads_what_it_is_asked_for() -> None:
    image = Image(8 * MiB)
    ahead = ReadAhead(image)
    for at in range(0, MiB, 64 * KiB):
        read(ahead, at, 64 * KiB)
    ahead.close()
    image.reads.clear()
    assert read(ahead, MiB, 64 * KiB) == image.data[MiB : MiB + 64 * KiB]
    assert image.reads == [(MiB, 64 * KiB)]
