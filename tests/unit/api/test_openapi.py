"""Every operation of the API, as its own document lists them: what it says of itself, and whom it lets in."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import PUBLIC
from api.asgi import PREFIX
from api.openapi import TAGS, operations

pytestmark = pytest.mark.slow

METHODS = ("get", "put", "post", "delete", "patch")


def listed(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and what is said of each operation, in the order of the document."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def filled(path: str) -> str:
    """With something in place of its parameters."""
    return re.sub(r"\{[^}]+\}", "1", path)


def references(said: Any) -> Iterator[str]:
    """All that a document refers to."""
    if isinstance(said, dict):
        for name, value in said.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(said, list):
        for value in said:
            yield from references(value)


@pytest.fixture
def document(stranger: TestClient) -> dict[str, Any]:
    answer = stranger.get(f"{PREFIX}/openapi.json")
    assert answer.status_code == 200
    said: dict[str, Any] = answer.json()
    return said


def test_everything_that_is_offered_is_in_the_document(app: FastAPI, document: dict[str, Any]) -> None:
    said = {(method, path) for method, path, _ in listed(document)}
    offered = {(method, path) for method, path, _ in operations(app) if path.startswith(PREFIX)}
    offered.remove(("GET", f"{PREFIX}/openapi.json"))
    assert offered <= said
    assert len(said) > 10


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    names: list[str] = []
    for method, path, said in listed(document):
        where = f"{method} {path}"
        assert len(said.get("summary", "")) > 5, where
        assert len(said["tags"]) == 1, where
        assert said["tags"][0] in TAGS, where
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", said["operationId"]), where
        names.append(said["operationId"])
    assert len(names) == len(set(names))


def test_every_operation_declares_its_answers(document: dict[str, Any]) -> None:
    for method, path, said in listed(document):
        where = f"{method} {path}"
        good = [status for status in said["responses"] if status.startswith(("2", "3"))]
        assert good, where
        for status, answer in said["responses"].items():
            if (method, path, status) == ("GET", f"{PREFIX}/health/ready", "503"):
                assert list(answer["content"]) == ["application/json"]
            elif status == "default" or status[0] in "45":
                assert list(answer["content"]) == ["application/problem+json"], where
            elif status not in ("204", "205") and not status.startswith("3"):
                assert answer["content"], where
                for kind, body in answer["content"].items():
                    assert kind != "application/json" or body["schema"], f"{where}: {status} says nothing of its body"


def test_every_operation_says_who_may_ask(document: dict[str, Any]) -> None:
    for method, path, said in listed(document):
        known = {name for scheme in said["security"] for name in scheme}
        assert known == (set() if (method, path) in PUBLIC else {"token", "session"}), f"{method} {path}"


def test_the_document_holds_all_that_it_refers_to(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    missing = {ref for ref in references(document) if ref.removeprefix("#/components/schemas/") not in schemas}
    assert not missing


def test_moments_that_no_zone_or_calendar_has_are_refused(document: dict[str, Any], api: TestClient) -> None:
    asked = 0
    for method, path, said in listed(document):
        for name in (each["name"] for each in said.get("parameters", ()) if "date-time" in str(each["schema"])):
            for moment in ("2026-11-23T08:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
                answer = api.request(method, filled(path), params={name: moment})
                assert answer.status_code == 422, f"{method} {path}?{name}={moment}"
                assert name in {slip["pointer"] for slip in answer.json()["errors"]}
                asked += 1
    assert asked > 30


def test_no_operation_answers_a_stranger(app: FastAPI, document: dict[str, Any], stranger: TestClient) -> None:
    assert app is stranger.app
    for method, path, _ in listed(document):
        if (method, path) not in PUBLIC:
            answer = stranger.request(method, filled(path))
            assert (answer.status_code, answer.json()["code"]) == (401, "not-signed-in"), f"{method} {path}"


def test_no_operation_answers_a_caller_without_its_permission(
    document: dict[str, Any], api_as: Callable[..., TestClient]
) -> None:
    nobody = api_as()
    for method, path, said in listed(document):
        if "x-permission" in said:
            answer = nobody.request(method, filled(path))
            assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed"), f"{method} {path}"
            assert said["x-permission"] in answer.json()["detail"]
