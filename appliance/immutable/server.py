"""The socket: one request and one answer a connection, each a line of JSON (``proxy/repository/stores/immutable.py``).

Who may ask is told by the kernel (``SO_PEERCRED``), besides the socket's own permissions. A client that says nothing, too much
or nonsense costs one of a few threads for a few seconds.
"""

import json
import os
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from appliance.immutable.attribute import Refusal
from appliance.immutable.keeper import Keeper

# A request is a name of 200 characters and some words.
LONGEST_REQUEST = 4096

# Clients are on this machine and send at once.
REQUEST_SECONDS = 5.0

# One file is changed at a time; more threads would only wait. What comes beyond waits to be accepted.
CONNECTIONS = 16

# At most so much proven time is lost in a power cut; each is one small synced write.
TICK_SECONDS = 60.0

# How long the accepting loop sleeps at most, which is how quickly the helper ends when it is asked to.
_LOOK_SECONDS = 0.5


class Server:
    """Answers on ``listener`` for ``users`` (user ids) until ``stop``."""

    def __init__(self, keeper: Keeper, listener: socket.socket, users: Collection[int]) -> None:
        self._keeper = keeper
        self._listener = listener
        self._users = users
        self._stopping = threading.Event()
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def serve(self) -> None:
        """Returns after ``stop``; raises ``sqlite3.Error`` when trusted time cannot be kept any more."""
        self._keeper.go_on()
        self._listener.settimeout(_LOOK_SECONDS)
        next_tick = time.monotonic() + TICK_SECONDS
        while not self._stopping.is_set():
            if time.monotonic() >= next_tick:
                self._keeper.tick()
                next_tick = time.monotonic() + TICK_SECONDS
            if not self._free.acquire(timeout=_LOOK_SECONDS):
                continue
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                self._free.release()
            else:
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()
        for _ in range(CONNECTIONS):  # each thread gives its place back when it is done
            self._free.acquire(timeout=2 * REQUEST_SECONDS)
        self._keeper.tick()

    def stop(self) -> None:
        """May be called from a signal handler."""
        self._stopping.set()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(REQUEST_SECONDS)
                answer = self._answer(connection)
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # the client is gone, and nobody waits for the answer
        finally:
            self._free.release()

    def _answer(self, connection: socket.socket) -> dict[str, Any]:
        try:
            request = _request(connection)  # first, or a stranger would see a broken connection instead of the reason
            _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user not in self._users:
                raise Refusal("denied", f"user {user} may not ask")
            return {"ok": True, **self._carry_out(request)}
        except Refusal as error:
            if error.code != "retained":  # that is the daily answer to retention's own attempts
                print(f"refused: {error.code}: {error.why}", file=sys.stderr, flush=True)
            more = {} if error.seconds is None else {"seconds": error.seconds}
            return {"ok": False, "code": error.code, "why": error.why, **more}
        except (OSError, sqlite3.Error) as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            return {"ok": False, "code": "failed", "why": str(error)}

    def _carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"op": "retain", "root": str(root), "name": str(name), "seconds": int() | float() as seconds}:
                return {"seconds": self._keeper.retain(root, name, float(seconds))}
            case {"op": "release", "root": str(root), "name": str(name)}:
                self._keeper.release(root, name)
                return {}
            case {"op": "status"}:
                return self._keeper.status()
        raise Refusal("request", "that is not a request")


def _request(connection: socket.socket) -> dict[str, Any]:
    """One line within ``REQUEST_SECONDS`` altogether, so that dripping bytes does not hold a thread."""
    deadline = time.monotonic() + REQUEST_SECONDS
    data = b""
    while not data.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(LONGEST_REQUEST)
        data += part
        if not part or len(data) > LONGEST_REQUEST:
            raise Refusal("request", "that is not one line")
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal("request", "that is not JSON") from None
    if not isinstance(request, dict):
        raise Refusal("request", "that is not a request")
    return request


def listen(path: Path, group: int) -> socket.socket:
    """A socket for its owner and ``group``. One that a dead helper left is replaced, a living one's is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            raise FileExistsError(f"another helper answers at {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o117)  # from its first moment: 0660
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if path.stat().st_gid != group:
            os.chown(path, -1, group)
        listener.listen(CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    return listener


def handed_over() -> socket.socket | None:
    """The socket that systemd made, if it did (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=3)
