"""The pipe between who makes a download and who takes it."""

import errno
import threading
import time

import pytest

from appliance.web.pipe import LIMIT, PIECE, BytePipe
from proxy.errors import IntegrityError


def test_what_goes_in_comes_out_in_order_and_in_pieces_of_some_size() -> None:
    pipe = BytePipe()
    for number in range(1000):
        pipe.write(number.to_bytes(2, "big"))
    pipe.write(b"x" * (3 * PIECE + 1))
    pipe.write(b"end")
    pipe.end()

    pieces = list(iter(pipe.read, b""))

    assert b"".join(pieces) == b"".join(n.to_bytes(2, "big") for n in range(1000)) + b"x" * (3 * PIECE + 1) + b"end"
    assert all(len(piece) <= PIECE for piece in pieces)
    assert len(pieces) == 6


def test_a_writer_waits_for_a_reader_and_holds_no_more_than_the_limit() -> None:
    pipe = BytePipe()
    through = 0

    def write() -> None:
        nonlocal through
        for _ in range(64):
            pipe.write(bytes(PIECE))
            through += PIECE
        pipe.end()

    writer = threading.Thread(target=write)
    writer.start()
    deadline = time.monotonic() + 20
    while through < LIMIT and time.monotonic() < deadline:
        time.sleep(0.005)
    assert LIMIT <= through <= LIMIT + PIECE
    assert sum(len(piece) for piece in iter(pipe.read, b"")) == 64 * PIECE
    writer.join(10)
    assert not writer.is_alive()


def test_a_reader_that_takes_nothing_ends_the_writer_in_time() -> None:
    pipe = BytePipe(stall=0.05)

    with pytest.raises(OSError, match=r"nothing of it was taken") as caught:
        pipe.write(bytes(2 * LIMIT))

    assert caught.value.errno == errno.ETIMEDOUT
    assert pipe.closed
    with pytest.raises(OSError, match=r"nothing of it was taken"):
        pipe.write(bytes(PIECE))
    pipe.end(caught.value)
    got = 0
    with pytest.raises(OSError, match=r"nothing of it was taken"):  # who takes it after all must not think it whole
        while piece := pipe.read():
            got += len(piece)
    assert got == LIMIT


def test_a_reader_that_goes_ends_a_writer_that_waits() -> None:
    pipe = BytePipe()
    ended: list[int | None] = []

    def write() -> None:
        try:
            pipe.write(bytes(2 * LIMIT))
        except OSError as error:
            ended.append(error.errno)

    writer = threading.Thread(target=write)
    writer.start()
    assert pipe.read()
    pipe.close()
    pipe.close()
    writer.join(10)

    assert ended == [errno.EPIPE]


def test_what_ends_the_writer_is_what_the_reader_gets_after_all_that_came_before() -> None:
    pipe = BytePipe()
    pipe.write(b"a" * PIECE)
    pipe.write(b"never whole")
    pipe.end(IntegrityError("chunk 1", "is damaged"))

    assert pipe.read() == b"a" * PIECE
    with pytest.raises(IntegrityError):
        pipe.read()
    pipe.close()
    assert pipe.read() == b""


def test_a_reader_that_waits_is_woken_by_its_own_end() -> None:
    pipe = BytePipe()
    threading.Timer(0.05, pipe.close).start()

    assert pipe.read() == b""
