"""Which processes with an engine are alive: what decides whose runs are taken over, and who has to hold still.

On one machine (``FileLocks``) the kernel knows: each process holds an ``flock`` on a file of its own, dropped with the process.
Nobody can be wrong about it, so nobody ever has to doubt itself. Several machines see of each other only signs of life:
``appliance.serving.heartbeats``.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol


class Liveness(Protocol):
    """Calls may come from any thread, after ``join``."""

    def join(self, name: str) -> None:
        """This process is alive under a name that no other ever had. Before it begins anything that could be taken over."""
        ...

    def leave(self) -> None:
        """It ends, and nothing of its is under way. Calling it twice is allowed."""
        ...

    def sure(self) -> bool:
        """Whether nobody can have declared it gone by now. While this is false nothing is read, begun or sealed."""
        ...

    def lost(self) -> bool:
        """Whether it was declared gone: nothing of its is its own any more, for good."""
        ...

    def confirm(self) -> bool:
        """Give a sign of life now and wait until it came through; false once it is lost."""
        ...

    def living(self) -> frozenset[str]:
        """Names of all that are not gone, this one among them."""
        ...

    def declared_gone(self, name: str) -> AbstractContextManager[bool]:
        """Whether that one is gone for good; then it stays so while its runs are taken over."""
        ...

    buried: set[str]
    """Names of which this process was the first to say so, where that is known here."""


class FileLocks:
    """Processes of one machine. ``directory``: for their lock files, on a local file system."""

    def __init__(self, directory: Path) -> None:
        self.buried: set[str] = set()
        self._directory = directory
        self._lock: int | None = None
        self._name = ""

    def join(self, name: str) -> None:
        """See the protocol."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name = name
        self._lock = _own(self._file(name))

    def leave(self) -> None:
        """See the protocol."""
        if self._lock is not None:
            self._file(self._name).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def sure(self) -> bool:
        """Always: the lock is there as long as the process."""
        return True

    def lost(self) -> bool:
        """Never."""
        return False

    def confirm(self) -> bool:
        """Always."""
        return True

    def living(self) -> frozenset[str]:
        """See the protocol. Files of dead processes are removed on the way."""
        names = set()
        for file in self._directory.glob("*.lock"):
            with _if_dead(file) as dead:
                if dead:
                    file.unlink(missing_ok=True)
                else:
                    names.add(file.stem)
        return frozenset(names | {self._name})

    @contextmanager
    def declared_gone(self, name: str) -> Iterator[bool]:
        """See the protocol. A file that is gone was left by nobody living."""
        if name == self._name:
            yield False
            return
        with _if_dead(self._file(name)) as dead:
            yield dead

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.lock"


def _own(file: Path) -> int:
    """Make the file and lock it. Somebody who sees it unlocked for a moment takes it for a dead one's and removes it:
    then the lock is on a file without a name, and another one is made."""
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == file.stat().st_ino:
                return fd
        os.close(fd)


@contextmanager
def _if_dead(file: Path) -> Iterator[bool]:
    """Whether no living process holds the lock; keeps it meanwhile."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)
