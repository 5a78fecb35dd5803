"""The layers around the routes, with routes of a test's own behind them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.asgi import PREFIX
from api.routes import health
from api.settings import WebSettings
from appliance.web.desk import desk_of
from tests.unit.api.api_site import ApiSite, Callers

PLAIN = WebSettings(console=False)


def probe(site: ApiSite, *routes: Callable[..., Any], method: str = "GET", **settings: Any) -> FastAPI:
    """An application on the site with these routes, each below ``/api/v1/probe/`` by its name."""
    app = create_app(desk_of(site.services), replace(PLAIN, **settings), [health.router])
    for route in routes:
        app.add_api_route(f"{PREFIX}/probe/{route.__name__}", route, methods=[method])
    return app


def known(site: ApiSite, app: FastAPI, *may: Any, **more: Any) -> TestClient:
    """Somebody who may call it."""
    return Callers(app, site.services).client(*may, **more)
