"""What becomes of errors on their way out."""

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

import api.refusals
import proxy.errors
from api.errors import STATUS, status_of
from proxy.errors import LanfreeError


def kinds(root: type[LanfreeError] = LanfreeError) -> Iterator[type[LanfreeError]]:
    """All classes of the tree, in the order in which they stand there."""
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds() if kind.__module__ in (proxy.errors.__name__, api.refusals.__name__)]
)
def test_every_error_has_a_status_that_somebody_chose(kind: type[LanfreeError]) -> None:
    assert any(base in STATUS for base in kind.__mro__)
    assert 400 <= status_of(kind) < 600


def test_who_is_not_known_is_told_so_as_a_problem(stranger: TestClient) -> None:
    answer = stranger.get("/api/v1/nothing-here")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "not-signed-in"


def test_what_is_not_there_is_a_problem_too(api: TestClient) -> None:
    answer = api.get("/api/v1/nothing-here")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    wrong = api.delete("/api/v1/health/live")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method-not-allowed", "GET")


def test_the_process_says_that_it_lives(api_as: Callable[..., TestClient]) -> None:
    answer = api_as().get("/api/v1/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})
