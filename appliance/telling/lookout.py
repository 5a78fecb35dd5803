"""Looks out for what no run tells: machines that are not protected any more, since nothing backs them up.

Of several proxies the first that lives does it, by name of its machine: they all see the same, and people want it once.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gethostname
from typing import TYPE_CHECKING

from appliance.telling.facts import Gatherer
from proxy.errors import LanfreeError

if TYPE_CHECKING:
    from appliance.wiring import Services

_LOG = logging.getLogger(__name__)

# Seconds between two looks: a night is judged in hours, and each look asks for all machines.
LOOK = 300.0


class Lookout:
    """``services``: its jobs, clock, settings and telling."""

    def __init__(self, services: "Services") -> None:
        self._services = services
        self._name = services.settings.proxy.name or gethostname()
        self._gatherer = Gatherer(lambda: services.jobs, {}, services.clock.now, tuple)

    def look(self) -> None:
        """Once, if this is the proxy that does it. Raises what the job store raises."""
        with self._services.jobs.transaction(write=False) as unit:
            first = min((proxy.machine for proxy in unit.proxies.living()), default=None)
        if first == self._name:
            self.coverage()

    def coverage(self) -> None:
        """Of every job that runs by itself: machines of its last run that are without a restore point in time."""
        for facts in self._gatherer.facts().jobs:
            if facts.last is not None and facts.job.enabled and facts.job.policy.schedule is not None:
                self._services.telling.coverage(facts.job.name, facts.overdue, facts.job.policy.objective)


@contextmanager
def lookout(services: "Services") -> Iterator[None]:
    """Look out in the background while the block runs."""
    ended = threading.Event()
    looking = Lookout(services)

    def work() -> None:
        while not ended.wait(LOOK):
            try:
                looking.look()
            except LanfreeError as error:
                _LOG.debug("cannot look out: %s", error.message)
            except Exception:  # noqa: BLE001  # a fault here must not end what warns of faults
                _LOG.exception("a fault in Lanfree")

    thread = threading.Thread(target=work, name="lookout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
