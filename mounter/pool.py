"""Mount sessions that stay open for a while after their use, so that the next look into the same restore point is fast.

::

    use(key) ── kept? ──yes──> the open session (milliseconds)
                  └─no──> open one (seconds) ──> used by any number at once ──> idle ──> closed: by age, for room, or at the end

One session serves one restore point and one set of keys, and is never switched to another: what a hostile image did to its
appliance ends with it (docs/adr). For services that live on; a command opens its own session. Bounded in number, which bounds
memory: an appliance holds 768 MiB and more.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from mounter.session import MountSession
from proxy.closing import Closeable
from proxy.errors import MountEnded, MountFailed
from proxy.ports import Clock

_LOG = logging.getLogger(__name__)

# A person who browses looks again within minutes. Longer holds an appliance's memory for somebody who has gone home.
IDLE = timedelta(minutes=5)

# With 768 MiB each 3 GiB, on a proxy that has backups to do as well.
MOST = 4

# A kept session that ends by its own deadline within this time is not given out any more: one use should fit in.
LEFT = timedelta(minutes=5)

Opens = Callable[[], AbstractContextManager[MountSession]]
"""Opens a session, and gives back all that was taken for it when left (``Services.mount``)."""


class TellsTime(Protocol):
    """Seconds that never go back (``time.monotonic``)."""

    def __call__(self) -> float: ...


@dataclass(slots=True, eq=False)
class _Kept:
    """``users``: how many have it now. ``session`` is ``None`` while it is being opened. ``stale``: not to be given out."""

    key: Hashable
    users: int = 1
    session: MountSession | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    idle_since: float = 0.0
    stale: bool = False


class SessionPool(Closeable):
    """Sessions by key. All methods from any thread. Nothing is left when the process is killed: a session's servers and
    appliance end with it (``remote.py``, ``export.py``)."""

    def __init__(
        self, *, clock: Clock, idle: timedelta = IDLE, most: int = MOST, monotonic: TellsTime = time.monotonic
    ) -> None:
        self._clock = clock
        self._idle = idle.total_seconds()
        self._most = most
        self._now = monotonic
        self._changed = threading.Condition()
        self._kept: dict[Hashable, _Kept] = {}
        self._opened: set[_Kept] = set()
        self._closed = False
        self._reaper = threading.Thread(target=self._reap, name="session-pool", daemon=True)
        self._reaper.start()

    @property
    def open_sessions(self) -> int:
        """How many there are now, in use or idle."""
        with self._changed:
            return len(self._opened)

    @contextmanager
    def use(self, key: Hashable, opens: Opens) -> Iterator[MountSession]:
        """A session for ``key``, which must say everything that makes sessions differ: the restore point, and whose keys
        opened it. Raises what ``opens`` raises, and ``MountFailed`` when all sessions that may be are in use."""
        kept = self._take(key, opens)
        try:
            if kept.session is None:  # it is given to users when it is open
                raise MountFailed("the restore point", "its session was not opened")
            yield kept.session
        except MountEnded:
            kept.stale = True  # crashed, or its deadline has come
            raise
        finally:
            self._give_back(kept)

    def end(self, key: Hashable, *, used: bool = True) -> None:
        """Close the session for ``key``, if there is one: calls under way in it end with ``MountEnded``; one that is just being
        opened is closed after its use. ``used``: also while it is in use; else only when it is idle."""
        with self._changed:
            kept = self._kept.get(key)
            if kept is None or (kept.users and not used):
                return
            kept.stale = True
            if kept.session is None:
                return
            self._forget(kept)
        self._end(kept)

    def is_open(self, key: Hashable) -> bool:
        """Whether a use of ``key`` would find an open session now."""
        with self._changed:
            kept = self._kept.get(key)
            return kept is not None and self._usable(kept)

    def close(self) -> None:
        """Close all sessions, also those in use: calls under way end with ``MountEnded``."""
        with self._changed:
            self._closed = True
            opened = list(self._opened)
            self._kept.clear()
            self._changed.notify_all()
        for kept in opened:
            self._end(kept)
        if threading.current_thread() is not self._reaper:
            self._reaper.join()

    def _take(self, key: Hashable, opens: Opens) -> _Kept:
        while True:
            evicted: _Kept | None = None
            with self._changed:
                if self._closed:
                    raise MountEnded("the pool of sessions was closed")
                kept = self._kept.get(key)
                if kept is not None and kept.session is None:  # another user is opening it
                    self._changed.wait()
                    continue
                if kept is not None and self._usable(kept):
                    kept.users += 1
                    return kept
                if kept is not None:
                    self._forget(kept)
                    evicted = kept if not kept.users else None
                elif len(self._opened) >= self._most:
                    evicted = self._longest_idle()
                    self._forget(evicted)
                else:
                    fresh = self._kept[key] = _Kept(key)
                    self._opened.add(fresh)
            if evicted is not None:
                self._end(evicted)
            elif kept is None:
                return self._open(fresh, opens)

    def _open(self, kept: _Kept, opens: Opens) -> _Kept:
        try:
            session = kept.stack.enter_context(opens())
        except BaseException:  # whoever waits for it must try by himself, whatever happened here
            with self._changed:
                self._forget(kept)
                self._opened.discard(kept)
                self._changed.notify_all()
            raise
        with self._changed:
            kept.session = session
            closed = self._closed
            self._changed.notify_all()
        if closed:
            self._end(kept)
            raise MountEnded("the pool of sessions was closed")
        return kept

    def _give_back(self, kept: _Kept) -> None:
        with self._changed:
            kept.users -= 1
            kept.idle_since = self._now()
            over = not kept.users and (kept.stale or self._kept.get(kept.key) is not kept)
            if over or kept.stale:
                self._forget(kept)
            self._changed.notify_all()
        if over:
            self._end(kept)

    def _usable(self, kept: _Kept) -> bool:
        return not kept.stale and kept.session is not None and kept.session.expires_at - self._clock.now() > LEFT

    def _longest_idle(self) -> _Kept:
        idle = [kept for kept in self._kept.values() if not kept.users]
        if not idle:
            raise MountFailed(
                "the restore point",
                f"{self._most} sessions are in use, and there may not be more",
                hint="try again when one of them has ended",
            )
        return min(idle, key=lambda kept: kept.idle_since)

    def _forget(self, kept: _Kept) -> None:
        """Nobody gets it any more. Whoever has it keeps it."""
        if self._kept.get(kept.key) is kept:
            del self._kept[kept.key]

    def _end(self, kept: _Kept) -> None:
        """Close it, outside of the lock: that takes seconds."""
        try:
            kept.stack.close()
        finally:
            with self._changed:
                self._opened.discard(kept)
                self._changed.notify_all()

    def _reap(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                idle = [kept for kept in self._kept.values() if not kept.users]
                old = [kept for kept in idle if self._now() - kept.idle_since >= self._idle]
                if not old:
                    next_one = min((kept.idle_since + self._idle for kept in idle), default=None)
                    self._changed.wait(None if next_one is None else max(0.0, next_one - self._now()))
                    continue
                for kept in old:
                    self._forget(kept)
            for kept in old:
                try:
                    self._end(kept)
                except Exception:  # noqa: BLE001  # one that cannot be closed must not keep the others open for ever
                    _LOG.exception("a mount session could not be closed")
