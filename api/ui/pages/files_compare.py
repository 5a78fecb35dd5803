"""What differs between two restore points of a machine: files that were added, removed and changed."""

from nicegui import ui

from api.schemas.files import Comparison, FileChange, FoundFile
from api.schemas.machines import TimelinePoint
from api.schemas.points import RestorePointDetail
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import compare_page, files_page, to, versions_page
from api.ui.pages.files_state import parent_of
from api.ui.parts.blocks import card, empty, tile
from api.ui.parts.chips import chip
from api.ui.parts.dialogs import field
from api.ui.parts.part import Part
from api.ui.parts.problems import said
from api.ui.parts.tables import Column, Table
from api.ui.visit import Visit
from api.ui.words import DASH, size
from proxy.errors import ServerRefused

_FACTS = {
    "mtime_ns": "time of change",
    "ctime_ns": "time of its inode",
    "uid": "owner",
    "gid": "group",
    "mode": "permissions",
    "link_target": "where it links to",
}
"""Facts of files in words; the others are words already."""

_TONES = {"added": "ok", "removed": "bad", "changed": "warn"}


async def build(visit: Visit) -> None:
    """Draw it; the address says which two, and where."""
    before, after = visit.query.get("before", ""), visit.query.get("after", "")
    path_id = visit.query.get("path_id", "")
    newer = await visit.api.get(RestorePointDetail, f"/restore-points/{after}")
    older = await visit.api.get(RestorePointDetail, f"/restore-points/{before}")
    if older.created_at > newer.created_at:
        older, newer = newer, older
    moments = await visit.api.get(list[TimelinePoint], f"/machines/{newer.machine}/timeline")
    crumbs = (
        ("Restore files", to("/restore/files")),
        (f"Files of {newer.machine_name}", files_page(newer.id, path_id)),
    )
    clock = visit.clock
    words = f"{clock.full(older.created_at)} against {clock.full(newer.created_at)}"
    Part().show(head(f"What changed in {newer.machine_name}", words, crumbs=crumbs))
    Part().show(card("Moments", _chooser(visit, moments, older.id, newer.id, path_id)))
    path = f"/restore-points/{older.id}/files/compare/{newer.id}"
    try:
        sums = await visit.api.get(Comparison, path, path_id=path_id, limit=1)
    except ServerRefused as refused:
        Part().show(said(refused, "They cannot be compared"))
        return
    Part().show(_sums(sums))
    with ui.element("section").classes("lf-card"):
        Part().show(tag("header", tag("h2", f"Below {sums.path}")))
        table = Table(
            visit,
            FileChange,
            path,
            _columns(visit, older.id, newer.id),
            caption="Differences",
            nothing=empty("Nothing differs here", "All files are the same in both.", sign="check_circle"),
            extra={"path_id": path_id} if path_id else {},
            rows=100,
        )
    await table.load()


def _chooser(visit: Visit, moments: list[TimelinePoint], before: str, after: str, path_id: str) -> Markup:
    def choice(name: str, title: str, current: str) -> Markup:
        options = [
            tag("option", visit.clock.time(one.created_at), value=one.id, selected=one.id == current)
            for one in reversed(moments)
        ]
        return field(title, tag("select", *options, id=f"c-{name}", name=name), for_=f"c-{name}")

    fields = tag("div", choice("before", "Before", before), choice("after", "After", after), cls="lf-pair")
    hidden = tag("input", type="hidden", name="path_id", value=path_id)
    send = tag("button", "Compare", type="submit", cls="lf-btn primary")
    top = tag("a", "All of the machine", href=compare_page(before, after)) if path_id else None
    return tag("form", fields, hidden, send, " ", top, action=to("/restore/compare"), method="get")


def _sums(found: Comparison) -> Markup:
    sums = found.sums
    tiles = (
        tile(f"{sums.added:,}", f"added, {size(sums.bytes_added)}", tone="ok"),
        tile(f"{sums.removed:,}", f"removed, {size(sums.bytes_removed)}", tone="bad" if sums.removed else ""),
        tile(f"{sums.changed:,}", f"changed, {size(sums.bytes_changed)}", tone="warn" if sums.changed else ""),
        tile(_signed(sums.growth), "altogether"),
    )
    return tag("div", *tiles, cls="lf-tiles")


def _signed(growth: int) -> str:
    if not growth:
        return DASH
    return size(growth) if growth < 0 else f"+{size(growth)}"


def _columns(visit: Visit, before: str, after: str) -> tuple[Column[FileChange], ...]:
    def shown(one: FileChange) -> Markup:
        point = before if one.kind.value == "removed" else after
        return tag("a", one.path, href=files_page(point, parent_of(one.path_id)))

    def versions(one: FileChange) -> Markup | None:
        there: FoundFile | None = one.after or one.before
        if there is None or there.type.value != "file":
            return None
        return tag("a", "Versions", href=versions_page(there.machine, one.path_id), cls="lf-btn small")

    return (
        Column("Path", shown),
        Column("What", lambda one: join(chip(one.kind.value, tone=_TONES[one.kind.value]))),
        Column("Which", lambda one: ", ".join(_FACTS.get(each, each) for each in one.facts) or DASH),
        Column("Growth", lambda one: _signed(one.growth), "", "num"),
        Column("Before", lambda one: visit.clock.when(one.before.modified_at if one.before else None), "", "nowrap"),
        Column("After", lambda one: visit.clock.when(one.after.modified_at if one.after else None), "", "nowrap"),
        Column("", versions, "", "act"),
    )
