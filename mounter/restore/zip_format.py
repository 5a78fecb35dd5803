"""Records of a zip file. PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5; extra fields UT and ux as Info-ZIP defines them."""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# signature version flags method time date crc compressed size name extra
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
# signature made-by version flags method time date crc compressed size name extra comment disk internal external offset
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")
assert (_LOCAL.size, _CENTRAL.size, _END64.size, _END.size) == (30, 46, 56, 22)  # noqa: S101  a layout, not data

STORED, DEFLATED = 0, 8
_STREAMED, _UTF8 = 1 << 3, 1 << 11
_VERSION = 45  # of the format: the first with 64-bit sizes
_UNIX = 3
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF

# A stream cannot know whether compressing will make a file larger than 4 GiB: from here on it is told in 64 bits.
LARGE = 0xFFFFFFFF - (64 << 20)


@dataclass(frozen=True, slots=True)
class Entry:
    """``name``: bytes of UTF-8; ``mode``: type and permissions. ``streamed``: sizes and checksum come after the data, and
    are not known (zero) when the local header is written."""

    name: bytes
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    method: int
    large: bool = False
    streamed: bool = False
    crc: int = 0
    compressed: int = 0
    size: int = 0
    offset: int = 0

    def local(self) -> bytes:
        """The header before the data."""
        extra = self._extra()
        compressed, size = self.compressed, self.size
        if self.large:
            extra = struct.pack("<HHQQ", 1, 16, size, compressed) + extra
            compressed = size = _FULL32
        time, date = dos_time(self.mtime_ns)
        fixed = (self._flags(), self.method, time, date, self.crc, compressed, size)
        return _LOCAL.pack(b"PK\3\4", _VERSION, *fixed, len(self.name), len(extra)) + self.name + extra

    def descriptor(self) -> bytes:
        """What comes after the data of a streamed entry."""
        return struct.pack("<4sIQQ" if self.large else "<4sIII", b"PK\7\10", self.crc, self.compressed, self.size)

    def central(self) -> bytes:
        """The entry of the directory at the end."""
        long = b"".join(struct.pack("<Q", n) for n in (self.size, self.compressed) if self.large)
        if self.offset >= _FULL32:
            long += struct.pack("<Q", self.offset)
        extra = (struct.pack("<HH", 1, len(long)) + long if long else b"") + self._extra()
        sizes = (_FULL32, _FULL32) if self.large else (self.compressed, self.size)
        time, date = dos_time(self.mtime_ns)
        external = (self.mode & 0xFFFF) << 16 | (0x10 if self.name.endswith(b"/") else 0)
        fixed = (_UNIX << 8 | _VERSION, _VERSION, self._flags(), self.method, time, date, self.crc, *sizes)
        rest = (len(self.name), len(extra), 0, 0, 0, external, min(self.offset, _FULL32))
        return _CENTRAL.pack(b"PK\1\2", *fixed, *rest) + self.name + extra

    def _flags(self) -> int:
        return (_STREAMED if self.streamed else 0) | (0 if self.name.isascii() else _UTF8)

    def _extra(self) -> bytes:
        """Modification time, where 32 bits hold it, and owner."""
        seconds = self.mtime_ns // 1_000_000_000
        time = struct.pack("<HHBi", 0x5455, 5, 1, seconds) if -(1 << 31) <= seconds < 1 << 31 else b""
        return time + struct.pack("<HHBBIBI", 0x7875, 11, 1, 4, self.uid & _FULL32, 4, self.gid & _FULL32)


def end(entries: int, offset: int, size: int, comment: bytes = b"") -> bytes:
    """After the directory, which has so many entries and bytes and begins at ``offset``."""
    long = entries >= _FULL16 or offset >= _FULL32 or size >= _FULL32
    extended = b""
    if long:
        rest = (_VERSION, _VERSION, 0, 0, entries, entries, size, offset)
        extended = _END64.pack(b"PK\6\6", _END64.size - 12, *rest) + _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    count = min(entries, _FULL16)
    comment = comment[:_FULL16]
    fixed = (0, 0, count, count, min(size, _FULL32), min(offset, _FULL32), len(comment))
    return extended + _END.pack(b"PK\5\6", *fixed) + comment


def dos_time(mtime_ns: int) -> tuple[int, int]:
    """Time and date in steps of two seconds, from 1980 to 2107; what lies beyond becomes the nearest. UTC: the guest's
    time zone is not known, and readers of the UT field do not look here."""
    earliest, latest = datetime(1980, 1, 1, tzinfo=UTC), datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=mtime_ns // 1_000_000_000)
    except OverflowError:
        moment = latest if mtime_ns > 0 else earliest
    moment = min(max(moment, earliest), latest)
    time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
    return time, (moment.year - 1980) << 9 | moment.month << 5 | moment.day
