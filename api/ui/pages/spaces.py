"""Space of the repositories, and when it will be used up."""

from api.paging import Page
from api.schemas.repositories import Growth, Repository, Space
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import to
from api.ui.parts.blocks import card, note, progress
from api.ui.parts.problems import said
from api.ui.visit import Visit
from api.ui.words import sentence, size
from proxy.errors import ServerRefused


async def spaces(visit: Visit, *, background: bool = False) -> Markup:
    """A card with all of them."""
    try:
        found = await visit.api.get(Page[Repository], "/repositories", background=background)
        growths = {
            one.name: await visit.api.get(Growth, f"/repositories/{one.name}/growth", background=background)
            for one in found.items[:4]
            if not one.error
        }
    except ServerRefused as refused:
        return card("Repository space", said(refused, "Space is not known"))
    shown = [_space(visit, one, growths.get(one.name)) for one in found.items]
    return card("Repository space", *shown)


def _space(visit: Visit, one: Repository, growth: Growth | None) -> Markup:
    title = tag(
        "h3",
        tag("a", one.name, href=to(f"/repositories/{one.name}")),
        " ",
        tag("span", one.place, cls="lf-dim lf-small"),
    )
    if one.error:
        return join(title, note("It cannot be used now", one.error, tone="bad"))
    lines: list[Markup | str] = []
    if one.space is not None:
        lines.append(progress(_used(one.space), f"Space used of {one.name}"))
        lines.append(
            tag(
                "p",
                f"{size(one.space.free)} free of {size(one.space.total)}; restore points take {size(one.stored)}",
                cls="lf-small",
            )
        )
    else:
        lines.append(
            tag("p", f"Restore points take {size(one.stored)}; the store does not tell its limit.", cls="lf-small")
        )
    return join(title, *lines, _forecast(growth))


def _used(space: Space) -> float | None:
    """Of what its user may write at all: file systems keep some for root, and quotas are smaller than disks."""
    there = space.used + space.free
    return space.used / there if there else None


def _forecast(growth: Growth | None) -> Markup | None:
    if growth is None:
        return None
    if growth.forecast is None:
        return tag("p", sentence(growth.why_not), cls="lf-dim lf-small")
    forecast = growth.forecast
    said_rate = f"Grows by {size(int(forecast.bytes_per_day))} a day ({forecast.days} days looked at)"
    if forecast.full_on is None:
        return tag("p", f"{said_rate}. {sentence(growth.why_not)}", cls="lf-small")
    latest = f"{forecast.latest:%d %b %Y}" if forecast.latest else "never"
    between = f", between {forecast.earliest:%d %b %Y} and {latest}" if forecast.earliest else ""
    return tag(
        "p",
        f"{said_rate}; without deletions full on ",
        tag("b", f"{forecast.full_on:%d %b %Y}"),
        between,
        cls="lf-small",
    )
