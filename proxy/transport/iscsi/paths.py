"""Several ways to one target: one live session at a time, the next portal when it dies.

One session rather than all at once, because an array with a preferred controller would pay for reads over the other
one. A portal that failed is tried after those that did not, and waits longer with each failure; when no other is left it
is tried all the same, so a caller hears "no path" only when every portal was asked.
"""

import threading
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from time import monotonic

from proxy.transport.iscsi.errors import LoginFailed, LoginReason, SessionLost
from proxy.transport.iscsi.session import ReadSession

BACKOFF_SECONDS = 1.0
BACKOFF_LONGEST = 60.0
"""A failed portal is not preferred again for 1, 2, 4 … 60 s: logins of many readers would hinder an array's recovery."""


@dataclass(slots=True)
class _Path:
    portal: str
    order: int
    failures: int = 0
    not_before: float = 0.0

    def failed(self) -> None:
        self.not_before = monotonic() + min(BACKOFF_LONGEST, BACKOFF_SECONDS * 2**self.failures)
        self.failures += 1

    def worked(self) -> None:
        self.failures, self.not_before = 0, 0.0


class Paths:
    """The portals of one target. ``connect`` opens a session over a portal; ``check`` looks at a new one before it is used.

    Both may raise; ``LoginFailed`` and ``SessionLost`` mean "try the next portal", all else is passed on.
    """

    def __init__(
        self,
        target: str,
        portals: Sequence[str],
        connect: Callable[[str], ReadSession],
        check: Callable[[ReadSession], None] | None = None,
    ) -> None:
        self.target = target
        self._paths = [_Path(portal, order) for order, portal in enumerate(portals)]
        self._connect = connect
        self._check = check
        self._lock = threading.Lock()
        self._live: ReadSession | None = None
        self._attempts = 0
        self._failure: LoginFailed | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._paths)

    def session(self) -> ReadSession:
        """The live session, or a new one. Raises ``LoginFailed`` when no portal lets us in."""
        live = self._live
        if live is not None and not live.dead:
            return live
        attempt = self._attempts
        with self._lock:
            if self._closed:
                raise SessionLost(self.target, "closed")
            if self._live is not None and not self._live.dead:
                return self._live
            if self._attempts != attempt and self._failure is not None:
                # Another thread asked every portal while this one waited; the answer would not be better now.
                raise copy(self._failure)
            self._bury()
            self._attempts += 1
            self._live, self._failure = self._first_that_works()
            if self._live is None and self._failure is not None:
                raise copy(self._failure)
            assert self._live is not None  # noqa: S101 - for the type checker: one of both is always set
            return self._live

    def close(self) -> None:
        """Log out of the live session. Later calls of ``session`` fail."""
        with self._lock:
            self._closed = True
            live, self._live = self._live, None
        if live is not None:
            live.close()

    def _bury(self) -> None:
        dead, self._live = self._live, None
        if dead is not None:
            dead.close()
            for path in self._paths:
                if path.portal == dead.portal:
                    path.failed()

    def _first_that_works(self) -> tuple[ReadSession | None, LoginFailed | None]:
        now = monotonic()
        failures = []
        for path in sorted(self._paths, key=lambda p: (max(0.0, p.not_before - now), p.order)):
            try:
                session = self._open(path.portal)
            except LoginFailed as failed:
                path.failed()
                # Without its traceback: the frames in it would keep, as long as this is kept, the callers' buffers.
                failures.append(failed.with_traceback(None))
                continue
            except SessionLost as lost:
                path.failed()
                failures.append(LoginFailed(self.target, path.portal, LoginReason.UNREACHABLE, lost.why))
                continue
            path.worked()
            return session, None
        # What only a person can mend is more telling than a portal that is down.
        telling = sorted(failures, key=lambda f: f.reason is LoginReason.UNREACHABLE)
        return None, telling[0] if telling else LoginFailed(
            self.target, "-", LoginReason.REFUSED, "no portal is configured"
        )

    def _open(self, portal: str) -> ReadSession:
        session = self._connect(portal)
        try:
            if self._check is not None:
                self._check(session)
        except BaseException:
            session.close()
            raise
        return session
