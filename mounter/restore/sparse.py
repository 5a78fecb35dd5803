"""Which parts of a file's content are data, and which are nothing but zeroes and may be holes.

::

    content    dddd0000 00000000 0000dddd d000....        blocks of 8
    data       ^^^^^^^^ (hole)   ^^^^^^^^ ^^^^            a block with one byte of data is data
"""

from collections.abc import Iterator

# What common file systems allocate at once. A smaller one finds holes that they cannot make.
BLOCK = 4096

_ZEROES = bytes(BLOCK)


def may_have_holes(size: int, allocated: int) -> bool:
    """Whether looking for zeroes is worth it: the guest's file takes less than its size, or nobody knows (-1). A file that
    takes all of it was written out, or reserved, by somebody who wanted it so."""
    return size > 0 and allocated < size


def data_in(piece: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Parts of a piece that are data, as (start, stop) within it; ``offset``: of the piece in its file, in bytes."""
    at, length = 0, len(piece)
    start: int | None = None
    while at < length:
        stop = min(length, at + BLOCK - (offset + at) % BLOCK)
        if piece[at:stop] == (_ZEROES if stop - at == BLOCK else _ZEROES[: stop - at]):
            if start is not None:
                yield start, at
                start = None
        elif start is None:
            start = at
        at = stop
    if start is not None:
        yield start, length
