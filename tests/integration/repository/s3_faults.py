"""An HTTP proxy on a loopback port before an S3 server, which answers badly as a test wants it.

The client signs its requests for this proxy's address and they are passed on as they are, so the server checks them as always.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from proxy.units import MiB


@dataclass(frozen=True)
class Request:
    """``number``: how many requests with this method and a path that holds the same ``kind`` came before."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def query(self) -> str:
        return urlsplit(self.path).query


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str, value: str | None) -> "Answer":
        """The same with one header set, or left out for ``None``."""
        rest = [(n, v) for n, v in self.headers if n.lower() != name.lower()]
        return Answer(self.status, rest + ([] if value is None else [(name, value)]), self.body)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. ``refuse``: answered by the proxy, the server never sees it. ``reset``: the
    connection breaks before (``"before"``) or after (``"after"``) the server has carried it out. ``delay``: seconds before
    the answer. ``cut``: the connection breaks after so many bytes of the answer's body. ``change``: another answer."""

    refuse: Answer | None = None
    reset: str = ""
    delay: float = 0.0
    cut: int | None = None
    change: Callable[[Answer], Answer] | None = None


def refusal(status: int, code: str, *, retry_after: int | None = None) -> Fault:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    headers = [("Content-Type", "application/xml")]
    if retry_after is not None:
        headers.append(("Retry-After", str(retry_after)))
    return Fault(refuse=Answer(status, headers, body))


SLOW_DOWN = refusal(503, "SlowDown")
BROKEN = refusal(500, "InternalError")
LOST_REQUEST = Fault(reset="before")
LOST_ANSWER = Fault(reset="after")

Plan = Callable[[Request], Fault | None]


@dataclass
class FaultyProxy:
    """``plan`` is asked about each request; ``requests`` are those that came. ``reading_pause``: seconds after each MiB of a
    request's body, as on a slow line."""

    endpoint: str
    plan: Plan = lambda _request: None
    reading_pause: float = 0.0
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sees(self, request: Request) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            return self.plan(request)

    def first(self, count: int, fault: Fault, *, method: str = "", having: str = "") -> None:
        """The first ``count`` requests of a method whose path or query holds a text go wrong, later ones go well."""
        left = [count]

        def plan(request: Request) -> Fault | None:
            if left[0] and method in ("", request.method) and having in request.path:
                left[0] -= 1
                return fault
            return None

        self.plan = plan


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[FaultyProxy]:
    """Before the server at ``endpoint``."""
    upstream = urlsplit(endpoint).netloc
    proxy = FaultyProxy("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def attend(self) -> None:
            body = self.read_body(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers.items()))
            fault = proxy.sees(request) or Fault()
            if fault.reset == "before":
                self.cut_off()
                return
            answer = fault.refuse or forward(upstream, request, body)
            if fault.reset == "after":
                self.cut_off()
                return
            if fault.delay:
                time.sleep(fault.delay)
            self.give(fault.change(answer) if fault.change else answer, fault.cut)

        def read_body(self, length: int) -> bytes:
            parts = []
            for _ in range(0, length, MiB):
                parts.append(self.rfile.read(min(MiB, length - MiB * len(parts))))
                time.sleep(proxy.reading_pause)
            return b"".join(parts)

        def give(self, answer: Answer, cut: int | None) -> None:
            lengths = [value for name, value in answer.headers if name.lower() == "content-length"]
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            # An answer to HEAD tells the length of a body that does not come.
            length = lengths[0] if self.command == "HEAD" and lengths else str(len(answer.body))
            if answer.status != http.HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", length)
            self.end_headers()
            try:
                self.wfile.write(answer.body if cut is None else answer.body[:cut])
                self.wfile.flush()
            except OSError:
                self.close_connection = True  # the client did not wait
            if cut is not None:
                self.cut_off()

        def cut_off(self) -> None:
            """As a dying machine does: no farewell."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = attend  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests look at ``requests``."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that give up are what these tests are about."""

    server = Quiet(("127.0.0.1", 0), Handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def forward(upstream: str, request: Request, body: bytes) -> Answer:
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()
