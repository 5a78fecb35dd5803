"""Serves disks over NBD, to us and to the C program alike."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy import command
from proxy.errors import ToolFailed


@contextmanager
def served(socket: Path, plugin: str, *options: str | Path) -> Iterator[str]:
    """The disk's NBD URI, while an nbdkit with this plugin serves it, read-only, on a Unix socket."""
    socket.unlink(missing_ok=True)
    server = command.spawn(
        ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "--readonly", plugin, *map(str, options)]
    )
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise ToolFailed("nbdkit", f"does not serve {plugin}", "is the package nbdkit installed?")
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={socket}"
    finally:
        command.stop(server)
        socket.unlink(missing_ok=True)
