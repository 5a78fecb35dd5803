"""Every route of the API asks who it is, and whether they may."""

from fastapi import FastAPI

from api.app import PUBLIC
from api.asgi import PREFIX
from api.deps import needs_caller, permission_of
from api.openapi import operations

SIGNED_IN = frozenset(
    {
        ("GET", "/session"),
        ("DELETE", "/session"),
        ("PUT", "/users/{name}/password"),
        ("DELETE", "/users/{name}/sessions"),
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("GET", "/tokens/{id}"),
        ("DELETE", "/tokens/{id}"),
    }
)
"""What everybody may do who is signed in: they concern whoever asks, and look themselves whom else."""


WAYS_IN = frozenset(
    {
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/logout"),
        ("POST", "/logout"),
        ("GET", "/setup"),
        ("POST", "/setup"),
        ("GET", "/oidc/login"),
        ("GET", "/oidc/callback"),
        ("GET", "/access/{name}"),
    }
)
"""All that there is outside of the API and the console: who is not signed in yet needs it."""


def test_outside_of_the_api_only_the_ways_in_are_open(app: FastAPI) -> None:
    assert {(method, path) for method, path, _ in operations(app) if not path.startswith(f"{PREFIX}/")} == WAYS_IN


def test_every_route_names_its_permission_or_is_known_to_need_none(app: FastAPI) -> None:
    for method, path, route in operations(app):
        if not path.startswith(PREFIX) or (method, path) in PUBLIC:
            continue
        assert needs_caller(route), f"{method} {path} does not ask who it is"
        without = (method, path.removeprefix(PREFIX)) in SIGNED_IN
        assert (permission_of(route) is None) == without, f"{method} {path}"
