"""One iSCSI session: one connection, one thread, and the list of commands that may pass.

::

    caller's threads            the session's thread
    execute(commands) ──queue──> submit ── lf_run: poll, service ── completions ──> wakes the callers
                                   ^                                    │
                                   └── at most ``depth`` outstanding <──┘

The only importer of the libiscsi binding. libiscsi is not thread-safe and looks for timeouts only while it is serviced,
so one thread does nothing else, at least every ``TICK_SECONDS``. A session never repairs itself: whatever breaks it
(timeout, lost connection, refused login) makes it *dead*, destroys its libiscsi context, and then fails every queued and
outstanding command at once with ``SessionLost``. In this order, for then nothing can write into the callers' buffers
any more, and they may be used for the next try.
"""

import os
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import Any, ClassVar

from proxy.errors import ConfigurationError
from proxy.transport.iscsi import scsi
from proxy.transport.iscsi.errors import CommandForbidden, LoginFailed, LoginReason, SessionLost
from proxy.transport.iscsi.scsi import Opcode, Outcome, Status
from proxy.transport.iscsi.vpd import Identity
from proxy.units import KiB

TICK_SECONDS = 0.5
"""How late a command's timeout may be noticed. Shorter only costs wake-ups of an idle session."""

LOGOUT_SECONDS = 1.0
"""A polite goodbye is worth this much waiting, not more: closing the connection ends the session as well."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in. ``user`` and ``secret`` for one-way CHAP; the secret is never shown."""

    target: str
    initiator: str
    user: str | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """``request_size``: bytes per READ or WRITE; ``depth``: commands outstanding; times in seconds.

    256 KiB x 16 was the best of 64 KiB-1 MiB x 1-32 here (SAN.md has the figures): smaller requests cost more work per
    byte on both sides, larger ones leave the array waiting for the wire. 4 MiB outstanding also fill a 10 Gbit/s line
    at 3 ms. An array with few queue slots for many initiators wants a smaller depth, a long line a larger one.

    ``timeout``: a healthy array answers within milliseconds, one that switches controllers within a few seconds; what
    takes longer goes to the next portal. ``login_timeout``: for connection and login together.
    """

    request_size: int = 256 * KiB
    depth: int = 16
    timeout: int = 10
    login_timeout: float = 5.0
    header_digest: bool = False  # TCP's checksum and the chunk digests remain; CRC32C costs CPU on both sides


@dataclass(frozen=True, slots=True)
class Command:
    """A CDB with the buffer that its data goes to (``data_in``) or comes from (``data_out``)."""

    cdb: bytes
    data_in: memoryview | None = None
    data_out: memoryview | None = None


class _Batch:
    """The commands of one ``execute`` call; ``finished`` is held until the last one is through."""

    __slots__ = ("finished", "left", "lost", "outcomes")

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self.left = count
        self.lost = False
        self.finished = threading.Lock()
        self.finished.acquire()


_Job = tuple[_Batch, int, int, Command]
"""Batch, index in it, LUN field, command."""


class ReadSession:
    """A session that cannot change anything: its list of commands is ``scsi.READ_COMMANDS``.

    ``execute`` may be called from many threads, ``close`` from any. Connects in the constructor, raises ``LoginFailed``.
    """

    allowed: ClassVar[frozenset[Opcode]] = scsi.READ_COMMANDS
    _may_write: ClassVar[bool] = False

    def __init__(self, portal: str, login: Login, limits: Limits) -> None:
        self.portal = portal
        self._limits = limits
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()
        self._why_dead: str | None = None
        self._closing = False
        self._connected = threading.Event()
        self._refused: LoginFailed | None = None
        binding = _binding()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._driver = _Driver(binding, self._wake, login, limits, may_write=self._may_write)
        self._thread = threading.Thread(target=self._serve, args=(login,), name=f"iscsi {portal}", daemon=True)
        self._thread.start()
        self._connected.wait()
        if self._refused is not None:
            self.close()
            raise self._refused

    @property
    def dead(self) -> bool:
        """Whether every further command fails. Never turns back."""
        return self._why_dead is not None

    def execute(self, lun: int, commands: Sequence[Command]) -> list[Outcome]:
        """Run the commands, in any order, and return how each ended. Raises ``SessionLost`` when the session died.

        Whatever happens, no buffer of ``commands`` is touched any more when this returns or raises.
        """
        for command in commands:
            self._check(lun, command)
        batch, unit = _Batch(len(commands)), scsi.lun_field(lun)
        if not commands:
            return []
        with self._lock:
            if self._why_dead is not None:
                raise SessionLost(self.portal, self._why_dead)
            # With half the depth outstanding the thread comes by soon enough; waking it would only cost a system call.
            wake = not self._queue and len(self._driver.free) > self._limits.depth // 2
            self._queue.extend((batch, index, unit, command) for index, command in enumerate(commands))
            if wake:
                os.eventfd_write(self._wake, 1)
        batch.finished.acquire()
        if batch.lost:
            raise SessionLost(self.portal, self._why_dead or "closed")
        return [outcome for outcome in batch.outcomes if outcome is not None]

    def close(self) -> None:
        """Log out, end the thread. Commands that are still running fail with ``SessionLost``."""
        with self._lock:
            if not self._closing:
                self._closing = True
                os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def recognised(self, lun: int, identity: Identity) -> None:
        """Tell the session who answers under a number. A reading session does not care."""

    def _check(self, lun: int, command: Command) -> None:
        """The interlock: nothing that is not in the class's list is ever queued, and nothing unqueued is submitted."""
        if not scsi.is_allowed(command.cdb, self.allowed):
            raise CommandForbidden(command.cdb, f"not allowed in a {type(self).__name__}")
        if command.data_out is not None and not self._may_write:
            raise CommandForbidden(command.cdb, "a reading session sends no data")

    def _serve(self, login: Login) -> None:
        """The thread. However it ends, nobody is left waiting."""
        why = "closed"
        try:
            self._refused = self._driver.login(self.portal, login, self._limits.login_timeout)
            if self._refused is not None:
                why = self._refused.message
                return
            self._connected.set()
            why = self._drive()
        finally:
            self._bury(why)

    def _drive(self) -> str:
        """Submit and complete until closed (then log out) or broken; returns why it ended."""
        driver = self._driver
        while True:
            with self._lock:
                if self._closing:
                    break
                while self._queue and driver.free:
                    driver.prepare(self._queue.popleft())
            failed = driver.run(TICK_SECONDS)
            if failed is not None:
                return failed
        driver.logout(LOGOUT_SECONDS)
        return "closed"

    def _bury(self, why: str) -> None:
        """Dead from here on: no new commands, no address in C, and only then the bad news."""
        with self._lock:
            self._why_dead = why
            waiting = [job[0] for job in self._queue]
            self._queue.clear()
        waiting += self._driver.destroy()
        for batch in waiting:
            batch.lost = True
            batch.left -= 1
            if batch.left == 0:
                batch.finished.release()
        self._connected.set()


@dataclass(frozen=True, slots=True)
class RestoreToken:
    """Permission to overwrite one device, made for one restore. Nothing in this program writes to a LUN without one.

    ``device``: a canonical name of the LUN (``naa.…``), or the path of a file or block device. ``size``: bytes that the
    restored disk needs. ``overwrite``: a person confirmed that what is on the device may go.
    """

    device: str
    size: int
    overwrite: bool = False


class WriteSession(ReadSession):
    """A session for a restore: it may also write, to the one LUN that its token names, once that LUN was recognised."""

    allowed: ClassVar[frozenset[Opcode]] = scsi.WRITE_COMMANDS
    _may_write: ClassVar[bool] = True

    def __init__(self, portal: str, login: Login, limits: Limits, token: RestoreToken) -> None:
        self._token = token
        self._writable: int | None = None
        super().__init__(portal, login, limits)

    def recognised(self, lun: int, identity: Identity) -> None:
        """Unlock the number if the unit behind it is the token's, lock it otherwise."""
        if identity.is_called(self._token.device):
            self._writable = lun
        elif self._writable == lun:
            self._writable = None

    def _check(self, lun: int, command: Command) -> None:
        super()._check(lun, command)
        if lun != self._writable and not scsi.is_allowed(command.cdb, scsi.HARMLESS_COMMANDS):
            raise CommandForbidden(command.cdb, f"LUN {lun} is not the unit that the restore named")


class _Driver:
    """Everything that talks to the binding; used by the session's thread alone (its constructor by the maker's)."""

    def __init__(self, binding: tuple[Any, Any], wake: int, login: Login, limits: Limits, *, may_write: bool) -> None:
        self._ffi, self._lib = binding
        self._session = self._lib.lf_open(
            login.initiator.encode(),
            login.target.encode(),
            self._ffi.NULL if login.user is None else login.user.encode(),
            self._ffi.NULL if login.user is None else (login.secret or "").encode(),
            limits.timeout,
            limits.header_digest,
            # Two sessions of one initiator with equal ISIDs would throw each other out (RFC 7143, 4.4.3.1).
            secrets.randbits(24),
            secrets.randbits(16),
            limits.depth,
            wake,
            may_write,
        )
        if self._session == self._ffi.NULL:
            raise MemoryError("libiscsi context")
        self._slots = [self._lib.lf_get_slot(self._session, i) for i in range(limits.depth)]
        self._jobs: list[tuple[_Job, Any] | None] = [None] * limits.depth
        self._todo = self._lib.lf_todo(self._session)
        self._done = self._lib.lf_done(self._session)
        self._prepared = 0
        self.free = list(range(limits.depth))

    def login(self, portal: str, login: Login, seconds: float) -> LoginFailed | None:
        """Connect and log in; ``None`` when it worked."""
        deadline = monotonic() + seconds
        self._lib.lf_login(self._session, portal.encode())
        while (state := self._lib.lf_state(self._session)) == self._lib.LF_CONNECTING:
            left = deadline - monotonic()
            if left <= 0:
                return LoginFailed(login.target, portal, LoginReason.UNREACHABLE, f"no answer within {seconds:g} s")
            self._lib.lf_run(self._session, 0, int(min(left, TICK_SECONDS) * 1000) + 1)
        if state == self._lib.LF_READY:
            return None
        said = self._error()
        return LoginFailed(login.target, portal, _login_reason(said), said)

    def prepare(self, job: _Job) -> None:
        """Fill a free slot; the next ``run`` submits it."""
        index = self.free.pop()
        _, _, unit, command = job
        slot = self._slots[index]
        self._ffi.memmove(slot.cdb, command.cdb, len(command.cdb))
        slot.cdb_size = len(command.cdb)
        slot.lun = unit
        data = command.data_in if command.data_in is not None else command.data_out
        if data is None:
            slot.direction, slot.buffer, slot.length, pinned = 0, self._ffi.NULL, 0, None
        else:
            pinned = self._ffi.from_buffer(data, require_writable=command.data_in is not None)
            slot.direction = 1 if command.data_in is not None else 2
            slot.buffer, slot.length = pinned, len(pinned)
        self._jobs[index] = (job, pinned)
        self._todo[self._prepared] = index
        self._prepared += 1

    def run(self, seconds: float) -> str | None:
        """Submit what is prepared, wait for something to happen, complete; returns why the session is broken, if it is."""
        count, self._prepared = self._prepared, 0
        done = self._lib.lf_run(self._session, count, int(seconds * 1000))
        failed = None
        for at in range(done):
            failed = self._complete(self._done[at]) or failed
        if self._lib.lf_state(self._session) != self._lib.LF_READY:
            return failed or self._error() or "connection lost"
        return failed

    def _complete(self, index: int) -> str | None:
        """Hand an outcome to its batch. A command that got no status at all ends the session, and stays in its slot."""
        slot = self._slots[index]
        if slot.status >= Status.CANCELLED:
            return "no answer in time" if slot.status == Status.TIMEOUT else (self._error() or "connection lost")
        entry = self._jobs[index]
        self._jobs[index] = None
        self.free.append(index)
        if entry is not None:
            (batch, position, _, _), _ = entry
            residual = slot.residual if slot.residual_kind == 1 else 0
            batch.outcomes[position] = Outcome(slot.status, slot.sense_key, slot.sense_code, residual)
            batch.left -= 1
            if batch.left == 0:
                batch.finished.release()
        return None

    def logout(self, seconds: float) -> None:
        """Say goodbye, if nothing is outstanding and the target still listens."""
        deadline = monotonic() + seconds
        if self._lib.lf_in_flight(self._session) or self._lib.lf_logout(self._session) != 0:
            return
        while self._lib.lf_state(self._session) == self._lib.LF_READY and monotonic() < deadline:
            self._lib.lf_run(self._session, 0, int(TICK_SECONDS * 100))

    def destroy(self) -> list[_Batch]:
        """Free everything in C; returns the batch of each command that was outstanding. A second call does nothing."""
        if self._session != self._ffi.NULL:
            self._lib.lf_close(self._session)
            self._session = self._ffi.NULL
        lost = [entry[0][0] for entry in self._jobs if entry is not None]
        self._jobs = [None] * len(self._jobs)
        return lost

    def _error(self) -> str:
        return str(self._ffi.string(self._lib.lf_error(self._session)).decode(errors="replace")).strip()


def _login_reason(said: str) -> LoginReason:
    """libiscsi hands on the target's login status (RFC 7143, 11.13.5) in words and in brackets."""
    lowered = said.lower()
    if "authentication" in lowered or "(513)" in said or "chap" in lowered:
        return LoginReason.CHAP
    if "target not found" in lowered or "(515)" in said:
        return LoginReason.NO_TARGET
    if "log in" in lowered or "login" in lowered:
        return LoginReason.REFUSED
    return LoginReason.UNREACHABLE


def _binding() -> tuple[Any, Any]:
    try:
        binding: Any = import_module("proxy.transport.iscsi._libiscsi")
    except ImportError as error:
        raise ConfigurationError(
            "SAN transport",
            f"the libiscsi binding is not built ({error})",
            hint="apt-get install libiscsi-dev gcc python3-dev, then: python -m proxy.transport.iscsi.build",
        ) from error
    return binding.ffi, binding.lib
