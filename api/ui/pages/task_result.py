"""What a task brought: its figures in the units that they are of, and the things that were looked at, a row each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.schemas.tasks import Task
from api.ui.markup import Child, Markup, join, tag
from api.ui.pages.addresses import machine_page, point_page
from api.ui.parts.blocks import card, note
from api.ui.parts.chips import chip
from api.ui.parts.tables import plain_table
from api.ui.words import count, duration, plain, size

_Line = Mapping[str, Any]

_BYTES = frozenset(
    {"freed", "promised", "size", "content", "written", "over_host"}
    | {"logical", "referenced", "unique", "compressed", "dead", "stored"}  # of a measurement
)
"""Figures in bytes, besides those that say so in their names."""

_WORDS: Mapping[str, str] = {
    "over_host": "Sent by hosts, not over the SAN",
    "frozen_seconds": "Guest stood still",
    "content": "Bytes of files",
    "notes": "Notes of witnesses compared",
    "dry_run": "Only looked at",
    "remove": "Would go",
    "keep": "Would stay",
    "promised": "Comes back with a later collection",
    "unreadable": "No note that can be read",
    "published": "Noted by",
    "unpublished": "Not noted by",
    "seconds": "Took",
}
"""Where the name of a figure does not say it to people."""

_NOTHING: Mapping[str, str] = {
    "prune": "No restore point is concerned",
    "repair": "No damage was found",
    "audit": "Every chain is whole",
}
"""Of tasks that look for something, by kind: what it means that they have no line."""


def figures(one: Task) -> list[tuple[str, Child]]:
    """Names and values: what a restore made, measures of a backup, and figures of all others."""
    known = {**one.measures, **one.result}
    known.pop("more", None)  # stands with the lines
    shown: list[tuple[str, Child]] = [
        (_WORDS.get(name, plain(name)), _figure(name, value)) for name, value in known.items() if _tells(value)
    ]
    made = one.result.get("machine")
    if one.kind.value != "restore" or not isinstance(made, dict) or not made.get("id"):
        return shown
    link = tag("a", str(made.get("name")), href=machine_page(str(made["id"])))
    return [("Restored machine", join(link, f" on {made.get('host')}, powered off")), *shown]


def _tells(value: object) -> bool:
    """Whether it is a figure: of lists and mappings those of plain things alone."""
    if isinstance(value, dict):
        return bool(value) and all(isinstance(each, int) for each in value.values())
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return value not in (None, "")


def _figure(name: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name in _BYTES or name.startswith("bytes_"):
            return size(value)
        case int() | float() if name.endswith("seconds"):
            return duration(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.2f}"
        case list():
            return "; ".join(map(str, value))
        case dict():
            return ", ".join(f"{number:,} {plain(what).lower()}" for what, number in value.items())
    return str(value)


def lines(one: Task) -> Markup | None:
    """All that was looked at, or why there is nothing; ``None`` for tasks that look for nothing, and until they are done."""
    found = one.result.get("lines")
    if not isinstance(found, list):
        disks = one.result.get("disks")
        return _table("Disks", disks) if isinstance(disks, list) and disks else None
    if not found:
        nothing = _NOTHING.get(one.kind.value)
        return note(nothing, tone="ok") if nothing else None
    more = one.result.get("more")
    left = (
        f"{count(more, 'more entry', 'more entries')}: the command “lanfree” of the appliance shows all."
        if isinstance(more, int) and more
        else None
    )
    return _table("One by one", found, left, gone=one.result.get("dry_run") is False)


def _table(title: str, rows: Sequence[_Line], left: str | None = None, *, gone: bool = False) -> Markup:
    """``gone``: the restore points are no more, so that nothing leads to them."""
    columns = [
        (name, words, cell) for name, words, cell in _COLUMNS if any(row.get(name) not in (None, "") for row in rows)
    ]
    cells = [[_point(row, gone=gone) if name == "point" else cell(row) for name, _, cell in columns] for row in rows]
    numbers = [n for n, (name, _, _) in enumerate(columns) if name in _NUMBERS]
    table = plain_table(title, [words for _, words, _ in columns], cells, numbers=numbers, stack=True)
    below = tag("p", left, cls="lf-dim", style="padding:10px 12px 4px") if left else None
    return card(title, table, below, padded=False)


def _text(name: str) -> Callable[[_Line], Child]:
    return lambda row: str(row.get(name) or "")


def _size(name: str) -> Callable[[_Line], Child]:
    return lambda row: size(row.get(name) or 0)


def _machine(row: _Line) -> Child:
    name = str(row.get("machine") or "")
    return tag("a", name, href=machine_page(str(row["machine_id"]))) if name and row.get("machine_id") else name


def _point(row: _Line, *, gone: bool) -> Child:
    point = str(row.get("point") or "")
    shown = tag("span", point, cls="lf-mono")
    return shown if gone or not point else tag("a", shown, href=point_page(point))


_VERDICTS = {"keep": ("idle", "Stays"), "remove": ("warn", "Would go"), "removed": ("bad", "Deleted")}


def _verdict(row: _Line) -> Child:
    word = str(row.get("verdict") or "")
    tone, words = _VERDICTS.get(word, ("idle", plain(word)))
    return chip(word, said=words, tone=tone)


def _trouble(row: _Line) -> Child:
    return chip(str(row.get("trouble") or ""), tone="warn" if row.get("notice") else "bad")


_COLUMNS: tuple[tuple[str, str, Callable[[_Line], Child]], ...] = (
    ("trouble", "Found", _trouble),
    ("machine", "Machine", _machine),
    ("repository", "Repository", _text("repository")),
    ("point", "Restore point", _text("point")),
    ("key", "Disk", _text("key")),
    ("disk", "Disk", _text("disk")),
    ("device", "Written to", _text("device")),
    ("verdict", "Verdict", _verdict),
    ("outcome", "Outcome", _text("outcome")),
    ("rules", "Rules of", _text("rules")),
    ("size", "Size", _size("size")),
    ("bytes_written", "Written", _size("bytes_written")),
    ("mended", "Mended", _size("mended")),
    ("bytes_stored", "Stored", _size("bytes_stored")),
    ("removed", "Old ones removed", _text("removed")),
    ("why", "Why", _text("why")),
)
"""Of all kinds of tasks, in the order in which they are read; a table has those of which its rows say something."""

_NUMBERS = frozenset({"size", "bytes_written", "mended", "bytes_stored", "removed"})
