"""Who passes to the routes."""

import threading
from collections.abc import Callable
from typing import Annotated

import pytest
from starlette.testclient import TestClient

from api.auth.roles import Caller, Permission, Role
from api.deps import requires
from tests.unit.api.api_site import ApiSite
from tests.unit.api.probe_app import known, probe

pytestmark = pytest.mark.slow


def forgot() -> str:
    return "secret"


def view(caller: Annotated[Caller, requires(Permission.VIEW)]) -> str:
    return caller.name


def test_a_route_that_asks_for_no_permission_is_closed_to_strangers(site: ApiSite, stranger: TestClient) -> None:
    app = probe(site, forgot)
    assert known(site, app).get("/api/v1/probe/forgot").json() == "secret"
    assert TestClient(app, base_url="https://testserver").get("/api/v1/probe/forgot").status_code == 401


def test_a_caller_without_the_permission_is_told_which_one(site: ApiSite) -> None:
    app = probe(site, view)
    assert known(site, app, Role.AUDITOR, name="ann").get("/api/v1/probe/view").json() == "ann"
    refused = known(site, app, Permission.BACK_UP).get("/api/v1/probe/view")
    assert (refused.status_code, refused.json()["code"]) == (403, "not-allowed")
    assert "view" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1//health/live", "/api/v1/health/live/"])
def test_paths_that_look_like_public_ones_are_not(stranger: TestClient, path: str) -> None:
    assert stranger.get(path, follow_redirects=False).status_code == 401


def test_a_token_that_is_none_is_refused(api_as: Callable[..., TestClient]) -> None:
    client = api_as(Role.ADMINISTRATOR)
    for word in ("Bearer x", "Basic YTpi", "Bearer", ""):
        assert client.get("/api/v1/nothing", headers={"Authorization": word}).status_code == 401


def test_a_caller_with_too_many_requests_at_once_is_told_to_wait(site: ApiSite) -> None:
    entered, leave = threading.Event(), threading.Event()

    def waits() -> str:
        entered.set()
        leave.wait(30)
        return "done"

    app = probe(site, waits, forgot, requests=1)
    client = known(site, app)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.get("/api/v1/probe/waits").status_code))
    thread.start()
    try:
        assert entered.wait(30)
        refused = client.get("/api/v1/probe/forgot")
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many")
        assert refused.headers["retry-after"] == "1"
    finally:
        leave.set()
        thread.join(30)
    assert answers == [200]
    assert client.get("/api/v1/probe/forgot").status_code == 200
