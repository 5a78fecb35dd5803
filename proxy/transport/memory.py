"""Transport, source and target in memory: what use cases are tested with. Held to the contracts in ``tests/contract``.

What a test can do beside the ports: let the N-th read or write fail, or make each of them slow (``Faults``), refuse a
disk, say what changed since a mark, and look at every byte and every call afterwards.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from proxy.closing import Closeable
from proxy.errors import ChangesUnknown, LanfreeError, TransportRefused
from proxy.extents import Extent, Kind, intersect, normal
from proxy.model import ChangeId, FileAddress, FrozenDisk, ReasonCode
from proxy.ports import BlockSource
from proxy.transport.guard import check_read, check_write
from proxy.units import KiB

BLOCK = 4 * KiB
"""Granularity of zero detection: small, so that a test sees when too much is read."""


class Faults:
    """Counts calls and strikes. ``calls``: (name, offset, length) of every call so far, failed ones too."""

    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.calls: list[tuple[str, int, int]] = []
        self._strikes: dict[int, LanfreeError] = {}
        self._lock = threading.Lock()

    def fail(self, number: int, error: LanfreeError) -> None:
        """Let the ``number``-th call from now on (1 = next) raise ``error``."""
        with self._lock:
            self._strikes[len(self.calls) + number] = error

    def call(self, name: str, offset: int = 0, length: int = 0) -> None:
        """Called at the beginning of every operation."""
        with self._lock:
            self.calls.append((name, offset, length))
            error = self._strikes.pop(len(self.calls), None)
        if self.delay:
            time.sleep(self.delay)
        if error is not None:
            raise error


class _Closing(Closeable):
    """Context manager over ``close``; ``closed`` tells tests whether a use case let go of it."""

    closed = False

    def close(self) -> None:
        """Closing twice is allowed."""
        self.closed = True


class MemorySource(_Closing):
    """A disk's bytes. Extents come from looking for blocks of zeroes; ``changes``: what ``changed`` answers for each mark."""

    def __init__(
        self,
        data: bytes,
        *,
        identity: str = "memory",
        changes: Mapping[ChangeId, Sequence[Extent]] | None = None,
        can_report_extents: bool = True,
        faults: Faults | None = None,
    ) -> None:
        self._data = memoryview(bytes(data))
        self._changes = changes or {}
        self.faults = faults or Faults()
        self.size = len(data)
        self.identity = identity
        self.can_report_extents = can_report_extents

    def extents(self) -> Sequence[Extent]:
        """See the port."""
        check_read(self.identity, self.size, 0, 0, closed=self.closed)
        self.faults.call("extents")
        if not self.can_report_extents:
            return [Extent(0, self.size)] if self.size else []
        return normal(self._block(start) for start in range(0, self.size, BLOCK))

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """See the port."""
        self.faults.call("changed")
        if since not in self._changes:
            raise ChangesUnknown(self.identity, ReasonCode.TRACKING_LOST, f"no mark {since}")
        return intersect(normal(Extent(e.start, e.length) for e in self._changes[since]), [Extent(0, self.size)])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See the port."""
        check_read(self.identity, self.size, offset, len(buffer), closed=self.closed)
        self.faults.call("read", offset, len(buffer))
        buffer[:] = self._data[offset : offset + len(buffer)]

    def _block(self, start: int) -> Extent:
        block = bytes(self._data[start : start + BLOCK])
        return Extent(start, len(block), Kind.ZERO if block.count(0) == len(block) else Kind.DATA)


class MemoryTarget(_Closing):
    """A disk to restore to. ``data`` holds what was written; ``flushed`` what would have survived a power cut."""

    def __init__(
        self, size: int, *, identity: str = "memory", fill: bytes = b"\xa5", faults: Faults | None = None
    ) -> None:
        self.data = bytearray((fill * size)[:size])
        self.flushed = bytes(self.data)
        self.faults = faults or Faults()
        self.size = size
        self.identity = identity
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        """See the port."""
        check_write(self.identity, self.size, offset, len(data), closed=self.closed)
        self.faults.call("write", offset, len(data))
        with self._lock:
            self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """See the port."""
        check_write(self.identity, self.size, offset, length, closed=self.closed)
        self.faults.call("zero", offset, length)
        with self._lock:
            self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        """See the port."""
        check_write(self.identity, self.size, 0, 0, closed=self.closed)
        self.faults.call("flush")
        with self._lock:
            self.flushed = bytes(self.data)


class MemoryTransport:
    """Serves frozen disks whose layers ``find`` knows by path (``MemoryHypervisor.disk_bytes`` is such a function).

    ``refused``: disk key -> reason word. ``changes``: disk key -> mark -> extents. ``opened``: every source so far.
    The identity of a disk is ``memory:<key>`` unless ``identities`` names another one (a disk that moved).
    """

    def __init__(self, find: Callable[[str], bytes], *, mode: str = "san", faults: Faults | None = None) -> None:
        self.mode = mode
        self.faults = faults or Faults()
        self.refused: dict[str, str] = {}
        self.changes: dict[str, dict[ChangeId, Sequence[Extent]]] = {}
        self.identities: dict[str, str] = {}
        self.opened: list[MemorySource] = []
        self._find = find

    def probe(self, disk: FrozenDisk) -> None:
        """Refuses what was told to be refused; whether the bytes can be found shows in ``open``."""
        self.faults.call("probe")
        self._refuse(disk)

    def open(self, disk: FrozenDisk) -> BlockSource:
        """See the port. The bytes are copied, so they stand still as those of a frozen disk do."""
        self.faults.call("open")
        self._refuse(disk)
        if not disk.layers or not isinstance(disk.layers[0].location, FileAddress):
            raise TransportRefused(self.mode, disk.key, "not-in-memory")
        try:
            data = self._find(disk.layers[0].location.path)
        except (KeyError, FileNotFoundError) as error:
            raise TransportRefused(self.mode, disk.key, "not-found", str(error)) from error
        if len(data) != disk.size:
            raise TransportRefused(self.mode, disk.key, "size-mismatch", f"{len(data)} bytes, not {disk.size}")
        source = MemorySource(
            data,
            identity=self.identities.get(disk.key, f"memory:{disk.key}"),
            changes=self.changes.get(disk.key),
            faults=self.faults,
        )
        self.opened.append(source)
        return source

    def _refuse(self, disk: FrozenDisk) -> None:
        if disk.key in self.refused:
            raise TransportRefused(self.mode, disk.key, self.refused[disk.key])
