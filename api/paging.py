"""Lists in pages: an opaque cursor that says where the last page ended, so that pages neither skip nor repeat what was there
all the time, and a late page costs no more than the first."""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from proxy.errors import ConfigurationError

MOST = 1000
"""Items of a page: more would keep other callers waiting for little."""

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MOST, description="Items of a page, at most.")]
Cursor = Annotated[
    str | None, Query(max_length=2048, description="`next` of the page before; the other parameters must be the same.")
]


class Page(BaseModel, Generic[T]):
    """A part of a list. ``next``: the cursor of the page that follows; null on the last one."""

    items: list[T]
    next: str | None = None


def encode(*key: str | int | float | None) -> str:
    """A cursor from the sort key of the last item of a page (its identity last, so that no two are equal)."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, length: int) -> Sequence[str | int | float | None]:
    """The key in a cursor. Raises what ``foreign`` makes for one that this list did not give."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    plain = isinstance(key, list) and all(part is None or _comparable(part) for part in key)
    if not plain or len(key) != length:
        raise foreign()
    return list(key)


def decode_moment(cursor: str) -> tuple[datetime, str]:
    """The key of a list by time: a moment in UTC, and an identity. Raises as ``decode``."""
    moment, identity = decode(cursor, 2)
    try:
        at = datetime.fromisoformat(str(moment))
        if at.tzinfo is not None and isinstance(identity, str):
            return at.astimezone(UTC), identity
    except (ValueError, OverflowError):
        pass
    raise foreign()


def foreign() -> ConfigurationError:
    """What to raise for a cursor that some other list gave, or nobody."""
    return ConfigurationError("cursor", "not one that this list gave", hint="take 'next' of the page before as it is")


def _comparable(part: object) -> bool:
    """By a database: text without NUL and halves of pairs, or a number."""
    if isinstance(part, str):
        return "\0" not in part and not any("\ud800" <= sign <= "\udfff" for sign in part)
    return isinstance(part, int | float)
