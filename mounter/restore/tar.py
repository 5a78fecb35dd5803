"""Restored files as a tar stream: written once from beginning to end, never looked at again.

What cannot be taken back, and so must not look whole::

    small file fails            nothing of it was sent: it is left out
    large file fails at once    the same: its beginning is read before its header is sent
    ... in the middle           its member is filled with zeroes, so that the others can follow; the archive never ends:
                                its last member says what is damaged, and breaks off
    ... with much to be filled  the archive breaks off there
    restore is given up         the archive breaks off

Where an archive breaks off, GNU tar ends with "Unexpected EOF in archive" and exit code 2, after it has extracted all that
came before. A stream that just stops between two members would pass for whole: that is why there is a member to break.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from mounter.ports import FileType, shown
from mounter.restore import content, pax
from mounter.restore.access_rules import text_of
from mounter.restore.attributes import xattrs_of
from mounter.restore.sink import Sink
from mounter.restore.sparse import may_have_holes
from mounter.targets import Action, Item, Placed, Problem
from proxy.closing import Closeable
from proxy.errors import Cancelled, LanfreeError, MountEnded, MountFailed, StopAll, TargetFailed

# A filled member costs as much to send as one that can be read. Above this the rest of the archive is not worth it.
FILLED_AT_MOST = 1 << 30

# Damaged members that the last one names.
NAMED_AT_MOST = 1000

# GNU tar reads and writes twenty blocks at a time, and others expect the end to be filled up to that.
_RECORD = 20 * pax.BLOCK

LAST = b"LANFREE-INCOMPLETE.txt"
"""The member that a broken archive ends in."""

_KINDS = {
    FileType.BLOCK_DEVICE: pax.BLOCK_DEVICE,
    FileType.CHARACTER_DEVICE: pax.CHARACTER,
    FileType.FIFO: pax.FIFO,
}
_RULES = {b"system.posix_acl_access": b"SCHILY.acl.access", b"system.posix_acl_default": b"SCHILY.acl.default"}


class TarTarget(Closeable):
    """``FileTarget``: pax archive into a ``Sink``. Holds all but sockets; whoever extracts decides what he takes over."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._sent = 0
        self._damaged: list[bytes] = []
        self._inside = False  # a member is not complete: the archive breaks off there by itself
        self._over = False

    def directory(self, path: bytes, item: Item) -> Placed:
        return self._member(path + b"/" if path else b"./", pax.DIRECTORY, item)

    def leave_directory(self, path: bytes, item: Item) -> Placed:
        return Placed()  # whoever extracts sets the times of directories last

    def symlink(self, path: bytes, item: Item) -> Placed:
        return self._member(path, pax.SYMLINK, item, link=item.entry.link_target or b"")

    def hard_link(self, path: bytes, item: Item, existing: bytes) -> Placed:
        self._send(self._facts(path, pax.HARD_LINK, item, (), link=existing).header())
        return Placed()

    def special(self, path: bytes, item: Item) -> Placed:
        kind = _KINDS.get(item.entry.type)
        if kind is None:
            return Placed(Action.LEFT_OUT, (f"{item.entry.type.value} (tar has none)",))
        device = item.entry.device if "device" in item.entry.type else (0, 0)
        return self._member(path, kind, item, device=device)

    def file(self, path: bytes, item: Item) -> Placed:
        entry = item.entry
        losses: list[str] = []
        records = _attributes(item, losses)
        holes = entry.allocated >= 0 and may_have_holes(entry.size, entry.allocated)
        # The map of the holes stands before the data: what does not fit into memory is read twice for it.
        twice = holes and entry.size > content.READ_AHEAD
        segments = content.segments_of(item.pieces()) if twice else []
        head, rest = content.started(item)
        if holes and not twice:
            segments = content.segments_of((head,))
        if holes and sum(stop - start for start, stop in segments) < entry.size:
            return self._sparse(path, item, records, segments, pieces=content.whole(head, rest), losses=losses)
        self._send(self._facts(path, pax.FILE, item, records, size=entry.size).header())
        self._content(path, content.whole(head, rest), entry.size)
        return Placed(Action.WRITTEN, tuple(losses), written=entry.size)

    def finish(self) -> Sequence[Problem]:
        if self._damaged:
            self._break_off()
            self._sink.end()  # what compresses is whole, and so everything comes out; what was compressed is not
            return ()
        self._over = True
        end = 2 * pax.BLOCK
        self._sink.write(bytes(end + -(self._sent + end) % _RECORD))
        self._sink.end()
        return ()

    def close(self) -> None:
        if self._over:
            return
        with suppress(TargetFailed):  # nobody takes what would say that it is not whole: then it breaks off as well
            self._break_off()
            self._sink.tear()

    def _facts(
        self,
        path: bytes,
        kind: bytes,
        item: Item,
        records: Sequence[tuple[bytes, bytes]],
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> pax.Member:
        e = item.entry
        return pax.Member(path, kind, size, e.mode & 0o7777, e.uid, e.gid, e.mtime_ns, link, device, records)

    def _member(
        self, path: bytes, kind: bytes, item: Item, *, link: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> Placed:
        """One without content."""
        losses: list[str] = []
        records = _attributes(item, losses)
        self._send(self._facts(path, kind, item, records, link=link, device=device).header())
        return Placed(losses=tuple(losses))

    def _sparse(
        self,
        path: bytes,
        item: Item,
        records: Sequence[tuple[bytes, bytes]],
        segments: list[tuple[int, int]],
        *,
        pieces: Iterator[bytes],
        losses: list[str],
    ) -> Placed:
        name, sparse, table = pax.sparse_member(path, item.entry.size, segments)
        data = sum(stop - start for start, stop in segments)
        member = self._facts(name, pax.FILE, item, [*records, *sparse], size=len(table) + data)
        self._send(member.header())
        self._inside = True
        self._send(table)
        self._content(path, content.within(pieces, segments), data)
        return Placed(Action.WRITTEN, tuple(losses), written=data)

    def _content(self, path: bytes, pieces: Iterator[bytes], size: int) -> None:
        """``size`` bytes and the padding; what fails on the way is raised again when the member is filled."""
        left = size
        self._inside = left > 0
        try:
            for piece in pieces:
                self._send(piece)
                left -= len(piece)
            if left:
                raise MountFailed(shown(path), f"{size - left} bytes could be read of {size}")
        except (Cancelled, MountEnded, StopAll, TargetFailed):
            raise  # no other member can follow
        except LanfreeError as error:
            if left > FILLED_AT_MOST:
                raise TargetFailed("the archive", f"it breaks off in {shown(path)}: {error.message}") from error
            if len(self._damaged) < NAMED_AT_MOST:
                self._damaged.append(path)
            while left:
                filling = min(left, 1 << 20)
                self._send(bytes(filling))
                left -= filling
            raise
        finally:
            if not left:
                self._send(pax.padding(size))
                self._inside = False

    def _break_off(self) -> None:
        """A last member that is shorter than it says."""
        self._over = True
        if not self._inside:
            names = "".join(f"{shown(path)}\n" for path in self._damaged)
            text = f"This archive is not complete: its restore was given up, or these files could not be read:\n{names}"
            told = text.encode()
            self._sink.write(pax.Member(LAST, pax.FILE, len(told) + 2 * pax.BLOCK).header() + told)

    def _send(self, data: bytes) -> None:
        self._sink.write(data)
        self._sent += len(data)


def _attributes(item: Item, losses: list[str]) -> list[tuple[bytes, bytes]]:
    """Extended attributes and access rules as records."""
    records: list[tuple[bytes, bytes]] = []
    for name, value in xattrs_of(item, losses).items():
        if name not in _RULES:
            records.append(pax.xattr_record(name, value))
        elif (text := text_of(value)) is not None:
            records.append((_RULES[name], text))
        else:
            losses.append(f"extended attribute {shown(name)} (not understood)")
    return records
