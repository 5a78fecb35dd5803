"""The application: routes, problems, limits, in one place."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from api import errors, openapi
from api.asgi import PREFIX
from api.at_once import AtOnce
from api.auth import pages
from api.desk import Desk
from api.gate import Gate
from api.headers import SecurityHeaders
from api.idempotency import Once
from api.latencies import Latencies, Timed
from api.limits import Bodies, Hosts, Numbered, Readers
from api.routes import (
    approvals,
    audit,
    events,
    files,
    health,
    hypervisors,
    insight,
    job_runs,
    jobs,
    machines,
    metrics,
    mounts,
    points,
    repositories,
    restores,
    session,
    setup,
    system,
    tasks,
    tokens,
    users,
    work,
)
from api.settings import WebSettings

ROUTERS = (
    health.router,
    metrics.router,
    events.router,
    system.router,
    files.router,
    hypervisors.router,
    machines.router,
    points.router,
    mounts.router,
    jobs.router,
    job_runs.router,
    insight.router,
    tasks.router,
    work.router,
    restores.router,
    repositories.router,
    setup.router,
    session.router,
    users.router,
    tokens.router,
    approvals.router,
    audit.router,
)
"""Of all resources, in the order in which the document lists them."""

PUBLIC = frozenset(
    {
        ("GET", f"{PREFIX}/health/live"),
        ("GET", f"{PREFIX}/health/ready"),
        ("GET", f"{PREFIX}/openapi.json"),
        ("GET", f"{PREFIX}/setup"),
        ("POST", f"{PREFIX}/setup"),
        ("POST", f"{PREFIX}/session"),
    }
)
"""Routes that anybody may ask: method and path."""

THREADS = 128
"""Requests that are answered at once. Some wait for a hypervisor or a volume all the while: with as few as there are by default
(40), two callers with as many of these as each may have would keep everybody else waiting."""

SECRET = frozenset({f"{PREFIX}/tokens"})
"""Paths whose answers to a POST hold a secret, which is shown once."""


def create_app(desk: Desk, web: WebSettings | None = None, routers: Sequence[APIRouter] = ROUTERS) -> FastAPI:
    """API and, if it is wanted, console. Nothing is connected before it is asked for. ``routers``: of the API."""
    web = web or WebSettings()
    app = FastAPI(
        title="Lanfree",
        version="1",
        openapi_url=None,  # ours is made in a thread, see _openapi
        lifespan=_life,
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.desk = desk
    app.state.web = web
    app.state.streams = AtOnce(web.streams, "event streams", after=10.0)
    app.state.latencies = Latencies()
    errors.install(app)
    app.add_api_route(f"{PREFIX}/openapi.json", _openapi, include_in_schema=False)
    for router in routers:
        app.include_router(router, prefix=PREFIX)  # not one in another: FastAPI would make each route twice
    app.include_router(pages.router)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]  # as FastAPI asks for it
    if web.console:
        from api.ui import mount  # noqa: PLC0415  # its library takes a second to load

        mount(app)
    _guard(app, web)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    """At the end nothing that was opened for callers stays open."""
    current_default_thread_limiter().total_tokens = THREADS
    yield
    await run_in_threadpool(app.state.desk.mounts.close)


def _guard(app: FastAPI, web: WebSettings) -> None:
    """The layers around the routes; the last one is the outermost."""
    app.add_middleware(Once, secret=SECRET)
    app.add_middleware(Bodies, most=web.body, depth=web.depth, patience=web.patience)
    app.add_middleware(Gate, public=PUBLIC, at_once=web.requests)
    app.add_middleware(Readers, patience=web.patience)
    app.add_middleware(Hosts, names=web.hosts)
    app.add_middleware(Numbered)
    app.add_middleware(Timed, latencies=app.state.latencies)
    app.add_middleware(SecurityHeaders, https=web.https)


def _openapi(request: Request) -> JSONResponse:
    """The document; to make it takes a second, in which others are answered."""
    return JSONResponse(openapi.document(request.app))


def _operation_id(route: APIRoute) -> str:
    """``machines_list``: what generated clients call their functions."""
    tag = str(route.tags[0]).replace("-", "_") if route.tags else ""
    return f"{tag}_{route.name}".strip("_")
