"""Repositories: where restore points are, and how much room there is."""

from api.paging import Page
from api.schemas.repositories import Repository
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import repository_page
from api.ui.parts.blocks import empty, facts, note, progress
from api.ui.parts.chips import chip, label
from api.ui.parts.part import Part
from api.ui.visit import Visit
from api.ui.words import DASH, count, share, size, times

ROLES = {"main": "backups go here", "copy-to": "copies go here", "copy-from": "copies come from here"}


async def build(visit: Visit) -> None:
    """Draw a card for each."""
    found = await visit.api.get(Page[Repository], "/repositories")
    Part().show(head("Repositories", "Where restore points are kept"))
    if not found.items:
        nothing = empty("No repository yet", "Make one on the appliance: lanfree init", sign="inventory_2")
        Part().show(tag("section", nothing, cls="lf-card"))
        return
    cards = [_card(visit, one) for one in found.items]
    Part().show(tag("div", *cards, cls="lf-grid"))


def _card(visit: Visit, one: Repository) -> Markup:
    title = join(tag("a", one.name, href=repository_page(one.name)))
    header = tag("header", tag("h2", title), tag("div", label(ROLES[one.role.value]), cls="lf-right"))
    trouble = note("It cannot be used now", one.error, tone="bad") if one.error else None
    rows = [
        ("Place", tag("span", f"{one.place}", cls="lf-mono")),
        ("Encrypted", "yes" if one.encrypted else chip("attention", said="no")),
        ("Restore points", DASH if one.points is None else f"{one.points:,}"),
        ("Machines", DASH if one.machines is None else f"{one.machines:,}"),
        ("Stored", size(one.stored)),
        ("Of disks of", size(one.logical)),
    ]
    if one.measured is not None:
        rows.append(("Deduplication", times(one.measured.deduplication)))
    if one.verified is not None and one.verified.damaged:
        rows.append(("Damaged", chip("failed", said=count(one.verified.damaged, "restore point"))))
    body = tag("div", trouble, facts(rows), space_bar(one), cls="lf-body")
    return tag("section", header, body, cls="lf-card w6")


def space_bar(one: Repository) -> Markup | None:
    """How full its file system is."""
    if one.space is None or not one.space.total:
        return None
    used = one.space.used / one.space.total
    words = f"{share(used)} of {size(one.space.total)} in use, {size(one.space.free)} free"
    return tag(
        "div", progress(used, f"Space of {one.name}"), tag("p", words, cls="lf-dim lf-small"), style="margin-top:10px"
    )
