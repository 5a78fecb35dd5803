"""Batches of entries as bytes: there and back, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mounter.batch import FURTHEST, entries_from_data, entries_to_data
from mounter.ports import FileEntry, FileType
from proxy.errors import FormatError

number = st.integers(-(2**63), 2**63 - 1)
name = st.binary(max_size=40).map(lambda raw: b"/" + raw.replace(b"\0", b"?"))
entry = st.builds(
    FileEntry,
    name,
    st.sampled_from(FileType),
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    st.none() | name | st.just(b""),
    number,
    number,
    st.tuples(number, number),
)


@pytest.mark.slow
@given(st.lists(entry, max_size=8))
def test_what_was_sent_is_what_arrives(entries: list[FileEntry]) -> None:
    assert entries_from_data(entries_to_data(entries)) == entries


@given(st.binary(max_size=300))
def test_rubbish_is_refused_or_says_something(data: bytes) -> None:
    try:
        entries = entries_from_data(data)
    except FormatError:
        return
    assert all(isinstance(e, FileEntry) for e in entries)


@pytest.mark.slow
@given(st.lists(entry, min_size=1, max_size=3), st.data())
def test_a_batch_that_was_cut_or_changed_never_breaks_the_reader(entries: list[FileEntry], data: st.DataObject) -> None:
    sent = bytearray(entries_to_data(entries))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    for received in (bytes(sent), bytes(sent[:at])):
        try:
            assert len(entries_from_data(received)) < 100
        except FormatError:
            continue


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(FormatError, match="NUL"):
        entries_to_data([FileEntry(b"/a\0b", FileType.FILE, 0, 0, 0, 0, 0, 0, 0)])


def test_times_that_64_bits_do_not_hold_and_odd_targets_lose_no_entry() -> None:
    windows_zero = -11_644_473_600 * 10**9  # the year 1601, which NTFS writes where it has no time
    odd = FileEntry(b"/a", FileType.SYMLINK, 2**64, 0, 0, 0, windows_zero, 10_413_792_000 * 10**9, 1, b"x\0y")
    plain = FileEntry(b"/b", FileType.FILE, 1, 0o644, 0, 0, 5, 6, 2)
    first, second = entries_from_data(entries_to_data([odd, plain]))
    assert (first.size, first.mtime_ns, first.ctime_ns) == (FURTHEST, -FURTHEST, FURTHEST)
    assert first.link_target == b"x"
    assert second == plain


def test_an_announcement_of_more_than_there_is_is_refused() -> None:
    with pytest.raises(FormatError):
        entries_from_data(b"\xff\xff\xff\xff" + bytes(8))
