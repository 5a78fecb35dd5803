"""A machine's restore points as moments to choose from."""

from collections.abc import Callable, Sequence

from api.schemas.machines import TimelinePoint
from api.ui.markup import Markup, join, tag
from api.ui.parts.axes import Mark, axis
from api.ui.parts.blocks import link_button
from api.ui.visit import Visit
from api.ui.words import size


def mark(visit: Visit, point: TimelinePoint, href: str, *, current: bool = False) -> Mark:
    """On the axis: a square was a full, amber is crash-consistent, red is damaged."""
    tone = "bad" if point.damaged else "warn" if point.consistency.value == "crash" else "ok"
    extra = ", damaged" if point.damaged else ", held" if point.held else ""
    title = (
        f"{visit.clock.full(point.created_at)}: {point.level.value}, {point.consistency.value}-consistent, "
        f"{'/'.join(point.transports).upper()}, {size(point.bytes_new)} new{extra}"
    )
    return Mark(point.created_at, title, href, tone, point.level.value == "full", current)


def moment_axis(visit: Visit, moments: Sequence[TimelinePoint], current: str, href: Callable[[str], str]) -> Markup:
    """The axis, with the current one marked, and the ones before and after it. ``moments``: oldest first."""
    marks = [mark(visit, one, href(one.id), current=one.id == current) for one in moments]
    place = next((n for n, one in enumerate(moments) if one.id == current), None)
    if place is None:
        return axis(visit.clock, marks, until=visit.clock.now())
    before = moments[place - 1] if place else None
    after = moments[place + 1] if place + 1 < len(moments) else None
    steps = tag(
        "div",
        link_button(
            f"Before: {visit.clock.time(before.created_at)}", href(before.id), kind="small", sign="chevron_left"
        )
        if before
        else None,
        tag("span", tag("b", visit.clock.time(moments[place].created_at)), f" is {place + 1} of {len(moments)}"),
        link_button(f"After: {visit.clock.time(after.created_at)}", href(after.id), kind="small", sign="chevron_right")
        if after
        else None,
        cls="lf-inline",
    )
    return join(axis(visit.clock, marks, until=visit.clock.now()), steps)
