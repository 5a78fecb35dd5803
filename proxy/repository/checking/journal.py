"""Which packs verification has read, and when: a local file, so that what was stopped goes on and samples come round.

Records of 32 bytes are appended, each with one write, so any number of processes may share the file; the last record of a
pack counts. It lies in the cache directory and may be lost at any time, which costs reading again, never a wrong answer: it
is not in the repository because whoever can write there must not be able to say what need not be looked at.

::

    name (16) | when, seconds since 1970 (8) | how (4) | check word (4)          how: DAMAGED, SEALS or CONTENT
"""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from proxy.repository.format import NAME_BYTES
from proxy.repository.packset import PackSet

NAME = "verified"

DAMAGED, SEALS, CONTENT = 0, 1, 2
"""What was found: damage; that seals are right; that chunks are what their ids say."""

_RECORD = Struct("<16sQII")
_DTYPE = np.dtype(
    {
        "names": ["name", "low", "high", "at", "how", "check"],
        "formats": ["V16", "<u8", "<u8", "<u8", "<u4", "<u4"],
        "offsets": [0, 0, 8, 16, 24, 28],
        "itemsize": 32,
    }
)
# Odd, with bits everywhere: the digits of pi's hexadecimal fraction behind those that runs.py uses, made odd.
_ODD = (0x452821E638D01377, 0xBE5466CF34E90C6D, 0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917)
_MASK = (1 << 64) - 1

# A file with more than twice as many records as packs is written anew; below some hundred KiB it does not matter.
_SMALL = 10_000

Times = NDArray[np.int64]


class Journal:
    """Not for several threads at once. A cache directory that is full, or gone, costs the record alone."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._file: int | None = None
        records = self._load()
        names = PackSet.parse(records["name"].tobytes())
        self._names = names
        # When each was read last, one way or the other, and when deeply.
        self._at = _last(names, records)
        self._deep = _last(names, records[records["how"] != SEALS])
        with suppress(OSError):
            if self._torn or len(records) > 2 * len(names) + _SMALL:
                self._rewrite()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def times(self, packs: PackSet, now: datetime, *, deep: bool) -> Times:
        """For each pack, when it was last found right (``deep``: its content too), in seconds since 1970; 0 for never, for one
        that was found damaged since, and for a time yet to come."""
        times = np.zeros(len(packs), dtype=np.int64)
        at = self._names.numbers(packs.table())
        known = at >= 0
        times[known] = (self._deep if deep else self._at)[at[known]]
        times[times > now.timestamp()] = 0
        return times

    def note(self, pack: bytes, now: datetime, how: int) -> None:
        """A pack was read, and what was found."""
        if self._file is None:
            return
        record = _record(pack, int(now.timestamp()), how)
        try:
            written = os.write(self._file, record)
        except OSError:
            written = 0
        if written != len(record):
            self.close()  # a torn record is left out, and the file mended, by whoever opens it next

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _load(self) -> NDArray[np.void]:
        data = b""
        with suppress(OSError):
            data = self._path.read_bytes()
        self._torn = bool(len(data) % _RECORD.size)
        records = np.frombuffer(data, _DTYPE, len(data) // _RECORD.size)
        words = (records["low"], records["high"], records["at"], records["how"].astype(np.uint64))
        total = np.zeros(len(records), dtype=np.uint64)
        for word, odd in zip(words, _ODD, strict=True):
            total += word * np.uint64(odd)
        right = (total >> np.uint64(32)).astype(np.uint32) == records["check"]
        self._torn |= not bool(right.all())
        found: NDArray[np.void] = records[right]
        return found

    def _rewrite(self) -> None:
        fresh = self._path.with_name(f"{NAME}-{secrets.token_hex(8)}.new")
        try:
            fresh.write_bytes(b"".join(self._records()))
            fresh.rename(self._path)
        finally:
            fresh.unlink(missing_ok=True)

    def _records(self) -> Iterable[bytes]:
        for pack, at, deep in zip(self._names, self._at.tolist(), self._deep.tolist(), strict=True):
            if deep:
                yield _record(pack, deep, CONTENT)
            if at > deep:
                yield _record(pack, at, SEALS)


def _last(names: PackSet, records: NDArray[np.void]) -> Times:
    """The time of each pack's last record; a damaged pack counts as one that was never read."""
    at = np.zeros(len(names), dtype=np.int64)
    # Where a pack comes twice, the later assignment stays.
    at[names.numbers(records["name"].tobytes())] = np.where(records["how"] == DAMAGED, 0, records["at"])
    return at


def _record(pack: bytes, at: int, how: int) -> bytes:
    words = (int.from_bytes(pack[:8], "little"), int.from_bytes(pack[8:NAME_BYTES], "little"), at, how)
    check = (sum(word * odd for word, odd in zip(words, _ODD, strict=True)) & _MASK) >> 32
    return _RECORD.pack(pack, at, how, check)
