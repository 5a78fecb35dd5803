"""Clients that send or read too slowly, over real connections: they are hung up on, and hold nothing."""

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import Body, FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api.asgi import PREFIX
from api.auth.roles import Caller, Permission
from api.deps import requires
from api.events import EventStream, Look
from appliance.web import patient
from appliance.web.patient import PatientProtocol
from tests.unit.api.api_site import ApiSite
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow

LONG = 60.0
"""Seconds in which anything comes true on a busy machine."""


@contextmanager
def served(app: FastAPI) -> Iterator[tuple[str, int]]:
    """By a real server in this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=PatientProtocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(LONG)
        listener.close()
    assert not thread.is_alive()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def head(app: FastAPI, site: ApiSite, method: str, route: str, *more: str) -> bytes:
    """A request's head, of somebody who may view."""
    token = known(site, app, Permission.VIEW).headers["Authorization"]
    lines = [f"{method} {PREFIX}/probe/{route} HTTP/1.1", "Host: x", f"Authorization: {token}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def rest(connection: socket.socket) -> bytes:
    """Until the other end hangs up."""
    connection.settimeout(LONG)
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # hung up the hard way
    return b"".join(parts)


def take(said: Annotated[Any, Body()] = None) -> str:
    return str(type(said))


def test_a_body_that_trickles_is_not_waited_for(site: ApiSite) -> None:
    app = probe(site, take, method="POST", patience=0.5)
    with served(app) as place, socket.create_connection(place) as connection:
        connection.sendall(head(app, site, "POST", "take", "Content-Type: application/json", "Content-Length: 1000"))
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        begun = time.monotonic()
        try:
            answer = rest(connection)
        finally:
            ended.set()
            thread.join(LONG)
    assert time.monotonic() - begun < LONG
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too-slow"


def test_a_body_without_end_is_read_to_the_limit_and_no_further(site: ApiSite) -> None:
    app = probe(site, take, method="POST", body=100_000)
    sent = 0
    with served(app) as place, socket.create_connection(place) as connection:
        connection.sendall(
            head(app, site, "POST", "take", "Content-Type: application/json", "Transfer-Encoding: chunked")
        )
        part = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        try:
            while sent < 1 << 28:
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass  # as it should
        answer = rest(connection)
    assert sent < 1 << 28
    assert b"413" in answer.partition(b"\r\n")[0] or not answer  # the answer may be lost with the connection


class Endless:
    """A download without end; ``let_go``: when whatever makes it ended."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.made = 0

    def parts(self) -> Iterator[bytes]:
        try:
            while True:
                self.made += 1
                yield b"x" * 65536
        finally:
            self.let_go.set()

    def download(self) -> StreamingResponse:
        return StreamingResponse(self.parts())

    def ends(self) -> None:
        """Soon; what an exception went through is collected as garbage."""
        until(lambda: (gc.collect(), self.let_go.is_set())[1])


def test_who_makes_an_answer_does_not_wait_for_a_reader_that_stands_still(site: ApiSite) -> None:
    endless = Endless()
    app = probe(site, endless.download, patience=0.5)
    with served(app) as place, socket.create_connection(place) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.sendall(head(app, site, "GET", "download"))
        endless.ends()
        # What one reader holds are the server's buffers and the system's: a few MiB, however much there is to read.
        assert endless.made < 400


def test_a_connection_whose_reader_stands_still_is_broken_off(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "STALL_SECONDS", 0.5)
    endless = Endless()
    app = probe(site, endless.download)
    with served(app) as place, socket.create_connection(place) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.sendall(head(app, site, "GET", "download"))
        endless.ends()
        with pytest.raises(ConnectionResetError):
            while connection.recv(1 << 20):
                pass


def test_a_reader_of_events_that_leaves_is_noticed(site: ApiSite) -> None:
    class State(BaseModel):
        a: int = 1

    app = probe(site)

    def events(request: Request, caller: Annotated[Caller, requires(Permission.VIEW)]) -> EventStream:
        return EventStream(request, caller, lambda: Look(State()), interval=0.1)

    app.add_api_route(f"{PREFIX}/probe/events", events, response_class=EventStream)
    with served(app) as place:
        with socket.create_connection(place) as connection:
            connection.sendall(head(app, site, "GET", "events"))
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            assert app.state.streams.all() == 1
        until(lambda: app.state.streams.all() == 0)


def test_streams_let_the_process_end(site: ApiSite) -> None:
    ending = threading.Event()

    class State(BaseModel):
        a: int = 1

    app = probe(site, ending=ending)

    def events(request: Request, caller: Annotated[Caller, requires(Permission.VIEW)]) -> EventStream:
        return EventStream(request, caller, lambda: Look(State()), interval=30)

    app.add_api_route(f"{PREFIX}/probe/events", events, response_class=EventStream)
    with served(app) as place, socket.create_connection(place) as connection:
        connection.sendall(head(app, site, "GET", "events", "Connection: close"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        ending.set()
        assert rest(connection).endswith(b"0\r\n\r\n")
