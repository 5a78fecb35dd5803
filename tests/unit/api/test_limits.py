"""What one request may take: bodies, names, numbers, and what is said of what nobody expected."""

import json
import logging
from typing import Annotated, Any

import pytest
from fastapi import Body
from starlette.testclient import TestClient

from api.limits import deeper, has_half_letters
from tests.unit.api.api_site import ApiSite, Callers
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow


def echo(said: Annotated[Any, Body()]) -> dict[str, Any]:
    return {"length": len(json.dumps(said))}


def fails() -> None:
    raise RuntimeError("the password is swordfish")


def test_a_body_of_the_largest_size_passes_and_one_byte_more_does_not(site: ApiSite) -> None:
    client = known(site, probe(site, echo, method="POST", body=1000))
    assert client.post("/api/v1/probe/echo", json="x" * 998).json() == {"length": 1000}
    refused = client.post("/api/v1/probe/echo", json="x" * 999)
    assert (refused.status_code, refused.json()["code"]) == (413, "too-large")
    assert refused.headers["connection"] == "close"


def test_a_body_that_does_not_say_its_size_is_counted(site: ApiSite) -> None:
    client = known(site, probe(site, echo, method="POST", body=1000))
    parts = (b'"', b"x" * 600, b"x" * 600, b'"')
    answer = client.post("/api/v1/probe/echo", content=iter(parts), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_json_that_is_nested_too_deep_is_refused_before_it_is_parsed(site: ApiSite) -> None:
    client = known(site, probe(site, echo, method="POST", depth=8))
    assert client.post("/api/v1/probe/echo", content=b"[" * 8 + b"]" * 8, headers=JSON).status_code == 200
    refused = client.post("/api/v1/probe/echo", content=b"[" * 100_000 + b"]" * 100_000, headers=JSON)
    assert (refused.status_code, refused.json()["code"]) == (422, "configuration")


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "is_deep"),
    [
        (b"[[[]]]", False),
        (b"[[[[]]]]", True),
        (b'{"a":{"b":{"c":{}}}}', True),
        (b'"[[[[[[["', False),
        (b'"\\"[[[[[[["', False),
        (b'["\\\\",[[[]]]]', True),
        (b"[],[],[],[],[]", False),
        (b'"' + b"\\" * 200_000, False),
    ],
)
def test_depth_is_that_of_brackets_outside_of_strings(body: bytes, is_deep: bool) -> None:
    assert deeper(body, 3) is is_deep


def test_what_nobody_expected_is_a_problem_without_its_words_and_a_line_in_the_log(
    site: ApiSite, caplog: pytest.LogCaptureFixture
) -> None:
    client = known(site, probe(site, fails))
    with caplog.at_level(logging.ERROR):
        answer = client.get("/api/v1/probe/fails")
    said = answer.json()
    assert (answer.status_code, said["code"]) == (500, "internal")
    assert "swordfish" not in answer.text
    assert said["instance"] in caplog.text
    assert "swordfish" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("backup.example", 200),
        ("BACKUP.example:9728", 200),
        ("a.proxy.example", 200),
        ("[::1]:9728", 200),
        ("proxy.example", 421),
        ("backup.example.evil.test", 421),
        ("evil.test", 421),
        ("", 421),
    ],
)
def test_only_names_of_the_appliance_are_answered(site: ApiSite, host: str, status: int) -> None:
    app = probe(site, hosts=("backup.example", "*.proxy.example", "::1"))
    client = Callers(app, site.services).anybody()
    assert client.get("/api/v1/health/live", headers={"Host": host}).status_code == status


def test_every_answer_carries_what_protects_browsers(site: ApiSite) -> None:
    client = Callers(probe(site), site.services).anybody()
    for path in ("/api/v1/health/live", "/api/v1/nothing", "/nothing"):
        said = client.get(path).headers
        assert said["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert said["cache-control"] == "no-store"
        assert said["strict-transport-security"] == "max-age=31536000"
        assert (said["x-frame-options"], said["referrer-policy"]) == ("DENY", "same-origin")
    plain = Callers(probe(site, https=False), site.services).anybody()
    assert "strict-transport-security" not in plain.get("/api/v1/health/live").headers


def test_a_stranger_gets_nothing_parsed(site: ApiSite) -> None:
    app = probe(site, echo, method="POST", body=1000)
    stranger = Callers(app, site.services).anybody()
    for content in (b"{", b"[" * 900, b"x" * 5000):
        answer = stranger.post("/api/v1/probe/echo", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (401, "not-signed-in")


@pytest.mark.parametrize(
    ("body", "half"),
    [
        (rb'"\ud83d\ude00"', False),
        (rb'"\ud83d"', True),
        (rb'"\ude00\ud83d"', True),
        (rb'"\uD83D\uD83D\uDE00"', True),
        (rb'"\\ud83d"', False),
        (rb'"\\\ud83d"', True),
        (rb'"\ud83dx\ude00"', True),
        (rb'"\u00e4 ud83d"', False),
        (b"", False),
    ],
)
def test_halves_of_letters_are_known(body: bytes, half: bool) -> None:
    assert has_half_letters(body) is half


def test_what_no_answer_could_repeat_is_refused(api: TestClient) -> None:
    body = rb'{"policy": {"description": "\ud800"}}'
    answer = api.post("/api/v1/jobs/preview", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "halves of letters" in answer.json()["detail"]
