"""The ``lan`` transport of vSphere: a host streams the frozen disk over HTTPS (NFC export), from its first byte to its last.

It works for whatever the host itself can read (NFS, vSAN, vVols) and needs nothing installed; machines that vSphere encrypts it
refuses to export, which VDDK can read. The price: the host reads and packs all that the disk holds, whatever is asked for, and
it goes forward only::

    stream    |header|grain|grain|   |grain|grain|…|end|         zeroes are not in it
    asked        A──►|1────|3────|   |5─…                        workers of one copy, about in ascending order
                 B──►|2────|4────|
    window              |#########|                              grains that came by lately, still packed

Who asks for what has left the window makes the export begin again, once; then it is a ``ReadFailed``. Grains are unpacked by
who asked for them, outside of the lock, so that several workers keep several cores busy.

The lease, its URL with the session's ticket in it, and the check of the host's certificate stay with the hypervisor's driver:
here only a stream of bytes comes in (``Exported``), and nothing that is secret.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import StrEnum
from typing import Protocol

from proxy.closing import Closeable
from proxy.errors import (
    CertificateRefused,
    ChangesUnknown,
    FormatError,
    HypervisorError,
    ReadFailed,
    TransportRefused,
)
from proxy.extents import Extent
from proxy.model import ChangeId, Format, FrozenDisk, ReasonCode, VmdkAddress
from proxy.ports import BlockSource
from proxy.transport.guard import check_read, fill_zero
from proxy.transport.vmdk.stream_reader import Grain, StreamReader
from proxy.units import MiB

MODE = "lan"

WINDOW = 32 * MiB
"""Of the disk, kept packed behind the newest grain: a worker may be late by as much. Peak memory where nothing packs."""

PIECE = 1 * MiB
"""Of a longer read at once, so that it needs no larger window."""

REOPENS = 1
"""Beginning again costs all that was read so far; once is an accident, twice a caller that does not read forward."""

CONNECTIONS = 8
"""To one host at once, exports and imports together. A host's NFC server has 48 MiB for all its clients, each takes about two:
vMotion, clones and other backups must find some too."""

PATIENCE = 300.0
"""Seconds that a disk waits for its turn at a host before another transport is tried."""


class NfcReason(StrEnum):
    """The words of a refusal."""

    NOT_VSPHERE = "not-a-vsphere-disk"
    NO_MACHINE = "no-machine"
    EXPORT_REFUSED = "export-refused"
    CERTIFICATE = "certificate-refused"
    HOST_BUSY = "host-has-no-connection-left"
    STREAM_DAMAGED = "stream-damaged"
    SIZE_MISMATCH = "size-mismatch"


class ExportedStream(Protocol):
    """The body of a host's answer."""

    def read(self, length: int, /) -> bytes:
        """At most ``length`` bytes; fewer only at the end. Raises ``OSError`` when the connection is lost, and what it says
        must be fit for people: no URL."""
        ...

    def close(self) -> None:
        """Allowed twice."""
        ...


class Exported(Protocol):
    """One disk of a running export. ``host`` sends it."""

    host: str

    def open(self) -> ExportedStream:
        """The stream, from its beginning, each time. Raises ``OSError`` or one of our errors."""
        ...

    def progress(self, share: float) -> None:
        """How far we are, 0 to 1. Quick; may be called often."""
        ...


Export = Callable[[VmdkAddress], AbstractContextManager[Exported]]
"""Begins the export of a disk and ends it. Raises ``HypervisorError`` or another of our errors."""


class HostBusy(Exception):
    """No turn at a host within the time that was granted; never leaves the transports."""


class HostBudget:
    """Connections to each host: never more than ``limit`` at once by this process. Any thread."""

    def __init__(self, limit: int = CONNECTIONS, patience: float = PATIENCE) -> None:
        self.limit = limit
        self._patience = patience
        self._change = threading.Condition()
        self._used: dict[str, int] = {}

    @contextmanager
    def connection(self, host: str) -> Iterator[None]:
        """Waits for its turn. Raises ``HostBusy``."""
        deadline = time.monotonic() + self._patience
        with self._change:
            while self._used.get(host, 0) >= self.limit:
                if not self._change.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise HostBusy(f"all {self.limit} connections to {host} were in use for {self._patience:g} s")
            self._used[host] = self._used.get(host, 0) + 1
        try:
            yield
        finally:
            with self._change:
                self._used[host] -= 1
                self._change.notify_all()


class NfcTransport:
    """Opens exports of vSphere disks. Refuses with a ``NfcReason``."""

    mode = MODE

    def __init__(self, export: Export, budget: HostBudget | None = None) -> None:
        self._export = export
        self._budget = budget or HostBudget()

    def probe(self, disk: FrozenDisk) -> None:
        """Looks at the address alone: an export costs the host something. Raises ``TransportRefused``."""
        _address(disk)

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Begins the export. Raises ``TransportRefused``, ``ReadFailed``, and ``HostUnreachable`` for a silent vCenter."""
        address = _address(disk)
        source = open_export(self._export, address, self._budget, disk.key)
        if disk.size and source.size != disk.size:
            source.close()
            detail = f"the export has {source.size} bytes, the disk has {disk.size}"
            raise TransportRefused(MODE, disk.key, NfcReason.SIZE_MISMATCH, detail)
        return source


def open_export(export: Export, address: VmdkAddress, budget: HostBudget, key: str) -> "NfcSource":
    """One disk's export as a source. Raises as ``NfcTransport.open``."""
    with ExitStack() as held:
        try:
            exported = held.enter_context(export(address))
            held.enter_context(budget.connection(exported.host))
            # Neither host nor datastore: a machine that moved between two backups still has the same disks.
            source = NfcSource(exported, key=key, identity=f"nfc:{key}")
        except HostBusy as error:
            hint = "fewer jobs at once from that host, or more connections for it"
            raise TransportRefused(MODE, key, NfcReason.HOST_BUSY, str(error), hint=hint) from None
        except CertificateRefused as error:
            raise TransportRefused(MODE, key, NfcReason.CERTIFICATE, error.message, hint=error.hint) from None
        except HypervisorError as error:
            raise TransportRefused(MODE, key, NfcReason.EXPORT_REFUSED, error.message, hint=error.hint) from None
        except FormatError as error:
            raise TransportRefused(MODE, key, NfcReason.STREAM_DAMAGED, error.message) from None
        except OSError as error:
            raise ReadFailed(f"nfc:{key}", 0, 0, f"the export did not begin: {error}") from None
        source.owns(held.pop_all())
    return source


class NfcSource(Closeable):
    """An export as a ``BlockSource``. Reads may come from many threads at once, about in ascending order."""

    can_report_extents = False

    def __init__(self, exported: Exported, *, key: str, identity: str) -> None:
        self._exported = exported
        self._held = ExitStack()
        self._key = key
        self.identity = identity
        self._lock = threading.Lock()
        self._closed = False
        self._broken: str | None = None
        self._reopens = 0
        self._window: deque[Grain] = deque()
        self._complete = False
        self._floor = self._position = 0
        """Bytes of the disk: below ``_floor`` grains have left the window, below ``_position`` all have come by."""
        self._begin()
        self.size = self._reader.size

    def owns(self, held: ExitStack) -> None:
        """What the export needs, to be ended with it."""
        self._held = held

    def extents(self) -> Sequence[Extent]:
        """All of it: what is zero shows only as the stream goes by."""
        check_read(self.identity, self.size, 0, 0, closed=self._closed)
        return [Extent(0, self.size)]

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """Always raises ``ChangesUnknown``: vCenter tells changes, not the export."""
        raise ChangesUnknown(self._key, ReasonCode.NO_TRACKING, f"an export records none ({since})")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See the port. Who asks for less than others asked for ``WINDOW`` bytes ago gets ``ReadFailed`` in the end."""
        check_read(self.identity, self.size, offset, len(buffer), closed=self._closed)
        for at in range(0, len(buffer), PIECE):
            self._fill(offset + at, buffer[at : at + PIECE])

    def close(self) -> None:
        """Ends the export, in whatever state it is. Allowed twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._window.clear()
        self._stream.close()
        self._held.close()

    def _fill(self, offset: int, buffer: memoryview) -> None:
        end, position = offset + len(buffer), offset
        for grain in self._passing(offset, end):
            try:
                data = grain.unpack(self.identity)
            except FormatError as error:
                raise ReadFailed(self.identity, offset, len(buffer), error.message) from None
            low, high = max(offset, grain.start), min(end, grain.end)
            fill_zero(buffer[position - offset : low - offset])
            buffer[low - offset : high - offset] = memoryview(data)[low - grain.start : high - grain.start]
            position = high
        fill_zero(buffer[position - offset :])

    def _passing(self, start: int, end: int) -> list[Grain]:
        """The grains of ``[start, end)``, in order, packed. Lets the stream go by as far as that needs."""
        with self._lock:
            check_read(self.identity, self.size, start, end - start, closed=self._closed)
            if self._broken is None:
                try:
                    if start < self._floor:
                        self._begin_again(start)
                    self._advance(start, end)
                except (FormatError, HypervisorError, CertificateRefused) as error:
                    self._broken = error.message
                except OSError as error:
                    self._broken = f"the connection to {self._exported.host} was lost: {error}"
            if self._broken is not None:
                raise ReadFailed(self.identity, start, end - start, self._broken)
            first = bisect_right(self._window, start, key=lambda grain: grain.end)
            last = bisect_left(self._window, end, lo=first, key=lambda grain: grain.start)
            return [self._window[number] for number in range(first, last)]

    def _advance(self, start: int, end: int) -> None:
        # Who asks for the disk's last byte gets it only when the stream has ended as it should: nothing is missing then.
        while self._position < end or (end == self.size and not self._complete):
            grain = next(self._grains, None)
            if grain is None:
                self._position, self._complete = self.size, True
                break
            self._window.append(grain)
            self._position = grain.end
            while len(self._window) * grain.size > WINDOW and self._window[0].end <= start:
                self._floor = self._window.popleft().end
        self._exported.progress(self._position / self.size)

    def _begin(self) -> None:
        self._stream = self._exported.open()
        try:
            self._reader = StreamReader(self._stream, self.identity)
        except BaseException:
            self._stream.close()
            raise
        self._grains = self._reader.grains()
        self._window.clear()
        self._complete = False
        self._floor = self._position = 0

    def _begin_again(self, start: int) -> None:
        if self._reopens >= REOPENS:
            raise OSError(f"an export goes forward only: {start} was asked for when {self._floor} had gone by")
        self._reopens += 1
        self._stream.close()
        self._begin()
        if self._reader.size != self.size:
            raise FormatError(self.identity, f"begun again it has {self._reader.size} bytes, not {self.size}")


def _address(disk: FrozenDisk) -> VmdkAddress:
    match disk.layers:
        case (layer,) if isinstance(layer.location, VmdkAddress) and layer.format is Format.VMDK:
            address = layer.location
        case _:
            places = ", ".join(type(layer.location).__name__ for layer in disk.layers) or "nothing"
            raise TransportRefused(MODE, disk.key, NfcReason.NOT_VSPHERE, f"the hypervisor gave {places}")
    # Without a snapshot it is a template, or a machine that is off: a host exports no machine that runs.
    if not address.machine:
        raise TransportRefused(MODE, disk.key, NfcReason.NO_MACHINE, f"no machine is known to have {address.path}")
    return address
