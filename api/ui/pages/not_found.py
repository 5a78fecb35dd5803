"""For addresses that are no page."""

from nicegui import ui

from api.ui.frame import head
from api.ui.markup import join
from api.ui.pages.addresses import to
from api.ui.parts.blocks import card, empty, link_button
from api.ui.parts.part import Part
from api.ui.visit import Visit


async def build(visit: Visit, rest: str) -> None:
    """Draw it."""
    del visit, rest
    ui.context.client.status_code = 404
    action = link_button("To the dashboard", to("/"), kind="primary")
    why = "It may have been removed, or its address is not whole."
    nothing = empty("There is no such page", why, action=action, sign="explore_off")
    Part().show(join(head("Not found"), card("No such page", nothing)))
