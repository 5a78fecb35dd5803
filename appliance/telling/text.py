"""Words for people, made of facts that may come from anybody: who names a machine writes into our messages."""

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime

# Names of machines are up to 80 characters with VMware; libvirt takes more, and longer ones only push other facts away.
NAME = 80

# An error's message with its facts. What a program printed may be 2000 characters; the log has all of it.
MESSAGE = 400


def one_line(text: str, limit: int = MESSAGE) -> str:
    """On one line, without characters that steer (terminals, writing direction, headers of mail), at most ``limit`` characters;
    always encodable as UTF-8."""
    text = text[: 4 * limit].encode("utf-8", "replace").decode("utf-8")
    plain = "".join(" " if _steers(character) else character for character in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1].rstrip() + "…"


def _steers(character: str) -> bool:
    # Cc controls, Cf writing direction and invisible ones, Zl and Zp line ends, Cs and Co and Cn nothing that shows.
    return unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}


def duration(seconds: float | None) -> str:
    """``3 h 07 min``, ``4 min 09 s``, ``12 s``; a dash where nothing is known."""
    if seconds is None or seconds < 0:
        return "-"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 machine``, ``3 machines``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def names(all_: Sequence[str], limit: int = 5) -> str:
    """The first few, and how many more."""
    shown = ", ".join(one_line(name, NAME) for name in all_[:limit])
    return shown if len(all_) <= limit else f"{shown} and {len(all_) - limit} more"


def number(facts: Mapping[str, object], key: str) -> float | None:
    """A number out of a JSON object; ``None`` for what is none, or not there."""
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) < 2**63 else None  # noqa: PLR0124  # a NaN is not itself


def seconds_between(first: datetime | None, last: datetime | None) -> float | None:
    """``None`` unless both are known; never less than nothing (clocks of two proxies may differ)."""
    return None if first is None or last is None else max(0.0, (last - first).total_seconds())
