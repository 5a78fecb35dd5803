"""Unmounts when everybody else was killed: ``python -m mounter.fuse.watch PLACE LOCK``.

The keeper of a mount (``mounted.py``) holds the lock as long as it lives. When it dies, the worker unmounts and ends; when that
is dead too, every access to the place would fail with "Transport endpoint is not connected" until somebody unmounts it.
This process waits for the lock, gives the worker its time, and then does that.
"""

import fcntl
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from mounter.fuse.place import connection, unmount_now
from proxy.errors import LanfreeError

# The worker takes 4 s at most, then it kills itself (``worker.py``).
PATIENCE = 6.0


def main(place: str, lock: str) -> None:
    """Returns when the keeper is gone and the place is free."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        pass  # the keeper is gone, and its directory with it
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    deadline = time.monotonic() + PATIENCE
    while connection(Path(place)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    with suppress(LanfreeError):  # nobody is left to be told
        unmount_now(Path(place))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
