"""A file's content on its way into a stream, where nothing that was sent can be taken back."""

from collections.abc import Iterable, Iterator
from itertools import chain

from mounter.restore.sparse import data_in
from mounter.targets import Item

# Files up to this size are read as a whole before a byte of them is sent: one that cannot be read is left out cleanly.
# Larger ones, of which only the first bytes are tried, are few. It bounds memory, too.
READ_AHEAD = 4 << 20

# Segments of data that are told apart in one sparse file. More of them, and the smallest holes become zeroes.
SEGMENTS = 10_000


def started(item: Item) -> tuple[bytes, Iterator[bytes]]:
    """The beginning of the content (all of it if it is small), and the rest. What fails at the beginning fails here."""
    pieces = item.pieces()
    head: list[bytes] = []
    length = 0
    for piece in pieces:
        head.append(piece)
        length += len(piece)
        if length > READ_AHEAD:
            break
    return b"".join(head), pieces


def segments_of(pieces: Iterable[bytes]) -> list[tuple[int, int]]:
    """Data of a sparse file as (start, stop), ascending, with holes between; reads it to the end."""
    found: list[tuple[int, int]] = []
    smallest = 1
    offset = 0
    for piece in pieces:
        for start, stop in data_in(piece, offset):
            if found and offset + start - found[-1][1] < smallest:
                found[-1] = (found[-1][0], offset + stop)
            else:
                found.append((offset + start, offset + stop))
        offset += len(piece)
        while len(found) > SEGMENTS:
            smallest *= 2
            found = _merged(found, smallest)
    return found


def within(pieces: Iterator[bytes], segments: list[tuple[int, int]]) -> Iterator[bytes]:
    """Only the content of the segments. Reads to the end, so that what is wrong with the rest is seen."""
    offset = number = 0
    for piece in pieces:
        end = offset + len(piece)
        while number < len(segments) and segments[number][0] < end:
            start, stop = segments[number]
            part = piece[max(start - offset, 0) : stop - offset]
            if part:
                yield part
            if stop > end:
                break
            number += 1
        offset = end


def whole(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """What ``started`` took apart."""
    return chain((head,), rest) if head else rest


def _merged(segments: list[tuple[int, int]], smallest: int) -> list[tuple[int, int]]:
    """Without holes that are smaller."""
    kept = segments[:1]
    for start, stop in segments[1:]:
        if start - kept[-1][1] < smallest:
            kept[-1] = (kept[-1][0], stop)
        else:
            kept.append((start, stop))
    return kept
