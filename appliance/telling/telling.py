"""Messages from where something happens to where they are read.

Whoever has something to tell only writes it down here (``tell``, ``event``), and never waits nor fails. Threads, one a way,
deliver: a way that hangs keeps no other waiting. What is not taken is tried again, the wait doubling; after three days it is
given up, and noted with the job run.
"""

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from appliance.telling.digest import merged
from appliance.telling.events import Event, coverage_lost, repository_trouble, repository_well, run_ended
from appliance.telling.kept import Kept
from appliance.telling.kinds import GRAVITY, Gravity
from appliance.telling.outbox import REMEMBERED, REMEMBERED_RUNS, Outbox, Waiting
from appliance.telling.report import JobRunReport
from appliance.telling.routes import held_until, wanted
from appliance.telling.settings import Notify, Reports
from appliance.telling.ways import Message, Way, made
from appliance.telling.ways.way import ToldInPart
from proxy.errors import IntegrityError, LanfreeError, NotTold, RepositoryFull, RepositoryUnavailable
from proxy.model import MachineId
from proxy.ports import Clock

_LOG = logging.getLogger(__name__)

# The same trouble again: sooner fills mailboxes, later and people take it for over.
REPEAT = timedelta(hours=6)

# Waits between attempts double from the first to the second. A server that restarts is told within a minute, one that is
# away for a night costs some dozens of attempts.
SHORTEST, LONGEST = timedelta(seconds=30), timedelta(hours=1)

# Older news help nobody; a long weekend fits.
GIVEN_UP = timedelta(days=3)

# Reports that go with one mail: what mail servers take is some ten MiB.
ATTACHED, ATTACHED_BYTES = 3, 8 * 1024 * 1024

# Seconds between looks at the outbox: a command in another process may have put something there.
_LOOK = 30.0

# Seconds that a process which ends gives to what it has just written down; the rest is told by the next one.
_LAST = 10.0

_LEVELS = {Gravity.CRITICAL: logging.ERROR, Gravity.ERROR: logging.ERROR, Gravity.WARNING: logging.WARNING}


class Telling:
    """``state``: directory for ``outbox/`` and ``reports/``. ``note``: keeps a text with a job run, for what was given up."""

    def __init__(
        self,
        sections: Sequence[Notify],
        reports: Reports,
        state: Path,
        clock: Clock,
        note: Callable[[str, str], None] | None = None,
    ) -> None:
        self._sections = {section.name: section for section in sections}
        self._ways: Mapping[str, Way] = {section.name: made(section) for section in sections}
        self._outbox = Outbox(state / "outbox")
        self._kept = Kept(state / "reports", reports.keep)
        self._reports = reports
        self._clock = clock
        self._note = note
        self._news = threading.Condition()
        self._written = 0
        self._ending = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the configured ways."""
        return tuple(self._ways)

    def tell(self, report: JobRunReport) -> None:
        """How a job run ended: its HTML report is kept, and one message written down for each way that wants it."""
        self.event(run_ended(report, self._keep(report)))

    def event(self, event: Event) -> None:
        """Write it down for each way that wants it, and into the log; nothing if the same was told not long ago."""
        kind, about, repeat = event.kind.value, event.about, REPEAT
        if event.run:  # a run ends once, but who was killed while telling of it is followed by somebody who tells of it
            kind, about, repeat = "run", event.run, REMEMBERED_RUNS
        with _never_failing(f"'{event.title}' could not be written down"):
            now = self._clock.now()
            memory = self._outbox.over if event.over else partial(self._outbox.news, repeat=repeat)
            with memory(kind, (about,), now) as news:
                if news:
                    self._write(event, now)

    def coverage(self, job: str, overdue: Mapping[MachineId, str], hours: float) -> None:
        """The machines of a job, by name, that have no restore point within its objective: those are told that were not
        before. Said of all of them, at any time."""
        with _never_failing(f"what job {job} does not protect could not be written down"):
            now, kind = self._clock.now(), f"overdue {job}"
            protected = self._outbox.told(kind) - overdue.keys()
            with self._outbox.over(kind, protected, now):
                pass
            with self._outbox.news(kind, overdue.keys(), now, REMEMBERED) as news:
                if news:
                    self._write(coverage_lost(job, sorted(overdue[machine] for machine in news), now, hours), now)

    def repository(self, place: str, error: Exception | None) -> None:
        """What became of work on a repository: whether it is full, away or damaged, or works (again)."""
        now = self._clock.now()
        if error is None:
            self.event(repository_well(place, now))
        elif isinstance(error, RepositoryFull | RepositoryUnavailable | IntegrityError):
            self.event(repository_trouble(place, error.message, now, error.hint))

    def _write(self, event: Event, now: datetime) -> None:
        _LOG.log(
            _LEVELS.get(GRAVITY[event.kind], logging.INFO),
            "%s",
            event.title,
            extra={"event": f"told-{event.kind}", "job": event.job, "job_run": event.run},
        )
        for name, section in self._sections.items():
            if wanted(section, event):
                self._put(name, event, now, held_until(section, event, now))

    def deliver_due(self, name: str) -> datetime | None:
        """Tell what is due this way; the moment of the next one, ``None`` if nothing waits."""
        with self._outbox.delivering(name) as ours:
            if ours:
                now = self._clock.now()
                due = [message for message in self._outbox.waiting(name) if message.not_before <= now]
                well = True
                for group in self._groups(name, due):
                    # Who did not take one takes no other now, and each attempt may last as long as its limit.
                    well = self._deliver(name, group) if well else self._delay(group, now)
        return min((message.not_before for message in self._outbox.waiting(name)), default=None)

    def waiting(self, name: str) -> Sequence[Waiting]:
        """Messages that were not told this way yet, oldest first."""
        return self._outbox.waiting(name)

    def try_now(self, name: str, event: Event) -> None:
        """Tell at once, past quiet hours and outbox. Raises ``NotTold``, ``ConfigurationError``."""
        self._ways[name].deliver(Message(f"test-{uuid.uuid4().hex}", event))

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Deliver in the background, what an earlier process left too."""
        self._ending = False
        threads = [threading.Thread(target=self._work, args=(name,), daemon=True) for name in self._ways]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            with self._news:
                self._ending = True
                self._news.notify_all()
            for thread in threads:
                thread.join(_LAST / max(1, len(threads)))

    def _work(self, name: str) -> None:
        while True:
            with self._news:
                ending, written = self._ending, self._written
            due = None
            with _never_failing("messages could not be delivered"):
                due = self.deliver_due(name)
            if ending:
                return
            wait = _LOOK if due is None else min(_LOOK, max(1.0, (due - self._clock.now()).total_seconds()))
            with self._news:
                self._news.wait_for(partial(self._is_news, written), wait)

    def _is_news(self, seen: int) -> bool:
        return self._ending or self._written != seen

    def _put(self, name: str, event: Event, now: datetime, not_before: datetime) -> None:
        lost = self._outbox.put(name, event, now, not_before)
        if lost:
            _LOG.error("%s: %d old messages were dropped, too many wait", name, lost, extra={"event": "not-told"})
        with self._news:
            self._written += 1
            self._news.notify_all()

    def _keep(self, report: JobRunReport) -> str:
        if not self._reports.keep:
            return ""
        with _never_failing("the report of a run could not be kept"):
            from appliance.telling.html import rendered  # noqa: PLC0415  # the template engine loads when it is needed

            run = report.run
            return self._kept.save(run.job_name, run.id, run.started_at, rendered(report, self._clock.now()))
        return ""

    def _groups(self, name: str, due: Sequence[Waiting]) -> Iterator[list[Waiting]]:
        """What is told together: on ways that merge all that the same addresses have not heard yet."""
        if not self._ways[name].merges:
            yield from ([message] for message in due)
            return
        groups: dict[frozenset[str], list[Waiting]] = {}
        for message in due:
            groups.setdefault(message.told, []).append(message)
        yield from groups.values()

    def _deliver(self, name: str, group: Sequence[Waiting]) -> bool:
        """Whether it was taken."""
        event = merged([message.event for message in group])
        first = group[0]
        try:
            self._ways[name].deliver(Message(first.id, event, self._attached(name, group), first.told))
        except LanfreeError as error:
            self._postpone(name, group, error)
        except Exception as error:  # noqa: BLE001  # a fault in a library of dozens of services must not stop the others
            self._postpone(name, group, NotTold(name, f"{type(error).__name__} in its library"))
        else:
            for message in group:
                self._outbox.taken(message)
            return True
        return False

    def _delay(self, group: Sequence[Waiting], now: datetime) -> bool:
        for message in group:
            self._outbox.later(message, now + SHORTEST)
        return False

    def _attached(self, name: str, group: Sequence[Waiting]) -> tuple[Path, ...]:
        if not self._sections[name].attach_report:
            return ()
        files: list[Path] = []
        room = ATTACHED_BYTES
        for message in group:
            file = self._kept.path(message.event.report)
            if file is not None and len(files) < ATTACHED and file.stat().st_size <= room:
                files.append(file)
                room -= file.stat().st_size
        return tuple(files)

    def _postpone(self, name: str, group: Sequence[Waiting], error: LanfreeError) -> None:
        now = self._clock.now()
        _LOG.warning("%s", error.message, extra={"event": "not-told"})
        for message in group:
            if now - message.made_at >= GIVEN_UP:
                self._give_up(name, message, error)
                continue
            told = error.told if isinstance(error, ToldInPart) else message.told
            wait = min(LONGEST, SHORTEST * 2 ** min(message.attempts, 20))
            self._outbox.again(message, now + wait, told)

    def _give_up(self, name: str, message: Waiting, error: LanfreeError) -> None:
        self._outbox.taken(message)
        text = f"'{message.event.title}' was not told to {name}: {error.message}"
        _LOG.error("%s", text, extra={"event": "not-told", "job_run": message.event.run})
        if self._note is not None and message.event.run:
            self._note(message.event.run, text)


@contextlib.contextmanager
def _never_failing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # noqa: BLE001  # telling is no part of what is told: it may be poor, a run may not fail by it
        _LOG.exception("%s", what, extra={"event": "not-told"})
