"""Figures and times as people read them. Sizes in binary units, times in the reader's zone, which is named beside them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from api.ui.markup import Markup, join, tag
from proxy.units import format_size

DASH = "\N{EN DASH}"

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def size(count: int | float | None) -> str:
    """Bytes, or a dash."""
    return DASH if count is None else format_size(int(count))


def rate(bytes_per_second: float | None) -> str:
    """Bytes a second, or a dash."""
    return DASH if bytes_per_second is None else f"{format_size(int(bytes_per_second))}/s"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 machine``, ``2 machines``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """Two units at most: ``3 d 4 h``, ``2 h 05 min``, ``45 s``, ``0.4 s``."""
    if seconds is None:
        return DASH
    if seconds < 10:  # tenths say something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole // _MINUTE, "min", f"{whole % _MINUTE:02} s")
    if whole < _DAY:
        return _two(whole // _HOUR, "h", f"{whole % _HOUR // _MINUTE:02} min")
    return _two(whole // _DAY, "d", f"{whole % _DAY // _HOUR} h")


def _two(large: int, unit: str, rest: str) -> str:
    return f"{large} {unit}" if rest.startswith(("0 ", "00 ")) else f"{large} {unit} {rest}"


def share(part: float | None) -> str:
    """Of one, in whole per cent."""
    return DASH if part is None else f"{part * 100:.0f} %"


def times(factor: float) -> str:
    """How many times less: ``3.2x``."""
    return f"{factor:.1f}x"


def sentence(words: str) -> str:
    """With a capital letter: the API's words also stand in the middle of sentences."""
    return words[:1].upper() + words[1:]


def plain(code: str) -> str:
    """A code as words: ``too-old`` is ``Too old``."""
    return code.replace("-", " ").replace("_", " ").capitalize()


def path_text(path: str) -> Markup:
    """A path that may be broken between its names."""
    first, *names = path.split("/")
    return join(first, *(join("/", tag("wbr"), name) for name in names))


@dataclass(frozen=True, slots=True)
class Clock:
    """Times in one reader's ``zone``."""

    zone: ZoneInfo

    def now(self) -> datetime:
        """Here."""
        return datetime.now(self.zone)

    def here(self, moment: datetime) -> datetime:
        """The same moment on the reader's clock."""
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(self.zone)

    @property
    def name(self) -> str:
        """``Europe/Berlin (UTC+01:00)``: what stands in the top bar."""
        offset = self.now().strftime("%z")
        return f"{self.zone.key.replace('_', ' ')} (UTC{offset[:3]}:{offset[3:]})"

    def time(self, moment: datetime | None) -> str:
        """``23 Nov 03:12``, with the year when it is not this one's, ``03:12`` today."""
        if moment is None:
            return DASH
        local, now = self.here(moment), self.now()
        if local.date() == now.date():
            return f"{local:%H:%M}"
        if local.year == now.year:
            return f"{local.day} {local:%b %H:%M}"
        return f"{local.day} {local:%b %Y %H:%M}"

    def full(self, moment: datetime) -> str:
        """To the second, with the zone."""
        local = self.here(moment)
        return f"{local:%A} {local.day} {local:%B %Y, %H:%M:%S %Z}"

    def second(self, moment: datetime) -> str:
        """For logs: ``03:12:45``, with the day when it is not today."""
        local = self.here(moment)
        day = "" if local.date() == self.now().date() else f"{local.day} {local:%b} "
        return f"{day}{local:%H:%M:%S}"

    def when(self, moment: datetime | None) -> Markup:
        """A ``<time>`` with all of it on hovering."""
        if moment is None:
            return tag("span", DASH, cls="lf-dim")
        said = self.here(moment).astimezone(UTC).isoformat(timespec="seconds")
        return tag("time", self.time(moment), datetime=said, title=self.full(moment))

    def ago(self, moment: datetime | None) -> str:
        """``5 min ago``, ``in 2 h``, one unit."""
        if moment is None:
            return DASH
        delta = self.now() - self.here(moment)
        near = _one_unit(abs(delta))
        if near is None:
            return "just now"
        return f"{near} ago" if delta > timedelta() else f"in {near}"


def _one_unit(delta: timedelta) -> str | None:
    seconds = delta.total_seconds()
    if seconds < _MINUTE:
        return None
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h"
    return f"{seconds // _DAY:.0f} days"
