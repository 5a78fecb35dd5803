"""What serves follows the configuration file: what is new is taken when no task runs here, by beginning anew with it.

So that there is such a moment no task is begun for a while. Not for as long as it takes: one task that goes on for hours would
keep this proxy from a whole night's backups, because somebody corrected an address.
"""

import logging
import time

from appliance.config import Settings
from appliance.config_file import Watched
from proxy.errors import ConfigurationError

log = logging.getLogger("lanfree.service")

LOOK_SECONDS = 2.0
"""Between two looks at the file: sooner than a person comes back from changing it."""

HOLD_SECONDS, HOLD_EVERY = 600.0, 3600.0
"""For how long of each such time no task is begun: most that run are through by then."""


class Following:
    """``settings``: those that count. For one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._waiting: Settings | None = None
        self._watched = Watched(settings.source)
        self._refused: ConfigurationError | None = None
        self._look_at = 0.0
        self._since = 0.0

    def look(self) -> bool:
        """Whether something new waits to be taken. What is not valid is told once, and what counted goes on to count."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._look()
        return self._waiting is not None

    def holds(self) -> bool:
        """Whether no task should be begun now, so that what waits can be taken."""
        return self.look() and (time.monotonic() - self._since) % HOLD_EVERY < HOLD_SECONDS

    def take(self) -> bool:
        """What waits counts from now on. False where nothing does."""
        if self._waiting is None:
            return False
        self.settings, self._waiting = self._waiting, None
        log.info("took a new configuration", extra={"event": "configuration-taken"})
        return True

    def _look(self) -> None:
        found = self._watched.look()
        refused = self._watched.refused
        if refused is not None and refused is not self._refused:
            self._waiting = None
            log.error(
                "the configuration was not taken, the one before it still counts: %s",
                refused.message,
                extra={"event": "configuration-refused", "hint": refused.hint},
            )
        self._refused = refused
        if found is None:
            return
        if self._waiting is None:
            self._since = time.monotonic()
        self._waiting = found if found != self.settings else None
        if self._waiting is not None:
            log.info(
                "the configuration changed: it is taken when no task runs here; none is begun for %.0f minutes of each hour",
                HOLD_SECONDS / 60,
                extra={"event": "configuration-changed"},
            )
