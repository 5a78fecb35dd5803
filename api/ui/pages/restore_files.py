"""Restore files: find one by name, or choose the machine whose files are looked at."""

from collections.abc import Callable

from nicegui import ui

from api.schemas.machines import Machine
from api.ui.frame import head
from api.ui.markup import Markup, tag
from api.ui.pages.addresses import files_page, machine_page, restore_page, to
from api.ui.parts.blocks import card, empty, link_button
from api.ui.parts.part import Part
from api.ui.parts.tables import Column, Filter, Table
from api.ui.visit import Visit


async def build(visit: Visit) -> None:
    """Draw the choice of a machine for its files."""
    lost = link_button("I lost a file", to("/restore/lost"), kind="primary", sign="help_center")
    Part().show(head("Restore files", "Look into any restore point, and take out what is needed", actions=lost))
    Part().show(card("Find a file by its name", _finder()))
    await _machines(visit, "Or choose a machine", _files)


async def build_whole(visit: Visit) -> None:
    """Draw the choice of a machine that is to be restored whole."""
    Part().show(head("Restore a machine", "Choose the machine; the next page asks for moment and place"))
    await _machines(visit, "Which machine?", _whole)


async def _machines(visit: Visit, title: str, cell: Callable[[Machine], Markup]) -> None:
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", title)))
        table = Table(
            visit,
            Machine,
            "/machines",
            (
                Column("Name", lambda one: tag("a", one.name, href=machine_page(one.id)), "name"),
                Column("Newest restore point", lambda one: visit.clock.when(one.newest_at), "newest", "nowrap"),
                Column("Restore points", lambda one: str(one.points), "points", "num"),
                Column("Host", lambda one: one.host, "host"),
                Column("", cell, "", "act"),
            ),
            caption="Machines",
            filters=(Filter("q", "Find by name"),),
            sort="-newest",
            nothing=empty(
                "No machine yet",
                "Add a hypervisor first; then protect its machines by a job.",
                action=link_button("Hypervisors", to("/hypervisors"), kind="primary"),
            ),
        )
    await table.load()


def _files(one: Machine) -> Markup:
    if one.newest_point is None:
        return tag("span", "no restore point", cls="lf-dim")
    return link_button("Browse files", files_page(one.newest_point), kind="small", sign="folder_open")


def _whole(one: Machine) -> Markup:
    if one.newest_point is None:
        return tag("span", "no restore point", cls="lf-dim")
    return link_button("Restore", restore_page(one.newest_point), kind="small", sign="settings_backup_restore")


def _finder() -> Markup:
    field = tag(
        "input",
        type="search",
        name="q",
        placeholder="Part of a path, or a pattern: *.conf",
        aria_label="Name of a file",
        cls="lf-in",
        style="flex:1 1 260px",
    )
    send = tag("button", "Find", type="submit", cls="lf-btn primary")
    return tag("form", field, send, action=to("/files"), method="get", cls="lf-inline")
