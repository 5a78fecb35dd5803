"""How downloads are sent: with back-pressure, to clients that leave, that stand still, or that take it all."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from api.ports.files import Download, Span
from api.streaming import DownloadResponse, span_of
from appliance.web.pipe import LIMIT, PIECE, BytePipe
from proxy.errors import IntegrityError

pytestmark = pytest.mark.slow

Send = Callable[[Any], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    """The server's."""
    return "asyncio"


def made(pipe: BytePipe, **more: Any) -> Download:
    return Download("name", "application/octet-stream", pipe, **more)


async def answered(
    download: Download, send: Send, left: asyncio.Event | None = None, stall: float = 30.0
) -> dict[str, Any]:
    """Run the application for one request; its scope. ``left``: set when the client goes."""
    scope: dict[str, Any] = {"type": "http", "state": {}}

    async def receive() -> dict[str, Any]:
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    await asyncio.wait_for(DownloadResponse(download, stall=stall)(scope, receive, send), 30)
    return scope


class Taken:
    """What a client got."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def whole(self) -> bool:
        return self.messages[-1].get("more_body") is False


def writing(pipe: BytePipe, size: int, error: BaseException | None = None) -> threading.Thread:
    def write() -> None:
        try:
            for _ in range(size // PIECE):
                pipe.write(bytes(PIECE))
            pipe.end(error)
        except OSError as gone:
            pipe.end(gone)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.anyio
async def test_all_of_it_is_sent_and_then_its_end() -> None:
    pipe, taken = BytePipe(), Taken()
    writer = writing(pipe, 8 * LIMIT)

    scope = await answered(made(pipe), taken.send)

    assert len(taken.body) == 8 * LIMIT
    assert taken.whole
    assert scope["state"]["own_deadline"] is True
    assert b"content-length" not in dict(taken.messages[0]["headers"])
    writer.join(10)


@pytest.mark.anyio
async def test_what_breaks_off_is_sent_without_its_end() -> None:
    pipe, taken = BytePipe(), Taken()
    writing(pipe, 4 * PIECE, IntegrityError("chunk 1", "is damaged"))

    await answered(made(pipe), taken.send)

    assert len(taken.body) == 4 * PIECE
    assert not taken.whole


@pytest.mark.anyio
async def test_a_client_that_leaves_ends_the_writer() -> None:
    pipe, left = BytePipe(), asyncio.Event()
    writer = writing(pipe, 100 * LIMIT)
    taken = Taken()

    async def send(message: Any) -> None:
        await taken.send(message)
        if len(taken.body) >= LIMIT:
            left.set()
            await asyncio.sleep(3600)  # nothing is taken from here on

    await answered(made(pipe), send, left)

    writer.join(10)
    assert not writer.is_alive()
    assert pipe.closed
    assert not taken.whole


@pytest.mark.anyio
async def test_a_client_that_leaves_while_nothing_comes_ends_the_answer() -> None:
    pipe, left = BytePipe(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, left.set)

    await answered(made(pipe), Taken().send, left)

    assert pipe.closed


@pytest.mark.anyio
async def test_a_client_that_stands_still_is_hung_up_on() -> None:
    pipe = BytePipe()
    writer = writing(pipe, 100 * LIMIT)
    taken = Taken()

    async def send(message: Any) -> None:
        await taken.send(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(3600)

    await answered(made(pipe), send, stall=0.1)

    writer.join(10)
    assert not writer.is_alive()
    assert not taken.whole


@pytest.mark.anyio
async def test_a_part_of_a_file_says_which_one_it_is() -> None:
    pipe, taken = BytePipe(), Taken()
    pipe.write(b"part")
    pipe.end()

    await answered(made(pipe, size=100, start=10, length=4, etag="e"), taken.send)

    headers = {name.decode(): value.decode() for name, value in taken.messages[0]["headers"]}
    assert taken.messages[0]["status"] == 206
    assert headers["content-range"] == "bytes 10-13/100"
    assert headers["content-length"] == "4"
    assert headers["etag"] == '"e"'


@pytest.mark.parametrize(
    ("said", "span"),
    [
        ("bytes=0-", Span(0, None)),
        ("bytes=5-9", Span(5, 9)),
        ("bytes = 5 - 9", Span(5, 9)),
        ("bytes=-7", Span(None, 7)),
        ("bytes=1-2,3-4", None),
        ("bytes=-", None),
        ("pages=1-2", None),
        ("bytes=" + "9" * 40 + "-", None),
        ("bytes=0-\u0663", None),
    ],
)
def test_ranges_are_understood_or_left_alone(said: str, span: Span | None) -> None:
    scope = {"type": "http", "headers": [(b"range", said.encode("utf-8"))]}

    assert span_of(Request(scope)) == span
