"""An appliance with real parts, and its API asked in this process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.auth.roles import Role
from api.settings import WebSettings
from appliance.web.desk import desk_of
from tests.unit.api.api_site import ApiSite, Callers, site_in


@pytest.fixture(scope="session")
def api_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty databases and an empty repository, to be copied: migrations take longer than most tests."""
    base = tmp_path_factory.mktemp("api-template")
    with site_in(base).services as services:
        services.make_repository()
        services.catalog.audit.head()
        with services.access.transaction(write=False) as access:
            access.users.any()
        with services.jobs.transaction(write=False) as unit:
            list(unit.jobs.list())
    return base


@pytest.fixture
def site(api_template: Path, tmp_path: Path) -> Iterator[ApiSite]:
    """An appliance: ``site.services``, ``site.memory``; ``site.machine("db-1")``, ``site.point(machine)``, ``site.job()``."""
    for name in ("repository", "state"):
        shutil.copytree(api_template / name, tmp_path / name)
    made = site_in(tmp_path)
    with made.services:
        yield made


@pytest.fixture(scope="session")
def one_app(api_template: Path) -> FastAPI:
    """Made once: that takes a good part of a second, and it holds nothing but the desk."""
    return create_app(desk_of(site_in(api_template).services), WebSettings(console=False))


@pytest.fixture
def app(one_app: FastAPI, site: ApiSite) -> FastAPI:
    """The application on ``site``."""
    one_app.state.desk = desk_of(site.services)
    return one_app


@pytest.fixture
def callers(app: FastAPI, site: ApiSite) -> Callers:
    """Whoever is to ask."""
    return Callers(app, site.services)


@pytest.fixture
def api(callers: Callers) -> TestClient:
    """Signed in as administrator: ``api.get("/api/v1/machines")``."""
    return callers.client(Role.ADMINISTRATOR, name="admin")


@pytest.fixture
def api_as(callers: Callers) -> Callable[..., TestClient]:
    """``api_as(Role.RESTORE_OPERATOR, machines=("db-*",))``: roles and permissions, any number; ``api_as()`` may nothing."""
    return callers.client


@pytest.fixture
def stranger(callers: Callers) -> TestClient:
    """Nobody is signed in."""
    return callers.anybody()
