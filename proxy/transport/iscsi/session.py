"""One iSCSI session: one connection, one thread, and the list of commands that may pass.

The only importer of the libiscsi binding. libiscsi is not thread-safe and looks for timeouts only while it is serviced,
so one thread does nothing else, in C and without the interpreter's lock (``shim.c`` draws it), at least every
``TICK_SECONDS``. A session never repairs itself: whatever breaks it (timeout, lost connection, refused login) makes it
*dead*, destroys its libiscsi context, and then fails every queued and outstanding command at once with ``SessionLost``.
In this order, for then nothing can write into the callers' buffers any more, and they may be used for the next try.
"""

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from proxy.errors import ConfigurationError
from proxy.transport.iscsi import scsi
from proxy.transport.iscsi.errors import CommandForbidden, LoginFailed, LoginReason, SessionLost
from proxy.transport.iscsi.scsi import Opcode, Outcome
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

    256 KiB x 16: smaller requests cost more work per byte on both sides, larger ones leave the array waiting for the wire;
    between 256 and 512 KiB, 8 and 16, no difference could be measured (SAN.md). 4 MiB outstanding also fill a 10 Gbit/s
    line at 3 ms. An array with few queue slots for many initiators wants a smaller depth, a long line a larger one.

    ``timeout``: a healthy array answers within milliseconds, one that switches controllers within a few seconds. Too short
    does little harm, since what takes longer is asked for again over the next portal, and over the first one anew before
    it is an error; too long keeps a backup, and with it a snapshot, waiting for an array that is gone.
    ``login_timeout``: for connection and login together.
    """

    request_size: int = 256 * KiB
    depth: int = 16
    timeout: int = 5
    login_timeout: float = 5.0
    header_digest: bool = False  # TCP's checksum and the chunk digests remain; CRC32C costs CPU on both sides


@dataclass(frozen=True, slots=True)
class Command:
    """A CDB with the buffer that its data goes to (``data_in``) or comes from (``data_out``)."""

    cdb: bytes
    data_in: memoryview | None = None
    data_out: memoryview | None = None


class ReadSession:
    """A session that cannot change anything: its list of commands is ``scsi.READ_COMMANDS``.

    ``execute`` may be called from many threads, ``close`` from any. Connects in the constructor, raises ``LoginFailed``.
    """

    allowed: ClassVar[frozenset[Opcode]] = scsi.READ_COMMANDS
    _may_write: ClassVar[bool] = False

    def __init__(self, portal: str, login: Login, limits: Limits) -> None:
        self.portal = portal
        self._ffi, self._lib = _binding()
        self._session = self._ffi.gc(self._open(login, limits), self._lib.lf_free)
        self._connected = threading.Event()
        self._refused: LoginFailed | None = None
        self._thread = threading.Thread(
            target=self._serve, args=(login.target, limits.login_timeout), name=f"iscsi {portal}", daemon=True
        )
        self._thread.start()
        self._connected.wait()
        if self._refused is not None:
            self.close()
            raise self._refused

    @property
    def dead(self) -> bool:
        """Whether every further command fails. Never turns back."""
        return bool(self._lib.lf_dead(self._session))

    @property
    def waiting(self) -> int:
        """Commands that are queued because ``depth`` others are outstanding."""
        return int(self._lib.lf_waiting(self._session))

    def execute(self, lun: int, commands: Sequence[Command]) -> list[Outcome]:
        """Run the commands, in any order, and return how each ended. Raises ``SessionLost`` when the session died.

        Whatever happens, no buffer of ``commands`` is touched any more when this returns or raises.
        """
        for command in commands:
            self._check(lun, command)
        if not commands:
            return []
        batch, pinned = self._ffi.new("lf_command[]", len(commands)), []
        try:
            for entry, command in zip(batch, commands, strict=True):
                self._ffi.memmove(entry.cdb, command.cdb, len(command.cdb))
                entry.cdb_size, entry.lun = len(command.cdb), scsi.lun_field(lun)
                data = command.data_in if command.data_in is not None else command.data_out
                if data is not None:
                    buffer = self._ffi.from_buffer(data, require_writable=command.data_in is not None)
                    pinned.append(buffer)
                    entry.direction = 1 if command.data_in is not None else 2
                    entry.buffer, entry.length = buffer, len(buffer)
            lost = self._lib.lf_execute(self._session, batch, len(commands)) != 0
        finally:
            # Not left to the garbage collector: it may find a memory view in a traceback's cycle and clear it first.
            for buffer in pinned:
                self._ffi.release(buffer)
        if lost:
            raise SessionLost(self.portal, self._why())
        return [Outcome(e.status, e.sense_key, e.sense_code, e.residual if e.residual_kind == 1 else 0) for e in batch]

    def close(self) -> None:
        """Log out, end the thread. Commands that are still running fail with ``SessionLost``. Twice is fine."""
        self._lib.lf_close(self._session)
        self._thread.join()

    def recognised(self, lun: int, identity: Identity) -> None:
        """Tell the session who answers under a number. A reading session does not care."""

    def _check(self, lun: int, command: Command) -> None:
        """The interlock: nothing that is not in the class's list is ever queued, and nothing unqueued is submitted."""
        if not scsi.is_allowed(command.cdb, self.allowed):
            raise CommandForbidden(command.cdb, f"not allowed in a {type(self).__name__}")
        if command.data_out is not None and not self._may_write:
            raise CommandForbidden(command.cdb, "a reading session sends no data")

    def _open(self, login: Login, limits: Limits) -> Any:
        user = self._ffi.NULL if login.user is None else login.user.encode()
        session = self._lib.lf_open(
            login.initiator.encode(),
            login.target.encode(),
            user,
            self._ffi.NULL if login.user is None else (login.secret or "").encode(),
            limits.timeout,
            limits.header_digest,
            # Two sessions of one initiator with equal ISIDs would throw each other out (RFC 7143, 4.4.3.1).
            secrets.randbits(24),
            secrets.randbits(16),
            limits.depth,
            self._may_write,
        )
        if session == self._ffi.NULL:
            raise ConfigurationError(
                f"san.target {login.target}", "libiscsi does not take this name or these credentials"
            )
        return session

    def _serve(self, target: str, login_timeout: float) -> None:
        """The thread. However it ends, nobody is left waiting."""
        try:
            state = self._lib.lf_login(self._session, self.portal.encode(), int(login_timeout * 1000))
            if state == self._lib.LF_CONNECTING:
                why = f"no answer within {login_timeout:g} s"
                self._refused = LoginFailed(target, self.portal, LoginReason.UNREACHABLE, why)
            elif state != self._lib.LF_READY:
                self._refused = LoginFailed(target, self.portal, _login_reason(self._why()), self._why())
            else:
                self._connected.set()
                self._lib.lf_serve(self._session, int(TICK_SECONDS * 1000), int(LOGOUT_SECONDS * 1000))
        finally:
            self._lib.lf_bury(self._session)
            self._connected.set()

    def _why(self) -> str:
        return str(self._ffi.string(self._lib.lf_why(self._session)).decode(errors="replace")).strip()


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
