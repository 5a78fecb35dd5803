"""Restore points of all machines, newest first."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.points import RestorePoint
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import files_page, machine_page, point_page, restore_page, to
from api.ui.parts.blocks import empty, link_button
from api.ui.parts.chips import chip, consistency, label, transports
from api.ui.parts.part import Part
from api.ui.parts.tables import Column, Filter, Table
from api.ui.visit import Visit
from api.ui.words import size

HEALTH = {"good": ("ok", "Verified"), "damaged": ("bad", "Damaged"), "suspect": ("warn", "Suspect")}
"""What verification says: tone and word; nothing was said of the others."""


async def build(visit: Visit) -> None:
    """Draw it."""
    Part().show(head("Restore points", "Every one restores by itself, like a full"))
    with ui.element("section").classes("lf-card"):
        table = Table(
            visit,
            RestorePoint,
            "/restore-points",
            _columns(visit),
            caption="Restore points",
            filters=(
                Filter("level", "Level", (("full", "Full"), ("incremental", "Incremental"))),
                Filter(
                    "consistency",
                    "Consistency",
                    (("application", "Application"), ("filesystem", "File system"), ("crash", "Crash")),
                ),
                Filter("held", "Held", (("true", "Held"), ("false", "Not held"))),
            ),
            sort="-created_at",
            nothing=empty(
                "No restore point yet",
                "Make a job that selects machines, or protect one of them now.",
                action=link_button("Machines", to("/machines"), kind="primary"),
            ),
        )
    await table.load()


def health(one: RestorePoint) -> Markup:
    """What the last verification said, and whether it is held."""
    word = HEALTH.get(one.health.value)
    shown = chip(one.health.value, said=word[1], tone=word[0]) if word else tag("span", "not verified", cls="lf-dim")
    return join(shown, join(" ", label("held")) if one.held else None)


def _columns(visit: Visit) -> tuple[Column[RestorePoint], ...]:
    clock = visit.clock
    return (
        Column(
            "Made", lambda one: tag("a", clock.when(one.created_at), href=point_page(one.id)), "created_at", "nowrap"
        ),
        Column("Machine", lambda one: tag("a", one.machine_name, href=machine_page(one.machine))),
        Column("Level", lambda one: label(one.level.value)),
        Column("Consistency", lambda one: consistency(one.consistency.value)),
        Column("Transport", lambda one: transports(one.transports)),
        Column("New", lambda one: size(one.bytes_new), "", "num"),
        Column("State", health),
        Column("", lambda one: acts(visit, one), "", "act"),
    )


def acts(visit: Visit, one: RestorePoint) -> Markup:
    """What can be done with one, in a cell."""
    files = link_button("Files", files_page(one.id), kind="small") if visit.may(Permission.BROWSE_FILES) else None
    whole = (
        link_button("Restore", restore_page(one.id), kind="small") if visit.may(Permission.RESTORE_MACHINES) else None
    )
    return join(files, " ", whole)
