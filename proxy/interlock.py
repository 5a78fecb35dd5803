"""Who may touch a machine now: locks that the kernel drops when their holder dies, so none is ever left behind.

Two locks a machine, both ``flock`` on files under one state directory of this proxy:

    run      exclusive   one backup or restore of a machine at a time          -> MachineBusy, at once
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

from proxy.errors import MachineBusy, SnapshotInUse
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
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
                raise MachineBusy(machine, holder or "another run") from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"run {run} (process {os.getpid()})".encode(), 0)
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

    @contextmanager
    def _opened(self, machine: MachineId, kind: str) -> Iterator[int]:
        # A machine id comes from a hypervisor: hashed, it can name no other file.
        name = hashlib.sha256(machine.encode()).hexdigest()[:32]
        fd = os.open(self._directory / f"{name}.{kind}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
