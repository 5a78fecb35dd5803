"""Cards, facts, tiles, notes, empty states: what pages are put together from, as markup."""

from collections.abc import Iterable, Sequence

from api.ui.markup import Child, Markup, icon, join, tag
from api.ui.words import DASH

_SIGNS = {"bad": "error", "warn": "warning", "ok": "check_circle", "run": "info", "": "info"}


def card(title: str, *children: Child, right: Child = None, width: str = "", padded: bool = True) -> Markup:
    """A titled part of a page. ``width``: columns of the grid (``w4``)."""
    body = tag("div", *children, cls="lf-body") if padded else join(*children)
    aside = None if right is None else tag("div", right, cls="lf-right lf-small")
    return tag("section", tag("header", tag("h2", title), aside), body, cls=f"lf-card {width}".strip())


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names and values."""
    rows = [join(tag("dt", name), tag("dd", DASH if value is None or value == "" else value)) for name, value in pairs]
    return tag("dl", *rows, cls="lf-facts")


def tile(figure: str, said: str, *, tone: str = "", href: str | None = None) -> Markup:
    """One figure that is worth a glance."""
    inner = join(tag("b", figure), tag("span", said))
    return tag("div", tag("a", inner, href=href) if href else inner, cls=f"lf-tile {tone}".strip())


def note(title: str, *lines: Child, tone: str = "", actions: Child = None) -> Markup:
    """What happened, why, and what to do."""
    said = [tag("p", line) for line in lines if line]
    body = tag("div", tag("b", title), *said, actions)
    role = "alert" if tone == "bad" else None
    return tag("div", icon(_SIGNS[tone]), body, cls=f"lf-note {tone}".strip(), role=role)


def empty(title: str, what_first: str, *, action: Child = None, sign: str = "inbox") -> Markup:
    """Nothing is here yet, and what to do first."""
    return tag("div", icon(sign), tag("h3", title), tag("p", what_first), action, cls="lf-empty")


def button(said: str, act: str, *, key: str = "", kind: str = "", sign: str = "", disabled: bool = False) -> Markup:
    """A button of a ``Part``: its ``act`` and ``key`` come to the part's handler. ``kind``: ``primary``, ``danger``,
    ``small``, or several of them."""
    classes = f"lf-btn {kind}".strip()
    sign_and_said = join(icon(sign) if sign else None, said)
    return tag("button", sign_and_said, type="button", cls=classes, data_act=act, data_key=key, disabled=disabled)


def link_button(said: str, href: str, *, kind: str = "", sign: str = "") -> Markup:
    """A link that looks like a button."""
    return tag("a", icon(sign) if sign else None, said, href=href, cls=f"lf-btn {kind}".strip())


def link(said: str, href: str, *, current: bool = False) -> Markup:
    """To another page: ``href`` within the console, with its prefix."""
    return tag("a", said, href=href, aria_current="true" if current else None)


def progress(share: float | None, what: str) -> Markup:
    """A bar; ``share`` from 0 to 1, ``None`` where nobody knows yet. ``what``: name for those who do not see it."""
    if share is None:
        return tag("div", tag("i"), cls="lf-progress unknown", role="progressbar", aria_label=what)
    percent = round(min(1.0, max(0.0, share)) * 100, 1)
    bar = tag("i", style=f"width:{percent}%")
    return tag(
        "div",
        bar,
        cls="lf-progress",
        role="progressbar",
        aria_label=what,
        aria_valuenow=percent,
        aria_valuemin=0,
        aria_valuemax=100,
    )


def bullets(lines: Sequence[Child]) -> Markup:
    """A plain list."""
    return tag("ul", *(tag("li", line) for line in lines))
