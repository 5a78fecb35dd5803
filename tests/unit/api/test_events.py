"""Streams of events."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.testclient import TestClient

from api import events
from api.asgi import PREFIX
from api.auth import sessions
from api.auth.roles import EVERY_MACHINE, Caller, Permission, Role
from api.client import Client
from api.deps import requires
from api.events import EventStream, Look, message
from catalog.access.values import User
from proxy.errors import JobNotFound
from tests.unit.api.api_site import ApiSite
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow


class Progress(BaseModel):
    done: int


class Goes:
    """Goes on by one with each look, to ``end``."""

    def __init__(self, end: int, *, same: int = 1) -> None:
        self.looks = 0
        self._end = end
        self._same = same

    def __call__(self) -> Look:
        self.looks += 1
        done = min(self._end, self.looks // self._same)
        return Look(Progress(done=done), over=done >= self._end)


def app_of(site: ApiSite, look: Callable[[], Look], **settings: Any) -> FastAPI:
    app = probe(site, **settings)

    def stream(request: Request, caller: Annotated[Caller, requires(Permission.VIEW)]) -> EventStream:
        return EventStream(request, caller, look, name="progress", interval=0.01)

    app.add_api_route(f"{PREFIX}/probe/stream", stream, response_class=EventStream)
    return app


STREAM = f"{PREFIX}/probe/stream"


def parts(text: str) -> list[dict[str, str]]:
    """Events as they came, comments and retry left out."""
    made = [dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":") for block in text.split("\n\n")]
    return [one for one in made if "event" in one]


def test_a_stream_tells_each_state_once_and_ends_with_what_it_tells_of(site: ApiSite) -> None:
    client = known(site, app_of(site, Goes(3, same=3)), Permission.VIEW)
    answer = client.get(STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    said = parts(answer.text)
    assert [one["data"] for one in said if one["event"] == "progress"] == [f'{{"done":{n}}}' for n in (0, 1, 2, 3)]
    assert said[-1]["event"] == "end"
    assert answer.text.startswith("retry: 3000\n\n")


def test_who_comes_again_is_not_told_what_they_know(site: ApiSite) -> None:
    client = known(site, app_of(site, Goes(1)), Permission.VIEW)
    first = parts(client.get(STREAM).text)
    again = parts(client.get(STREAM, headers={"Last-Event-ID": first[0]["id"]}).text)
    assert [one["event"] for one in first] == ["progress", "end"]
    assert [one["event"] for one in again] == ["end"]


def test_what_is_not_there_is_no_stream(site: ApiSite) -> None:
    def gone() -> Look:
        raise JobNotFound("x")

    answer = known(site, app_of(site, gone), Permission.VIEW).get(STREAM)
    assert (answer.status_code, answer.json()["code"]) == (404, "job-not-found")


def test_what_goes_wrong_later_is_the_last_event(site: ApiSite) -> None:
    goes = Goes(5)

    def look() -> Look:
        if goes.looks == 2:
            raise JobNotFound("x")
        return goes()

    said = parts(known(site, app_of(site, look), Permission.VIEW).get(STREAM).text)
    assert [one["event"] for one in said] == ["progress", "progress", "problem"]
    assert '"code":"job-not-found"' in said[-1]["data"]


def test_a_stream_ends_with_the_session_of_who_reads(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECHECK", 0.0)
    goes = Goes(10**9)

    def look() -> Look:
        if goes.looks == 3:
            with site.services.access.transaction() as unit:
                unit.users.remove("ann")
        return goes()

    said = parts(known(site, app_of(site, look), Permission.VIEW, name="ann").get(STREAM).text)
    assert said[-1]["event"] == "problem"
    assert '"code":"not-signed-in"' in said[-1]["data"]


def test_streams_end_with_the_process(site: ApiSite) -> None:
    ending = threading.Event()
    goes = Goes(10**9)

    def look() -> Look:
        if goes.looks == 2:
            ending.set()
        return goes()

    answer = known(site, app_of(site, look, ending=ending), Permission.VIEW).get(STREAM)
    assert [one["event"] for one in parts(answer.text)] == ["progress"] * 3


def test_a_quiet_stream_says_that_it_is_there(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.0)
    client = known(site, app_of(site, Goes(1, same=4)), Permission.VIEW)
    assert ": still here\n\n" in client.get(STREAM).text


def test_a_caller_has_so_many_streams(site: ApiSite) -> None:
    entered, leave = threading.Event(), threading.Event()

    def look() -> Look:
        entered.set()
        leave.wait(30)
        return Look(Progress(done=1), over=True)

    app = app_of(site, look, streams=1)
    client = known(site, app, Permission.VIEW)
    thread = threading.Thread(target=client.get, args=(STREAM,))
    thread.start()
    try:
        assert entered.wait(30)
        refused = client.get(STREAM)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many")
    finally:
        leave.set()
        thread.join(30)
    assert client.get(STREAM).status_code == 200
    assert app.state.streams.all() == 0


def test_a_reader_who_leaves_is_noticed_at_once(site: ApiSite) -> None:
    app = probe(site)
    goes = Goes(10**9)

    async def run() -> list[str]:
        sent: list[str] = []
        came = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await came.wait()
            return {"type": "http.disconnect"}

        async def send(part: Any) -> None:
            sent.append(part["type"])
            if len(sent) == 3:
                came.set()

        scope = {"type": "http", "app": app, "headers": [], "method": "GET", "path": "/"}
        stream = EventStream(Request(scope), Caller("ann", frozenset()), goes, interval=0.01)
        await asyncio.wait_for(stream(scope, receive, send), 20)
        return sent

    assert asyncio.run(run())[0] == "http.response.start"
    assert app.state.streams.all() == 0
    assert goes.looks < 1000


def test_a_session_that_nobody_uses_ends_though_a_stream_is_open(
    site: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "RECHECK", 0.0)
    begun = datetime(2026, 11, 23, 8, tzinfo=UTC)
    goes = Goes(10**9)

    def now() -> datetime:
        return begun + goes.looks * timedelta(minutes=10)

    app = app_of(site, goes)
    access = replace(app.state.desk.access, now=now)
    app.state.desk = replace(app.state.desk, access=access)
    with access.store.transaction() as unit:
        unit.users.add(User("ann", "Ann", None, (Role.AUDITOR.value,), EVERY_MACHINE, begun))
    cookie = sessions.begin(access, "ann").cookie
    browser = TestClient(app, base_url="https://testserver", headers={"Cookie": f"{sessions.COOKIE}={cookie}"})
    said = parts(browser.get(STREAM).text)
    assert '"code":"not-signed-in"' in said[-1]["data"]
    assert goes.looks == 7, "an hour, though it was asked again each time whether they may read on"


@pytest.mark.parametrize("name", ["a\u2028b\u2029c\x85d", "a\\nb\nc", "\U0001f427"])
def test_whatever_a_name_holds_its_event_comes_whole(site: ApiSite, name: str) -> None:
    class Named(BaseModel):
        name: str

    test = known(site, app_of(site, lambda: Look(Named(name=name), over=True)), Permission.VIEW)
    token = test.headers["Authorization"].removeprefix("Bearer ")
    with Client("https://testserver", token=token, transport=test._transport) as client:
        first, _ = client.events("/probe/stream")
    assert first.value(Named).name == name


def test_data_of_several_lines_stays_one_event() -> None:
    assert message("x", "a\nb", "7") == b"id: 7\nevent: x\ndata: a\ndata: b\n\n"


def test_a_stream_needs_its_permission(site: ApiSite) -> None:
    client: TestClient = known(site, app_of(site, Goes(1)))
    assert client.get(STREAM).status_code == 403
