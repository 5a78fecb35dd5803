"""How the process of API and console ends."""

import asyncio
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from appliance.config_web import Web
from appliance.web import server as serving
from appliance.web import tls
from appliance.web.patient import PatientProtocol
from appliance.web.server import _Server

HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = HELLO[:-2] + (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

LONG = 60
"""Seconds in which anything comes true on a busy machine."""


async def answering(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An application that answers at once, and talks over websockets until they end."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def asked(place: tuple[str, int], said: bytes) -> ssl.SSLSocket:
    """A connection on which this was said and the answer came, and that nobody reads any more."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection(place, LONG))
    connection.sendall(said)
    assert connection.recv(1000).startswith((b"HTTP/1.1 204", b"HTTP/1.1 101"))
    return connection


async def end_with_a_silent_client(said: bytes, directory: Path) -> None:
    """Serve, be asked, end while the client holds its connection."""
    identity = tls.identity(Web(), directory)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        answering,
        http=PatientProtocol,
        ws="websockets-sansio",
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=LONG,
        ssl_context_factory=lambda _config, _default: identity.context(),
    )
    server = _Server(config, threading.Event())
    serves = asyncio.create_task(server._serve([listener]))
    try:
        connection = await asyncio.to_thread(asked, listener.getsockname(), said)
        with connection:
            server.should_exit = True
            await asyncio.wait_for(serves, LONG / 2)
    finally:
        server.should_exit = server.force_exit = True
        listener.close()


@pytest.mark.slow
@pytest.mark.parametrize("said", [HELLO, UPGRADE], ids=["answered", "websocket"])
def test_who_was_answered_and_never_closes_neither_holds_up_the_end_nor_is_told_as_an_error(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "FAREWELL_SECONDS", 0.1)
    asyncio.run(end_with_a_silent_client(said, tmp_path))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
