"""Signs of life through a shared database: how proxies on several machines know of each other (``appliance.serving.liveness``).

A silent process may be cut off rather than dead. Two times keep both sides right, without any clocks being compared:

::

    last sign of life          fence                          takeover
    |--- every ``beat`` s ------|--- holds still: no segment ---|--- others: declared gone, its runs taken over
                                |    read, no step begun, no    |
                                |    seal; waits for a sign     |

A sign that comes through in time ends the wait, so a database that is away for a minute costs a minute. One that finds itself
declared gone ends the runs here: their records belong to somebody else by then, and the engine refuses what is written by
others.

When a database comes back, everybody's last sign is old, and somebody's next one is the first to come through. So nobody is
declared gone by a process whose own signs did not come without a gap for a while: the others had that time to give theirs.

The database's clock decides who is gone; ``fence`` is counted by a clock that goes on while a machine sleeps.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from catalog.database import CONNECTING
from catalog.jobs.store import JobStore, Unit
from catalog.jobs.values import ProxyFacts
from proxy.errors import LanfreeError

log = logging.getLogger("lanfree.liveness")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. ``beat``: between signs of life; ``fence``: without one, until a process holds still; ``takeover``: until others
    take over, by the database's clock. Between the last two ends what is under way: a segment, a step."""

    beat: float = 5.0
    fence: float = 30.0
    takeover: float = 60.0

    @property
    def grace(self) -> float:
        """Of signs without a gap, before others are judged by theirs: time for all that hold still to have heard of it, or to
        try twice to connect; as long as anybody has to be silent anyhow, at the most."""
        return min(self.takeover, max(self.fence, 2 * self.beat + CONNECTING))

    @property
    def gap(self) -> float:
        """Between two signs, that is one: two beats, and more where the database may be slow for longer. While it was shorter
        than half a fence, nobody's signs got as old as a takeover."""
        return max(2 * self.beat, self.fence / 2)


class Heartbeats:
    """Processes of any machines with one database. ``facts``: what this one tells of itself, asked before each sign."""

    def __init__(self, store: JobStore, facts: Callable[[str], ProxyFacts], times: Times | None = None) -> None:
        self.buried: set[str] = set()
        self._store = store
        self._facts = facts
        self._times = times or Times()
        self._name = ""
        self._sign = self._steady = _clock()
        self._lost = False
        self._silent = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._one_at_a_time = threading.Lock()

    def join(self, name: str) -> None:
        """See the protocol. Raises what the database raises: who cannot give a first sign must not begin."""
        self._name = name
        self._beat()
        self._steady = self._sign
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """See the protocol."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        with (
            contextlib.suppress(LanfreeError),
            self._store.transaction() as unit,
        ):  # else it is gone after a while anyway
            unit.proxies.gone(self._name)

    def sure(self) -> bool:
        """See the protocol."""
        return not self._lost and _clock() - self._sign < self._times.fence

    def lost(self) -> bool:
        """See the protocol."""
        return self._lost

    def confirm(self) -> bool:
        """See the protocol."""
        while not self._lost:
            try:
                self._beat()
                break
            except LanfreeError as error:
                self._unheard(error)
                self._ended.wait(min(1.0, self._times.beat))
        return not self._lost

    def living(self) -> frozenset[str]:
        """See the protocol."""
        with self._store.transaction(write=False) as unit:
            return self._counted(unit)

    @contextmanager
    def declared_gone(self, name: str) -> Iterator[bool]:
        """See the protocol. Once written down it holds: a sleeper that wakes up reads it with its next sign."""
        with self._store.transaction() as unit:
            alive = name in self._counted(unit)
            if not alive and unit.proxies.gone(name):
                self.buried.add(name)
        yield not alive

    def _counted(self, unit: Unit) -> frozenset[str]:
        """Who is counted on: all whom nobody declared gone, as long as this process may not judge who is silent."""
        now = _clock()
        judges = now - self._sign <= self._times.gap and now - self._steady >= self._times.grace
        known = unit.proxies.living(self._times.takeover) if judges else unit.proxies.list()
        return frozenset(each.name for each in known) | {self._name}

    def _go_on(self) -> None:
        while not self._ended.wait(self._times.beat) and not self._lost:
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001  # a fault of ours must not end the signs: it would be taken for dead
                self._unheard(error)

    def _unheard(self, error: Exception) -> None:
        if self._silent:  # once, not with every beat
            return
        self._silent = True
        ours = isinstance(error, LanfreeError)
        said = error.message if isinstance(error, LanfreeError) else f"a fault in Lanfree: {error!r}"
        log.warning("no sign of life comes through: %s", said, exc_info=not ours, extra={"event": "unheard"})

    def _beat(self) -> None:
        with self._one_at_a_time:
            moment = _clock()  # before it is sent: it counts from then for those who read it
            with self._store.transaction(apart=True) as unit:
                known = unit.proxies.beat(self._facts(self._name))
            if self._silent:
                self._silent = False
                log.warning("signs of life come through again", extra={"event": "heard"})
            if known:
                if moment - self._sign > self._times.gap:
                    self._steady = _clock()
                self._sign = moment
            elif not self._lost:
                self._lost = True
                log.error("others took over the runs of this process; it ends them here", extra={"proxy": self._name})


def _clock() -> float:
    """Seconds that go on while the machine is suspended, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
