"""Restores into a vSphere datastore: the disks of a machine in the making, streamed up by one import lease (NFC import).

::

    open all            their sizes are known: only looked at, nothing was made
    first write         the lease begins, the hypervisor makes the machine with empty disks and keeps it from being started
    write 3, 1, 2 …     |1|2|3|   |5|      packed by whoever writes; what is whole from the left goes up, the rest waits
    flush of a disk     tables, footer; the host says that it has taken all of it
    flush of the last   the lease is completed: the machine is there
    any error, close    the lease is aborted: the host takes the machine and its disks away again

A disk is written from its beginning to its end, about in order and each byte once, as ``proxy.transfer.copy`` does it; what
was never written reads as zero. None can be read back before all are complete, so the restore compares at the end
(``together``).
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from proxy.closing import Closeable
from proxy.errors import FormatError, LanfreeError, ReadFailed, RestoreRefused, TransportError, WriteFailed
from proxy.model import Location, VmdkAddress
from proxy.ports import BlockSource, BlockTarget, DiskPlace
from proxy.transport.guard import check_write
from proxy.transport.nfc import Export, HostBudget, HostBusy, open_export
from proxy.transport.nfc_order import GrainOrder
from proxy.transport.vmdk.descriptor import SECTOR, SIZE_LIMIT
from proxy.transport.vmdk.stream_format import GRAIN
from proxy.transport.vmdk.stream_writer import StreamWriter, pack_grain
from proxy.units import MiB, align_down

WAITING_LIMIT = 32 * MiB
"""Packed bytes that wait for something before them. The workers of one copy are a few MiB apart; more means that one of them
reads from a slow place, and the others may as well wait for it."""

ORDER_PATIENCE = 120.0
"""Seconds that a writer waits for what lies before its own piece: longer than a path failover of what is read (30-60 s)."""


class Upload(Protocol):
    """One disk's way to its host."""

    def write(self, data: bytes, /) -> None:
        """The stream's next bytes. Raises ``OSError`` fit for people."""
        ...

    def finish(self) -> None:
        """No more will come; returns when the host says that it has all. Raises ``OSError``."""
        ...

    def close(self) -> None:
        """Allowed twice; breaks off what is not finished."""
        ...


class ImportLease(Protocol):
    """A machine in the making."""

    def host(self, key: str) -> str:
        """Which host takes a disk. Raises ``HypervisorError``."""
        ...

    def upload(self, key: str) -> Upload:
        """Begins one disk. Raises ``OSError`` or one of our errors."""
        ...

    def progress(self, share: float) -> None:
        """How far all of it is, 0 to 1. Quick; may be called often."""
        ...

    def complete(self) -> Mapping[str, VmdkAddress]:
        """The machine is whole. Key -> where each disk is now. Raises ``HypervisorError``."""
        ...

    def abort(self) -> None:
        """The machine goes away again. Never raises; does nothing after ``complete``."""
        ...


Begin = Callable[[Mapping[str, int]], ImportLease]
"""Makes the machine with disks of these sizes (key -> bytes). Raises ``HypervisorError``, ``RestoreRefused``."""


class ImportTargets(Closeable):
    """``RestoreTargets`` of one restore of one machine. Closing it before all disks were flushed gives the machine up.

    ``export``: how the finished disks are read back. ``machine``: its name, for people.
    """

    together = True

    def __init__(self, begin: Begin, export: Export, machine: str, budget: HostBudget | None = None) -> None:
        self._begin = begin
        self._export = export
        self._machine = machine
        self._budget = budget or HostBudget()
        self._lock = threading.RLock()
        self._sizes: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._flushed: set[str] = set()
        self._lease: ImportLease | None = None
        self._made: Mapping[str, VmdkAddress] | None = None
        self._over: str | None = None

    def open(self, place: DiskPlace, size: int, *, overwrite: bool) -> BlockTarget:
        """See the port. ``overwrite`` says nothing here: the disk is a new one."""
        key = self._key(place)
        if size % SECTOR or not 0 < size <= SIZE_LIMIT:
            raise RestoreRefused(str(place), f"a disk of {size} bytes cannot be made there")
        with self._lock:
            if self._over is not None:  # a consequence, told as what it is one of
                raise WriteFailed(str(place), 0, size, self._over)
            if self._made is not None:
                raise RestoreRefused(str(place), f"{self._machine} is complete already")
            if self._lease is not None and self._sizes.get(key) != size:
                raise RestoreRefused(str(place), f"{self._machine} was made without it")
            self._sizes[key] = size
        return ImportTarget(self, key, size, f"{place} of {self._machine}")

    @property
    def made(self) -> Mapping[str, VmdkAddress]:
        """Key -> where each disk is, once all are complete; empty before."""
        return self._made or {}

    def holds(self, place: DiskPlace, disk: Location) -> bool:
        """Never: no machine has a disk that is not made yet."""
        self._key(place)
        return False

    def cannot_tell(self, place: DiskPlace, disk: Location) -> bool:
        """Never, as ``holds``."""
        self._key(place)
        return False

    def read_back(self, place: DiskPlace, size: int) -> BlockSource:
        """The disk as its host exports it. Raises ``ReadFailed`` before all disks are complete."""
        key = self._key(place)
        address = self.made.get(key)
        if address is None:
            raise ReadFailed(str(place), 0, size, f"{self._machine} is not complete yet")
        try:
            source = open_export(self._export, address, self._budget, key)
        except TransportError as error:
            raise ReadFailed(str(place), 0, size, error.message) from error
        if source.size < size:
            source.close()
            raise ReadFailed(str(place), 0, size, f"the disk has {source.size} bytes")
        source.size = size
        return source

    def close(self) -> None:
        """Ends what is not complete. Allowed twice."""
        self.give_up("the restore has ended")

    def give_up(self, why: str) -> str:
        """The machine goes away again, unless it is complete. For one target that failed, all have.

        Returns what was the first to go wrong: what the other disks meet then is only its consequence.
        """
        with self._lock:
            if self._over is not None:
                return self._over
            if self._made is not None:
                return why
            self._over = why
            lease = self._lease
        if lease is not None:
            lease.abort()
        return why

    def begin(self, key: str, held: ExitStack) -> Upload:
        """The upload of one disk; the first one makes the machine."""
        with self._lock:
            if self._over is not None:
                raise OSError(self._over)
            if self._lease is None:
                self._lease = self._begin(dict(self._sizes))
            lease = self._lease
        held.enter_context(self._budget.connection(lease.host(key)))
        upload = lease.upload(key)
        held.callback(upload.close)
        return upload

    def sent(self, key: str, position: int) -> None:
        """So much of a disk is up."""
        with self._lock:
            self._sent[key] = position
            share = sum(self._sent.values()) / sum(self._sizes.values())
            lease = self._lease
        if lease is not None:
            lease.progress(share)

    def flushed(self, key: str) -> None:
        """A disk is up. After the last one the machine is complete."""
        with self._lock:
            self._flushed.add(key)
            if self._over is not None:
                raise OSError(self._over)
            if self._lease is not None and self._flushed == self._sizes.keys():
                self._made = self._lease.complete()

    def _key(self, place: DiskPlace) -> str:
        if not place.datastore or not place.disk:
            hint = "a disk of a new machine is given a datastore and its key"
            raise RestoreRefused(str(place), "it is no disk of a machine in the making", hint=hint)
        return place.disk


class ImportTarget(Closeable):
    """One disk as a ``BlockTarget``. Writes may come from many threads; made by ``ImportTargets``."""

    def __init__(self, machine: ImportTargets, key: str, size: int, identity: str) -> None:
        self.size = size
        self.identity = identity
        self._machine = machine
        self._key = key
        self._held = ExitStack()
        self._order = GrainOrder(size)
        self._change = threading.Condition()
        self._first = threading.Lock()
        self._upload: Upload | None = None
        self._writer: StreamWriter | None = None
        self._sending = False
        self._flushed = False
        self._closed = False
        self._broken: str | None = None

    def write(self, offset: int, data: memoryview) -> None:
        """See the port; each byte once. What lies before it may have to come first: waits up to ``ORDER_PATIENCE``."""
        flat = data.cast("B")
        self._check(offset, len(flat))
        if not flat:
            return
        self._start(offset, len(flat))
        end = offset + len(flat)
        for start in range(align_down(offset, GRAIN), end, GRAIN):
            low, high = max(start, offset), min(start + GRAIN, end)
            piece = flat[low - offset : high - offset]
            whole = low == start and high == min(start + GRAIN, self.size)
            packed = pack_grain(start, piece) if whole else None  # outside of the lock: this is what takes the time
            with self._change:
                if whole:
                    self._order.whole(start, high, packed)
                else:
                    self._order.part(low, piece)
        self._send(offset, len(flat))

    def zero(self, offset: int, length: int) -> None:
        """See the port: left out of the stream."""
        self._check(offset, length)
        if not length:
            return
        self._start(offset, length)
        with self._change:
            self._order.zero(offset, offset + length)
        self._send(offset, length)

    def flush(self) -> None:
        """The host has all of the disk. Nothing can be written afterwards."""
        if self._flushed and not self._closed:
            return
        self._check(0, 0)
        self._start(0, 0)
        with self._change:
            self._order.no_more()
            self._send_ready(0, self.size)
            while self._sending:
                self._change.wait()
            self._send_ready(0, self.size)
            with self._failing(0, self.size):
                if self._writer is not None and self._upload is not None:
                    self._writer.finish()
                    self._upload.finish()
        with self._failing(0, self.size):
            self._held.close()
            self._machine.flushed(self._key)
        self._flushed = True

    def close(self) -> None:
        """Without a flush after the first write the whole machine is given up. Allowed twice."""
        if self._closed:
            return
        self._closed = True
        with self._change:
            self._change.notify_all()
        if self._writer is not None and not self._flushed:
            self._machine.give_up(f"disk {self._key} was not written to its end")
        with suppress(OSError):
            self._held.close()

    def _check(self, offset: int, length: int) -> None:
        check_write(self.identity, self.size, offset, length, closed=self._closed)
        if self._broken is not None:
            raise WriteFailed(self.identity, offset, length, self._broken)
        if self._flushed:
            raise WriteFailed(self.identity, offset, length, "the disk is complete already")
        if length and offset < self._order.position:
            raise WriteFailed(
                self.identity, offset, length, "it has gone up already: a stream is written once, forward"
            )

    def _start(self, offset: int, length: int) -> None:
        """Before the first byte goes up: the first disk makes the machine."""
        with self._first, self._failing(offset, length):
            if self._writer is None:
                self._upload = self._machine.begin(self._key, self._held)
                self._writer = StreamWriter(self._upload.write, self.size, f"{self._key.replace(':', '-')}.vmdk")

    def _send(self, offset: int, length: int) -> None:
        """Sends up what is whole from the left, if nobody does yet; waits while too much lies to the right of a gap."""
        with self._change:
            self._send_ready(offset, length)
            while self._order.waiting > WAITING_LIMIT and self._order.position < offset:
                self._check(offset, length)
                with self._failing(offset, length):
                    if not self._change.wait(ORDER_PATIENCE) and not self._sending:
                        raise TimeoutError(f"{self._order.position} was not written, and too much waits behind it")
                self._send_ready(offset, length)

    def _send_ready(self, offset: int, length: int) -> None:
        """With ``_change`` held, which is let go while bytes are on their way."""
        while not self._sending and self._broken is None and (ready := self._order.ready()):
            self._sending = True
            self._change.release()
            try:
                with self._failing(offset, length):
                    for start, packed in ready:
                        self._put(start, packed)
            finally:
                self._change.acquire()
                self._sending = False
                self._change.notify_all()
        if self._broken is not None:
            raise WriteFailed(self.identity, offset, length, self._broken)
        self._machine.sent(self._key, self._order.position)

    def _put(self, start: int, packed: bytes) -> None:
        if self._writer is not None:
            self._writer.put(start, packed)

    @contextmanager
    def _failing(self, offset: int, length: int) -> Iterator[None]:
        """Whatever breaks one disk breaks the machine: nothing half of it stays behind."""
        try:
            yield
        except LanfreeError as error:
            self._break(error.message)
            raise
        except (OSError, HostBusy, FormatError) as error:
            raise WriteFailed(self.identity, offset, length, self._break(str(error))) from error

    def _break(self, why: str) -> str:
        """Gives the machine up; returns the reason, which may be what happened to another disk before."""
        first = self._machine.give_up(f"disk {self._key} could not be written: {why}")
        self._broken = self._broken or first
        return self._broken
