"""LUNs by their names, opened for reading: over the proxy's own iSCSI sessions, or as devices that its kernel has.

::

    naa.6…  ──►  FabricLuns   several sessions of libiscsi, each with its own depth   (iSCSI)
            └►   KernelLuns   /dev/disk/by-id/dm-uuid-mpath-3…, O_DIRECT              (Fibre Channel, NVMe, multipath)
"""

import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from typing import Protocol

from proxy.closing import Closeable
from proxy.errors import TransportError, TransportRefused
from proxy.ports import BlockSource
from proxy.transport.iscsi import Lun
from proxy.transport.raw import SharedFiles
from proxy.transport.san import MODE, SanFabric, SanReason, named_device

SESSIONS = 2
"""iSCSI sessions a LUN of an open disk. A session is one TCP connection and one thread with 16 requests outstanding: a second
one keeps a fast array busy while the first one's thread handles answers (a tenth to a third more on loopback,
``bench_vmfs.py``); four were no faster than two, and cost the array logins and queue slots."""


class BlockLun(Protocol):
    """A LUN, opened for reading. Reads may come from many threads at once. ``size`` in bytes."""

    name: str
    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer. Raises ``ReadFailed``, ``DeviceBusy``."""
        ...

    def read_pieces(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Fills several buffers, each from its offset, together. Raises as ``read_into``."""
        ...

    def recognise(self) -> None:
        """Make sure that it is still the unit that was opened. Raises ``TransportRefused``, ``ReadFailed``."""
        ...

    def close(self) -> None:
        """Twice is fine."""
        ...


class LunOpener(Protocol):
    """Whoever can reach LUNs by name (``naa.…``)."""

    def find(self, name: str) -> None:
        """Cheap look whether ``open`` can work. Raises ``TransportRefused``."""
        ...

    def open(self, name: str) -> BlockLun:
        """Raises ``TransportRefused``."""
        ...


class SessionsLun(Closeable):
    """One unit over several sessions: each read goes to the one that has the fewest reads going on. Owns the sessions."""

    def __init__(self, sessions: Sequence[Lun]) -> None:
        self.name = sessions[0].name
        self.size = sessions[0].capacity.size
        self._sessions = tuple(sessions)
        self._busy = [0] * len(sessions)
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As ``BlockLun``."""
        self.read_pieces([(offset, buffer)])

    def read_pieces(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """As ``BlockLun``."""
        with self._lock:
            index = min(range(len(self._busy)), key=self._busy.__getitem__)
            self._busy[index] += 1
        try:
            self._sessions[index].read_pieces(pieces)
        finally:
            with self._lock:
                self._busy[index] -= 1

    def recognise(self) -> None:
        """As ``BlockLun``, in every session."""
        for session in self._sessions:
            session.recognise()

    def close(self) -> None:
        """Log out."""
        with ExitStack() as closed:
            for session in self._sessions:
                closed.callback(session.close)


class FabricLuns:
    """LUNs that the array shows to the proxy's own initiator."""

    def __init__(self, fabric: SanFabric, sessions: int = SESSIONS) -> None:
        self._fabric = fabric
        self._sessions = sessions

    def find(self, name: str) -> None:
        """As ``LunOpener``."""
        self._fabric.resolve(named_device(name))

    def open(self, name: str) -> SessionsLun:
        """As ``LunOpener``. An array that lets in fewer sessions than we ask for is read over those that it lets in."""
        unit = self._fabric.resolve(named_device(name))
        with ExitStack() as opened:
            sessions = [opened.enter_context(closing(self._fabric.open_presented(unit)))]
            with suppress(TransportError):  # the first one works
                while len(sessions) < self._sessions:
                    sessions.append(opened.enter_context(closing(self._fabric.open_presented(unit))))
            opened.pop_all()
        return SessionsLun(sessions)


class SourceLun(Closeable):
    """A kernel's device, or a file, as a LUN. Owns the source."""

    def __init__(self, source: BlockSource, name: str) -> None:
        self._source = source
        self.name = name
        self.size = source.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As ``BlockLun``."""
        self._source.read_into(offset, buffer)

    def read_pieces(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """As ``BlockLun``, one after the other: each of the copy's threads keeps one read outstanding."""
        for offset, buffer in pieces:
            self._source.read_into(offset, buffer)

    def recognise(self) -> None:
        """As ``BlockLun``: an open descriptor never becomes another device's."""

    def close(self) -> None:
        """Close the device."""
        self._source.close()


class KernelLuns:
    """LUNs that this machine's kernel has, by names that are unique in the world."""

    def __init__(self, files: SharedFiles) -> None:
        self._files = files

    def find(self, name: str) -> None:
        """As ``LunOpener``."""
        self._files.device(named_device(name), MODE, name)

    def open(self, name: str) -> SourceLun:
        """As ``LunOpener``."""
        return SourceLun(self._files.open_device(named_device(name), MODE, name), name)


class SiteLuns:
    """The fabric first; the kernel's devices for what no target presents. What a target presents and does not let us read
    is refused: the reason is a person's to mend."""

    def __init__(self, fabric: SanFabric, files: SharedFiles | None = None, sessions: int = SESSIONS) -> None:
        self._fabric = FabricLuns(fabric, sessions)
        self._kernel = KernelLuns(files or SharedFiles(()))

    def find(self, name: str) -> None:
        """As ``LunOpener``."""
        self._who_has(name)

    def open(self, name: str) -> BlockLun:
        """As ``LunOpener``."""
        return self._who_has(name).open(name)

    def _who_has(self, name: str) -> LunOpener:
        try:
            self._fabric.find(name)
            return self._fabric
        except TransportRefused as refused:
            if refused.reason != SanReason.NO_TARGET:
                raise
            try:
                self._kernel.find(name)
            except TransportRefused:
                raise refused from None
            return self._kernel
