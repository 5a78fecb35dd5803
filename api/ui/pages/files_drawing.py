"""How files look: the tree, a list with boxes, what is picked, volumes and what of them could not be read."""

from api.auth.roles import Permission
from api.schemas.files import Facts, GuestVolume
from api.schemas.guest_names import bytes_of, text_of
from api.ui.markup import EMPTY, Child, Markup, icon, join, tag
from api.ui.pages.addresses import versions_page
from api.ui.pages.files_state import ROOT, ROWS, TREE_ROWS, Browsing, name_of, parent_of
from api.ui.parts.blocks import button, card, empty, note
from api.ui.parts.chips import chip, label
from api.ui.parts.dialogs import check
from api.ui.parts.tables import pager, plain_table
from api.ui.words import count, size

_SIGNS = {"directory": "folder", "symlink": "link", "file": "description"}

_TREE_MOST = 60
"""Directories beside each other in the tree; the list has all of them."""


def sign_of(one: Facts) -> Markup:
    """Its icon, named for who does not see it."""
    return icon(_SIGNS.get(one.type.value, "settings_ethernet"), one.type.value)


def tree_of(state: Browsing) -> Markup:
    """Directories from the root down to where it is, with those beside them."""
    way = state.way

    def level(depth: int) -> Markup:
        if depth >= len(way):
            return EMPTY
        listed = state.tree.get(way[depth], [])
        on = way[depth + 1] if depth + 1 < len(way) else ""
        shown = [one for one in listed[:_TREE_MOST] if one.path_id != on]
        current = [one for one in listed if one.path_id == on]
        if on and not current:  # it is behind the end of what the tree has
            rows = [_branch(name_of(on), on, state.path_id, level(depth + 1))]
        else:
            rows = []
        for one in sorted((*shown, *current), key=lambda each: each.name.lower()):
            below = level(depth + 1) if one.path_id == on else EMPTY
            rows.append(_branch(one.name, one.path_id, state.path_id, below))
        rest = len(listed) - _TREE_MOST
        if rest > 0:
            rows.append(tag("li", tag("span", f"and {'more' if len(listed) == TREE_ROWS else rest}", cls="lf-dim")))
        return tag("ul", *rows) if rows else EMPTY

    top = tag("ul", _branch(state.point.machine_name, ROOT, state.path_id, level(0), sign="computer"))
    return card("Folders", tag("nav", top, cls="lf-tree lf-files-tree", aria_label="Folders"))


def _branch(name: str, path_id: str, here: str, below: Markup, *, sign: str = "folder") -> Markup:
    current = "true" if path_id == here else None
    said = join(icon("folder_open" if current and sign == "folder" else sign), " ", name)
    return tag("li", tag("a", said, href="#", data_act="enter", data_key=path_id, aria_current=current), below)


def listing_card(state: Browsing, line: Child) -> Markup:
    """The directory, or what a search inside found."""
    return card(
        "Found" if state.found is not None else "Files",
        _way(state),
        _search(state),
        line,
        _table(state),
        _foot(state),
        padded=False,
    )


def _way(state: Browsing) -> Markup:
    steps = []
    for n, one in enumerate(state.way):
        name = state.point.machine_name if not n else name_of(one)
        steps.append(tag("li", tag("a", name, href="#", data_act="enter", data_key=one)))
    return tag("nav", tag("ol", *steps, cls="lf-crumbs"), aria_label="Path", cls="lf-pathbar")


def _search(state: Browsing) -> Markup:
    if not state.point.files_indexed:
        record = (
            button("Record its files", "index", kind="small", sign="manage_search")
            if state.visit.may(Permission.MAINTAIN)
            else None
        )
        said = tag("span", "It can be searched once its files are recorded.", cls="lf-dim")
        return tag("div", said, record, cls="lf-filters")
    field = tag(
        "input",
        type="search",
        name="q",
        value=state.asked,
        placeholder="Find in this restore point: part of a path, or *.conf",
        aria_label="Find in this restore point",
        cls="lf-in",
        style="flex:1 1 240px;width:auto",
    )
    leave = button("Back to the folder", "enter", key=state.path_id) if state.found is not None else None
    return tag(
        "form", field, tag("button", "Find", type="submit", cls="lf-btn"), leave, cls="lf-filters", data_act="search"
    )


def found_line(state: Browsing) -> Markup | None:
    """How much was found."""
    if state.found is None or not state.found.items:
        return None
    more = " on this page; there are more" if state.found.next else ""
    words = f"{count(len(state.found.items), 'entry', 'entries')} with “{state.asked}”{more}"
    return tag("p", words, cls="lf-dim", style="padding:8px 12px 0")


def _table(state: Browsing) -> Markup:
    if not state.rows:
        if state.found is not None:
            return empty("Nothing found", "No path in this restore point fits. Try a shorter part.", sign="search_off")
        if state.path_id == ROOT and any(one.problem is not None for one in state.volumes):
            return empty(
                "No file can be shown", "The volumes could not be read: see above for what helps.", sign="lock"
            )
        return empty("This folder is empty", "It was so at that moment.", sign="folder_off")
    all_on = all(one.path_id in state.picked for one in state.rows)
    everything = tag("input", type="checkbox", checked=all_on, data_act="pick-all", aria_label="All of this page")
    titles = (everything, "Name", "Size", "Changed", "")
    cells = [
        tag("th", t or tag("span", "Actions", cls="lf-hidden"), scope="col", cls="num" if t == "Size" else None)
        for t in titles
    ]
    head = tag("tr", *cells)
    body = [_row(state, one) for one in state.rows]
    hidden = tag("caption", "Files", cls="lf-hidden")
    table = tag("table", hidden, tag("thead", head), tag("tbody", *body), cls="lf-table lf-files")
    return tag("div", table, cls="lf-scroll", tabindex=0, role="region", aria_label="Files")


def _row(state: Browsing, one: Facts) -> Markup:
    box = tag(
        "input",
        type="checkbox",
        checked=one.path_id in state.picked,
        data_act="pick",
        data_key=one.path_id,
        aria_label=f"Pick {one.name}",
    )
    if one.type.value == "directory":
        name = tag("a", sign_of(one), " ", one.name, href="#", data_act="enter", data_key=one.path_id)
    else:
        target = tag("span", f" → {one.link_target}", cls="lf-dim") if one.link_target else None
        name = join(sign_of(one), " ", one.name, target)
    below = None
    if state.found is not None:
        folder = parent_of(one.path_id)
        place = tag("a", text_of(bytes_of(folder)), href="#", data_act="enter", data_key=folder)
        below = tag("div", place, cls="lf-small lf-dim")
    figures = size(one.size) if one.type.value == "file" else ""
    return tag(
        "tr",
        tag("td", box, style="width:1%"),
        tag("td", name, below, cls="lf-name"),
        tag("td", figures, cls="num"),
        tag("td", state.visit.clock.when(one.modified_at), cls="nowrap"),
        tag("td", _row_acts(state, one), cls="act"),
    )


def _row_acts(state: Browsing, one: Facts) -> Markup:
    if one.type.value != "file":
        return EMPTY
    take = (
        button("Download", "raw", key=one.path_id, kind="small") if state.visit.may(Permission.RESTORE_FILES) else None
    )
    versions = tag("a", "Versions", href=versions_page(state.point.machine, one.path_id), cls="lf-btn small")
    return join(versions if state.point.files_indexed else None, " ", take)


def _foot(state: Browsing) -> Markup | None:
    shown = state.found if state.found is not None else state.listing
    number = len(state.cursors)
    if shown is None:
        return None
    first = (number - 1) * ROWS + 1
    return pager(number, shown.next, f"{first:,} to {first + len(shown.items) - 1:,}")


def picked_card(state: Browsing) -> Markup:
    """What is picked, and what can be done with it."""
    if not state.visit.may(Permission.RESTORE_FILES):
        why = "Your role shows names of files. Whoever may restore files downloads them or puts them back."
        return card("Restore", tag("p", why, cls="lf-dim"))
    if not state.picked:
        return card(
            "Restore", tag("p", "Pick files and folders by their boxes: from here they are downloaded, or put back.")
        )
    rows = [
        (join(sign_of(one), " ", one.path), size(one.size) if one.type.value == "file" else "", _drop(one))
        for one in state.picked.values()
    ]
    formats = [
        tag("option", said, value=value, selected=value == "zip")
        for value, said in (
            ("zip", "Zip: opens everywhere"),
            ("tar", "Tar: keeps owners, modes, links"),
            ("tar.zst", "Tar, compressed with zstd"),
            *((("raw", "The file as it is"),) if _single_file(state) else ()),
        )
    ]
    form = tag(
        "form",
        tag("select", *formats, name="format", aria_label="Format", cls="lf-in"),
        check("Whole paths", "full"),
        tag("button", icon("download"), "Download", type="submit", cls="lf-btn primary"),
        button("To a directory of the proxy…", "to-directory", sign="drive_file_move"),
        button("Into a machine…", "to-guest", sign="computer"),
        data_act="download",
        cls="lf-inline",
        style="padding:12px",
    )
    title = f"{count(len(state.picked), 'thing')} picked"
    clear = button("Empty", "drop-all", kind="small")
    return card(title, plain_table("Picked", ("Path", "Size", ""), rows, numbers=(1,)), form, right=clear, padded=False)


def _drop(one: Facts) -> Markup:
    return button("Leave out", "drop", key=one.path_id, kind="small")


def _single_file(state: Browsing) -> bool:
    return len(state.picked) == 1 and next(iter(state.picked.values())).type.value == "file"


def unread_notes(state: Browsing) -> Markup:
    """Volumes whose files are not to be had, with what to do about each that a key opens."""
    unread = [one for one in state.volumes if one.problem is not None and one.type not in _NOT_FILES]
    if not unread:
        return EMPTY
    lines = [
        tag("div", tag("b", _called(one)), f": {one.problem} ", _unlock(one), style="margin-top:4px") for one in unread
    ]
    why = "What you look for may be in there."
    return note(f"{count(len(unread), 'volume')} could not be read", why, actions=join(*lines), tone="warn")


_NOT_FILES = frozenset({"swap"})


def _unlock(one: GuestVolume) -> Markup | None:
    if "encrypted" not in (one.problem or ""):
        return None
    return button("Give its key…", "unlock", key=one.device, kind="small", sign="key")


def _called(one: GuestVolume) -> str:
    return one.mountpoint or one.label or one.device


def volumes_card(state: Browsing) -> Markup:
    """All volumes, and who read them."""
    rows = [
        (
            tag("a", _called(one), href="#", data_act="enter", data_key=one.root_id)
            if one.problem is None
            else _called(one),
            one.type,
            size(one.size),
            chip("warning", said=one.problem) if one.problem else _left(one),
        )
        for one in state.volumes
    ]
    session = state.session
    told = "as recorded after the backup"
    if session is not None:
        told = f"from the opened disks, until {state.visit.clock.time(session.expires_at)} without use"
    table = plain_table("Volumes", ("Volume", "Type", "Size", "State"), rows, numbers=(2,))
    return card("Volumes", table, right=tag("span", told, cls="lf-dim"), padded=False)


def _left(one: GuestVolume) -> Markup:
    words = {"clean": "clean", "dirty": "not cleanly closed: its journal was not replayed", "unknown": "readable"}
    return label(words.get(one.state, one.state), title=one.state_detail or None)
