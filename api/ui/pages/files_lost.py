"""I lost a file: machine, name and time lead to what it may be, each with the reasons and where to take it from."""

from api.auth.roles import Permission
from api.schemas.files import LostFile, LostFiles
from api.ui.frame import head
from api.ui.markup import Markup, icon, join, tag
from api.ui.pages.addresses import files_page, to, versions_page
from api.ui.pages.files_drawing import sign_of
from api.ui.pages.files_find import moment
from api.ui.pages.files_state import parent_of
from api.ui.pages.files_taking import send
from api.ui.parts.blocks import button, empty, link_button, note
from api.ui.parts.dialogs import field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.visit import Visit
from api.ui.words import count, sentence, size
from proxy.errors import ServerRefused


async def build(visit: Visit) -> None:
    """Draw the three questions, and what they lead to."""
    about = "Three answers are enough: where it was, roughly what it was called, and when it was still right."
    Part().show(head("I lost a file", about, crumbs=(("Restore files", to("/restore/files")),)))
    Part().show(tag("section", _form(visit), cls="lf-card"))
    message = Message()
    machine, name = visit.query.get("machine", "").strip(), visit.query.get("name", "").strip()
    if not (machine and name):
        return
    when = moment(visit.clock.zone, visit.query.get("when", ""))
    try:
        found = await visit.api.get(LostFiles, "/files/lost", machine=machine, name=name, when=when)
    except ServerRefused as refused:
        Part().show(said(refused, "It cannot be looked for"))
        return

    async def acted(act: Act) -> None:
        point, _, path_id = act.key.partition(" ")
        if act.act == "raw":
            await send(visit, message, point, [path_id], "raw")
        elif act.act == "zip":
            await send(visit, message, point, [path_id], "zip")

    Part(acted).show(_found(visit, found, name))


def _form(visit: Visit) -> Markup:
    query = visit.query

    def text(name: str, title: str, help_: str, *, type_: str = "text", required: bool = True) -> Markup:
        box = tag("input", type=type_, id=f"l-{name}", name=name, value=query.get(name, ""), required=required)
        return field(title, box, for_=f"l-{name}", help_=help_)

    fields = tag(
        "div",
        text("machine", "1. On which machine was it?", "Its name."),
        text("name", "2. What was it called?", "As much as you remember, of its name or path."),
        text("when", "3. When was it still right?", "May be left open.", type_="datetime-local", required=False),
        cls="lf-pair",
    )
    send_ = tag("button", icon("search"), "Look for it", type="submit", cls="lf-btn primary")
    return tag("form", fields, send_, action=to("/restore/lost"), method="get", cls="lf-body")


def _found(visit: Visit, found: LostFiles, name: str) -> Markup:
    parts: list[Markup | None] = []
    if found.unsearched:
        points = count(found.unsearched, "restore point")
        what = "Their files are not recorded; they can be browsed, each by itself."
        parts.append(note(f"{points} of {found.machine_name} could not be searched", what, tone="warn"))
    if not found.items:
        why = "Try a shorter part of its name, or another time. Names are compared without regard to case."
        nothing = empty(f"Nothing like “{name}” is recorded of {found.machine_name}", why, sign="search_off")
        parts.append(tag("section", nothing, cls="lf-card"))
        return tag("div", *parts, cls="lf-gapped")
    parts += [_candidate(visit, one, first=not n) for n, one in enumerate(found.items)]
    if not found.complete:
        parts.append(note("There are more files of such a name", "Say more of it to see the others.", tone="warn"))
    return tag("div", *parts, cls="lf-gapped")


def _candidate(visit: Visit, one: LostFile, *, first: bool) -> Markup:
    file, clock = one.file, visit.clock
    key = f"{one.point.id} {file.path_id}"
    take = None
    if visit.may(Permission.RESTORE_FILES):
        kind = "primary" if first else ""
        raw = file.type.value == "file"
        take = button(
            "Download this version" if raw else "Download as zip", "raw" if raw else "zip", key=key, kind=kind
        )
    there = parent_of(file.path_id)
    acts = join(
        take,
        " ",
        link_button("Versions", versions_page(file.machine, file.path_id)),
        " ",
        link_button("Show in its folder, or put it back", files_page(one.point.id, there)),
    )
    figures = f", {size(file.size)}" if file.type.value == "file" else ""
    taken = join(
        "Changed ",
        clock.when(file.modified_at),
        figures,
        "; from the restore point of ",
        clock.when(one.point.created_at),
    )
    now = (
        "In the newest restore point it is not there any more."
        if one.now is None
        else join("In the newest restore point: changed ", clock.when(one.now.modified_at), f", {size(one.now.size)}")
    )
    reasons = tag("ul", *(tag("li", sentence(reason.detail)) for reason in one.reasons))
    body = join(tag("p", taken), reasons, tag("p", now, cls="lf-dim"), tag("div", acts, cls="lf-inline"))
    title = join("Likeliest: " if first else None, sign_of(file), " ", file.path)
    return tag(
        "section",
        tag("header", tag("h2", title, style="overflow-wrap:anywhere")),
        tag("div", body, cls="lf-body"),
        cls="lf-card",
    )
