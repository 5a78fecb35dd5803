"""What stands around each page: navigation, search, what runs, what needs somebody, who is signed in, which time zone."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.overview import Overview
from api.ui.markup import Child, Markup, icon, join, tag
from api.ui.parts.blocks import note
from api.ui.parts.part import Act, Part
from api.ui.visit import PREFIX, Visit
from proxy.errors import ServerRefused

Build = Callable[..., Awaitable[None]]

GLANCE_SECONDS = 10.0
"""Between looks at what runs and whether the session still lives. More often costs the databases of many open tabs; more
seldom leaves an ended session on the screen for longer (it can fetch nothing any more, at once)."""


LEAVE_SECONDS = 3.0
"""For a browser to be told that its session is over."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: where it is, what it is called, what it needs, and the one function that draws it.

    ``path``: within the console, with parameters in braces, which ``build(visit, **parameters)`` gets as strings. ``group``:
    heading in the navigation; empty for pages that others lead to (``under``: the path of the entry that is shown as current).
    """

    path: str
    title: str
    permission: Permission
    build: Build
    group: str = ""
    sign: str = ""
    under: str = ""


@contextmanager
def frame(visit: Visit, pages: Sequence[Page], page: Page) -> Iterator[ui.element]:
    """Draw the frame; what is drawn within the context is the page's content, in the element that it gives."""
    ui.dark_mode(visit.dark)
    with (
        ui.left_drawer(value=False, top_corner=True)
        .classes("lf-nav")
        .props('width=232 breakpoint=1023 aria-label="Navigation"') as drawer
    ):
        # As wide as the window is, the browser decides. Made so from the start, NiceGUI would ask each browser what it decided,
        # and log an error for each that does not say so within a second; nothing here needs to know.
        drawer.value = None
        ui.html(_navigation(visit, pages, page), sanitize=False).style("width:100%")
    with ui.header().classes("lf-top"):
        top = _Top(visit, drawer)
    content = ui.element("div").classes("lf-page").props("tabindex=-1")
    ui.skip_link("Skip to the content", target=content)
    with content:
        yield content
    ui.timer(GLANCE_SECONDS, top.look)
    ui.timer(0.1, top.look, once=True)


def _navigation(visit: Visit, pages: Sequence[Page], current: Page) -> Markup:
    mine = [page for page in pages if page.group and visit.may(page.permission)]
    groups = list(dict.fromkeys(page.group for page in mine))
    here = current.under or current.path
    return join(
        tag("a", _MARK, "Lanfree", href=f"{PREFIX}/", cls="lf-brand"),
        tag("nav", *(_group(group, mine, here) for group in groups), aria_label="Main"),
    )


def _group(group: str, pages: Sequence[Page], here: str) -> Markup:
    entries = [
        tag(
            "li",
            tag(
                "a",
                icon(page.sign),
                page.title,
                href=PREFIX + page.path,
                aria_current="page" if page.path == here else None,
            ),
        )
        for page in pages
        if page.group == group
    ]
    return join(tag("h2", group), tag("ul", *entries))


_MARK = Markup(
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path fill="none" stroke="#4fc0cc" stroke-width="2" '
    'd="M12 2 3 6.5v11L12 22l9-4.5v-11zM3 6.5 12 11l9-4.5M12 11v11"/></svg>'
)
"""Blocks in a box: our own sign."""


class _Top:
    """The bar above. Only its figures are drawn again: what somebody types or has opened beside them stays."""

    def __init__(self, visit: Visit, drawer: ui.left_drawer) -> None:
        self._visit = visit
        self._drawer = drawer
        with ui.element("div").classes("lf-bar"):
            Part(self._act, cls="lf-within").show(_before(visit))
            self._figures = Part(cls="lf-within")
            Part(cls="lf-within").show(_menu(visit))
        self._figures.show(_counters(None))

    async def _act(self, act: Act) -> None:
        if act.act == "navigation":
            self._drawer.toggle()

    async def look(self) -> None:
        """Ask again. Whoever is not signed in any more is sent to do it."""
        try:
            overview = await self._visit.api.get(Overview, "/overview", background=True, hours=1, days=1)
        except ServerRefused as refused:
            if refused.status == 401:
                leave()
                # Whoever does not go has nothing left here: no timer of the page runs, nothing is sent any more.
                ui.timer(LEAVE_SECONDS, ui.context.client.delete, once=True)
            return
        self._figures.show(_counters(overview))


def _before(visit: Visit) -> Markup:
    return join(
        tag("button", icon("menu", "Navigation"), type="button", cls="lf-top-btn lf-narrow", data_act="navigation"),
        _search(),
        tag("span", cls="lf-gap"),
        tag("span", icon("schedule"), " ", visit.clock.name, cls="lf-zone lf-wide", title="Times are shown so"),
    )


def _counters(overview: Overview | None) -> Markup:
    running, attention = None, None
    if overview is not None:
        running, attention = len(overview.running), len(overview.attention)
    return join(
        _counter("/running", "sync", "running", running, "run"),
        _counter("/#attention", "notifications", "need attention", attention, "bad"),
    )


def _search() -> Markup:
    field = tag(
        "input",
        type="search",
        name="q",
        placeholder="Find a machine or file",
        aria_label="Find a machine or file",
        cls="lf-in",
    )
    return tag(
        "form",
        tag("span", icon("search"), field, cls="lf-search"),
        action=f"{PREFIX}/search",
        method="get",
        role="search",
    )


def _counter(path: str, sign: str, word: str, figure: int | None, tone: str) -> Markup:
    said = "…" if figure is None else str(figure)
    count = tag("span", said, cls=f"lf-count {tone if figure else ''}".strip())
    return tag(
        "a",
        icon(sign),
        count,
        tag("span", f" {word}", cls="lf-hidden"),
        href=PREFIX + path,
        cls="lf-top-btn",
        title=word,
    )


def _menu(visit: Visit) -> Markup:
    themes = [
        tag(
            "button",
            icon(sign),
            said,
            type="button",
            data_theme=name,
            aria_pressed="true" if visit.theme == name else "false",
        )
        for name, said, sign in (
            ("auto", "Shade of the system", "brightness_auto"),
            ("light", "Light", "light_mode"),
            ("dark", "Dark", "dark_mode"),
        )
    ]
    leave_form = tag(
        "form",
        tag("input", type="hidden", name="csrf", value=visit.csrf),
        tag("button", icon("logout"), "Sign out", type="submit"),
        action="/logout",
        method="post",
    )
    return tag(
        "details",
        tag(
            "summary",
            icon("account_circle"),
            tag("span", visit.name, cls="lf-word"),
            tag("span", "Your menu", cls="lf-hidden"),
            cls="lf-top-btn",
        ),
        tag(
            "div",
            tag("div", visit.clock.name, cls="lf-item lf-small lf-dim"),
            *themes,
            tag("hr"),
            tag("a", icon("person"), "Your account", href=f"{PREFIX}/account", cls="lf-item"),
            leave_form,
        ),
        cls="lf-menu",
    )


def head(title: str, said: Child = None, *, crumbs: Sequence[tuple[str, str]] = (), actions: Child = None) -> Markup:
    """The page's heading. ``crumbs``: name and address of what is above it."""
    trail = tag("ol", *(tag("li", tag("a", name, href=href)) for name, href in crumbs), cls="lf-crumbs")
    path = tag("nav", trail, aria_label="Where this is") if crumbs else None
    below = tag("p", said, cls="lf-sub") if said else None
    buttons = tag("div", actions, cls="lf-actions") if actions else None
    return tag("div", tag("div", path, tag("h1", title), below), buttons, cls="lf-head")


def refused_page(title: str, needed: Permission) -> None:
    """For who may not see this."""
    hint = f"This page needs the permission “{needed.value}”. An administrator can give you a role that has it."
    Part().show(join(head(title), note("Your role does not include this page", hint, tone="warn")))


def leave() -> None:
    """To the sign-in page, and from there back to where the browser is now."""
    ui.run_javascript("lanfree.signIn()")
