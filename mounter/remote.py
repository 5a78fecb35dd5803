"""A ``GuestFilesystem`` that lives in a process of its own (``worker.py``): deadlines that hold, crashes that stay there.

libguestfs blocks while its appliance starts or hangs, and parses what a guest wrote. Both are reasons to have it where
it can be killed: the worker, its appliance (QEMU) and all other children are one process group, ended as one.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mounter import wire
from mounter.batch import entries_from_data
from mounter.export import Served, module_path
from mounter.keys import Key
from mounter.ports import FileEntry, GuestFilesystem, OperatingSystem, Volume
from mounter.session import OpensFilesystem
from proxy.closing import Closeable
from proxy.command import spawn
from proxy.errors import FastPathRefused, FormatError, GuestFileNotFound, LanfreeError, MountEnded, MountFailed

# The appliance starts in 5 s with KVM, 10 to 35 s under software emulation, plus inspection; the first start on a new
# proxy builds it from the distribution's packages, which takes another half a minute.
OPEN_SECONDS = 240.0

# One answer: a batch of a walk or a piece of a file. The first batch waits for the whole search of the volume.
CALL_SECONDS = 300.0

# An appliance that is told to end needs a second; the worker itself gives up on it after four (see ``worker.py``).
END_SECONDS = 6.0

# Enough for fsck-free mounts of file systems of some TiB; Windows inspection and XFS logs need more than 256 MiB.
MEMORY_MIB = 768

# LUKS2 derives its key with Argon2id in up to 1 GiB, which the appliance must have beside what it needs itself.
KEYED_MEMORY_MIB = 2048

OPENER = "mounter.libguestfs:open_filesystem"


def libguestfs(
    *,
    accelerate: bool,
    memory_mib: int = MEMORY_MIB,
    open_seconds: float = OPEN_SECONDS,
    keys: Sequence[Key] = (),
    opener: str = OPENER,
    more: Mapping[str, object] | None = None,
) -> OpensFilesystem:
    """Opens sessions in a throw-away libguestfs appliance. ``accelerate``: KVM works here (found out by trying). ``keys``: for
    encrypted volumes. ``opener``: what the worker calls instead, with ``more`` in its argument."""

    def open_filesystem(served: Sequence[Served], directory: Path) -> GuestFilesystem:
        argument = {
            "sockets": [str(s.socket) for s in served],
            "directory": str(directory),
            "accelerate": accelerate,
            "memory_mib": max(memory_mib, KEYED_MEMORY_MIB) if keys else memory_mib,
            **(more or {}),
        }
        return RemoteFilesystem(opener, argument, directory, open_seconds=open_seconds, keys=keys)

    return open_filesystem


class RemoteFilesystem(Closeable):
    """The port, answered by ``opener(argument)`` in another process. Raises ``MountFailed`` when it cannot be opened,
    ``MountEnded`` when that takes longer than ``open_seconds`` or a later call longer than ``call_seconds``: then the
    worker is killed and the session is over. ``keys`` go to it over its socket and are not kept here."""

    def __init__(
        self,
        opener: str,
        argument: Mapping[str, object],
        directory: Path | None = None,
        *,
        open_seconds: float = OPEN_SECONDS,
        call_seconds: float = CALL_SECONDS,
        keys: Sequence[Key] = (),
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="fs-", dir=directory))
        self._call_seconds = call_seconds
        self._turn = threading.RLock()
        self._ending = threading.Lock()
        self._connection: socket.socket | None = None
        self._ended: str | None = None
        self._log = self._directory / "log"
        self._connection = self._start()
        try:
            secrets = [wire.key_to_wire(key) for key in keys]
            request = {"operation": "open", "opener": opener, "argument": dict(argument), "keys": secrets}
            self._call(request, open_seconds)
            self._volumes = tuple(wire.volume_from_wire(v) for v in self._ask("volumes")["volumes"])
            self._systems = tuple(wire.system_from_wire(s) for s in self._ask("operating_systems")["systems"])
        except (FormatError, LookupError, TypeError, ValueError) as error:
            raise self._nonsense(error) from None
        except BaseException:  # the worker and its appliance must not be left, also on an interrupt
            self._end("it could not be opened")
            raise

    def volumes(self) -> Sequence[Volume]:
        return self._volumes

    def operating_systems(self) -> Sequence[OperatingSystem]:
        return self._systems

    def walk(self, volume: Volume) -> Iterator[Sequence[FileEntry]]:
        for _, data in self._stream("walk", volume=volume.id):
            yield self._entries(data)

    def list_directory(self, volume: Volume, path: bytes) -> Sequence[FileEntry]:
        replies = self._stream("list_directory", volume=volume.id, path=wire.text_of(path))
        return [entry for _, data in replies for entry in self._entries(data)]

    def entry(self, volume: Volume, path: bytes) -> FileEntry:
        reply = self._ask("entry", volume=volume.id, path=wire.text_of(path))
        try:
            return wire.entry_from_wire(reply["entries"][0])
        except (FormatError, LookupError, TypeError) as error:
            raise self._nonsense(error) from None

    def read(self, volume: Volume, path: bytes, offset: int = 0) -> Iterator[bytes]:
        for _, data in self._stream("read", volume=volume.id, path=wire.text_of(path), offset=offset):
            yield data

    def xattrs(self, volume: Volume, path: bytes) -> Mapping[bytes, bytes]:
        reply = self._ask("xattrs", volume=volume.id, path=wire.text_of(path))
        try:
            return {wire.bytes_of(name): wire.bytes_of(value) for name, value in reply["xattrs"]}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(error) from None

    def close(self) -> None:
        """Orderly when nothing is under way; else the worker is killed and the call under way raises."""
        if self._ended is None and self._connection is not None and self._turn.acquire(blocking=False):
            try:
                self._connection.settimeout(5.0)
                wire.send(self._connection, {"operation": "close"})
                wire.receive(self._connection)
            except (OSError, EOFError, FormatError):
                pass  # the end of the connection is the answer; a worker that does not end is killed below
            finally:
                self._turn.release()
        self._end("it was closed")

    def _start(self) -> socket.socket:
        path = self._directory / "s"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, self._log.open("ab") as log:
            try:
                listener.bind(str(path))
            except OSError as error:  # a name may have 107 bytes, whatever files may have
                raise MountFailed(str(path), f"no socket can be made there: {error}") from None
            listener.listen(1)
            # Importing this package takes half a second; a minute is for a machine in distress.
            listener.settimeout(60.0)
            argv = [sys.executable, "-m", "mounter.worker", str(path)]
            self._process = spawn(argv, log=log, env={"PYTHONPATH": module_path()})
            try:
                return listener.accept()[0]
            except TimeoutError:
                said = self._said()  # before its log goes
                self._end("its process did not start")
                raise MountEnded(f"its process did not start: {said}") from None

    def _entries(self, data: bytes) -> list[FileEntry]:
        try:
            return entries_from_data(data)
        except FormatError as error:
            raise self._nonsense(error) from None

    def _nonsense(self, error: Exception) -> MountEnded:
        """A worker whose answers have no shape may be in a guest's hands: it is killed."""
        self._end(f"its process talks nonsense: {error}")
        return MountEnded(self._ended or "")

    def _ask(self, operation: str, **facts: object) -> dict[str, Any]:
        return self._call({"operation": operation, **facts}, self._call_seconds)[0]

    def _stream(self, operation: str, **facts: object) -> Iterator[tuple[dict[str, Any], bytes]]:
        number = self._ask(operation, **facts)["stream"]
        try:
            while True:
                reply, data = self._call({"operation": "next", "stream": number}, self._call_seconds)
                if reply.get("end"):
                    return
                yield reply, data
        except GeneratorExit:
            if self._ended is None:
                self._ask("forget", stream=number)
            raise

    def _call(self, request: Mapping[str, Any], seconds: float) -> tuple[dict[str, Any], bytes]:
        with self._turn:
            if self._ended is not None or self._connection is None:
                raise MountEnded(self._ended or "it is not open")
            self._connection.settimeout(seconds)
            try:
                wire.send(self._connection, request)
                reply, data = wire.receive(self._connection)
            except TimeoutError:
                self._end(f"no answer to {request['operation']!r} within {seconds:g} s; it was ended")
            except (OSError, EOFError):
                self._end(f"its process ended: {self._said()}")
            except FormatError as error:
                self._end(f"its process talks nonsense: {error.message}")
            if self._ended is not None:
                raise MountEnded(self._ended, hint="open a new session; 'lanfree doctor' tries the appliance")
        if "error" in reply:
            raise _error(reply["error"])
        return reply, data

    def _end(self, why: str) -> None:
        """End the worker and all it started, once; remove its directory. From any thread, also during a call.

        Losing its connection makes the worker end in order (``worker.py``), which takes libguestfs' own files along; it
        is killed when it does not.
        """
        with self._ending:
            if self._ended is None:
                self._ended = why
                if self._connection is not None:
                    with contextlib.suppress(OSError):  # the other side may have gone first
                        self._connection.shutdown(socket.SHUT_RDWR)
                    _await_exit(self._process.pid, END_SECONDS)
                with contextlib.suppress(ProcessLookupError):  # all of the group have ended meanwhile
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                shutil.rmtree(self._directory, ignore_errors=True)
        if self._connection is not None:
            with self._turn:  # a call under way sees the end of the connection and lets go
                self._connection.close()

    def _said(self) -> str:
        return self._log.read_text(errors="replace").strip()[-1000:] if self._log.exists() else ""


def _await_exit(process: int, seconds: float) -> None:
    """Wait for a child to end, without collecting it: as long as it is not, its process group's number stays its own."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return
        except ChildProcessError:
            return  # it has been collected already
        time.sleep(0.02)


def _error(facts: Mapping[str, str]) -> LanfreeError:
    """The worker's error again. Only the kinds that a caller tells apart."""
    message, hint = str(facts.get("message")), str(facts.get("hint"))
    if facts.get("code") == FastPathRefused.code:
        refused = FastPathRefused.__new__(FastPathRefused)
        LanfreeError.__init__(refused, message, hint=hint)
        refused.reason = str(facts.get("reason"))
        return refused
    kind = GuestFileNotFound if facts.get("code") == GuestFileNotFound.code else MountFailed
    error = kind.__new__(kind)
    LanfreeError.__init__(error, message, hint=hint)
    return error
