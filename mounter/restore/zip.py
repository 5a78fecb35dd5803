"""Restored files as a zip stream: for people without tar. It holds less, and what is lost is told.

What cannot be taken back: as in a tar (``tar.py``), a small file that cannot be read is left out. A larger one that fails
in the middle stays as far as it came, with a checksum that is wrong: whoever extracts it is told that it is damaged, and
all other files are whole. A restore that is given up leaves no directory at the end, without which nothing opens a zip.
"""

import hashlib
import stat
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from mounter.ports import FileType
from mounter.restore.content import READ_AHEAD, started, whole
from mounter.restore.sink import Sink
from mounter.restore.zip_format import DEFLATED, LARGE, STORED, Entry, end
from mounter.targets import Action, Item, Placed, Problem
from proxy.closing import Closeable
from proxy.errors import Cancelled, LanfreeError, MountEnded, StopAll, TargetFailed

# zlib's usual level 6 costs three times the time for a tenth less.
LEVEL = 3

# Of a large file so many bytes are tried: where they do not get smaller by some per cent (pictures, films, archives), the rest
# will not either, and is sent ten times as fast without trying.
SAMPLE = 1 << 18
_WORTH_IT = 0.97

# The directory comes last: up to this many bytes of it wait in memory, about 80,000 files; the rest in a temporary file.
DIRECTORY_IN_MEMORY = 8 << 20

# Separators, drives, streams and patterns of Windows: in a guest's name on Linux they are letters like others.
_HARMFUL = '\\:"<>|?*'

# Names that Windows keeps for devices, alone or before a dot, in any case; it takes superscripts for digits.
_DEVICES = {"con", "prn", "aux", "nul", *(port + digit for port in ("com", "lpt") for digit in "0123456789¹²³")}

_SECOND = 1_000_000_000


class ZipTarget(Closeable):
    """``FileTarget``: zip, with 64-bit sizes where needed, into a ``Sink``. Names become UTF-8, see ``name_of``."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._sent = 0
        self._directory = tempfile.SpooledTemporaryFile(max_size=DIRECTORY_IN_MEMORY)  # noqa: SIM115  ours to close
        self._entries = 0
        self._damaged = 0
        self._over = False

    def directory(self, path: bytes, item: Item) -> Placed:
        if not path:
            return Placed(losses=("mode, owner and times of the root",))
        return self._stored(path, item, stat.S_IFDIR | item.entry.mode & 0o7777, b"")

    def leave_directory(self, path: bytes, item: Item) -> Placed:
        return Placed()

    def symlink(self, path: bytes, item: Item) -> Placed:
        return self._stored(path, item, stat.S_IFLNK | 0o777, item.entry.link_target or b"")

    def hard_link(self, path: bytes, item: Item, existing: bytes) -> Placed:
        if item.entry.type is FileType.SYMLINK:
            return self.symlink(path, item)
        if item.entry.type is not FileType.FILE:
            return self.special(path, item)
        copied = self.file(path, item)
        return replace(copied, losses=(*copied.losses, "hard link (made a copy)"))

    def special(self, path: bytes, item: Item) -> Placed:
        return Placed(Action.LEFT_OUT, (f"{item.entry.type.value} (zip has none)",))

    def file(self, path: bytes, item: Item) -> Placed:
        entry, losses = self._entry(path, item, stat.S_IFREG | item.entry.mode & 0o7777)
        if 0 <= item.entry.allocated < item.entry.size:
            losses.append("holes (they become zeroes)")
        head, rest = started(item)
        if item.entry.size <= READ_AHEAD:
            self._whole(entry, b"".join((head, *rest)))
        else:
            streamed = replace(entry, streamed=True, large=item.entry.size >= LARGE)
            self._streamed(streamed, whole(head, rest), _level_for(head[:SAMPLE]))
        return Placed(Action.WRITTEN, tuple(losses), written=item.entry.size)

    def finish(self) -> Sequence[Problem]:
        start, size = self._sent, self._directory.tell()
        self._directory.seek(0)
        while piece := self._directory.read(1 << 16):
            self._send(piece)
        comment = f"INCOMPLETE: {self._damaged} damaged files, whose checksums are wrong" if self._damaged else ""
        self._send(end(self._entries, start, size, comment.encode()))
        self._over = True
        self._sink.end()
        return ()

    def close(self) -> None:
        self._directory.close()
        if not self._over:
            self._over = True
            with suppress(TargetFailed):  # nobody takes it any more, so that it breaks off as well
                self._sink.tear()

    def _entry(self, path: bytes, item: Item, mode: int) -> tuple[Entry, list[str]]:
        """Without content, and what zip does not hold of it."""
        e = item.entry
        losses = ["extended attributes and access rules (not looked at, zip holds none)"]
        name = name_of(path)
        if name != path:
            losses.append("name (escaped)")
        if not -(1 << 31) <= e.mtime_ns // _SECOND < 1 << 31:
            losses.append("time (beyond 1901 to 2038)")
        elif e.mtime_ns % _SECOND:
            losses.append("time (fraction of a second)")
        name += b"/" if e.type is FileType.DIRECTORY else b""
        return Entry(name, mode, e.mtime_ns, e.uid, e.gid, DEFLATED, offset=self._sent), losses

    def _stored(self, path: bytes, item: Item, mode: int, content: bytes) -> Placed:
        entry, losses = self._entry(path, item, mode)
        self._add(
            replace(entry, method=STORED, crc=zlib.crc32(content), compressed=len(content), size=len(content)), content
        )
        return Placed(losses=tuple(losses))

    def _whole(self, entry: Entry, content: bytes) -> None:
        """Content that was read: its sizes go before it, which every reader of zip files understands."""
        packing = _deflate()
        packed = packing.compress(content) + packing.flush()
        method, data = (DEFLATED, packed) if len(packed) < len(content) else (STORED, content)
        self._add(replace(entry, method=method, crc=zlib.crc32(content), compressed=len(data), size=len(content)), data)

    def _streamed(self, entry: Entry, pieces: Iterator[bytes], level: int) -> None:
        self._send(entry.local())
        packing = _deflate(level)
        crc = size = 0
        start = self._sent
        error: LanfreeError | None = None
        try:
            for piece in pieces:
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                self._send(packing.compress(piece))
        except (Cancelled, MountEnded, StopAll, TargetFailed):
            raise  # no other entry can follow
        except LanfreeError as damage:
            error, crc = damage, crc ^ 0xFFFFFFFF
            self._damaged += 1
        self._send(packing.flush())
        done = replace(entry, crc=crc, compressed=self._sent - start, size=size)
        self._send(done.descriptor())
        self._listed(done)
        if error is not None:
            raise error

    def _add(self, entry: Entry, data: bytes) -> None:
        self._send(entry.local() + data)
        self._listed(entry)

    def _listed(self, entry: Entry) -> None:
        self._directory.write(entry.central())
        self._entries += 1

    def _send(self, data: bytes) -> None:
        self._sink.write(data)
        self._sent += len(data)


def _deflate(level: int = LEVEL) -> "zlib._Compress":
    """A raw stream (APPNOTE 4.4.5), without zlib's own header."""
    return zlib.compressobj(level, zlib.DEFLATED, -15)


def _level_for(sample: bytes) -> int:
    """0, which only wraps what it gets, for what does not compress."""
    return LEVEL if len(zlib.compress(sample, LEVEL)) < _WORTH_IT * len(sample) else 0


def name_of(path: bytes) -> bytes:
    """A path as a zip file may have it: UTF-8, and nothing that Windows takes for another path.

    In a part that is not so, bytes become ``%XX``, and some of the digest of the real name keeps it apart from all others.
    """
    return b"/".join(map(_part, path.split(b"/")))


def _part(name: bytes) -> bytes:
    text = name.decode(errors="surrogateescape")
    escaped = "".join(map(_escaped, text))
    if escaped.partition(".")[0].rstrip(" ").lower() in _DEVICES:
        escaped = f"%{ord(text[0]):02X}{escaped[1:]}"
    if escaped[-1:] in (".", " "):  # which Windows leaves out, so that it is another name there
        escaped = f"{escaped[:-1]}%{ord(escaped[-1]):02X}"
    if escaped == text.replace("%", "%25"):
        return name
    return f"{escaped}~{hashlib.sha256(name).hexdigest()[:8]}".encode()


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"%{code - 0xDC00:02X}"
    return f"%{code:02X}" if character in _HARMFUL + "%" or code < 32 else character
