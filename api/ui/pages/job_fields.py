"""Fields of a job's form, and what somebody filled in. Text that is as it was shown stands for the value that was there: a form
shows some values shorter than they are (a time without its seconds, a rule on one line)."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import time
from typing import Any

from api.ui.markup import Child, Markup, tag
from api.ui.parts.dialogs import field
from catalog.jobs.policy import EVERY_DAY, Window


def text_input(name: str, value: object, **more: str | int | bool | None) -> Markup:
    """One line."""
    return tag("input", **{"id": f"f-{name}", "name": name, "value": str(value), "type": "text", **more})


def area(name: str, lines: Sequence[str], rows: int = 2) -> Markup:
    """A line for each."""
    return tag("textarea", "\n".join(lines), id=f"f-{name}", name=name, rows=rows, spellcheck="false", cls="lf-mono")


def choice(name: str, value: str, choices: Sequence[tuple[str, str]]) -> Markup:
    """One of these values, each with its words."""
    options = (tag("option", said, value=each, selected=each == value) for each, said in choices)
    return tag("select", *options, id=f"f-{name}", name=name)


def named(said: str, name: str, control: Markup, help_: Child = None) -> Markup:
    """The control of this name with what it is called and its help."""
    return field(said, control, for_=f"f-{name}", help_=help_)


def pairs(*fields: Markup) -> Markup:
    """Beside each other where there is room."""
    return tag("div", *fields, cls="lf-pair")


def one_line(said: str) -> str:
    """As a field of lines can show it."""
    return " ".join(said.split())


def figure(value: float) -> str:
    """All of its digits, and no more."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def hour(of_day: time) -> str:
    """``22:00``, with its seconds if it has any."""
    short = f"{of_day:%H:%M}"
    return short if time.fromisoformat(short) == of_day else of_day.isoformat()


def window_text(window: Window) -> str:
    """``sat,sun 08:00-20:00``, as the form reads it."""
    days = "" if window.days == EVERY_DAY else ",".join(window.days) + " "
    return f"{days}{hour(window.start)}-{hour(window.end)}"


def listed(
    said: str, shown: Sequence[str], there: Sequence[Any], *, between: str = "\n", read: Callable[[str], Any] = str
) -> list[Any]:
    """What the parts of a text mean. ``shown``: how those ``there`` were shown; ``read``: for parts that were not."""
    parts = split(said, between)
    if parts == split(between.join(shown), between):
        return list(there)
    known: Mapping[str, Any] = dict(zip(shown, there, strict=True))
    return [known[part] if part in known else read(part) for part in parts]


def split(said: str, between: str) -> list[str]:
    """The parts that are not empty."""
    return [part.strip() for part in said.split(between) if part.strip()]


def number(said: str) -> float | int | str:
    """As a number; what is none goes to the API as it is, which says so."""
    try:
        value = float(said)
    except ValueError:
        return said
    if not math.isfinite(value):
        return said  # JSON has no such number
    return int(value) if value.is_integer() else value
