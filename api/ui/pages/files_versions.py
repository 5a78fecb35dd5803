"""All recorded versions of one file, and where each is to be had."""

from api.auth.roles import Permission
from api.schemas.files import FileVersionFacts, FileVersions
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import compare_page, files_page, machine_page, to
from api.ui.pages.files_state import name_of, parent_of
from api.ui.pages.files_taking import send
from api.ui.parts.blocks import button, card, link_button, note
from api.ui.parts.chips import chip, label
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message
from api.ui.parts.tables import plain_table
from api.ui.visit import Visit
from api.ui.words import count, size


async def build(visit: Visit) -> None:
    """Draw it."""
    machine, path_id = visit.query.get("machine", ""), visit.query.get("path_id", "")
    found = await visit.api.get(FileVersions, f"/machines/{machine}/files/versions", path_id=path_id)
    crumbs = (("Restore files", to("/restore/files")), (found.machine_name, machine_page(found.machine)))
    versions = count(len(found.versions), "version")
    Part().show(head(f"Versions of {name_of(found.path_id)}", join(found.path, f", {versions}"), crumbs=crumbs))
    message = Message()
    if found.unsearched:
        points = count(found.unsearched, "restore point")
        Part().show(note(f"{points} may hold more versions", "Their files are not recorded.", tone="warn"))

    async def acted(act: Act) -> None:
        await send(visit, message, act.key, [found.path_id], act.act)

    rows = [_row(visit, found, n) for n in range(len(found.versions))]
    titles = ("Changed", "Size", "Held by", "State", "")
    Part(acted).show(
        card("Newest first", plain_table("Versions", titles, rows, numbers=(1,), stack=True), padded=False)
    )


def _row(visit: Visit, found: FileVersions, n: int) -> tuple[Markup | str | None, ...]:
    one = found.versions[n]
    older = found.versions[n + 1] if n + 1 < len(found.versions) else None
    clock = visit.clock
    raw = one.type.value == "file"
    take = None
    if one.held_by and visit.may(Permission.RESTORE_FILES):
        take = button("Download", "raw" if raw else "zip", key=one.last_point, kind="small")
    compare = None
    if older is not None and one.held_by and older.held_by:
        href = compare_page(older.held_by[-1].id, one.held_by[0].id, parent_of(found.path_id))
        compare = link_button("What else changed then", href, kind="small")
    show = link_button("Show in its folder", files_page(one.last_point, parent_of(found.path_id)), kind="small")
    return (
        clock.when(one.modified_at),
        size(one.size) if raw else one.type.value,
        _held(visit, one),
        label("current") if one.current else chip("attention", said="not the newest"),
        join(compare, " ", show, " ", take),
    )


def _held(visit: Visit, one: FileVersionFacts) -> Markup:
    if not one.held_by:
        return tag("span", "no restore point any more", cls="lf-dim")
    first, last = one.held_by[0], one.held_by[-1]
    points = count(len(one.held_by), "restore point")
    if first.id == last.id:
        return join(points, ", ", visit.clock.when(first.created_at))
    return join(points, ", ", visit.clock.when(first.created_at), " to ", visit.clock.when(last.created_at))
