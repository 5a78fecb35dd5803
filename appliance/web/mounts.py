"""Mount sessions that callers hold: handles on a pool of opened restore points.

::

    handle (who, keys, expiry) ──> SessionPool (at most four open, shared where point and keys are the same) ──> MountSession

A handle is a word in the memory of this process. While it is not used, the session behind it is closed after some minutes and
its memory free; the next use opens it again, with the keys that the handle still holds. Nothing of it is written anywhere.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial

from api.auth.roles import Caller, Permission
from api.refusals import NotFound, TooMany
from api.schemas.common import Reason, Refusal
from api.schemas.files import GuestVolume
from api.schemas.mounts import Mount, MountRequest, MountState
from appliance.auditing import audit
from appliance.web.file_facts import volume_of
from appliance.web.reaching import point_in_reach
from appliance.wiring import Services
from mounter.keys import Key
from mounter.pool import SessionPool, TellsTime
from mounter.session import MountSession
from proxy.closing import Closeable
from proxy.errors import ConfigurationError, FormatError, LanfreeError
from proxy.model import RestorePoint

_LOG = logging.getLogger(__name__)

EXPIRY = timedelta(minutes=15)
"""Without use. Keys are kept for so long: a person who was called away comes back to it, one who went home does not."""

LIFETIME = timedelta(days=1)
"""Of an opened restore point in any case: a download of some TiB through an emulated appliance. Idle ones end much earlier."""

MOST = 32
"""Handles. They cost little, but each may hold keys."""

MOST_OF_ONE = 8
"""Of one caller, so that nobody takes all."""

OPENING = 8
"""Requests that may wait for a restore point to open: each holds one of the process's few threads, for a minute maybe."""

PATIENCE = 5.0
"""Seconds until somebody who finds no such place is sent away, to come again."""

MOMENT = 2.0
"""Seconds that ``open`` waits: what needs no appliance is open by then."""


@dataclass(slots=True, eq=False)
class _Handle:
    """``users``: how many use it now; ``used``: when it was last, by the monotonic clock. ``ready``: opening has ended."""

    id: str
    point: RestorePoint
    called: str
    owner: str
    who: str
    opened_at: datetime
    key: Hashable
    keys: tuple[Key, ...] = field(repr=False)
    used: float
    users: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    problem: Refusal | None = None
    reader: Reason | None = None
    volumes: list[GuestVolume] = field(default_factory=list)


class WebMounts(Closeable):
    """``api.ports.mounts.Mounts``, and what ``WebFiles`` reads from."""

    def __init__(self, services: Services, *, monotonic: TellsTime = time.monotonic) -> None:
        self._services = services
        self._now = monotonic
        self._changed = threading.Condition()
        self._handles: dict[str, _Handle] = {}
        self._waiting = threading.BoundedSemaphore(OPENING)
        self._salt = secrets.token_bytes(32)
        self._closed = False

    @cached_property
    def _pool(self) -> SessionPool:
        threading.Thread(target=self._reap, name="mount-sessions", daemon=True).start()
        return SessionPool(clock=self._services.clock)

    def open(self, caller: Caller, request: MountRequest) -> Mount:
        """See the port."""
        point, called = point_in_reach(self._services, caller, request.point)
        keys = _keys_in(request)
        audit(self._services, "open-session", point, who=caller.who, keys=len(keys))
        handle = _Handle(
            id=secrets.token_urlsafe(16),
            point=point,
            called=called,
            owner=caller.name,
            who=caller.who,
            opened_at=self._services.clock.now(),
            key=(point.id, self._fingerprint(keys)),
            keys=keys,
            used=self._now(),
        )
        pool = self._pool
        with self._changed:
            mine = sum(each.owner == caller.name for each in self._handles.values())
            if len(self._handles) >= MOST or mine >= MOST_OF_ONE:
                raise TooMany("mount sessions", after=60.0)
            self._handles[handle.id] = handle
            self._changed.notify_all()
        threading.Thread(target=self._begin, args=(pool, handle), name="open-session", daemon=True).start()
        handle.ready.wait(MOMENT)
        return self._told(handle)

    def list(self, caller: Caller) -> list[Mount]:
        """See the port."""
        with self._changed:
            found = [handle for handle in self._handles.values() if self._visible(caller, handle)]
        return [self._told(handle) for handle in sorted(found, key=lambda each: each.opened_at)]

    def get(self, caller: Caller, session: str) -> Mount:
        """See the port."""
        return self._told(self._handle(caller, session))

    def end(self, caller: Caller, session: str) -> None:
        """See the port. What others have opened without keys of their own goes on for them."""
        handle = self._handle(caller, session)
        audit(self._services, "close-session", handle.point, who=caller.who, opened_by=handle.who)
        with self._changed:
            self._handles.pop(handle.id, None)
        self._let_go(handle, used=bool(handle.keys))

    @contextmanager
    def use(self, caller: Caller, point: RestorePoint, session: str | None = None) -> Iterator[MountSession]:
        """The opened restore point: of the caller's session, else without keys of anybody. Waits until it is open. Raises
        ``NotFound`` for a session that is not the caller's, or not of this point, ``MountFailed``, ``TooMany``."""
        with ExitStack() as held:
            opens = self._pool.use((point.id, ()), partial(self._services.mount, point, lifetime=LIFETIME))
            if session is not None:
                handle = self._handle(caller, session)
                if (
                    handle.owner != caller.name or handle.point.id != point.id
                ):  # who configures looks at it, not through it
                    raise NotFound("mount session", session)
                held.enter_context(self._using(handle))
                opens = self._opened(self._pool, handle)
            with self._place_to_wait():
                opened = held.enter_context(opens)
            yield opened

    def close(self) -> None:
        """See the port."""
        with self._changed:
            self._closed = True
            self._handles.clear()
            self._changed.notify_all()
        pool: SessionPool | None = self.__dict__.pop("_pool", None)
        if pool is not None:
            pool.close()

    def _begin(self, pool: SessionPool, handle: _Handle) -> None:
        try:
            with self._using(handle), self._opened(pool, handle) as session:
                handle.volumes = [volume_of(volume) for volume in session.volumes()]
                handle.reader = Reason.of(session.opened_by) if session.opened_by is not None else None
        except LanfreeError as error:
            handle.problem = Refusal(code=error.code, message=error.message, hint=error.hint)
        except Exception:  # noqa: BLE001  # a thread of its own: nobody else would tell who waits
            _LOG.exception("a mount session could not be opened")
            handle.problem = Refusal(code="internal", message="something unexpected happened", hint="see the log")
        finally:
            handle.ready.set()

    @contextmanager
    def _opened(self, pool: SessionPool, handle: _Handle) -> Iterator[MountSession]:
        opens = partial(self._services.mount, handle.point, keys=handle.keys, lifetime=LIFETIME)
        with pool.use(handle.key, opens) as session:
            yield session

    @contextmanager
    def _place_to_wait(self) -> Iterator[None]:
        if not self._waiting.acquire(timeout=PATIENCE):
            raise TooMany("restore points being opened", after=PATIENCE)
        try:
            yield
        finally:
            self._waiting.release()

    @contextmanager
    def _using(self, handle: _Handle) -> Iterator[None]:
        with self._changed:
            handle.users += 1
        try:
            yield
        finally:
            with self._changed:
                handle.users -= 1
                handle.used = self._now()
                self._changed.notify_all()

    def _visible(self, caller: Caller, handle: _Handle) -> bool:
        mine = handle.owner == caller.name or caller.may(Permission.CONFIGURE)
        return mine and caller.sees(handle.point.machine, handle.called)

    def _handle(self, caller: Caller, session: str) -> _Handle:
        with self._changed:
            handle = self._handles.get(session)
            if handle is None or not self._visible(caller, handle):
                raise NotFound("mount session", session)
            return handle

    def _told(self, handle: _Handle) -> Mount:
        left = EXPIRY - timedelta(seconds=self._now() - handle.used)
        state = MountState.OPENING
        if handle.ready.is_set():
            state = MountState.OPEN if self._pool.is_open(handle.key) else MountState.RESTING
            state = MountState.FAILED if handle.problem is not None else state
        return Mount(
            id=handle.id,
            point=handle.point.id,
            machine=handle.point.machine,
            machine_name=handle.called,
            opened_by=handle.who,
            opened_at=handle.opened_at,
            expires_at=self._services.clock.now() + (EXPIRY if handle.users else left),
            state=state,
            keys=len(handle.keys),
            problem=handle.problem,
            reader=handle.reader,
            volumes=handle.volumes,
        )

    def _fingerprint(self, keys: Sequence[Key]) -> tuple[bytes, ...]:
        """Tells sets of keys apart without holding them: who gives other keys gets another session."""
        each = (hashlib.blake2b(k.volume.encode() + b"\0" + k.secret, key=self._salt).digest() for k in keys)
        return tuple(sorted(each))

    def _let_go(self, handle: _Handle, *, used: bool) -> None:
        """Close what is behind a handle that is gone, unless another one has the same."""
        with self._changed:
            shared = any(each.key == handle.key for each in self._handles.values())
        if not shared:
            self._pool.end(handle.key, used=used)

    def _reap(self) -> None:
        """Forget handles, and so their keys, when they have expired."""
        limit = EXPIRY.total_seconds()
        while True:
            with self._changed:
                if self._closed:
                    return
                idle = [each for each in self._handles.values() if not each.users]
                old = [each for each in idle if self._now() - each.used >= limit]
                if not old:
                    soonest = min((each.used + limit for each in idle), default=None)
                    self._changed.wait(None if soonest is None else max(0.0, soonest - self._now()))
                    continue
                for each in old:
                    del self._handles[each.id]
            for each in old:
                self._let_go(each, used=False)


def _keys_in(request: MountRequest) -> tuple[Key, ...]:
    """Raises ``ConfigurationError``, without a word of what was sent."""
    try:
        return tuple(Key(key.volume, key.content()) for key in request.keys)
    except FormatError:
        raise ConfigurationError("keys", "one is too long for a key") from None
