"""Find a machine or a file, wherever it is."""

from urllib.parse import urlencode

from api.auth.roles import Permission
from api.paging import Page
from api.schemas.machines import Machine
from api.ui.frame import head
from api.ui.markup import Markup, tag
from api.ui.pages.addresses import machine_page, to
from api.ui.parts.blocks import card, empty, link_button
from api.ui.parts.chips import chip
from api.ui.parts.part import Part
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit

_FOUND = 20


async def build(visit: Visit) -> None:
    """Draw what was found."""
    said = visit.query.get("q", "").strip()
    if not said:
        Part().show(head("Find", "Type a part of a name above."))
        return
    Part().show(head(f"Find “{said}”"))
    machines = await visit.api.get(Page[Machine], "/machines", q=said, limit=_FOUND)
    Part().show(card("Machines", _machines(visit, machines, said), padded=False))
    if visit.may(Permission.BROWSE_FILES):
        look = link_button("Look for files of this name", to(f"/files?{_query(said)}"), kind="primary", sign="search")
        Part().show(card("Files", tag("p", "Names of files in all indexed restore points."), look))


def _query(said: str) -> str:
    return urlencode({"q": said})


def _machines(visit: Visit, found: Page[Machine], said: str) -> Markup:
    if not found.items:
        return empty("No machine has this in its name", "Look for a shorter part of the name.", sign="search_off")
    rows = [
        (
            tag("a", one.name, href=machine_page(one.id)),
            chip(one.protection.value),
            one.host,
            visit.clock.when(one.newest_at),
        )
        for one in found.items
    ]
    more = (
        tag("p", tag("a", "All of them", href=to(f"/machines?{_query(said)}")), style="padding:8px 12px")
        if found.next
        else None
    )
    return tag("div", plain_table("Machines found", ("Name", "Protection", "Host", "Newest restore point"), rows), more)
