"""Which machines a caller reaches, as a condition of SQL: lists leave out the others before they are counted and cut."""

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Any

from sqlalchemy import ColumnElement, false, or_, true
from sqlalchemy.orm import Session

from catalog.tables import MachineRow

EVERY = "*"

_PART = re.compile(r"\[!?\]?[^\]]*\]|[*?]")


def reached(session: Session, machines: Sequence[str]) -> ColumnElement[bool]:
    """Condition on ``machines``: ``machines`` are patterns of names (``db-*``, case counts) or identities. The same as
    ``fnmatch.fnmatchcase`` says of each name."""
    if EVERY in machines:
        return true()
    return or_(false(), *(matching(session, MachineRow.name, one) | (MachineRow.id == one) for one in machines))


def matching(session: Session, column: Any, pattern: str) -> ColumnElement[bool]:
    """Whether a text fits a pattern of ``*``, ``?`` and ``[abc]``, upper and lower case apart."""
    if not any(sign in pattern for sign in "*?["):
        return column == pattern  # type: ignore[no-any-return]
    sqlite = session.get_bind().dialect.name == "sqlite"
    if sqlite and "[" not in pattern:
        return column.bool_op("GLOB")(pattern)  # type: ignore[no-any-return]
    # SQLite asks Python for each row, which would try all ways to share a name out among many stars: whoever makes a token says
    # such patterns. What ``translate`` makes goes back over none of them. PostgreSQL never does.
    expression = rf"\A{translate(pattern)}" if sqlite else as_expression(pattern)
    return column.regexp_match(expression)  # type: ignore[no-any-return]


def as_expression(pattern: str) -> str:
    """A regular expression for the whole text, as PostgreSQL reads it."""
    parts: list[str] = []
    end = 0
    for found in _PART.finditer(pattern):
        parts += [re.escape(pattern[end : found.start()]), _part(found.group())]
        end = found.end()
    parts.append(re.escape(pattern[end:]))
    return rf"(?s)\A{''.join(parts)}\Z"


def _part(sign: str) -> str:
    if sign in "*?":
        return ".*" if sign == "*" else "."
    inner = sign[1:-1]
    negated = inner.startswith("!")
    signs = inner[1:] if negated else inner
    # Of all that brackets could mean, patterns know ranges alone.
    escaped = re.sub(r"([\[\]\\^])", r"\\\1", signs)
    return f"[{'^' if negated else ''}{escaped}]"
