"""The copy loop: all bytes, several workers, bounded memory, and one clean end whatever goes wrong."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import Cancelled, ReadFailed, RepositoryFull
from proxy.extents import Extent, Kind, aligned, normal, total
from proxy.model import Consistency, Level, MachineConfiguration, RestorePoint
from proxy.ports import Progress
from proxy.repository import MemoryStore, create
from proxy.transfer import PACE_STEP, Judge, copy
from proxy.units import KiB, MiB

BLOCK = 512
CHUNK = 4 * KiB


class Disk:
    """Bytes as source and sink. ``on_read``/``on_write`` see every call, and may fail it."""

    identity = "disk"
    can_report_extents = False

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.size = len(data)
        self.reads: list[int] = []
        self.writes: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int]] = []
        self.buffers: set[int] = set()
        self.on_read: Callable[[int], None] = lambda _: None
        self.on_write: Callable[[int], None] = lambda _: None

    def extents(self) -> list[Extent]:
        return [Extent(0, self.size)]

    def changed(self, since: str) -> list[Extent]:
        raise NotImplementedError(since)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append(offset)
        self.buffers.add(id(buffer.obj))
        self.on_read(offset)
        buffer[:] = self.data[offset : offset + len(buffer)]

    def write(self, offset: int, data: memoryview) -> None:
        self.on_write(offset)
        self.writes.append((offset, len(data)))
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.zeroed.append((offset, length))
        self.data[offset : offset + length] = bytes(length)

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def copying_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("copy-")]


@pytest.mark.slow
@settings(deadline=None)  # threads are started: on a busy machine that takes what it takes
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30), st.sampled_from(Kind)), max_size=6),
    st.integers(1, 5),
    st.sampled_from([BLOCK, 4 * BLOCK, 64 * BLOCK]),
)
def test_exactly_the_extents_are_copied(pieces: list[tuple[int, int, Kind]], workers: int, segment: int) -> None:
    size = 64 * BLOCK - 100
    extents = aligned(normal(Extent(s * BLOCK, n * BLOCK, kind) for s, n, kind in pieces), BLOCK, size)
    source, sink = Disk(os.urandom(size)), Disk(os.urandom(size))
    expected = bytearray(sink.data)
    for e in extents:
        expected[e.start : e.end] = source.data[e.start : e.end] if e.kind is Kind.DATA else bytes(e.length)
    result = copy(source, sink, extents, disk="vda", workers=workers, segment=segment)
    assert sink.data == expected
    assert (result.bytes_read, result.bytes_zero) == (total(extents, Kind.DATA), total(extents, Kind.ZERO))
    assert all(length <= segment and offset % BLOCK == 0 for offset, length in sink.writes)
    assert sorted(sink.zeroed) == [(e.start, e.length) for e in extents if e.kind is Kind.ZERO]


def test_zero_extents_are_neither_read_nor_written() -> None:
    source, sink = Disk(b"x" * 8 * BLOCK), Disk(b"y" * 8 * BLOCK)
    copy(source, sink, [Extent(0, 8 * BLOCK, Kind.ZERO)], disk="vda", segment=BLOCK)
    assert (source.reads, sink.writes, sink.zeroed) == ([], [], [(0, 8 * BLOCK)])


def test_nothing_to_copy_is_fine() -> None:
    result = copy(Disk(b""), Disk(b""), [], disk="vda")
    assert (result.bytes_read, result.bytes_zero) == (0, 0)


def test_workers_overlap_and_each_has_one_buffer() -> None:
    source, sink = Disk(bytes(100 * BLOCK)), Disk(bytes(100 * BLOCK))
    together = threading.Barrier(3, timeout=20)
    source.on_read = lambda offset: together.wait() and None if offset < 3 * BLOCK else None
    copy(source, sink, source.extents(), disk="vda", workers=3, segment=BLOCK)
    assert len(source.buffers) == 3
    assert sorted(source.reads) == list(range(0, 100 * BLOCK, BLOCK))
    assert not together.broken


def test_segments_are_begun_in_offset_order() -> None:
    source, sink = Disk(bytes(50 * BLOCK)), Disk(bytes(50 * BLOCK))
    copy(source, sink, source.extents(), disk="vda", workers=1, segment=BLOCK)
    assert source.reads == sorted(source.reads)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("failing", ["source", "sink"])
def test_the_first_error_ends_the_copy_with_all_threads_joined(workers: int, failing: str) -> None:
    source, sink = Disk(bytes(1000 * BLOCK)), Disk(bytes(1000 * BLOCK))

    def fail(offset: int) -> None:
        if offset == 20 * BLOCK:
            raise ReadFailed("disk", offset, BLOCK, "gone") if failing == "source" else RepositoryFull("there")

    if failing == "source":
        source.on_read = fail
    else:
        sink.on_write = fail
    with pytest.raises(ReadFailed if failing == "source" else RepositoryFull):
        copy(source, sink, source.extents(), disk="vda", workers=workers, segment=BLOCK)
    assert copying_threads() == []
    assert 20 <= len(source.reads) < 1000


def test_one_error_is_raised_when_all_workers_fail() -> None:
    source, sink = Disk(bytes(40 * BLOCK)), Disk(bytes(40 * BLOCK))
    together = threading.Barrier(4, timeout=20)

    def fail(offset: int) -> None:
        together.wait()
        raise ReadFailed("disk", offset, BLOCK, "gone")

    source.on_read = fail
    with pytest.raises(ReadFailed):
        copy(source, sink, source.extents(), disk="vda", workers=4, segment=BLOCK)
    assert copying_threads() == []
    assert len(source.reads) == 4


def test_a_cancelled_copy_stops_within_a_segment_and_says_so() -> None:
    source, sink = Disk(bytes(1000 * BLOCK)), Disk(bytes(1000 * BLOCK))
    with pytest.raises(Cancelled, match="disk vda was cancelled"):
        copy(
            source, sink, source.extents(), disk="vda", workers=2, segment=BLOCK,
            cancelled=lambda: len(source.reads) >= 10,
        )  # fmt: skip
    assert 10 <= len(source.reads) <= 12
    assert copying_threads() == []


def test_an_error_of_the_cancel_question_is_raised() -> None:
    def broken() -> bool:
        raise RepositoryFull("there")

    disk = Disk(bytes(10 * BLOCK))
    with pytest.raises(RepositoryFull):
        copy(disk, disk, disk.extents(), disk="vda", workers=3, segment=BLOCK, cancelled=broken)
    assert copying_threads() == []


def test_progress_grows_to_the_total() -> None:
    source, sink = Disk(bytes(20 * BLOCK)), Disk(bytes(20 * BLOCK))
    extents = [Extent(0, 10 * BLOCK), Extent(10 * BLOCK, 10 * BLOCK, Kind.ZERO)]
    told: list[Progress] = []
    copy(source, sink, extents, disk="vda", workers=4, segment=BLOCK, progress=told.append)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1] == Progress("vda", 20 * BLOCK, 20 * BLOCK, 10 * BLOCK)


def test_a_slow_side_is_named_as_the_bottleneck() -> None:
    source, sink = Disk(bytes(8 * BLOCK)), Disk(bytes(8 * BLOCK))
    sink.on_write = lambda _: threading.Event().wait(0.01) and None
    result = copy(source, sink, source.extents(), disk="vda", workers=2, segment=BLOCK)
    assert result.bottleneck == "sink"
    assert result.sink_seconds >= 0.08


def test_a_pace_is_asked_before_each_read_and_never_for_zeroes() -> None:
    source, sink = Disk(bytes(8 * BLOCK)), Disk(bytes(8 * BLOCK))
    asked: list[int] = []
    extents = [Extent(0, 6 * BLOCK), Extent(6 * BLOCK, 2 * BLOCK, Kind.ZERO)]

    def free(count: int) -> float:
        assert len(source.reads) <= len(asked)
        asked.append(count)
        return 0.0

    result = copy(source, sink, extents, disk="vda", workers=1, segment=2 * BLOCK, pace=free)
    assert asked == [2 * BLOCK] * 3
    assert result.bytes_read == 6 * BLOCK


def test_a_pace_that_is_lifted_takes_effect_while_a_copy_waits() -> None:
    source, sink = Disk(bytes(4 * BLOCK)), Disk(bytes(4 * BLOCK))
    answers = iter([3600.0, 3600.0])  # an hour, twice; then the pace is lifted
    result = copy(
        source, sink, source.extents(), disk="vda", workers=1, segment=BLOCK, pace=lambda _: next(answers, 0.0)
    )
    assert result.bytes_read == 4 * BLOCK
    assert 2 * PACE_STEP <= result.paced_seconds < 20


def test_a_copy_that_waits_for_its_pace_is_cancelled_at_once_and_reads_nothing() -> None:
    source, sink = Disk(bytes(4 * BLOCK)), Disk(bytes(4 * BLOCK))
    waiting = threading.Event()

    def never(_: int) -> float:
        waiting.set()
        return 3600.0

    with pytest.raises(Cancelled):
        copy(source, sink, source.extents(), disk="vda", workers=3, segment=BLOCK, pace=never, cancelled=waiting.is_set)
    assert source.reads == []
    assert copying_threads() == []


def test_an_error_of_one_worker_ends_the_wait_of_the_others() -> None:
    source, sink = Disk(bytes(4 * BLOCK)), Disk(bytes(4 * BLOCK))
    first = threading.Lock()

    def only_one(_: int) -> float:
        return 0.0 if first.acquire(blocking=False) else 3600.0

    def fail(offset: int) -> None:
        raise ReadFailed("disk", offset, BLOCK, "gone")

    source.on_read = fail
    with pytest.raises(ReadFailed):
        copy(source, sink, source.extents(), disk="vda", workers=4, segment=BLOCK, pace=only_one)
    assert len(source.reads) == 1


@pytest.mark.parametrize(("granularity", "pieces"), [(2 * MiB, [2, 2, 1]), (4 * MiB, [4, 1]), (256 * KiB, [1] * 5)])
def test_segments_grow_to_whole_chunks(granularity: int, pieces: list[int]) -> None:
    source, sink = Disk(os.urandom(5 * MiB)), Disk(bytes(5 * MiB))
    copy(source, sink, [Extent(0, source.size)], disk="vda", granularity=granularity)
    assert sorted(sink.writes) == [(sum(pieces[:n]) * MiB, piece * MiB) for n, piece in enumerate(pieces)]
    assert sink.data == source.data


def test_segments_are_a_multiple_of_a_granularity_that_does_not_divide_them() -> None:
    source, sink = Disk(os.urandom(20 * BLOCK)), Disk(bytes(20 * BLOCK))
    copy(source, sink, [Extent(3 * BLOCK, 17 * BLOCK)], disk="vda", segment=4 * BLOCK, granularity=3 * BLOCK, workers=1)
    assert sink.writes == [
        (3 * BLOCK, 3 * BLOCK),
        (6 * BLOCK, 6 * BLOCK),
        (12 * BLOCK, 6 * BLOCK),
        (18 * BLOCK, 2 * BLOCK),
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], []),
        ([CHUNK + 7, CHUNK + 9], [Extent(CHUNK, CHUNK)]),
        ([2 * CHUNK, 4 * CHUNK - 1], [Extent(2 * CHUNK, CHUNK, Kind.ZERO), Extent(3 * CHUNK, CHUNK, Kind.ZERO)]),
        ([CHUNK, 4 * CHUNK + 99], [Extent(CHUNK, CHUNK), Extent(4 * CHUNK, 100)]),
    ],
)
def test_chunks_that_are_not_the_image_s_are_told_with_what_it_has_there(
    tmp_path: Path, where: list[int], expected: list[Extent]
) -> None:
    disk = bytearray(os.urandom(2 * CHUNK) + bytes(2 * CHUNK) + os.urandom(100))
    with create(MemoryStore(), chunk_size=CHUNK, cache=tmp_path, secret=None) as repository:
        with repository.image_writer("vda", len(disk), None) as writer:
            writer.write(0, memoryview(disk))
            image = writer.seal()
        point = RestorePoint(
            *("", "m1", "web", "h1", "r", datetime(2026, 1, 1, tzinfo=UTC), Level.FULL, Consistency.CRASH, (image,)),
            configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
        )
        for at in where:
            disk[at] ^= 1
        with repository.open_image(point, "vda") as reader:
            assert list(Judge(reader).differing(0, memoryview(disk))) == expected
            behind = [extent for extent in expected if extent.start >= CHUNK]
            assert list(Judge(reader).differing(CHUNK, memoryview(disk)[CHUNK:])) == behind
