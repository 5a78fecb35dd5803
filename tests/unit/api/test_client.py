"""The clients for Python, against the application itself."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from api import client as clients
from api.asgi import PREFIX
from api.auth.roles import Role
from api.client import AsyncClient, Client
from api.client_answers import EventLines, query
from api.paging import Page
from api.schemas.vitals import Health, Version
from proxy.errors import ServerAway, ServerRefused
from tests.unit.api.api_site import ApiSite
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow

URL = "https://testserver"


def client_of(test: TestClient) -> Client:
    """The same caller, by our client."""
    token = test.headers["Authorization"].removeprefix("Bearer ")
    return Client(URL, token=token, transport=test._transport)


@pytest.fixture
def client(api: TestClient) -> Iterator[Client]:
    with client_of(api) as made:
        yield made


def test_an_answer_is_what_it_is_asked_as(client: Client) -> None:
    assert client.get(Health, "/health/live").status == "live"
    assert client.get(dict[str, Any], "/health/live") == {"status": "live"}
    assert client.get(Version, "/version").api == "v1"


def test_a_problem_is_an_error_with_its_code_and_hint(client: Client) -> None:
    with pytest.raises(ServerRefused) as caught:
        client.get(Health, "/nothing")
    assert (caught.value.status, caught.value.code) == (404, "not-found")
    with pytest.raises(ServerRefused) as caught:
        client.post(dict[str, Any], "/users", {"name": "x", "surprise": 1})
    assert (caught.value.status, caught.value.code) == (422, "invalid")
    assert "surprise" in {place.rpartition("/")[2] for place, _ in caught.value.fields}


def test_who_is_not_known_is_refused_with_a_hint(api: TestClient) -> None:
    with Client(URL, token="wrong", transport=api._transport) as stranger, pytest.raises(ServerRefused) as caught:
        stranger.get(Version, "/version")
    assert (caught.value.status, caught.value.code) == (401, "not-signed-in")
    assert "token" in caught.value.hint


def test_an_answer_of_another_kind_is_a_refusal_and_not_a_traceback(client: Client) -> None:
    with pytest.raises(ServerRefused, match="not understood") as caught:
        client.get(Version, "/health/live")
    assert caught.value.code == "not-understood"


def test_a_server_that_is_not_there_is_away() -> None:
    with Client("https://127.0.0.1:1") as client, pytest.raises(ServerAway, match=r"127\.0\.0\.1:1 does not answer"):
        client.get(Health, "/health/live")


def test_a_list_is_read_page_after_page(site: ApiSite) -> None:
    asked: list[tuple[str | None, int]] = []

    def things(limit: int, cursor: str | None = None) -> Page[int]:
        asked.append((cursor, limit))
        start = int(cursor or 0)
        items = list(range(start, min(start + limit, 7)))
        return Page(items=items, next=str(start + limit) if start + limit < 7 else None)

    with client_of(known(site, probe(site, things))) as client:
        assert list(client.items(int, "/probe/things", limit=3)) == list(range(7))
    assert asked == [(None, 3), ("3", 3), ("6", 3)]


def test_keys_and_conditions_are_headers(site: ApiSite) -> None:
    seen: list[dict[str, str]] = []

    def take(request: Request) -> dict[str, str]:
        seen.append(dict(request.headers))
        return {}

    with client_of(known(site, probe(site, take, method="POST"))) as client:
        key = client.new_key()
        client.post(dict[str, str], "/probe/take", {"a": 1}, key=key)
        client.call("POST", "/probe/take", etag='"3"')
    assert seen[0]["idempotency-key"] == key
    assert "if-match" not in seen[0]
    assert seen[1]["if-match"] == '"3"'


def test_parameters_that_say_nothing_are_left_out() -> None:
    assert query({"a": None, "b": "", "c": 0, "d": [1, 2], "from_": "x"}) == {"c": 0, "d": [1, 2], "from": "x"}


def stream(parts: list[bytes]) -> Callable[[], StreamingResponse]:
    """A route that streams the next of these, ended by an empty one."""
    left = list(parts)

    def route() -> StreamingResponse:
        said = [left.pop(0)] if left else []
        return StreamingResponse(iter(said), media_type="text/event-stream")

    return route


def app_with(site: ApiSite, route: Callable[..., Any]) -> FastAPI:
    app = probe(site)
    app.add_api_route(f"{PREFIX}/probe/events", route)
    return app


def test_events_go_on_where_they_broke_off(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "AGAIN", 0.0)
    after: list[str | None] = []
    left = [
        b"id: 1\nevent: state\ndata: 1\n\nid: 2\nevent: st",
        b'id: 3\nevent: state\ndata: {"a":\ndata: 2}\n\nevent: end\ndata: {}\n\n',
    ]

    def events(request: Request) -> StreamingResponse:
        after.append(request.headers.get("last-event-id"))
        return StreamingResponse(iter([left.pop(0)]), media_type="text/event-stream")

    with client_of(known(site, app_with(site, events))) as client:
        told = list(client.events("/probe/events"))
    assert [(event.name, event.id) for event in told] == [("state", "1"), ("state", "3"), ("end", "3")]
    assert told[1].value(dict[str, int]) == {"a": 2}
    assert after == [None, "2"]


def test_events_that_break_off_again_and_again_are_given_up(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "AGAIN", 0.0)
    with client_of(known(site, app_with(site, stream([])))) as client, pytest.raises(ServerAway, match="broke off"):
        list(client.events("/probe/events"))


def test_events_that_are_refused_are_not_asked_for_again(client: Client) -> None:
    with pytest.raises(ServerRefused) as caught:
        list(client.events("/tasks/none/events"))
    assert caught.value.status == 404


def test_an_event_is_its_lines() -> None:
    lines = EventLines()
    assert not [*lines.line(": comment"), *lines.line("retry: 3000"), *lines.line("")]
    events = [event for line in ("event:x", "data: a", "data:b", "id: 9", "") for event in lines.line(line)]
    assert [(event.name, event.data, event.id) for event in events] == [("x", "a\nb", "9")]


def test_a_download_is_there_whole_or_not_at_all(site: ApiSite, tmp_path: Path) -> None:
    def whole() -> StreamingResponse:
        return StreamingResponse(iter([b"x" * 70_000, b"y"]), media_type="application/octet-stream")

    with client_of(known(site, probe(site, whole))) as client:
        assert client.download("/probe/whole", tmp_path / "file") == 70_001
        with pytest.raises(FileExistsError):
            client.download("/probe/whole", tmp_path / "file")
        with pytest.raises(ServerRefused):
            client.download("/probe/nothing", tmp_path / "other")
    assert (tmp_path / "file").read_bytes() == b"x" * 70_000 + b"y"
    assert not list(tmp_path.glob(".file*"))
    assert not (tmp_path / "other").exists()


class BreaksOff(httpx.SyncByteStream):
    """The other end hangs up in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"x" * 70_000
        raise httpx.ReadError("hung up")


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=BreaksOff()))
    with Client(URL, transport=transport) as client, pytest.raises(ServerAway, match="hung up"):
        client.download("/probe/whole", tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_the_console_asks_in_its_own_process(app: FastAPI, api_as: Callable[..., TestClient]) -> None:
    token = api_as(Role.ADMINISTRATOR).headers["Authorization"].removeprefix("Bearer ")

    async def ask() -> Version:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient(URL, token=token, transport=transport) as client:
            with pytest.raises(ServerRefused):
                await client.get(Version, "/nothing", background=True)
            return await client.get(Version, "/version")

    assert anyio.run(ask).api == "v1"
