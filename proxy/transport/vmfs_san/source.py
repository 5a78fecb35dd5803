"""A frozen VMDK as a ``BlockSource`` whose every read is planned over all of its files and LUNs at once.

::

    read_into  ─►  chain.pieces   which file, which place of it      (delta, base, zero)
               ─►  file.places    which LUN, which place of it
               ─►  plan           reads in order of the LUN, neighbours together
               ─►  read_pieces    all of them outstanding, as far as the session's depth goes
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, ReadFailed, TransportRefused
from proxy.extents import Extent
from proxy.model import ChangeId, ReasonCode
from proxy.transport.guard import check_read, fill_zero
from proxy.transport.vmdk.images import Piece
from proxy.transport.vmfs import ZERO_PLACE, FilePlace, VmfsFile
from proxy.transport.vmfs_san.frozen import FrozenChain
from proxy.transport.vmfs_san.luns import BlockLun
from proxy.transport.vmfs_san.planner import Placed, plan
from proxy.transport.vmfs_san.reasons import VmfsSanReason, refused
from proxy.units import MiB

WINDOW = MiB
"""Bytes of a file whose places are looked up together: a file block. Hundreds of grains of a read lie in few of them."""


class VmfsSource(Closeable):
    """The source. Owns chain and LUNs. ``fingerprint``: of the map that ``extents`` tells, equal in two readings."""

    can_report_extents = True

    def __init__(
        self, frozen: FrozenChain, luns: Sequence[BlockLun], extents: Sequence[Extent], fingerprint: bytes
    ) -> None:
        self.size = frozen.chain.size
        self.identity = frozen.chain.identity
        self._frozen = frozen
        self._luns = tuple(luns)
        self._extents: Sequence[Extent] | None = extents
        self._fingerprint = fingerprint
        self._confirmed = False
        self._closed = False

    def extents(self) -> Sequence[Extent]:
        """See the port. Made at opening for who asks first, then made anew: half a million extents take 60 MiB."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        made, self._extents = self._extents, None
        return self._frozen.extents() if made is None else made

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Always raises ``ChangesUnknown``: the hypervisor tracks changes, not the files."""
        raise ChangesUnknown(self._frozen.disk, ReasonCode.NO_TRACKING, f"{self.identity} records none ({since})")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See the port. Raises ``ReadFailed``, ``DeviceBusy``."""
        flat = buffer.cast("B")
        check_read(self.identity, self.size, offset, len(flat), closed=self._closed)
        self._confirmed = False
        try:
            planned = plan(self._placed(offset, flat))
            for lun, reads in planned.reads.items():
                self._luns[lun].read_pieces(reads)
        except TransportRefused as error:
            raise ReadFailed(self.identity, offset, len(flat), error.message) from error
        except ReadFailed as error:
            failed = ReadFailed(self.identity, offset, len(flat), error.message)
            failed.hint = error.hint
            raise failed from error
        planned.finish()

    def confirm(self) -> None:
        """After the last read: everything still lies where it was read. Leaving the context does it too, where it was not done
        since the last read.

        Raises ``TransportRefused`` with reason ``map-changed``, ``ReadFailed``: then what was read is to be thrown away.
        """
        if self._confirmed:
            return
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        disk, why = self._frozen.disk, ""
        try:
            same = self._frozen.now() == self._fingerprint
        except TransportRefused as error:
            same, why = False, f": {error.message}"
        if not same:
            detail = f"{self.identity}, or what lies above it, is not where it was when the disk was opened{why}"
            hint = "was the snapshot removed, or the machine moved, by somebody else?"
            raise refused(disk, VmfsSanReason.CHANGED, detail, hint=hint)
        self._confirmed = True

    def close(self) -> None:
        """Log out of the LUNs, and raise what the first of them raised."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as closing:
            for lun in self._luns:
                closing.callback(lun.close)
            closing.callback(self._frozen.close)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Confirms what was read, unless the reader failed already or closed it itself, and closes."""
        try:
            if kind is None and not self._closed:
                self.confirm()
        finally:
            self.close()

    def _placed(self, offset: int, buffer: memoryview) -> Iterator[Placed]:
        """Where the pieces of a read lie; zeroes are filled in on the way."""
        windows: dict[tuple[int, int], list[FilePlace]] = {}
        for piece in self._frozen.chain.pieces(offset, len(buffer)):
            view = buffer[piece.start - offset : piece.start - offset + piece.length]
            if piece.file is None:
                fill_zero(view)
                continue
            for start, end, place in _places(piece, windows):
                part = view[start - piece.place : end - piece.place]
                if place.lun == ZERO_PLACE:
                    fill_zero(part)
                else:
                    yield Placed(place.lun, place.offset + start - place.start, part)


def _places(piece: Piece, windows: dict[tuple[int, int], list[FilePlace]]) -> Iterator[tuple[int, int, FilePlace]]:
    """(start, end, where) of the parts of a piece, in bytes of its file. ``windows``: what was looked up in this read."""
    file, begin, stop = piece.file, piece.place, piece.place + piece.length
    assert isinstance(file, VmfsFile)  # noqa: S101 - for the type checker: the chain was opened on nothing else
    for number in range(begin // WINDOW, -(-stop // WINDOW)):
        key = id(file), number
        if key not in windows:
            low = number * WINDOW
            windows[key] = list(file.places(low, min(WINDOW, file.size - low)))
        for place in windows[key]:
            start, end = max(begin, place.start), min(stop, place.start + place.length)
            if start < end:
                yield start, end, place
