"""Patterns of machines: what two lists of them allow together."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

_WILD = "*?["


def within(patterns: Iterable[str], limits: Iterable[str]) -> tuple[str, ...]:
    """Patterns for what is within both lists, as far as patterns can say it; what cannot be said is left out, never added.

    ::

        db-*     within  *          db-*          web-*    within  db-*       nothing
        db-7     within  db-*       db-7          *-prod   within  db-*       nothing, though db-1-prod is in both
        *        within  db-*       db-*
    """
    mine, theirs = list(patterns), list(limits)
    found = [each for each in mine if any(_covers(limit, each) for limit in theirs)]
    found += [limit for limit in theirs if any(_covers(each, limit) for each in mine)]
    return tuple(dict.fromkeys(found))


def _covers(wide: str, narrow: str) -> bool:
    """Whether each machine of ``narrow`` surely is one of ``wide``."""
    if wide in ("*", narrow):
        return True
    if not any(char in narrow for char in _WILD):
        return fnmatchcase(narrow, wide)
    stem = wide[:-1]
    plain = wide.endswith("*") and not any(char in stem for char in _WILD)
    first = min(narrow.find(char) for char in _WILD if char in narrow)
    return plain and narrow[:first].startswith(stem)
