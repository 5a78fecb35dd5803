"""A machine: how it is protected and why, its restore points on a time axis, its disks."""

from nicegui import ui

from api.auth.roles import Permission
from api.schemas.machines import MachineDetail, MachineDisk, TimelinePoint
from api.schemas.points import RestorePoint
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import files_page, job_page, point_page, restore_page, to
from api.ui.pages.moments import mark
from api.ui.pages.points import acts, health
from api.ui.pages.protecting import protect
from api.ui.parts.axes import axis
from api.ui.parts.blocks import button, card, empty, facts, link_button, note
from api.ui.parts.chips import chip, consistency, label, transports
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import Column, Table, plain_table
from api.ui.visit import Visit
from api.ui.words import DASH, duration, path_text, plain, size


async def build(visit: Visit, machine: str) -> None:
    """Draw it."""
    one = await visit.api.get(MachineDetail, f"/machines/{machine}")
    message: Message | None = None

    async def acted(act: Act) -> None:
        if act.act == "protect" and message is not None:
            await protect(visit, message, one.id, one.name)

    Part(acted).show(_heading(visit, one))
    message = Message()
    points = await visit.api.get(list[TimelinePoint], f"/machines/{machine}/timeline")
    Part().show(join(_trouble(visit, one)))
    Part().show(
        card(
            "Restore points by time",
            axis(visit.clock, [mark(visit, p, point_page(p.id)) for p in points], until=visit.clock.now()),
            right=_legend(),
        )
    )
    with ui.element("div").classes("lf-grid"):
        Part(cls="w4").show(card("Protection", facts(_protection(visit, one))))
        Part(cls="w4").show(card("Where it is", facts(_place(visit, one))))
        Part(cls="w4").show(card("Disks", _disks(one.disks), padded=False))
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", "Restore points")))
        table = Table(
            visit,
            RestorePoint,
            f"/machines/{machine}/restore-points",
            _columns(visit),
            caption="Restore points",
            sort="-created_at",
            nothing=empty("No restore point yet", "Protect it now, or let a job select it."),
        )
    await table.load()


def _heading(visit: Visit, one: MachineDetail) -> Markup:
    now = (
        button("Protect now", "protect", kind="primary", sign="shield")
        if visit.may(Permission.BACK_UP) and one.state
        else None
    )
    restore = (
        link_button("Restore", restore_page(one.newest_point), sign="settings_backup_restore")
        if one.newest_point and visit.may(Permission.RESTORE_MACHINES)
        else None
    )
    files = (
        link_button("Files", files_page(one.newest_point), sign="folder_open")
        if one.newest_point and visit.may(Permission.BROWSE_FILES)
        else None
    )
    said = join(
        chip(one.protection.value),
        " ",
        label(one.state.value if one.state else "gone"),
        *(join(" ", label(t)) for t in one.tags),
    )
    return head(one.name, said, crumbs=(("Machines", to("/machines")),), actions=join(files, restore, now))


def _trouble(visit: Visit, one: MachineDetail) -> Markup | None:
    if one.failure is not None:
        return note(
            f"The last backup failed {visit.clock.ago(one.failure.at)}: {plain(one.failure.code).lower()}",
            one.failure.message,
            tone="bad",
        )
    if one.protection.value == "never" and not one.jobs:
        return note(
            "It was never backed up",
            "No enabled job selects it.",
            "Add it to a job's selection, or protect it now.",
            tone="warn",
        )
    if one.gone_at is not None:
        return note(
            "No hypervisor shows it any more",
            f"Since {visit.clock.full(one.gone_at)}.",
            "Its restore points stay and can be restored.",
            tone="warn",
        )
    return None


def _legend() -> Markup:
    return tag("span", "square: full, round: incremental; amber: crash-consistent", cls="lf-dim")


def _protection(visit: Visit, one: MachineDetail) -> list[tuple[str, Markup | str | None]]:
    jobs = (
        join(*(tag("a", name, href=job_page(name)) for name in one.jobs), between=", ")
        if one.jobs
        else "none selects it"
    )
    objective = (
        DASH
        if one.objective_hours is None
        else f"a restore point not older than {duration(one.objective_hours * 3600)}"
    )
    due = join(visit.clock.when(one.due_at), f" ({visit.clock.ago(one.due_at)})") if one.due_at else None
    return [
        ("Jobs", jobs),
        ("Objective", objective),
        ("Overdue at", due),
        ("Newest", visit.clock.when(one.newest_at)),
        ("Oldest", visit.clock.when(one.oldest_at)),
        ("Restore points", str(one.points)),
        ("Stored", size(one.stored)),
        *([("Excluded", one.excluded)] if one.excluded else []),
    ]


def _place(visit: Visit, one: MachineDetail) -> list[tuple[str, Markup | str | None]]:
    return [
        ("Hypervisor", one.hypervisor),
        ("Host", one.host),
        *([("Cluster", one.cluster)] if one.cluster else []),
        *([("Folder", path_text(one.folder))] if one.folder else []),
        *([("Datastores", ", ".join(one.datastores))] if one.datastores else []),
        ("Guest agent", "answers" if one.agent else "does not answer: no quiesce"),
        ("Seen", visit.clock.when(one.seen_at)),
        ("Identity", tag("span", one.id, cls="lf-mono")),
    ]


def _disks(disks: list[MachineDisk]) -> Markup:
    if not disks:
        return empty("No disk is known", "They are listed when its hypervisor was looked at.")
    rows = [
        (
            one.key,
            size(one.size),
            one.format.value,
            one.excluded.detail or plain(one.excluded.code) if one.excluded else "backed up",
        )
        for one in disks
    ]
    return plain_table("Disks", ("Disk", "Size", "Format", "State"), rows, numbers=(1,))


def _columns(visit: Visit) -> tuple[Column[RestorePoint], ...]:
    clock = visit.clock
    return (
        Column(
            "Made", lambda one: tag("a", clock.when(one.created_at), href=point_page(one.id)), "created_at", "nowrap"
        ),
        Column("Level", lambda one: label(one.level.value)),
        Column("Consistency", lambda one: consistency(one.consistency.value)),
        Column("Transport", lambda one: transports(one.transports)),
        Column("Read", lambda one: size(one.bytes_read), "", "num"),
        Column("New", lambda one: size(one.bytes_new), "", "num"),
        Column("Stored", lambda one: size(one.bytes_stored), "", "num"),
        Column("State", health),
        Column("", lambda one: acts(visit, one), "", "act"),
    )
