import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter import wire
from mounter.ports import FileEntry, FileType
from proxy.errors import FormatError

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.slow
@given(
    st.binary(),
    st.sampled_from(FileType),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.one_of(st.none(), st.binary()),
)
def test_any_entry_survives_the_wire(
    path: bytes, kind: FileType, numbers: tuple[int, int, int, int, int, int, int], link: bytes | None
) -> None:
    entry = FileEntry(path, kind, *numbers, link)
    assert wire.entry_from_wire(json.loads(json.dumps(wire.entry_to_wire(entry)))) == entry


def test_a_frame_arrives_as_it_was_sent() -> None:
    here, there = socket.socketpair()
    with here, there:
        wire.send(here, {"a": ["\udcff"]}, b"\0\xff")
        assert wire.receive(there) == ({"a": ["\udcff"]}, b"\0\xff")


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<II", 2**31, 0),
        struct.pack("<II", 2, 2**31),
        struct.pack("<II", 2, 0) + b"[]",
        struct.pack("<II", 1, 0) + b"{",
    ],
    ids=["long text", "long data", "no object", "no JSON"],
)
def test_nonsense_is_refused(frame: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(frame)
        with pytest.raises(FormatError):
            wire.receive(there)


def test_a_frame_that_is_cut_short_is_the_end() -> None:
    here, there = socket.socketpair()
    with there:
        here.sendall(struct.pack("<II", 10, 0) + b"{")
        here.close()
        with pytest.raises(EOFError):
            wire.receive(there)


@pytest.mark.parametrize(
    "fields", [[], ["/x"], ["/x", "no type", 0, 0, 0, 0, 0, 0, 0, None], [1, "file", 0, 0, 0, 0, 0, 0, 0, None]]
)
def test_an_entry_of_another_shape_is_refused(fields: list[object]) -> None:
    with pytest.raises(FormatError):
        wire.entry_from_wire(fields)
