"""Small things that say how something is: status chips, labels, reasons. Never by colour alone."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from api.ui.markup import EMPTY, Markup, icon, join, tag
from api.ui.words import plain

_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ok": ("ok", "check_circle"),
        "warn": ("warn", "warning"),
        "bad": ("bad", "error"),
        "run": ("run", "play_circle"),
        "idle": ("", "circle"),
    }
)

TONES: Mapping[str, str] = MappingProxyType(
    {
        # job runs and tasks
        "done": "ok",
        "attention": "warn",
        "failed": "bad",
        "running": "run",
        "waiting": "idle",
        "stopped": "warn",
        "skipped": "idle",
        # protection of machines ("failed" is above)
        "protected": "ok",
        "overdue": "warn",
        "never": "bad",
        "excluded": "idle",
        "former": "idle",
        # gravity
        "error": "bad",
        "warning": "warn",
        "info": "run",
        # consistency
        "application": "ok",
        "filesystem": "ok",
        "crash": "warn",
        # hypervisors, proxies
        "ok": "ok",
        "alive": "ok",
        "silent": "bad",
    }
)
"""Words of the API and how they are shown; a word that nobody knows is shown as it is, without a tone."""


class ReasonLike(Protocol):
    """What the API says of why."""

    @property
    def code(self) -> str:
        """Stable, for programs."""

    @property
    def detail(self) -> str:
        """For people."""


def tone_of(word: str) -> str:
    """``ok``, ``warn``, ``bad``, ``run`` or ``idle``."""
    return TONES.get(word, "idle")


def chip(word: str, *, said: str = "", tone: str = "") -> Markup:
    """A state as icon, word and colour. ``said``: other words for it."""
    cls, sign = _LOOKS[tone or tone_of(word)]
    return tag("span", icon(sign), tag("span", said or plain(word)), cls=f"lf-chip {cls}".strip())


def label(said: str, *, title: str | None = None) -> Markup:
    """A fact in a frame, without judgement."""
    return tag("span", said, cls="lf-label", title=title)


CONSISTENCY: Mapping[str, str] = MappingProxyType(
    {
        "application": "The guest's own hooks reported success for this snapshot.",
        "filesystem": "File systems were frozen while the snapshot was taken.",
        "crash": "As if the power had failed: file systems recover, applications may have to.",
    }
)

_TRANSPORT: Mapping[str, str] = MappingProxyType(
    {
        "san": "Read from the SAN: nothing passed the host.",
        "lan": "Read over the network, through the host.",
        "raw": "Read from a file or device that the proxy sees.",
    }
)


def consistency(word: str | None) -> Markup:
    """What a restore point was proven to be."""
    if not word:
        return EMPTY
    return tag("span", chip(word, said=f"{word.capitalize()}-consistent"), title=CONSISTENCY.get(word))


def transports(words: Iterable[str]) -> Markup:
    """How the bytes came."""
    return join(*(label(word.upper(), title=_TRANSPORT.get(word)) for word in dict.fromkeys(words)), between=" ")


def reason_list(reasons: Iterable[ReasonLike]) -> Markup:
    """Each decision, in words first and with its code for the manual."""
    lines = [tag("li", tag("div", reason.detail or plain(reason.code)), tag("code", reason.code)) for reason in reasons]
    return tag("ul", *lines, cls="lf-reasons") if lines else tag("p", "Nothing had to be decided.", cls="lf-dim")
