"""Connections to one host, each lent to one call at a time.

Threads may share a libvirt connection: one of them reads the socket for all, and whoever has something to send wakes it.
In libvirt 9.0, and before, that wake-up is lost when it comes while the reader, which has just dealt with somebody's
answer, is about to sleep again (``virNetClientIOEventLoop``: ``g_main_loop_quit`` before ``g_main_loop_run``). The call is
then not even sent until the reader's own answer comes. If that one hangs, because an array does, the whole host seems to.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class ConnectionPool(Generic[C]):
    """As many connections as there ever were calls at once. None is closed while it is idle: a machine may live as long
    as the connection that started it. Calls may come from any thread.
    """

    def __init__(self, connect: Callable[[], C], alive: Callable[[C], bool], hang_up: Callable[[C], None]) -> None:
        """``connect`` raises what callers of ``lend`` shall see; ``alive`` asks nobody; ``hang_up`` raises nothing."""
        self._connect = connect
        self._alive = alive
        self._hang_up = hang_up
        self._idle: list[C] = []
        self._closings = 0
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, *, fresh: bool = False) -> Iterator[C]:
        """A connection for this thread alone: one that is idle, else (and if ``fresh``, always) a new one."""
        connection, closings = self._taken(fresh)
        try:
            yield connection
        finally:
            with self._lock:
                stays = closings == self._closings and self._alive(connection)
                if stays:
                    self._idle.append(connection)
            if not stays:
                self._hang_up(connection)

    def close(self) -> None:
        """Hang up; connections that are lent now, when they come back. The next call connects again."""
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            self._hang_up(connection)

    def _taken(self, fresh: bool) -> tuple[C, int]:
        with self._lock:
            closings = self._closings
            dead = [connection for connection in self._idle if not self._alive(connection)]
            self._idle = [connection for connection in self._idle if connection not in dead]
            found = self._idle.pop() if self._idle and not fresh else None
        for connection in dead:
            self._hang_up(connection)
        # Outside of the lock: a silent host takes its time, and calls on other connections need not wait for that.
        return (self._connect() if found is None else found), closings
