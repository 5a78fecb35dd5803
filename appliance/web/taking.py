"""The process of API and console follows the configuration file: what may change under its requests changes at once, for the
rest it has to start anew."""

import logging
import threading
from collections.abc import Sequence

from appliance.config import Settings
from appliance.config_file import Watched
from appliance.wiring import Services
from proxy.errors import ConfigurationError

_LOG = logging.getLogger("lanfree.web")

LASTING = ("repository", "state", "database", "copy_to", "copy_from", "log")
"""Sections that the process holds open, or from which others know it."""

LASTING_WEB = ("address", "names", "url", "trusted_proxies", "connections")
"""The same of ``[web]``; certificates are read again by ``appliance.web.server``, the rest is asked at each request."""


class Taking:
    """Any number of these may follow for one process; each takes what the others have not taken."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._began = services.settings
        self._watched = Watched(services.settings.source)
        self._lock = threading.Lock()

    @property
    def refused(self) -> ConfigurationError | None:
        """Why what the file says now was not taken."""
        return self._watched.refused

    def look(self) -> Sequence[str]:
        """Take what is new. What is given back are sections that are others than when this process began, and that only a new
        one takes."""
        with self._lock:
            before = self._watched.refused
            found = self._watched.look()
            refused = self._watched.refused
        if refused is not None and refused is not before:
            _LOG.error(
                "the configuration was not taken, the one before it still counts: %s",
                refused.message,
                extra={"event": "configuration-refused", "hint": refused.hint},
            )
        if found is not None:
            self.take(found)
        return differing(self._began, self._services.settings)

    def take(self, settings: Settings) -> None:
        """What was just written counts from now on."""
        with self._lock:
            if settings != self._services.settings:
                self._services.reconfigure(settings)
                _LOG.info("took a new configuration", extra={"event": "configuration-taken"})


def differing(old: Settings, new: Settings) -> Sequence[str]:
    """Sections that differ and that a process keeps as long as it lives."""
    found = [name for name in LASTING if getattr(old, name) != getattr(new, name)]
    return [*found, *(f"web.{name}" for name in LASTING_WEB if getattr(old.web, name) != getattr(new.web, name))]
