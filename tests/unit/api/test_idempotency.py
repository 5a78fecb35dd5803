"""Requests that are sent again."""

import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from starlette.responses import Response
from starlette.testclient import TestClient

from api import idempotency
from api.refusals import Conflict
from appliance.web import idempotency as kept
from proxy.errors import DatabaseAway
from tests.unit.api.api_site import ApiSite
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow

BEGIN = "/api/v1/probe/begin"
ONE = {"Idempotency-Key": "one"}


class Begun:
    """Counts how often something was begun."""

    def __init__(self, status: int = 202) -> None:
        self.times = 0
        self.status = status

    def app(self, site: ApiSite, **settings: Any) -> FastAPI:
        def begin(response: Response, what: Annotated[Any, Body()] = None) -> dict[str, Any]:
            self.times += 1
            if self.status == 409:
                raise Conflict("not now")
            response.status_code = self.status
            response.headers["Location"] = f"/api/v1/tasks/{self.times}"
            return {"run": self.times, "what": what}

        return probe(site, begin, method="POST", **settings)


def test_the_same_key_and_body_begin_once_and_have_one_answer(site: ApiSite) -> None:
    begun = Begun()
    client = known(site, begun.app(site))
    first, again = (client.post(BEGIN, json={"a": 1}, headers=ONE) for _ in range(2))
    assert begun.times == 1
    assert (first.status_code, first.json()["run"]) == (202, 1)
    assert (again.status_code, again.content, again.headers["location"]) == (
        202,
        first.content,
        first.headers["location"],
    )
    assert again.headers["idempotency-replayed"] == "true"
    assert client.post(BEGIN, json={"a": 1}, headers={"Idempotency-Key": "two"}).json()["run"] == 2
    assert client.post(BEGIN, json={"a": 1}).json()["run"] == 3


def test_a_key_belongs_to_one_request(site: ApiSite) -> None:
    begun = Begun()
    client = known(site, begun.app(site))
    assert client.post(BEGIN, json=1, headers=ONE).status_code == 202
    for url, body in ((BEGIN, 2), (f"{BEGIN}?x=1", 1)):
        refused = client.post(url, json=body, headers=ONE)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    assert begun.times == 1


def test_a_key_belongs_to_its_caller(site: ApiSite) -> None:
    begun = Begun()
    app = begun.app(site)
    one, two = known(site, app, name="one"), known(site, app, name="other")
    assert one.post(BEGIN, json=1, headers=ONE).json()["run"] == 1
    assert two.post(BEGIN, json=1, headers=ONE).json()["run"] == 1 + 1


def test_what_was_refused_may_be_sent_again_with_its_key(site: ApiSite) -> None:
    begun = Begun(409)
    client = known(site, begun.app(site))
    assert client.post(BEGIN, json=1, headers=ONE).status_code == 409
    begun.status = 202
    assert client.post(BEGIN, json=1, headers=ONE).status_code == 202
    assert begun.times == 2


def test_a_request_that_is_under_way_is_not_begun_again(site: ApiSite) -> None:
    entered, leave = threading.Event(), threading.Event()

    def begin() -> str:
        entered.set()
        leave.wait(30)
        return "done"

    app = probe(site, begin, method="POST")
    client = known(site, app)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.post(BEGIN, headers=ONE).status_code))
    thread.start()
    try:
        assert entered.wait(30)
        refused = client.post(BEGIN, headers=ONE)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency-key-in-use")
    finally:
        leave.set()
        thread.join(30)
    assert answers == [200]
    assert client.post(BEGIN, headers=ONE).headers["idempotency-replayed"] == "true"


def test_an_answer_with_a_secret_is_not_kept(site: ApiSite) -> None:
    begun = Begun(201)
    app = begun.app(site)
    once = idempotency.Once
    app.user_middleware = [
        type(layer)(once, secret={BEGIN}) if layer.cls is once else layer for layer in app.user_middleware
    ]
    client = known(site, app)
    assert client.post(BEGIN, json=1, headers=ONE).json()["what"] == 1
    again = client.post(BEGIN, json=1, headers=ONE)
    assert (again.status_code, again.json()["code"]) == (409, "answer-not-kept")
    assert begun.times == 1


def test_what_was_done_is_not_done_again_though_its_answer_could_not_be_kept(
    site: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Begun()
    client = known(site, begun.app(site))

    def away(*_: object) -> None:
        raise DatabaseAway("postgresql://x", "connection refused")

    with monkeypatch.context() as broken:
        broken.setattr(kept.WebIdempotency, "keep", away)
        client.post(BEGIN, json=1, headers=ONE)
    again = client.post(BEGIN, json=1, headers=ONE)
    assert (again.status_code, again.json()["code"]) == (409, "idempotency-key-in-use")
    assert begun.times == 1


def test_a_key_is_a_word(site: ApiSite) -> None:
    begun = Begun()
    client = known(site, begun.app(site))
    for key in ("", "a b", "x" * 256, "\xe4"):
        answer = client.post(BEGIN, json=1, headers={b"Idempotency-Key": key.encode("latin-1")})  # type: ignore[dict-item]
        assert answer.status_code == 422, key
    assert begun.times == 0


def test_other_methods_have_no_use_for_a_key(api_as: Callable[..., TestClient]) -> None:
    client = api_as()
    for _ in range(2):
        answer = client.get("/api/v1/health/live", headers=ONE)
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, False)


def test_one_caller_fills_no_disk_with_keys(site: ApiSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    begun = Begun()
    app = begun.app(site)
    client, other = known(site, app), known(site, app)
    codes = [client.post(BEGIN, json=1, headers={"Idempotency-Key": f"k{n}"}).status_code for n in range(3)]
    assert codes == [202, 202, 429]
    assert begun.times == 2
    assert client.post(BEGIN, json=1, headers={"Idempotency-Key": "k1"}).headers["idempotency-replayed"] == "true"
    assert other.post(BEGIN, json=1, headers={"Idempotency-Key": "k9"}).status_code == 202
