"""Find files in all recorded restore points, by name, kind, size and time."""

from datetime import datetime
from zoneinfo import ZoneInfo

from api.auth.roles import Permission
from api.schemas.files import FoundFile, FoundFiles
from api.ui.frame import head
from api.ui.markup import Markup, join, tag
from api.ui.pages.addresses import files_page, machine_page, to, versions_page
from api.ui.pages.files_drawing import sign_of
from api.ui.pages.files_state import parent_of
from api.ui.pages.files_taking import send
from api.ui.parts.blocks import button, empty, link_button, note
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import field
from api.ui.parts.part import Act, Part
from api.ui.parts.problems import Message, said
from api.ui.parts.tables import pager, plain_table
from api.ui.visit import Visit
from api.ui.words import count, size
from proxy.errors import ServerRefused

ROWS = 50

_NAMES = ("q", "machine", "type", "since", "until", "min_mib", "deleted", "all_versions")


async def build(visit: Visit) -> None:
    """Draw the form, and what it finds; the address says all of it."""
    lost = link_button("I lost a file", to("/restore/lost"), sign="help_center")
    Part().show(head("Find files", crumbs=(("Restore files", to("/restore/files")),), actions=lost))
    Part().show(tag("section", _form(visit), cls="lf-card"))
    message = Message()
    asked = {name: visit.query.get(name, "").strip() for name in _NAMES}
    if not any(asked.values()):
        nothing = empty(
            "What is it called?", "A part of the path is enough, or a pattern such as *.conf.", sign="search"
        )
        Part().show(tag("section", nothing, cls="lf-card"))
        return
    await _Found(visit, message, asked).show()


class _Found:
    """The pages of what was found."""

    def __init__(self, visit: Visit, message: Message, asked: dict[str, str]) -> None:
        self._visit, self._message, self._asked = visit, message, asked
        self._cursors: list[str | None] = [None]
        self._part = Part(self._acted)

    async def show(self) -> None:
        """Get a page of it and draw it."""
        asked, clock = self._asked, self._visit.clock
        try:
            found = await self._visit.api.get(
                FoundFiles,
                "/files/search",
                q=asked["q"],
                machine=[asked["machine"]] if asked["machine"] else None,
                type=asked["type"],
                since=moment(clock.zone, asked["since"]),
                until=moment(clock.zone, asked["until"]),
                min_size=_bytes(asked["min_mib"]),
                deleted="true" if asked["deleted"] else None,
                all_versions="true" if asked["all_versions"] else None,
                limit=ROWS,
                cursor=self._cursors[-1],
            )
        except ServerRefused as refused:
            self._part.show(said(refused, "Nothing was looked for"))
            return
        drawn = tag("section", self._drawn(found), cls="lf-card")
        self._part.show(tag("div", _unsearched(found), drawn, cls="lf-gapped"))

    async def _acted(self, act: Act) -> None:
        match act.act:
            case "next":
                self._cursors.append(act.key)
                await self.show()
            case "back" if len(self._cursors) > 1:
                self._cursors.pop()
                await self.show()
            case "raw":
                point, _, path_id = act.key.partition(" ")
                await send(self._visit, self._message, point, [path_id], "raw")

    def _drawn(self, found: FoundFiles) -> Markup:
        if not found.items:
            why = "Try a shorter part of the name, or fewer conditions."
            if not found.complete:
                why = "The search ended early, since there is much to look at: go on, or ask for more of the name."
            more = button("Go on", "next", key=found.next) if found.next else None
            return empty("Nothing found", why, action=more, sign="search_off")
        titles = ("File", "Machine", "Size", "Changed", "State", "")
        table = plain_table("Found files", titles, [self._row(one) for one in found.items], numbers=(2,), stack=True)
        number = len(self._cursors)
        return join(table, pager(number, found.next, f"{count(len(found.items), 'file')} on page {number}"))

    def _row(self, one: FoundFile) -> tuple[Markup | str, ...]:
        visit = self._visit
        folder = tag("a", one.path, href=files_page(one.last_point, parent_of(one.path_id)))
        acts = join(
            link_button("Versions", versions_page(one.machine, one.path_id), kind="small"),
            " ",
            button("Download", "raw", key=f"{one.last_point} {one.path_id}", kind="small")
            if one.type.value == "file" and visit.may(Permission.RESTORE_FILES)
            else None,
        )
        return (
            join(sign_of(one), " ", folder),
            tag("a", one.machine_name, href=machine_page(one.machine)),
            size(one.size) if one.type.value == "file" else "",
            visit.clock.when(one.modified_at),
            label("current") if one.current else chip("attention", said="not there any more"),
            acts,
        )


def _unsearched(found: FoundFiles) -> Markup | None:
    if not found.unsearched:
        return None
    points = count(found.unsearched, "restore point")
    what = "Their files are not recorded. They can still be browsed, each by itself."
    return note(f"{points} could not be searched", what, tone="warn")


def moment(zone: ZoneInfo, said_: str) -> datetime | None:
    """What a field for date and time holds, in the reader's zone; ``None`` for nothing, and for what is no date."""
    try:
        return datetime.fromisoformat(said_).replace(tzinfo=zone) if said_ else None
    except ValueError:
        return None


def _bytes(mib: str) -> int | None:
    return int(mib) * 1024 * 1024 if mib.isdecimal() and len(mib) < 12 else None


def _form(visit: Visit) -> Markup:
    query = visit.query

    def text(name: str, title: str, *, type_: str = "text", placeholder: str = "") -> Markup:
        box = tag(
            "input",
            type=type_,
            id=f"s-{name}",
            name=name,
            value=query.get(name, ""),
            placeholder=placeholder,
            min="0" if type_ == "number" else None,
        )
        return field(title, box, for_=f"s-{name}")

    types = (("", "Anything"), ("file", "Files"), ("directory", "Folders"), ("symlink", "Links"))
    kinds = [tag("option", words, value=value, selected=query.get("type", "") == value) for value, words in types]
    boxes = [
        tag("label", tag("input", type="checkbox", name=name, value="1", checked=bool(query.get(name))), words)
        for name, words in (("deleted", "Only what is gone now"), ("all_versions", "Every version"))
    ]
    more = tag(
        "details",
        tag("summary", "More conditions"),
        tag(
            "div",
            text("machine", "Machine"),
            field("Kind", tag("select", *kinds, id="s-type", name="type"), for_="s-type"),
            text("min_mib", "At least so many MiB", type_="number"),
            text("since", "Changed since", type_="datetime-local"),
            text("until", "Changed before", type_="datetime-local"),
            cls="lf-pair",
            style="margin-top:10px",
        ),
        tag("div", *boxes, cls="lf-inline"),
        cls="lf-more",
        open=any(query.get(name) for name in _NAMES[1:]),
    )
    first = tag(
        "div",
        tag(
            "input",
            type="search",
            name="q",
            value=query.get("q", ""),
            placeholder="Part of a path, or a pattern: *.conf",
            aria_label="Name of a file",
            cls="lf-in",
            style="flex:1 1 220px;min-width:0",
        ),
        tag("button", "Find", type="submit", cls="lf-btn primary"),
        cls="lf-inline",
        style="margin-bottom:8px",
    )
    return tag("form", first, more, action=to("/files"), method="get", role="search", cls="lf-body")
