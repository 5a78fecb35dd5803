"""``lanfree serve`` has API and console beside it: a process of its own, started anew when it ends, so that nothing that people
do in a browser can disturb a backup."""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from appliance.config import Settings
from proxy import command
from proxy.closing import Closeable
from proxy.errors import ToolFailed

_LOG = logging.getLogger("lanfree.web")

SHORTEST, LONGEST = 1.0, 60.0
"""Seconds before it is started anew; doubled each time: what keeps it from running (a port that is taken) mostly lasts."""

WELL = 60.0
"""Seconds after which one that runs counts as well: the next wait is the shortest again."""

END_SECONDS = 20.0
"""It ends by itself within fifteen (``appliance.web.server``)."""


class Supervised(Closeable):
    """While it is open the console runs, if the configuration wants one. ``log``: descriptor that gets what it logs."""

    def __init__(self, settings: Settings, log: int = 2) -> None:
        self._source = settings.source
        self._log = log
        self._changed = threading.Condition()
        self._wanted = settings.web.enabled
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        # The thread lives as long as this: where it is gone nobody looks after the process.
        self._thread = threading.Thread(target=self._run, name="web-supervisor", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def configured(self, settings: Settings) -> None:
        """The configuration is another one now. What the process itself follows, it follows by itself."""
        with self._changed:
            self._wanted = settings.web.enabled
            self._changed.notify_all()

    def close(self) -> None:
        """End it, within seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        wait = SHORTEST
        while self._is_wanted():
            began = time.monotonic()
            code = self._once()
            if code is None:
                continue
            wait = SHORTEST if time.monotonic() - began >= WELL else wait
            _LOG.error(
                "the console ended with code %d; it is started anew in %.0f s, jobs go on all the same",
                code,
                wait,
                extra={"event": "web-ended-early", "code": code},
            )
            self._pause(wait)
            wait = min(LONGEST, wait * 2)

    def _once(self) -> int | None:
        """Start it and wait. Its exit code; ``None`` where it was ended because it is not wanted any more."""
        try:
            self._process = command.spawn(_argv(self._source), log=self._log)
        except (ToolFailed, OSError) as error:
            _LOG.error("the console cannot be started: %s", error, extra={"event": "web-not-started"})
            return -1
        process = self._process
        while process.poll() is None:
            with self._changed:
                self._changed.wait(0.5)
                unwanted = self._closing or not self._wanted
            if unwanted:
                command.stop(process, grace=END_SECONDS)
                return None
        return process.returncode

    def _is_wanted(self) -> bool:
        """Waits where no console is configured. False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._wanted)
            return not self._closing

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)


def _argv(source: Path) -> list[str | Path]:
    """The same program, which ends when this process does."""
    return [sys.executable, "-m", "appliance.cli", "--config", source, "web", "--parent", str(os.getpid())]
