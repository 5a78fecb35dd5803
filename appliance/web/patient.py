"""HTTP connections that are not kept waiting: what uvicorn itself does not bound.

A connection has to send the head of a request within ``HEAD_SECONDS``, the first one and each that it begins later; between
requests it may be silent for uvicorn's ``timeout_keep_alive``. One that takes nothing of an answer for ``STALL_SECONDS`` is
broken off: merely closed, it would wait for its reader for ever. Deadlines of bodies and of answers are in ``api.limits`` too.
One address has at most a share of all connections, so that none can take them all.
"""

import asyncio
import socket
import struct
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""A browser sends a head in one packet; a lost packet on a bad link takes seconds. More would let each silent client keep a
place for longer."""

HEAD_BYTES = 32 * 1024
"""Of all headers together: a session and some cookies of other programs under the same name are a few KiB."""

STALL_SECONDS = 90.0
"""Longer than answers wait for their readers themselves (60 s), which can say why."""

SHARE = 4
"""One address has at most a fourth of all connections: an office behind one address still has more than a hundred."""


_RESET = struct.pack("ii", 1, 0)
"""Linger for no second (socket(7)): what was not sent is dropped."""


class PatientProtocol(H11Protocol):
    """One connection."""

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base says it
        """Refuse one too many of an address."""
        super().connection_made(transport)
        limit = self.limit_concurrency
        if limit is not None and self.client is not None:
            clients = [getattr(each, "client", None) for each in self.connections]
            same = [client for client in clients if client is not None and client[0] == self.client[0]]
            if len(same) > max(1, limit // SHARE):
                transport.abort()
                return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline outlives its connection."""
        self._head_came()
        self._read_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The first byte of a head begins its time, unless that runs already."""
        if self._head is None and self._idle:
            self._wait_for_head()
        super().data_received(data)
        if not self._idle:
            self._head_came()

    def pause_writing(self) -> None:
        """The buffers are full: from now on the other end has to take something."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self._break_off)

    def resume_writing(self) -> None:
        """It did."""
        super().resume_writing()
        self._read_on()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on it is another protocol's."""
        self._head_came()
        self._read_on()
        super().handle_websocket_upgrade(event)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _wait_for_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _read_on(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _break_off(self) -> None:
        """With a reset: else the system would keep megabytes for the reader, long after our end is closed."""
        self._stall = None
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _too_late(self) -> None:
        self._head = None
        self.transport.abort()
