"""How the command line speaks: tables for people on stdout, one JSON document with ``--json``, errors on stderr.

Exit codes are a contract with monitoring, see ``EXIT_CODES``; the README's table is compared with it by a test.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from enum import Enum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from proxy import errors, ports

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed: a person has to decide (wrong configuration, refused restore, no such restore point)",
    2: "wrong usage of the command",
    3: "try again later: busy, or ended on request; nothing is wrong",
    4: "this machine's run failed; nothing was left behind",
    5: "no run can go on: repository full or unreachable, hosts unreachable",
    6: "stored data is damaged",
    7: "done, but something needs attention (it is named)",
    70: "a fault in Lanfree itself",
}

_GRAVEST: Sequence[int] = (6, 5, 1, 4, 3)
"""Which exit code counts when several machines failed in different ways."""

_THIS_WEEK = timedelta(days=6)
"""Farther away, a weekday could be taken for another week's."""

_WHOLE = frozenset({"RESTORE POINT", "FIRST RESTORE POINT", "LAST RESTORE POINT", "NEWEST RESTORE POINT", "RUN"})
"""Columns of identities: a part of one is of no use to other commands."""

_ENDLESS = 10_000
"""Columns of a terminal that is never too narrow, to measure on."""

ATTENTION = 7
INTERNAL = 70

_EXIT_OF: Sequence[tuple[type[errors.LanfreeError], int]] = (
    (errors.IntegrityError, 6),
    (errors.TryAgain, 3),
    (errors.RunFailed, 4),
    (errors.TransportError, 4),
    (errors.StopAll, 5),
    (errors.LanfreeError, 1),
)


def exit_code(error: errors.LanfreeError) -> int:
    """The exit code for an error of the tree; for what a server refused, that of the same error on this machine."""
    refused = errors.kind_of(error.code) if isinstance(error, errors.ServerRefused) else None
    return _exit_of(refused or type(error))


def exit_code_of(code: str) -> int:
    """For a failure that is known by its error's stable code alone; one that nobody knows here is a failed run."""
    return _exit_of(errors.kind_of(code) or errors.RunFailed)


def gravest(codes: Iterable[int]) -> int:
    """The exit code of several that failed in different ways; 0 if none did."""
    failed = set(codes)
    return next((code for code in _GRAVEST if code in failed), 0)


def _exit_of(error: type[errors.LanfreeError]) -> int:
    return next(code for kind, code in _EXIT_OF if issubclass(error, kind))


class Output:
    """Where a command's result goes. One a process."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, emoji=False)  # ":cd:" in a fingerprint is no picture
        self.notes = Console(stderr=True, highlight=False, emoji=False)

    def result(self, document: object, *human: object) -> None:
        """The command's result: ``document`` for machines, ``human`` (Rich renderables) for people."""
        if self.as_json:
            json.dump(plain(document), sys.stdout, indent=2)
            sys.stdout.write("\n")
            return
        for part in human:
            # Text may hold what a guest wrote: brackets are brackets, and no markup.
            self.console.print(part, markup=False)

    def note(self, text: str) -> None:
        """Something on the way that is not the result."""
        if not self.as_json:
            self.notes.print(text, style="dim")

    def say(self, text: str) -> None:
        """A line of a story that is told while it happens; kept off stdout when that is JSON."""
        (self.notes if self.as_json else self.console).print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that needs attention."""
        self.notes.print(f"[yellow]attention:[/] {escape(text)}")

    def error(self, error: errors.LanfreeError) -> int:
        """What, why and what to do. Returns the exit code."""
        code = exit_code(error)
        remarks = list(getattr(error, "__notes__", ()))
        if self.as_json:
            fact = {"code": error.code, "message": error.message, "hint": error.hint, "notes": remarks, "exit": code}
            json.dump({"error": fact}, sys.stdout, indent=2)
            sys.stdout.write("\n")
            return code
        self.notes.print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)
        for remark in remarks:
            self.notes.print(f"       {escape(remark)}", soft_wrap=True)
        if error.hint:
            self.notes.print(f"[cyan]to do:[/] {escape(error.hint)}", soft_wrap=True)
        return code

    @contextmanager
    def progress(self, title: str) -> Iterator[ports.ProgressSink | None]:
        """Bars with speed and estimate, one a disk; nothing when nobody looks."""
        if self.as_json or not self.notes.is_terminal:
            yield None
            return
        from rich.progress import (  # noqa: PLC0415  # most commands show none, and are asked often
            BarColumn,
            DownloadColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        tasks: dict[str, TaskID] = {}
        with Progress(*columns, console=self.notes, transient=True) as bars:

            def sink(event: ports.Progress) -> None:
                if event.disk not in tasks:
                    tasks[event.disk] = bars.add_task(f"{title} {event.disk}", total=event.total)
                bars.update(tasks[event.disk], completed=event.done, total=event.total)

            yield sink


def table(*columns: str, rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """A plain table; text is shown as it is, never as markup. Words that are too long for a narrow terminal are folded, never
    cut, and identities that people copy stay in one piece as long as any other column can give way."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    for row in rows:
        made.add_row(*(Text(harmless(str(cell))) for cell in row))
    return made


class Fitting:
    """A table that leaves columns out where it would not fit, those first that ``drop`` names first, and says so. Whoever
    needs them has ``--json``."""

    def __init__(self, *columns: str, rows: Sequence[Sequence[object]], drop: Sequence[str]) -> None:
        self._columns, self._rows, self._drop = columns, rows, drop

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        gone: list[str] = []
        for name in ("", *self._drop):
            gone += [name] if name else []
            kept = [number for number, column in enumerate(self._columns) if column not in gone]
            shown = table(
                *(self._columns[number] for number in kept),
                rows=[[row[number] for number in kept] for row in self._rows],
            )
            if (
                Measurement.get(console, options.update(width=_ENDLESS, max_width=_ENDLESS), shown).maximum
                <= options.max_width
            ):
                break
        yield shown
        if gone and self._rows:
            yield Text(f"left out, it is too narrow here: {', '.join(gone)} (--json has all)", style="dim")


def harmless(text: str) -> str:
    """For a terminal: names come from guests and hypervisors: what would steer a terminal is shown as a mark."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def plain(value: object) -> Any:
    """Dataclasses and the like as JSON values. Bytes that are not UTF-8 keep their value as surrogate escapes
    (PEP 383), so that a name can be given back to another command."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case bytes():
            return value.decode(errors="surrogateescape")
        case Path():
            return str(value)
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case str() | int() | float() | bool() | None:
            return value
        case Sequence() | frozenset() | set():
            return [plain(v) for v in value]
        case _:
            return str(value)


def soon(moment: datetime, now: datetime, zone: tzinfo | None = None) -> str:
    """Short: the weekday alone where that says enough. ``zone``: not this machine's, and named then; else the header of its
    column (``zoned``) names it."""
    local = moment.astimezone(zone)
    said = f"{local:%a %H:%M}" if abs(moment - now) < _THIS_WEEK else f"{local:%Y-%m-%d %H:%M}"
    return f"{said} {local:%Z}" if zone is not None else said


def when(moment: datetime) -> str:
    """For sentences: local time, to the second, with the name of the zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def local(moment: datetime) -> str:
    """For cells of tables: as ``when``; the header of the column (``zoned``) names the zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def zoned(column: str) -> str:
    """The header of a column of local times: ``TAKEN (Europe/Berlin)``."""
    return f"{column} ({(os.environ.get('TZ') and time.tzname[0]) or local_zone()})"


def local_zone() -> str:
    """This machine's time zone by its name; UTC where nothing tells."""
    place = Path("/etc/localtime")
    try:
        name = str(place.resolve(strict=True)).partition("/zoneinfo/")[2]
        ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return "UTC"
    return "UTC" if name in {"", "Etc/UTC", "UCT", "Universal", "Zulu"} else name
