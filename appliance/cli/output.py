"""How the command line speaks: tables for people on stdout, one JSON document with ``--json``, errors on stderr.

Exit codes are a contract with monitoring, see ``EXIT_CODES``; the README's table is compared with it by a test.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

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

GRAVEST: Sequence[int] = (6, 5, 1, 4, 3)
"""Which exit code counts when several machines failed in different ways."""

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
    """The exit code for an error of the tree."""
    return next(code for kind, code in _EXIT_OF if isinstance(error, kind))


class Output:
    """Where a command's result goes. One a process."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False)
        self.notes = Console(stderr=True, highlight=False)

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
    """A plain table; text is shown as it is, never as markup."""
    made = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


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


def when(moment: datetime) -> str:
    """Local time, to the second."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
