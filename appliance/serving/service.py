"""What serves: begins what schedules say, works on tasks, goes on with what dead processes left, and tidies up, until it is
told to end. ``lanfree serve`` is this; any number of machines may do it over one database.

A look costs a few small queries, so there is one a second. What may take long (a sweep of the hosts, a first look at the
fabrics) happens beside it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from appliance import databases, inventory
from appliance.reach import reaches
from appliance.serving import phases, scheduler
from appliance.serving.afterwards import tell
from appliance.serving.engine import Engine, Stage
from appliance.serving.following import Following
from appliance.serving.watching import watching
from appliance.serving.worker import Closed, Worker
from appliance.telling.events import proxy_gone
from appliance.wiring import Services
from appliance.workflows import Workflows
from catalog.jobs.values import JobRun, JobRunState
from proxy.errors import DatabaseAway, JobRunNotFound, LanfreeError
from proxy.model import Reason, ReasonCode

log = logging.getLogger("lanfree.service")

LOOK_SECONDS = 1.0
"""Between two looks at schedules and tasks. A run that ends here wakes the worker at once."""

MEND_SECONDS = 5.0
"""Between two looks for what dead processes left: short beside the time after which one counts as dead."""

REACH_SECONDS = 60.0
"""Between two looks at the fabrics."""

SWEEP_SECONDS = 3600.0
"""Between two looks for leftovers on the hosts; each asks every host for everything."""

TIDY_SECONDS = 30.0
"""How long the first tasks wait for the first sweep; a host that is silent takes longer, and must not hold up the others."""

AGAIN_SECONDS = 5.0
"""Before another try to begin while the database is away."""

RECORDS = timedelta(days=30)
"""How long the engine's records of what ended are kept: longer than any run of a job goes on, which is all that needs them."""

FORGET_SECONDS = 86400.0
"""Between two looks for history that is old enough to be forgotten."""


@dataclass
class Beside:
    """Something that is done every so often on a thread of its own, never twice at the same time."""

    every: float
    work: Callable[[], None]
    next_at: float = 0.0
    thread: threading.Thread | None = None

    def look(self, now: float) -> None:
        """Begin it if its time has come and it does not go on still. Seconds of a monotonic clock."""
        if now < self.next_at or (self.thread is not None and self.thread.is_alive()):
            return
        self.next_at = now + self.every
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work()
        except LanfreeError as error:
            log.warning("%s", error.message)
        except Exception:  # it comes again, and a fault here must not end what backs up
            log.exception("a fault in Lanfree")


class Service:
    """One process that serves, inside an engine. ``closed``: what else closes keys (latency). ``hold``: whether to begin no
    more tasks now, since it is to end when none runs here."""

    def __init__(
        self,
        services: Services,
        workflows: Workflows,
        *,
        closed: Sequence[Closed] = (),
        beside: Sequence[Beside] = (),
        only: str | None = None,
        hold: Callable[[], bool] = lambda: False,
    ) -> None:
        self._services = services
        self._workflows = workflows
        self._only = only
        self._hold = hold
        self.idle = False
        """Whether nothing ran here at the last look, no hook either, and no task was begun since."""
        self._worker = Worker(services, workflows, closed=closed, only=only)
        self._sweeping = Beside(SWEEP_SECONDS, self._sweep)
        self._taken = {taken.run for taken in workflows.recovered}
        self._beside = [
            Beside(REACH_SECONDS, self._reach),
            self._sweeping,
            Beside(FORGET_SECONDS, self._forget),
            *([] if only else [Beside(inventory.EVERY.total_seconds(), self._look_at_inventory)]),
            *beside,
        ]
        self._swept = threading.Event()
        self._claim_at = time.monotonic() + TIDY_SECONDS
        self._mend_at = 0.0
        self._told = ""
        self._bad_jobs: set[str] = set()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until the process is told to end, or ``until`` says so, or others took over what it did."""
        services = self._services
        services.slots = services.settings.proxy.slots
        while not (services.cancelled.is_set() or services.controls.lost() or until()):
            services.controls.changed.clear()
            self.look()
            services.controls.changed.wait(LOOK_SECONDS)

    def look(self) -> None:
        """Once. What cannot be done now, since the database is away, is done at a later look; what one look fails at does not
        end the service, whose runs go on meanwhile."""
        for one in self._beside:
            one.look(time.monotonic())
        try:
            self._look()
        except LanfreeError as error:
            if error.message != self._told:  # once, not every second of an hour
                log.error("%s", error.message, extra={"event": "look-failed", "hint": error.hint})
            self._told = error.message
        except Exception as error:
            if repr(error) != self._told:
                log.exception("a fault in Lanfree", extra={"event": "look-failed"})
            self._told = repr(error)
        else:
            self._told = ""

    def _look(self) -> None:
        services, now = self._services, self._services.clock.now()
        if not services.controls.sure():
            return
        if self._only is None:
            for begun in scheduler.begin_due(services, now, self._bad_jobs):
                run = begun.run
                known = {"event": "job-run-began", "job": run.job_name, "job_run": run.id}
                log.info("job %s %s", run.job_name, begun, extra=known)
                if run.state is JobRunState.SKIPPED:
                    phases.tell(services, tell, run)
        scheduler.advance(services, self._workflows, now, self._only)
        if time.monotonic() >= self._mend_at:
            self._mend_at = time.monotonic() + MEND_SECONDS
            self._mend()
        self.idle = not self._worker.look_after() and not self._workflows.busy
        if self._tidy() and not self._hold():
            self.idle = not self._worker.claim() and self.idle

    def _tidy(self) -> bool:
        """Whether the hosts were looked at for leftovers once, or would not answer: what a dead run of another version holds
        would cost the first attempt of its machine."""
        return self._swept.is_set() or time.monotonic() >= self._claim_at

    def _mend(self) -> None:
        with self._services.jobs.transaction() as unit:
            # Where file locks tell who lives, this is only for those who look at a list of proxies.
            unit.proxies.beat(self._services.proxy_facts(self._workflows.name))
        self._bury()
        for taken in self._workflows.take_over():
            if taken.run not in self._taken:
                log.warning("run %s was interrupted: going on with it", taken.run, extra={"event": "taken-over"})
            self._taken.add(taken.run)
        self._expire()
        for task in self._worker.mend():
            log.warning("task %s was claimed by %s and never begun", task.id, task.proxy, extra={"event": "put-back"})
        if self._taken and Stage.UNDER_WAY not in self._workflows.stages(self._taken).values():
            self._taken.clear()
            self._sweeping.next_at = 0.0  # nothing of a dead proxy stays on a host until the next hour

    def _expire(self) -> None:
        """What somebody asked for and nobody began in time is not begun when nobody counts on it any more."""
        services, now = self._services, self._services.clock.now()
        with services.jobs.transaction(write=False) as unit:
            late = unit.tasks.is_late(now)
        if late:
            with services.jobs.transaction() as unit:
                why = Reason(ReasonCode.NOT_BEGUN_IN_TIME, "no proxy was free for it; ask again")
                unit.tasks.expire_asked(now, (why,))

    def _bury(self) -> None:
        """Proxies that served and are gone: whoever finds them first tells it. Their names go off the list."""
        services, workflows = self._services, self._workflows
        with services.jobs.transaction(write=False) as unit:
            known = unit.proxies.list()
            running = [task for task in unit.tasks.running() if task.machine]
        living = workflows.living()
        for facts in known:
            if facts.name in living or not workflows.bury(facts.name):
                continue
            log.error("proxy %s is gone", facts.name, extra={"event": "proxy-gone", "proxy": facts.name})
            if facts.slots:
                left = [task.machine_name for task in running if task.proxy == facts.name]
                services.telling.event(proxy_gone(facts.name, facts.machine, services.clock.now(), left))

    def _reach(self) -> None:
        self._services.paths = reaches(self._services)

    def _look_at_inventory(self) -> None:
        inventory.refresh_if_old(self._services)

    def _sweep(self) -> None:
        try:
            for remark in self._workflows.sweep():
                log.info("%s", remark, extra={"event": "swept"})
        finally:
            self._swept.set()
            self._services.controls.changed.set()

    def _forget(self) -> None:
        """History that is old by the clock, and by the newest run as well: a clock that leaps ahead must not take all of it."""
        services = self._services
        with services.jobs.transaction(write=False) as unit:
            newest = unit.runs.newest_end()
        clock = services.clock.now()
        now = clock if newest is None else min(clock, newest)
        before = now - timedelta(days=services.settings.database.history_days)
        services.jobs.forget(before)
        with services.jobs.transaction() as unit:
            unit.proxies.forget(before)
        self._workflows.forget(now - RECORDS)


def serve(services: Services, following: Following | None = None) -> None:
    """Until the process is told to end, or what ``following`` waits for can be taken. On the way out its runs end cleanly and
    go back to waiting."""
    if not (services.settings.host or services.settings.vcenter):
        log.warning("no hypervisor is configured yet: 'lanfree host add' names one", extra={"event": "no-hosts"})
    waits, holds = (following.look, following.holds) if following is not None else (_never, _never)
    while not services.cancelled.is_set() and not waits():
        try:
            _serve(services, waits, holds)
            break
        except DatabaseAway as error:  # at the start; later on the service itself waits for it
            log.error("%s", error.message, extra={"event": "database-away"})
            services.cancelled.wait(AGAIN_SECONDS)
    log.info("ended", extra={"event": "ended"})


def _never() -> bool:
    return False


def _serve(services: Services, waits: Callable[[], bool], holds: Callable[[], bool]) -> None:
    with watching(services) as watch, _engine(services) as workflows:
        log.info("serving as %s", workflows.name, extra={"event": "serving", "proxy": workflows.name})
        service = Service(services, workflows, closed=(watch.closed,), hold=holds)
        service.run(lambda: waits() and service.idle)
        log.info("ending: runs of this proxy stop at their next segment", extra={"event": "ending"})


def work_off(services: Services, job_run: str) -> JobRun:
    """Work on one job run in this process until it has ended, or this process is told to end. The run as it is then."""

    def ended() -> bool:
        return _run(services, job_run).ended_at is not None

    with watching(services) as watch, _engine(services) as workflows:
        Service(services, workflows, closed=(watch.closed,), only=job_run).run(ended)
    return _run(services, job_run)


@contextmanager
def _engine(services: Services) -> Iterator[Workflows]:
    engine = Engine(services.workflow_url, services.liveness, databases.workflow_engine(services.settings))
    workflows = Workflows(engine, services)
    with engine:
        for taken in engine.recovered:
            log.warning("run %s was interrupted: going on with it", taken.run, extra={"event": "taken-over"})
        yield workflows
    with suppress(LanfreeError), services.jobs.transaction() as unit:  # its name is not used again
        unit.proxies.gone(engine.name)


def _run(services: Services, job_run: str) -> JobRun:
    with services.jobs.transaction(write=False) as unit:
        found = unit.runs.get(job_run)
    if found is None:
        raise JobRunNotFound(job_run)
    return found
