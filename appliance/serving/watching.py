"""Watches the hosts while tasks run: reads their counters now and then, closes and slows places whose guests would suffer
(``jobs.governor``), and keeps what each run's host and places did before, during and after it (``jobs.measures``).

One thread of its own does the reading: a silent host takes its time, and nobody's heartbeat may wait for that.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from appliance.config_serving import Latency
from appliance.jobs.governor import STALE, Governor, Thresholds, Verdict
from appliance.jobs.measures import Sample, impact, sample
from appliance.serving.pacing import Paces
from appliance.wiring import Services
from catalog.jobs import limits
from catalog.jobs.values import Task, TaskState
from proxy.closing import Closeable
from proxy.errors import ConfigurationError, LanfreeError
from proxy.model import Disk, Reason, VirtualMachine
from proxy.places import place_of
from proxy.ports import Load, Meters
from proxy.transfer import Pace
from proxy.units import MiB

log = logging.getLogger("lanfree.watch")

# Samples of the time before a run, and of the time after it, that are kept: a minute each at the usual interval. Short, so that
# it is the same hour of the guests' day.
AROUND = 3

_HELD = "{}: guests waited too long for their data there, so nothing more was begun for a time (latency-hold)"
_SLOWED = "{}: guests waited too long for their data there, so what was read there was slowed (latency-slow)"

# Seconds after which a place that is closed or slowed still is told of again: job runs have begun meanwhile.
TELL_AGAIN = 60.0

# Seconds between two looks at the least, when runs begin and end one after the other.
SOONEST = 5.0


@contextmanager
def watching(services: Services) -> Iterator["Watch"]:
    """A watch over all configured hosts, while it is open; in ``services.controls`` for whoever reads disks."""

    def save(task: str, more: Mapping[str, object]) -> None:
        with services.jobs.transaction() as unit:
            unit.tasks.measured(task, more)

    def meters() -> Meters:
        return services.hypervisor.meters()

    def tell(key: str, text: str) -> None:
        states = (TaskState.WAITING, TaskState.RUNNING)
        # There may be ten thousand tasks: nobody's claims and signs of life wait until they are looked through.
        with services.jobs.transaction(write=False) as unit:
            left = [run for run in unit.runs.under_way() if text not in run.notes]
            told = [run for run in left if any(key in t.keys for s in states for t in unit.tasks.of_run(run.id, s))]
        if told:
            with services.jobs.transaction() as unit:
                for run in told:
                    unit.runs.note(run.id, text)

    settings = services.settings
    with Watch(settings.latency, meters, save, tell=tell, shared=settings.raw.shared_directories) as watch:
        services.controls.watch = watch
        watch.start()
        yield watch


Save = Callable[[str, Mapping[str, object]], None]
"""Adds to the measures of a task that has ended. Raises ``LanfreeError``."""

Tell = Callable[[str, str], None]
"""Says to the job runs that have work under a key what they are to know of it; the same words again are said once. Raises
``LanfreeError``."""


@dataclass(slots=True)
class _Tracked:
    """A run that is watched. Times are those of the watch's clock."""

    task: str
    host: str
    places: tuple[str, ...]
    began: float
    before: list[Sample]
    ended: float | None = None
    during: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)

    def add(self, middle: float, load: Load) -> None:
        """A look whose interval had its middle then."""
        one = sample(load, self.host, self.places)
        if middle < self.began:
            self.before = [*self.before[1 - AROUND :], one]
        elif self.ended is None or middle <= self.ended:
            self.during.append(one)
        else:
            self.after.append(one)

    def impact(self) -> Mapping[str, object]:
        """So far."""
        return impact(self.host, self.places, self.before, self.during, self.after)


class Watch(Closeable):
    """One a process. Calls may come from any thread. ``meters`` makes the reader, in the watch's own thread, when that begins.
    ``shared``: directories that all hosts have under the same path. ``save``: where a run's impact is added to its task;
    ``tell``: what job runs are told of their places."""

    def __init__(
        self,
        settings: Latency,
        meters: Callable[[], Meters],
        save: Save,
        *,
        tell: Tell = lambda _key, _text: None,
        shared: Sequence[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._make = meters
        self._save = save
        self._tell = tell
        self._shared = tuple(shared)
        self._clock = clock
        self._paces = Paces(clock)
        self._governor = Governor(self._thresholds, slowest=settings.slowest_mib * MiB)
        self._judged_at: float | None = None
        self._told: dict[tuple[str, str], float] = {}
        self._verdict = Verdict()
        self._lock = threading.Lock()
        self._recent: deque[Load] = deque(maxlen=AROUND)
        self._tracked: dict[str, _Tracked] = {}
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, in a thread that ends with ``close``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """No further look. What is known of runs that have ended is saved. A host that is being asked is not waited for."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None
        with self._lock:
            left = [one for one in self._tracked.values() if one.ended is not None]
            self._tracked = {}
        self._keep(left)

    def closed(self) -> frozenset[str]:
        """Keys under which nothing should begin now, because guests already wait too long there. None once nobody has measured
        for long: a host may keep the watch waiting."""
        if self._judged_at is not None and self._clock() - self._judged_at > STALE + self._settings.interval:
            self._decide(Verdict())
        return frozenset(self._verdict.closed)

    def reasons(self) -> Mapping[str, Reason]:
        """Why they are closed, by key."""
        return self._verdict.closed

    def paces(self) -> Mapping[str, float]:
        """Places where copies of this process are slowed now: bytes/s."""
        return self._verdict.pace

    def pace(self, machine: VirtualMachine, disk: Disk) -> Pace | None:
        """For ``BackupPorts.pace``. Nobody is asked where no place is governed."""
        if not self._settings.governs:
            return None
        return self._paces.of([place_of(place, machine.host, self._shared) for place in (disk.location, *disk.below)])

    @contextmanager
    def tracking(self, task: Task) -> Iterator[None]:
        """While its run goes on. A minute after the end, its impact is saved."""
        places = tuple(key.removeprefix(f"{limits.PLACE}:") for key in task.keys if key.startswith(f"{limits.PLACE}:"))
        with self._lock:
            before = [sample(load, task.host, places) for load in self._recent]
            one = self._tracked[task.run] = _Tracked(task.id, task.host, places, self._clock(), before)
        self._wake.set()
        try:
            yield
        finally:
            with self._lock:
                one.ended = self._clock()
            self._wake.set()

    def look(self, meters: Meters) -> None:
        """Read the counters once, and draw the conclusions. Called by the watch's own thread (or by a test instead of it)."""
        try:
            load = meters.read()
        except LanfreeError as error:
            log.warning("the hosts' counters cannot be read: %s", error.message)
            load = Load(datetime.now(UTC))
        now = self._clock()
        with self._lock:
            if load.hosts or load.places:
                self._recent.append(load)
                for one in self._tracked.values():
                    one.add(now - load.seconds / 2, load)
            done = [run for run, one in self._tracked.items() if self._over(one, now)]
            finished = [self._tracked.pop(run) for run in done]
        self._keep(finished)
        if self._settings.governs and self._due(now):
            self._judge(now, load)

    def _run(self) -> None:
        meters: Meters | None = None
        while not self._ended.is_set():
            try:
                meters = meters or self._make()
                self.look(meters)
            except ConfigurationError as error:
                log.info("hosts are not watched: %s", error.message)
                return
            except LanfreeError as error:  # the database that the drivers' notes are in may be away
                log.warning("hosts cannot be watched now: %s", error.message)
            except Exception:  # nobody waits for this thread, and a fault of ours must not leave places closed
                log.exception("the watch failed")
                self._decide(Verdict())
            if self._ended.wait(min(SOONEST, self._settings.interval)):
                return
            self._wake.wait(max(0.0, self._settings.interval - SOONEST))
            self._wake.clear()

    def _over(self, one: _Tracked, now: float) -> bool:
        """Whether enough of the time after it was seen, or there was time enough to see it."""
        if one.ended is None:
            return False
        return len(one.after) >= AROUND or now - one.ended > (AROUND + 1) * self._settings.interval

    def _due(self, now: float) -> bool:
        """Looks that runs asked for come in between; the governor counts samples, and takes those of its own interval."""
        return self._judged_at is None or now - self._judged_at >= 0.8 * self._settings.interval

    def _judge(self, now: float, load: Load) -> None:
        self._judged_at = now
        verdict = self._governor.observe(now, load, self._paces.taken())
        self._decide(verdict)
        for reason in verdict.changed:
            log.info("%s", reason.detail, extra={"event": reason.code.value})
        said = [(key, _HELD) for key in verdict.closed]
        said += [(limits.key(limits.PLACE, name), _SLOWED) for name in verdict.pace]
        self._told = {what: at for what, at in self._told.items() if what in said}
        for key, text in said:
            if now - self._told.get((key, text), -TELL_AGAIN) >= TELL_AGAIN:
                self._told[key, text] = now
                with _logged("a job run was not told of a slow place"):
                    self._tell(key, text.format(key.partition(":")[2]))

    def _decide(self, verdict: Verdict) -> None:
        self._paces.set(verdict.pace)
        self._verdict = verdict

    def _thresholds(self, place: str) -> Thresholds | None:
        known = self._settings.of(place)
        return None if known is None else Thresholds(known[0] / 1000, known[1] / 1000)

    def _keep(self, finished: Sequence[_Tracked]) -> None:
        for one in finished:
            found = one.impact()
            if found:
                with _logged(f"what a run did to {one.host} was not written down"):
                    self._save(one.task, {"impact": found})


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """What cannot be written down ends nothing."""
    try:
        yield
    except LanfreeError as error:
        log.warning("%s: %s", what, error.message)
