"""Puts the console on the application, under ``visit.PREFIX``."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from nicegui import app as console
from nicegui import ui
from starlette.responses import RedirectResponse, Response

from api.schemas.access import Session
from api.ui import visit as visits
from api.ui.frame import Page, frame, refused_page
from api.ui.guard import ASSETS, Guard, bind_sockets, turned_away
from api.ui.pages import NOT_FOUND, PAGES
from api.ui.parts.problems import incident, problem
from api.ui.visit import PREFIX, Outside, Visit
from api.ui.words import Clock
from proxy.errors import ServerRefused

_LOG = logging.getLogger(__name__)

RECONNECT_SECONDS = 20.0
"""For which a page is kept whose browser is gone: longer than a change of networks takes, shorter than memory fills."""

MESSAGES = 200
"""Kept for a browser that comes back; one that missed more loads its page anew."""

BUILD_SECONDS = 60.0
"""In which a page must have asked the API for what it shows, on a machine that copies disks meanwhile."""


def mount(app: FastAPI) -> None:
    """Serve the console with this application and ask its API. NiceGUI is one application a process: mounting it again moves
    it to the new one."""
    first = Outside.app is None
    Outside.app = app
    app.add_api_route("/", _to_console, include_in_schema=False)
    app.add_api_route(PREFIX, _to_console, include_in_schema=False)
    if not first:
        app.mount(PREFIX, console)
        return
    console.add_static_files("/assets", ASSETS)
    for page in (*PAGES, NOT_FOUND):
        _add(page)
    console.config.socket_io_js_transports = ["websocket"]
    ui.add_head_html(f'<script src="{PREFIX}/assets/console.js"></script>', shared=True)
    ui.add_head_html(f'<link rel="stylesheet" href="{PREFIX}/assets/console.css">', shared=True)
    ui.run_with(
        app,
        mount_path=PREFIX,
        title="Lanfree",
        favicon=(ASSETS / "mark.svg").read_text(),  # in the page: nothing to ask for
        language="en-US",
        tailwind=False,  # it would be a compiler in each browser; the console has its own style sheet
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_SECONDS,
        message_history_length=MESSAGES,
        show_welcome_message=False,
    )
    bind_sockets()
    console.add_middleware(Guard)  # last: outermost


def _to_console() -> RedirectResponse:
    return RedirectResponse(f"{PREFIX}/")


def _add(page: Page) -> None:
    async def show(request: Request) -> Response | None:
        client = ui.context.client
        try:
            visit = await visit_of(request)
        except ServerRefused as refused:
            client.delete()
            return turned_away(request, refused)  # it was not so yet when the guard asked
        await _draw(page, visit, request)
        return None

    ui.page(page.path, title=f"{page.title} - Lanfree", response_timeout=BUILD_SECONDS)(show)


async def _draw(page: Page, visit: Visit, request: Request) -> None:
    with frame(visit, PAGES, page) as content:
        client = ui.context.client
        if not visit.may(page.permission):
            client.status_code = HTTPStatus.FORBIDDEN
            refused_page(page.title, page.permission)
            return
        try:
            await page.build(visit, **request.path_params)
        except ServerRefused as refused:
            client.status_code = refused.status
            content.clear()  # a page that is half there would say what is not so
            problem(refused, page.title)
        except Exception:  # noqa: BLE001  # the frame stands, and says in people's words that the log has the rest
            _LOG.exception("page %s cannot be drawn", page.path, extra={"event": "console-page-failed"})
            client.status_code = HTTPStatus.INTERNAL_SERVER_ERROR
            content.clear()
            incident(page.title)


async def visit_of(request: Request) -> Visit:
    """Whoever asked for a page. Raises ``ServerRefused``."""
    api = visits.client_for(request)
    ui.context.client.on_delete(api.close)
    session = await api.get(Session, "/session")
    csrf = session.csrf or ""
    api.use_csrf(csrf)
    shade = request.cookies.get(visits.SHADE_COOKIE, "")
    return Visit(
        api=api,
        name=session.name,
        permissions=frozenset(session.permissions),
        csrf=csrf,
        clock=Clock(visits.zone_of(request)),
        dark=shade == "dark",
        theme=request.cookies.get(visits.THEME_COOKIE, "auto"),
        path=request.url.path,
        query=dict(request.query_params),
    )
