"""Who may touch a machine now: locks that the kernel drops when their holder dies, so none is ever left behind.

Locks of a machine and of a restore's target, ``flock`` on files under one state directory of this proxy:

    run      exclusive   one backup or restore of a machine at a time          -> MachineBusy, at once
    place    exclusive   one restore to a device at a time                     -> RestoreRefused, at once
    frozen   shared      held while frozen disks are open for reading
             exclusive   held while overlays are merged                        -> SnapshotInUse, after a wait

iSCSI knows no image locks, so nothing else would keep a merge from changing a LUN under a reader.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy.errors import MachineBusy, RestoreRefused, SnapshotInUse
from proxy.model import MachineId, RunId

POLL_SECONDS = 0.1
"""flock has no time limit of its own; ten looks a second cost nothing and delay a merge by at most this."""


class Interlock:
    """Locks of one proxy, in ``directory`` (made if missing, 0700)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def run(self, machine: MachineId, run: RunId) -> Iterator[None]:
        """Hold the machine for one run. Raises ``MachineBusy`` naming the run that holds it."""
        with self._opened(machine, "run") as fd:
            holder = self._take(fd, run)
            if holder:
                raise MachineBusy(machine, holder)
            yield

    @contextmanager
    def place(self, device: str, run: RunId) -> Iterator[None]:
        """Hold a device that a restore writes to. Raises ``RestoreRefused`` naming the restore that holds it."""
        with self._opened(device, "place") as fd:
            holder = self._take(fd, run)
            if holder:
                raise RestoreRefused(device, f"{holder} writes to it")
            yield

    @contextmanager
    def reading(self, machine: MachineId) -> Iterator[None]:
        """Keep frozen disks from being merged while they are read."""
        with self._opened(machine, "frozen") as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield

    @contextmanager
    def readers_gone(self, machine: MachineId, timeout: float = 30.0) -> Iterator[None]:
        """Wait until nobody reads and keep new readers out. Raises ``SnapshotInUse`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._opened(machine, "frozen") as fd:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise SnapshotInUse(machine) from None
                    time.sleep(POLL_SECONDS)
            yield

    @staticmethod
    def _take(fd: int, run: RunId) -> str:
        """Lock for a run and write its name down; or say who has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 200, 0).decode(errors="replace").strip() or "another run"
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"run {run} (process {os.getpid()})".encode(), 0)
        return ""

    @contextmanager
    def _opened(self, what: str, kind: str) -> Iterator[int]:
        # A machine's id comes from a hypervisor, a device's name from an array: hashed, they can name no other file.
        name = hashlib.sha256(what.encode()).hexdigest()[:32]
        fd = os.open(self._directory / f"{name}.{kind}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
