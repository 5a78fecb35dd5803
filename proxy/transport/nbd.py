"""NBD as a source and as a target, over libnbd: the only module that imports ``nbd``.

A libnbd handle serves one thread at a time, so both keep a few connections and lend one to each call. Requests are
asynchronous ones that are waited for with a deadline: libnbd's synchronous calls would wait for ever on a server that
stopped answering, and they return a copy where ``aio_pread`` fills the caller's own buffer (measured: 700-900 MB/s
against 500-680 MB/s from the same qemu-nbd, 1 MiB at a time).

A handle is dead after a failed connect or a lost connection. A source does not connect again by itself: behind the same
address there may by now be another export, of another moment. Whoever wants to go on opens it anew.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

import nbd

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, ReadFailed, RestoreRefused, TransportRefused, WriteFailed
from proxy.extents import Extent, intersect, normal
from proxy.model import ChangeId, NbdAddress, ReasonCode
from proxy.transport.guard import check_read, check_write
from proxy.transport.runs import DATA, ZERO, Runs
from proxy.units import GiB, MiB, align_down, align_up

# Seconds until a server must have greeted us. A hypervisor's export is there before it is named to us.
CONNECT_SECONDS = 15.0

# Seconds for one more connection. qemu-nbd admits one client unless told otherwise and lets the others wait unheard.
EXTRA_CONNECT_SECONDS = 3.0

# Seconds for the answer to one request. Longer than a path failover of the server's own storage (30-60 s).
REQUEST_SECONDS = 120.0

# Two connections saturate a local qemu-nbd; four hide the round trip of a network.
CONNECTIONS = 4

# What every server takes in one request (NBD protocol: 32 MiB unless the server says otherwise).
LONGEST_REQUEST = 32 * MiB

# One block status or zero request: lengths have 32 bits, and a multiple of every block size must fit.
LONGEST_STATUS = 2 * GiB

ALLOCATION = "base:allocation"
STATE_ZERO = 1 << 1
DIRTY_BITMAP = "qemu:dirty-bitmap:"
STATE_DIRTY = 1 << 0


class NbdError(Exception):
    """libnbd's word for what went wrong; never leaves this module."""


class _Connection:
    """One handle. ``alive`` turns false when nothing more can come from it."""

    def __init__(self, address: NbdAddress, contexts: Sequence[str], seconds: float) -> None:
        self.alive = True
        self._handle = nbd.NBD()
        # what it would clear first is overwritten by the answer, or an error is raised
        self._handle.set_pread_initialize(False)
        self._handle.set_uri_allow_transports(nbd.ALLOW_TRANSPORT_TCP | nbd.ALLOW_TRANSPORT_UNIX)
        try:
            if address.tls_directory is not None:
                self._handle.set_tls_certificates(address.tls_directory)
                self._handle.set_uri_allow_tls(nbd.TLS_REQUIRE)
            for context in contexts:
                self._handle.add_meta_context(context)
            self._handle.aio_connect_uri(address.uri)
            self._wait(self._is_connected, seconds, "greeting")
        except nbd.Error as error:
            self.drop()
            raise NbdError(str(error.string)) from None

    @property
    def handle(self) -> "nbd.NBD":
        """For questions that need no answer from the server."""
        return self._handle

    def request(self, start: Callable[["nbd.NBD"], int]) -> None:
        """Starts one command and waits until it is done. Raises ``NbdError``."""
        try:
            cookie = start(self._handle)
            self._wait(lambda: self._handle.aio_command_completed(cookie), REQUEST_SECONDS, "answer")
        except nbd.Error as error:
            self.alive = self.alive and self._handle.aio_is_ready()
            raise NbdError(str(error.string)) from None

    def disconnect(self) -> None:
        """Says good-bye, which lets servers end without waiting for us."""
        if self.alive:
            with suppress(nbd.Error, NbdError):
                self._handle.aio_disconnect()
                self._wait(lambda: self._handle.aio_is_closed() or self._handle.aio_is_dead(), 1.0, "good-bye")
        self.drop()

    def drop(self) -> None:
        """Closes the socket at once. After it nothing is written into a caller's buffer any more."""
        self.alive = False
        self._handle = None

    def _is_connected(self) -> bool:
        return not (self._handle.aio_is_connecting() or self._handle.aio_is_negotiating())

    def _wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                self.drop()
                raise NbdError(f"no {what} within {seconds:g} s")
            self._handle.poll(math.ceil(left * 1000))


class _Pool:
    """Connections to one export: the first is made at once, others when threads wait and the server allows them."""

    def __init__(self, address: NbdAddress, contexts: Sequence[str], *, writing: bool) -> None:
        self._address = address
        self._contexts = contexts
        self._change = threading.Condition()
        first = _Connection(address, contexts, CONNECT_SECONDS)
        handle = first.handle
        self._idle = [first]
        self._count = 1
        self._limit = CONNECTIONS if handle.can_multi_conn() else 1
        self._broken: str | None = None
        self.size = int(handle.get_size())
        self.read_only = bool(handle.is_read_only())
        self.can_flush = bool(handle.can_flush())
        self.can_zero = writing and bool(handle.can_zero())
        self.contexts = frozenset(c for c in contexts if handle.can_meta_context(c))
        self.block = max(1, handle.get_block_size(nbd.SIZE_MINIMUM))
        self.longest = min(LONGEST_REQUEST, handle.get_block_size(nbd.SIZE_MAXIMUM) or LONGEST_REQUEST)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._broken == "it is closed"

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """Lends a connection to one thread. Raises ``NbdError``, at once when the server is known to be gone."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Connections that are lent close when they are given back."""
        with self._change:
            self._broken = "it is closed"
            idle, self._idle = self._idle, []
            self._change.notify_all()
        for connection in idle:
            connection.disconnect()

    def _take(self) -> _Connection:
        with self._change:
            while self._broken is None and not self._idle and self._count >= self._limit:
                self._change.wait()
            if self._broken is not None:
                raise NbdError(self._broken)
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            return _Connection(self._address, self._contexts, EXTRA_CONNECT_SECONDS)
        except NbdError:
            with self._change:
                self._count -= 1
                self._limit = max(1, self._count)
        return self._take()

    def _give_back(self, connection: _Connection) -> None:
        with self._change:
            if connection.alive and self._broken is None:
                self._idle.append(connection)
            elif self._broken is None:
                self._broken = "the connection to the server was lost"
            self._change.notify_all()
        if self._broken is not None:
            connection.disconnect()


class _Export(Closeable):
    """What sources and targets share: the pool, the name, closing."""

    def __init__(self, address: NbdAddress, contexts: Sequence[str], *, writing: bool) -> None:
        self._pool = _Pool(address, contexts, writing=writing)
        self.size = self._pool.size
        self.identity = export_identity(address.uri)

    def close(self) -> None:
        """Takes leave of the server. Closing twice is allowed."""
        self._pool.close()


class NbdSource(_Export):
    """An export as a ``BlockSource``. Reads may come from many threads at once.

    ``mode`` and ``disk`` stand in refusals; ``identity`` names the disk if host and export are not what makes it the
    same one. Raises ``TransportRefused`` with ``nbd-unreachable``.
    """

    def __init__(self, address: NbdAddress, *, mode: str = "lan", disk: str = "", identity: str | None = None) -> None:
        self._disk = disk
        self._bitmap = address.bitmap
        contexts = [ALLOCATION, *([address.bitmap] if address.bitmap else [])]
        try:
            super().__init__(address, contexts, writing=False)
        except NbdError as error:
            hint = "check that the server runs and that the proxy can reach it"
            raise TransportRefused(mode, disk, "nbd-unreachable", str(error), hint=hint) from None
        self.identity = identity or self.identity
        self.can_report_extents = ALLOCATION in self._pool.contexts

    def extents(self) -> Sequence[Extent]:
        """See the port. Raises ``ReadFailed``."""
        check_read(self.identity, self.size, 0, 0, closed=self._pool.closed)
        if not self.size:
            return []
        if not self.can_report_extents:
            return [Extent(0, self.size)]
        runs = self._status(ALLOCATION, lambda flags: ZERO if flags & STATE_ZERO else DATA)
        return runs.extents(self.size)

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """What the address' bitmap marks. ``since`` is what the server was asked for when the export was made, so that
        the bitmap need not carry its name. Raises ``ChangesUnknown``, ``ReadFailed``."""
        if self._bitmap is None:
            raise ChangesUnknown(
                self._disk, ReasonCode.TRANSPORT_WITHOUT_CHANGES, f"{self.identity} was made without changes"
            )
        if self._bitmap not in self._pool.contexts:
            raise ChangesUnknown(self._disk, ReasonCode.TRACKING_LOST, f"{self.identity} has no {self._bitmap}")
        if not self.size:
            return []
        runs = self._status(self._bitmap, lambda flags: DATA if flags & STATE_DIRTY else 0)
        return intersect(normal(runs.extents(self.size)), [Extent(0, self.size)])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See the port. Straight into ``buffer``, but for ends that do not fit the server's block size."""
        check_read(self.identity, self.size, offset, len(buffer), closed=self._pool.closed)
        if not buffer:
            return
        low, high = align_down(offset, self._pool.block), align_up(offset + len(buffer), self._pool.block)
        try:
            if high - low == len(buffer):
                self._read(low, buffer)
                return
            wide = bytearray(high - low)
            self._read(low, memoryview(wide))
            buffer[:] = memoryview(wide)[offset - low : offset - low + len(buffer)]
        except NbdError as error:
            raise ReadFailed(self.identity, offset, len(buffer), str(error)) from None

    def _read(self, offset: int, buffer: memoryview) -> None:
        with self._pool.connection() as connection:
            for at in range(0, len(buffer), self._pool.longest):
                shared = nbd.Buffer.from_buffer(buffer[at : at + self._pool.longest])
                connection.request(lambda h, shared=shared, at=at: h.aio_pread(shared, offset + at))  # type: ignore[misc]

    def _status(self, context: str, kind: Callable[[int], int]) -> Runs:
        """The whole export, one block status request after the other. ``kind`` of a run's flags: 0 leaves it out."""
        runs = Runs()
        position = 0
        try:
            with self._pool.connection() as connection:
                while position < self.size:
                    begin = position
                    for length, flags in _block_status(connection, context, position, self.size):
                        end = min(position + length, self.size)
                        if end > position and kind(flags):
                            runs.add(position, end, kind(flags))
                        position = end
                    if position == begin:
                        raise NbdError(f"the server tells nothing about {context} at {position}")
        except NbdError as error:
            raise ReadFailed(self.identity, position, self.size - position, f"block status: {error}") from None
        return runs


class NbdTarget(_Export):
    """An export as a ``BlockTarget``. Writes may come from many threads, never overlapping.

    Raises ``RestoreRefused`` when it cannot be reached, is read-only, or cannot promise that a write is durable.
    """

    def __init__(self, address: NbdAddress) -> None:
        try:
            super().__init__(address, (), writing=True)
        except NbdError as error:
            raise RestoreRefused(export_identity(address.uri), f"NBD server: {error}") from None
        why = "it is read-only" if self._pool.read_only else "" if self._pool.can_flush else "its server has no flush"
        if why:
            self.close()
            raise RestoreRefused(self.identity, why)

    def write(self, offset: int, data: memoryview) -> None:
        """See the port."""
        self._check(offset, len(data))
        for at in range(0, len(data), self._pool.longest):
            shared = nbd.Buffer.from_buffer(data[at : at + self._pool.longest])
            self._do(offset + at, len(shared), lambda h, shared=shared, at=at: h.aio_pwrite(shared, offset + at))  # type: ignore[misc]

    def zero(self, offset: int, length: int) -> None:
        """See the port. The server may make a hole of it; one without WRITE ZEROES is sent the zeroes."""
        self._check(offset, length)
        step = LONGEST_STATUS if self._pool.can_zero else MiB
        zeroes = b"" if self._pool.can_zero else bytes(min(step, length))
        for at in range(offset, offset + length, step):
            count = min(step, offset + length - at)
            if self._pool.can_zero:
                self._do(at, count, lambda h, at=at, count=count: h.aio_zero(count, at))  # type: ignore[misc]
            else:
                self.write(at, memoryview(zeroes)[:count])

    def flush(self) -> None:
        """See the port. One flush is for all connections: more than one is made only if the server says so."""
        self._check(0, 0)
        self._do(0, self.size, lambda h: h.aio_flush())

    def _check(self, offset: int, length: int) -> None:
        check_write(self.identity, self.size, offset, length, closed=self._pool.closed)

    def _do(self, offset: int, length: int, start: Callable[["nbd.NBD"], int]) -> None:
        try:
            with self._pool.connection() as connection:
                connection.request(start)
        except NbdError as error:
            raise WriteFailed(self.identity, offset, length, str(error)) from None


def export_identity(uri: str) -> str:
    """A name for people and for "is it the same disk as last time": host and export, without sockets, which are new for
    every run, and without secrets. ``export_identity("nbd+unix:///vda?socket=/run/x") == "nbd:vda"``."""
    parts = urlsplit(uri)
    name = unquote(parts.path.removeprefix("/"))
    return f"nbd:{parts.hostname}/{name}" if parts.hostname else f"nbd:{name}"


def _block_status(connection: _Connection, context: str, offset: int, size: int) -> Sequence[tuple[int, int]]:
    """(length, flags) of successive runs from ``offset`` on, as many as the server tells at once."""
    told: list[int] = []

    def keep(name: str, _offset: int, entries: Sequence[int], _error: object) -> int:
        if name == context and not told:
            told.extend(entries)
        return 0

    count = min(LONGEST_STATUS, size - offset)
    connection.request(lambda handle: handle.aio_block_status(count, offset, keep))
    return list(zip(told[0::2], told[1::2], strict=True))
