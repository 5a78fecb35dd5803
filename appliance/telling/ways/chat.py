"""Mail and chat by Apprise: the only module that imports it.

Its addresses hold passwords and tokens. They come from a file that only its owner may read, and whatever Apprise says goes
through ``_masked`` before anybody sees it.
"""

import hmac
import logging
import re
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import unquote

import apprise

from appliance.telling.kinds import EventKind
from appliance.telling.secrets import private_lines
from appliance.telling.settings import Notify
from appliance.telling.text import one_line
from appliance.telling.ways.way import Message, ToldInPart
from proxy.command import MASK
from proxy.errors import ConfigurationError, NotTold

_KINDS = {
    EventKind.DONE: apprise.NotifyType.SUCCESS,
    EventKind.FAILED: apprise.NotifyType.FAILURE,
    EventKind.PROXY_GONE: apprise.NotifyType.FAILURE,
    EventKind.REPOSITORY: apprise.NotifyType.FAILURE,
    EventKind.COVERAGE: apprise.NotifyType.FAILURE,
    EventKind.TEST: apprise.NotifyType.INFO,
}
"""What is not in it is a warning."""

# Parts of an address that are shorter are words like "to" and "tls", and masking them would leave nothing to read.
_SHORTEST = 4

_SEPARATORS = re.compile(r"[/:?&=@,;#]+")


class Chat:
    """See ``appliance.telling.settings.Notify``. Each address is told on its own: one that is away does not make the others
    hear a message twice."""

    merges = True

    def __init__(self, section: Notify) -> None:
        self._section = section
        # What it logs are addresses and whole requests: into nobody's log. What went wrong comes with the result.
        logger = logging.getLogger("apprise")
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())

    def deliver(self, message: Message) -> None:
        """See ``Way``."""
        if self._section.url_file is None:
            raise ConfigurationError(f"[[notify]] {self._section.name}", "has no url_file")
        told, why = set(message.told), ""
        for number, address in enumerate(private_lines(self._section.url_file), 1):
            mark = hmac.new(message.id.encode(), address.encode(), sha256).hexdigest()[:16]
            if mark not in told:
                problem = self._tell(address, number, message)
                if problem:
                    why = why or problem
                else:
                    told.add(mark)
        if why:
            raise ToldInPart(self._section.name, why, frozenset(told)) if told else NotTold(self._section.name, why)

    def _tell(self, address: str, number: int, message: Message) -> str:
        """What went wrong, or an empty text."""
        # Nothing of ours is kept on disk by it: its store is for tokens of services that we hold in files.
        asset = apprise.AppriseAsset(storage_mode=apprise.PersistentStoreMode.MEMORY, app_id="Lanfree")
        service = apprise.Apprise(asset=asset)
        if not service.add(address):
            raise ConfigurationError(
                f"{self._section.url_file}, address {number}",
                "Apprise does not understand it",
                hint="its documentation lists what an address of each service looks like",
            )
        event = message.event
        result = service.notify(
            body=event.text or event.title,
            title=event.title,
            notify_type=_KINDS.get(event.kind, apprise.NotifyType.WARNING),
            body_format=apprise.NotifyFormat.TEXT,
            attach=[str(file) for file in message.attach] or None,
            timeout=self._section.timeout,
        )
        if result:
            return ""
        said = "; ".join(dict.fromkeys(str(entry.message) for entry in result.logs()))
        return _masked(said, address) or f"address {number} did not answer in time or refused"


def _masked(said: str, address: str) -> str:
    """Without any part of the address, which may each be a secret (tokens are parts of paths in many services)."""
    for part in sorted(set(_parts(address)), key=len, reverse=True):
        said = said.replace(part, MASK)
    return one_line(said)


def _parts(address: str) -> Iterator[str]:
    yield address
    for part in _SEPARATORS.split(address):
        if len(part) >= _SHORTEST:
            yield part
            yield unquote(part)
