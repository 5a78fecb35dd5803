"""Writing to one LUN. Made by ``target.py`` alone, after its checks, over sessions that a token opened.

Zeroes: a restored disk shall take no more space than the original did. A LUN gets, best first::

    LBPRZ and LBPWS   WRITE SAME(16) with UNMAP: the one command that both deallocates and promises zeroes
    LBPRZ and LBPU    UNMAP, which is only a wish: what GET LBA STATUS still calls mapped afterwards is written
    else              WRITE SAME(16), and where the device has none, WRITE(16)
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from proxy.closing import Closeable
from proxy.errors import DeviceBusy, TransportError, WriteFailed
from proxy.extents import Extent, Kind, intersect
from proxy.transport.guard import check_write
from proxy.transport.iscsi import Command, CommandFailed, Lun, scsi, vpd
from proxy.units import MiB, align_down, align_up

DEALLOCATE_STEP = 256 * MiB
"""One deallocating command: metadata only, but an array may take a second for it, and commands have a time limit."""
WRITE_SAME_STEP = 4 * MiB
"""One WRITE SAME that really writes: devices do it slowly (tgt block by block), and it must end within the time limit."""


class LunTarget(Closeable):
    """A ``BlockTarget``: the first ``size`` bytes of a LUN. Owns the LUN."""

    def __init__(self, lun: Lun, size: int) -> None:
        self._lun = lun
        self._block = lun.capacity.block_size
        self._edge = threading.Lock()  # for writes that share a block of the LUN, and for the list of methods
        self._closed = False
        self.size = size
        self.identity = lun.name
        self._provisioning = _provisioning(lun)
        self._methods = list(self._zero_methods())

    def write(self, offset: int, data: memoryview) -> None:
        """All of it or ``WriteFailed``. A disk may end inside a block of the LUN: the block's rest is kept."""
        flat = data.cast("B")
        check_write(self.identity, self.size, offset, len(flat), closed=self._closed)
        low, high = align_down(offset, self._block), align_up(offset + len(flat), self._block)
        if low == offset and high == offset + len(flat):
            self._write_blocks(offset, flat)
            return
        with self._edge:
            whole = memoryview(bytearray(high - low))
            self._read(low, whole)
            whole[offset - low : offset - low + len(flat)] = flat
            self._write_blocks(low, whole)

    def zero(self, offset: int, length: int) -> None:
        """The range reads as zero afterwards, unallocated where the LUN can. Raises ``WriteFailed``."""
        check_write(self.identity, self.size, offset, length, closed=self._closed)
        low, high = align_up(offset, self._block), align_down(offset + length, self._block)
        if low >= high:
            self.write(offset, memoryview(bytes(length)))
            return
        if offset < low:
            self.write(offset, memoryview(bytes(low - offset)))
        if high < offset + length:
            self.write(high, memoryview(bytes(offset + length - high)))
        while not (method := self._methods[0])(low, high - low):
            # The device does not know the command, so it is not asked again; the last method works or raises.
            with self._edge:
                if self._methods[0] is method:
                    del self._methods[0]

    def flush(self) -> None:
        """SYNCHRONIZE CACHE(16). Raises ``WriteFailed``."""
        check_write(self.identity, self.size, 0, 0, closed=self._closed)
        if not self._done([Command(scsi.synchronize_cache())], 0, self.size):
            raise WriteFailed(self.identity, 0, self.size, "the device cannot flush its cache")

    def close(self) -> None:
        """Log out. Does not flush."""
        self._closed = True
        self._lun.close()

    def _zero_methods(self) -> Iterator[Callable[[int, int], bool]]:
        if self._lun.capacity.zeroes and self._provisioning.write_same:
            yield lambda start, length: self._write_same(start, length, unmap=True)
        if self._lun.capacity.zeroes and self._provisioning.unmap:
            yield self._unmap
        yield lambda start, length: self._write_same(start, length, unmap=False)
        yield self._write_zeroes

    def _write_same(self, start: int, length: int, *, unmap: bool) -> bool:
        step = DEALLOCATE_STEP if unmap else WRITE_SAME_STEP
        if self._lun.block_limits.write_same:
            step = max(self._block, min(step, self._lun.block_limits.write_same * self._block))
        block = memoryview(bytes(self._block))
        commands = [
            Command(scsi.write_same(at // self._block, count // self._block, unmap=unmap), data_out=block)
            for at, count in _pieces(start, length, step)
        ]
        return self._done(commands, start, length)

    def _unmap(self, start: int, length: int) -> bool:
        """UNMAP whole granules, then write what the device still calls mapped."""
        limits = self._lun.block_limits
        step = DEALLOCATE_STEP
        if limits.unmap:
            step = min(step, limits.unmap * self._block)
        grain = max(1, limits.unmap_granularity) * self._block
        shift = limits.unmap_alignment * self._block
        low, high = align_up(start - shift, grain) + shift, align_down(start + length - shift, grain) + shift
        for at, count in _pieces(low, high - low, step):
            body = scsi.unmap_list([(at // self._block, count // self._block)])
            if not self._done([Command(scsi.unmap(len(body)), data_out=memoryview(body))], at, count):
                return False
        for extent in self._still_mapped(start, length):
            if not self._write_same(extent.start, extent.length, unmap=False):
                self._write_zeroes(extent.start, extent.length)
        return True

    def _still_mapped(self, start: int, length: int) -> Sequence[Extent]:
        whole = [Extent(start, length)]
        try:
            status = self._lun.extents(start, length)
        except CommandFailed:
            return whole
        return [e for e in intersect(status, whole) if e.kind is Kind.DATA]

    def _write_zeroes(self, start: int, length: int) -> bool:
        zeroes = memoryview(bytes(min(length, self._lun.request_size)))
        for at, count in _pieces(start, length, len(zeroes) * self._lun.limits.depth):
            pieces = _pieces(at, count, len(zeroes))
            self._run_writes([(position, zeroes[:part]) for position, part in pieces], at, count)
        return True

    def _write_blocks(self, offset: int, data: memoryview) -> None:
        pieces = _pieces(0, len(data), self._lun.request_size)
        self._run_writes([(offset + at, data[at : at + count]) for at, count in pieces], offset, len(data))

    def _run_writes(self, writes: Sequence[tuple[int, memoryview]], offset: int, length: int) -> None:
        commands = [
            Command(scsi.write(at // self._block, len(piece) // self._block), data_out=piece) for at, piece in writes
        ]
        if not self._done(commands, offset, length):
            raise WriteFailed(self.identity, offset, length, "the device has no WRITE(16)")

    def _done(self, commands: Sequence[Command], offset: int, length: int) -> bool:
        """Run; false when the device does not know the command. Raises ``WriteFailed`` for everything else."""
        try:
            outcomes = self._lun.run(commands)
        except (TransportError, DeviceBusy) as error:
            raise WriteFailed(self.identity, offset, length, error.message) from error
        bad = [outcome for outcome in outcomes if not outcome.good]
        if any(not outcome.unsupported for outcome in bad):
            raise WriteFailed(self.identity, offset, length, str(next(o for o in bad if not o.unsupported)))
        return not bad

    def _read(self, offset: int, buffer: memoryview) -> None:
        try:
            self._lun.read_into(offset, buffer)
        except (TransportError, DeviceBusy) as error:
            raise WriteFailed(self.identity, offset, len(buffer), error.message) from error


def _provisioning(lun: Lun) -> vpd.Provisioning:
    if not lun.capacity.thin:
        return vpd.Provisioning()
    try:
        return vpd.parse_provisioning(lun.ask(scsi.inquiry(vpd.PROVISIONING_PAGE, 255), 255, "INQUIRY, provisioning"))
    except CommandFailed:
        return vpd.Provisioning()


def _pieces(start: int, length: int, step: int) -> list[tuple[int, int]]:
    return [(at, min(step, start + length - at)) for at in range(start, start + length, step)]
