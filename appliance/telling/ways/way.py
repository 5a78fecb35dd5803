"""What a way to people is, and what all of them need."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.telling.events import Event
from appliance.telling.secrets import private_line
from appliance.telling.settings import Notify
from proxy.errors import ConfigurationError, NotTold


@dataclass(frozen=True, slots=True)
class Message:
    """``id``: the same for every attempt, so that a receiver can tell a repetition. ``attach``: files to go with it.
    ``told``: which of several addresses took it already, in the way's own words."""

    id: str
    event: Event
    attach: tuple[Path, ...] = ()
    told: frozenset[str] = frozenset()


class ToldInPart(NotTold):
    """Some addresses took it; ``told``: those of all attempts."""

    def __init__(self, way: str, why: str, told: frozenset[str]) -> None:
        super().__init__(way, why)
        self.told = told


class Way(Protocol):
    """Used by one thread at a time."""

    @property
    def merges(self) -> bool:
        """Whether several waiting messages are told as one: people want that, programs do not."""
        ...

    def deliver(self, message: Message) -> None:
        """Taken by the other side when this returns. Raises ``NotTold`` when a later attempt may succeed, or
        ``ConfigurationError``; neither holds a secret."""
        ...


def address_of(section: Notify) -> str:
    """The one address. Read anew each time: whoever mends the file need not start anything again."""
    return section.url if section.url is not None else private_line(_named(section))


def _named(section: Notify) -> Path:
    if section.url_file is None:
        raise ConfigurationError(f"[[notify]] {section.name}", "has neither url nor url_file")
    return section.url_file


def tls(section: Notify) -> ssl.SSLContext:
    """Certificate and host name are checked, always."""
    try:
        return ssl.create_default_context(cafile=str(section.ca_bundle) if section.ca_bundle else None)
    except OSError as error:  # ssl.SSLError too
        raise ConfigurationError(f"{section.ca_bundle}", f"is no bundle of certificates: {error}") from None


def refused(section: Notify, error: Exception) -> NotTold:
    """As the network said it."""
    return NotTold(section.name, getattr(error, "strerror", None) or str(error) or type(error).__name__)
