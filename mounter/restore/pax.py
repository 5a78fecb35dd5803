"""Headers of tar members in the pax format. POSIX.1-2017, utility pax, "ustar Interchange Format" and "pax Extended Header".

Facts that the 1988 header cannot hold go into an extended header before it, as records ``LENGTH KEYWORD=VALUE\\n``. Beyond
POSIX: ``SCHILY.xattr.*`` and ``SCHILY.acl.*`` (star(4)), and the sparse format 1.0 of GNU tar (its manual, appendix D.3).
Names go as the guest's bytes. The extended header is for UTF-8: names that are not stand in the header itself where they fit
(then every tar gives them back unchanged), else ``hdrcharset=BINARY`` announces them, of which GNU tar says that it ignores
it, and it gives them back unchanged.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from mounter.ports import shown
from proxy.errors import FileNotRestored

BLOCK = 512

# name mode uid gid size mtime checksum typeflag linkname magic version uname gname devmajor devminor prefix, padding
_USTAR = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2s 32s 32s 8s 8s 155s 12x")
assert _USTAR.size == BLOCK  # noqa: S101  a layout, not data

_NAME, _PREFIX = 100, 155
_SMALL = 0o7777777  # of 8 bytes: seven octal digits and a NUL
_LARGE = 0o77777777777  # of 12 bytes; as a size 8 GiB - 1, as a time the year 2242

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_EXTENDED = b"x"

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Member:
    """What a header tells. ``size``: bytes that follow, without padding. ``records``: more of the extended header."""

    path: bytes
    kind: bytes
    size: int = 0
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    records: Sequence[tuple[bytes, bytes]] = field(default=())

    def header(self) -> bytes:
        """Extended header, where one is needed, and the header itself; multiples of 512 bytes."""
        records = [*self._needed(), *self.records]
        if any(not _is_utf8(value) for key, value in records if key in (b"path", b"linkpath")):
            records.insert(0, (b"hdrcharset", b"BINARY"))
        extended = b"".join(record(key, value) for key, value in records)
        parts = []
        if extended:
            name = (b"PaxHeaders/" + self.path.rstrip(b"/").rsplit(b"/", 1)[-1])[:_NAME]
            parts += [_ustar(Member(name, _EXTENDED, len(extended))), extended, padding(len(extended))]
        return b"".join([*parts, _ustar(self)])

    def _needed(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        if _split(self.path) is None:
            found.append((b"path", self.path))
        if len(self.link) > _NAME or _is_international(self.link):
            found.append((b"linkpath", self.link))
        if self.size > _LARGE:
            found.append((b"size", b"%d" % self.size))
        found += [(key, b"%d" % n) for key, n in ((b"uid", self.uid), (b"gid", self.gid)) if n > _SMALL]
        if self.mtime_ns % _SECOND or not 0 <= self.mtime_ns // _SECOND <= _LARGE:
            found.append((b"mtime", _decimal(self.mtime_ns)))
        return found


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header. Its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def padding(size: int) -> bytes:
    """Zeroes to the next block."""
    return bytes(-size % BLOCK)


def xattr_record(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """An extended attribute; signs that would end the keyword are escaped as GNU tar does."""
    return b"SCHILY.xattr." + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value


def sparse_member(
    path: bytes, size: int, segments: Sequence[tuple[int, int]]
) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """For a file with holes: the path of its header, the records, and the map that comes before the data.

    ``segments``: (start, stop) of data, ascending; ``size``: of the whole file. A hole at the end is told by an empty
    segment there.
    """
    pairs = [(start, stop - start) for start, stop in segments]
    if not pairs or sum(pairs[-1]) < size:
        pairs.append((size, 0))
    numbers = [len(pairs), *(number for pair in pairs for number in pair)]
    table = b"".join(b"%d\n" % number for number in numbers)
    above, slash, name = path.rpartition(b"/")
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", path),
        (b"GNU.sparse.realsize", b"%d" % size),
    ]
    return above + slash + b"GNUSparseFile.0/" + name, records, table + padding(len(table))


def _ustar(member: Member) -> bytes:
    major, minor = member.device
    if not (0 <= major <= _SMALL and 0 <= minor <= _SMALL):
        raise FileNotRestored(shown(member.path), f"tar has no room for device number {major}:{minor}")
    prefix, name = _split(member.path) or (b"", member.path[:_NAME])
    fields = [
        name,
        _octal(member.mode, 8),
        _octal(member.uid if member.uid <= _SMALL else 0, 8),
        _octal(member.gid if member.gid <= _SMALL else 0, 8),
        _octal(member.size if member.size <= _LARGE else 0, 12),
        _octal(min(max(member.mtime_ns // _SECOND, 0), _LARGE), 12),
        b" " * 8,
        member.kind,
        member.link[:_NAME],
        b"ustar\0",
        b"00",
        b"",
        b"",
        _octal(major, 8),
        _octal(minor, 8),
        prefix,
    ]
    fields[6] = b"%06o\0 " % sum(_USTAR.pack(*fields))
    return _USTAR.pack(*fields)


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, max(number, 0))


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name of the 1988 header, ``None`` when the path does not fit or is to go as UTF-8."""
    if _is_international(path):
        return None
    if len(path) <= _NAME:
        return b"", path
    cut = path.rfind(b"/", 0, _PREFIX + 1)
    while cut > 0:
        if len(path) - cut - 1 > _NAME:
            return None
        if path[cut + 1 :]:
            return path[:cut], path[cut + 1 :]
        cut = path.rfind(b"/", 0, cut)
    return None


def _decimal(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{seconds}.{rest:09d}".rstrip("0").rstrip(".").encode()


def _is_international(value: bytes) -> bool:
    return not value.isascii() and _is_utf8(value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
