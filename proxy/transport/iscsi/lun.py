"""One logical unit, read over whichever portal works; the retry rules are here and nowhere else.

====================================  =======================================================================
the device, or the path, says         what happens
====================================  =======================================================================
UNIT ATTENTION                        identity is read again, must be the same; the command is repeated once
ABORTED COMMAND, TASK ABORTED         repeated once
BUSY, TASK SET FULL, RESERVATION      repeated with growing pauses for ``BUSY_SECONDS``, then ``DeviceBusy``
CONFLICT, becoming ready
no answer in time, connection lost    the session is given up; repeated over the next portal, then this one anew
no portal lets us in                  ``ReadFailed`` (or what the caller makes of ``LoginFailed``)
anything else                         the caller's error, at once
====================================  =======================================================================
"""

import time
from collections.abc import Callable, Sequence

from proxy.errors import DeviceBusy, FormatError, ReadFailed, TransportError, TransportRefused
from proxy.extents import Extent
from proxy.transport.iscsi import scsi, vpd
from proxy.transport.iscsi.allocation import allocation
from proxy.transport.iscsi.errors import CommandFailed, SessionLost
from proxy.transport.iscsi.paths import Paths
from proxy.transport.iscsi.scsi import Capacity, Outcome
from proxy.transport.iscsi.session import Command, Limits, Login, ReadSession
from proxy.units import KiB, align_down, align_up

BUSY_FIRST_PAUSE = 0.02
BUSY_LONGEST_PAUSE = 1.0
BUSY_SECONDS = 15.0
"""A cluster's reservations (LVM, SCSI-2 locks of file systems) last milliseconds; what lasts longer than 15 s belongs to
somebody who does not mean to share, and a backup that waits for ever helps nobody."""

ATTENTIONS = 8
"""Unit attentions that a new session may report before its first command; arrays queue a few, never many."""

INQUIRY_LENGTH = 2048
"""Room for the designators of any device seen; page 0x83 of an array with many ports can pass 255 bytes."""
LBA_STATUS_LENGTH = 64 * KiB
"""Room for 4095 runs an answer."""
DIRECT_ACCESS = 0x00
"""Peripheral qualifier and type (SPC-4 6.6.2) of a connected disk; controllers and missing units have others."""


class Lun:
    """A logical unit. All calls may come from many threads at once. Raises as ``Paths.session`` does, when opened.

    ``expected``: who the unit must be, ``None`` to take whoever answers. ``size`` and block size are those of the first
    session; a later session whose unit has another name is refused with reason ``lun-identity``.
    """

    def __init__(
        self,
        login: Login,
        portals: Sequence[str],
        number: int,
        limits: Limits,
        *,
        expected: vpd.Identity | None = None,
        connect: Callable[[str, Login, Limits], ReadSession] = ReadSession,
    ) -> None:
        self.number = number
        self.limits = limits
        self._identity = expected
        self._where = f"{login.target}/{number}"
        self._paths = Paths(login.target, portals, lambda portal: connect(portal, login, limits), check=self._recognise)
        try:
            self.capacity: Capacity = scsi.parse_capacity(
                self.ask(scsi.read_capacity(), scsi.CAPACITY16.size, "READ CAPACITY(16)")
            )
            self.block_limits = self._block_limits()
        except BaseException:
            self.close()
            raise
        request = limits.request_size
        if self.block_limits.transfer:
            request = min(request, self.block_limits.transfer * self.capacity.block_size)
        self.request_size = max(self.capacity.block_size, align_down(request, self.capacity.block_size))

    @property
    def identity(self) -> vpd.Identity:
        """The unit's names, as the device said them."""
        return self._identity or vpd.Identity(())

    @property
    def name(self) -> str:
        """For people: the canonical name, else target and number."""
        return self.identity.name or self._where

    def close(self) -> None:
        """Log out. Twice is fine."""
        self._paths.close()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset`` (bytes, any alignment). Raises ``ReadFailed`` or ``DeviceBusy``."""
        self.read_pieces([(offset, buffer)])

    def read_pieces(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Fill several buffers, each from its offset, with all of their commands outstanding at once as far as the depth
        goes. Raises ``ReadFailed`` or ``DeviceBusy``; what was read then is undefined."""
        block = self.capacity.block_size
        whole: list[tuple[int, memoryview]] = []
        cut: list[tuple[memoryview, memoryview]] = []
        for offset, buffer in pieces:
            length = buffer.nbytes
            if offset < 0 or offset + length > self.capacity.size:
                raise ReadFailed(self.name, offset, length, f"the unit ends at {self.capacity.size}")
            if not length:
                continue
            low, high = align_down(offset, block), align_up(offset + length, block)
            flat = buffer.cast("B")
            if high - low == length:
                whole.append((low, flat))
            else:
                wide = memoryview(bytearray(high - low))
                whole.append((low, wide))
                cut.append((wide[offset - low : offset - low + length], flat))
        self._read_blocks(whole)
        for source, destination in cut:
            destination[:] = source

    def extents(self, start: int = 0, length: int | None = None) -> list[Extent]:
        """The map, or the part of it that covers ``length`` bytes from ``start`` (whole blocks), by GET LBA STATUS.
        Raises ``CommandFailed`` where the device has none."""

        def ask(block: int) -> list[scsi.LbaStatus]:
            cdb = scsi.get_lba_status(block, LBA_STATUS_LENGTH)
            return scsi.parse_lba_status(self.ask(cdb, LBA_STATUS_LENGTH, "GET LBA STATUS"))

        block = self.capacity.block_size
        end = self.capacity.blocks if length is None else (start + length) // block
        return allocation(ask, end, block, first=start // block)

    def recognise(self) -> None:
        """Ask who answers now: a target may put another unit under the number and report nothing. Raises
        ``TransportRefused`` with reason ``lun-identity`` or ``lun-missing``, ``ReadFailed``."""
        try:
            self._recognise(self._paths.session())
        except TransportRefused:
            raise
        except TransportError as error:
            raise ReadFailed(self.name, 0, 0, error.message) from error

    def ask(self, cdb: bytes, length: int, what: str) -> bytes:
        """Parameter data of one command. Raises ``CommandFailed``."""
        data = bytearray(length)
        outcome = self.run([Command(cdb, data_in=memoryview(data))])[0]
        if not outcome.good:
            raise CommandFailed(self.name, what, outcome)
        return bytes(data[: length - outcome.residual])

    def run(self, commands: Sequence[Command]) -> list[Outcome]:
        """Run commands by the retry rules and return how they ended, good or not.

        Raises ``DeviceBusy``, ``SessionLost``, ``LoginFailed``, and ``TransportRefused`` if the unit is another one now.
        A command may be carried out twice, when its session died before the answer came.
        """
        outcomes = [Outcome(scsi.Status.ERROR)] * len(commands)
        pending = list(range(len(commands)))
        rules = _Rules(self.name, paths=len(self._paths))
        while pending:
            session = self._paths.session()
            try:
                answers = session.execute(self.number, [commands[i] for i in pending])
                attention = any(answer.unit_attention for answer in answers)
                if attention:
                    self._recognise(session)
            except SessionLost as lost:
                rules.session_lost(lost)
                continue
            for index, answer in zip(pending, answers, strict=True):
                outcomes[index] = answer
            pending = rules.to_repeat(pending, answers)
        return outcomes

    def _read_blocks(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Whole blocks."""
        block, step = self.capacity.block_size, self.request_size
        parts = [
            (offset + at, buffer[at : at + step]) for offset, buffer in pieces for at in range(0, len(buffer), step)
        ]
        commands = [
            Command(scsi.read(offset // block, len(buffer) // block), data_in=buffer) for offset, buffer in parts
        ]
        try:
            outcomes = self.run(commands)
        except TransportError as error:
            offset, length = (parts[0][0], sum(len(buffer) for _offset, buffer in parts)) if parts else (0, 0)
            raise ReadFailed(self.name, offset, length, error.message) from error
        for (offset, buffer), outcome in zip(parts, outcomes, strict=True):
            if not outcome.good or outcome.residual:
                why = str(outcome) if not outcome.good else f"{outcome.residual} bytes were missing"
                raise ReadFailed(self.name, offset, len(buffer), why)

    def _recognise(self, session: ReadSession) -> None:
        """Let a session report what is pending, then make sure that the unit is who it was."""
        for _ in range(ATTENTIONS):
            ready = session.execute(self.number, [Command(scsi.test_unit_ready())])[0]
            if not ready.unit_attention:
                break
        identity = read_identity(session, self.number)
        session.recognised(self.number, identity or vpd.Identity(()))
        if identity is None:
            raise TransportRefused("san", self._where, "lun-missing", "no disk answers under this number")
        if self._identity is None:
            self._identity = identity
        elif not self._identity.is_still(identity):
            raise TransportRefused(
                "san",
                self._where,
                "lun-identity",
                f"expected {self._identity.name or 'no name'}, found {identity.name or 'no name'} at {session.portal}",
                hint="the array's mapping changed: compare LUN numbers of the hosts' and the proxy's target",
            )

    def _block_limits(self) -> vpd.BlockLimits:
        try:
            page = self.ask(scsi.inquiry(vpd.BLOCK_LIMITS_PAGE, 255), 255, "INQUIRY, block limits")
            return vpd.parse_block_limits(page)
        except CommandFailed:
            return vpd.BlockLimits()  # an old device: no limits known


def read_identity(session: ReadSession, number: int) -> vpd.Identity | None:
    """Who a unit is; ``None`` when there is no disk under the number. Unit attentions do not stop an INQUIRY (SPC-4 6.6)."""
    standard = _inquire(session, number, None)
    if not standard or standard[0] != DIRECT_ACCESS:
        return None
    page = _inquire(session, number, vpd.IDENTIFICATION_PAGE)
    try:
        return vpd.parse_identity(page) if page else vpd.Identity(())
    except FormatError:
        return vpd.Identity(())  # a device that garbles its names has none; it is never taken for a named one


def _inquire(session: ReadSession, number: int, page: int | None) -> bytes:
    data = bytearray(INQUIRY_LENGTH)
    command = Command(scsi.inquiry(page, len(data)), data_in=memoryview(data))
    outcome = session.execute(number, [command])[0]
    return bytes(data[: len(data) - outcome.residual]) if outcome.good else b""


class _Rules:
    """How often and how late the commands of one call are repeated."""

    def __init__(self, device: str, paths: int) -> None:
        self._device = device
        self._sessions_left = paths + 1
        self._repeated: set[int] = set()
        self._pause = BUSY_FIRST_PAUSE
        self._give_up_at = 0.0

    def session_lost(self, lost: SessionLost) -> None:
        """Each portal may lose one session, and one of them a second."""
        self._sessions_left -= 1
        if self._sessions_left <= 0:
            raise lost

    def to_repeat(self, pending: Sequence[int], answers: Sequence[Outcome]) -> list[int]:
        """Which commands to run again, after the pause that they need."""
        busy = [(index, answer) for index, answer in zip(pending, answers, strict=True) if answer.busy]
        once = [
            index
            for index, answer in zip(pending, answers, strict=True)
            if (answer.unit_attention or answer.aborted) and index not in self._repeated
        ]
        self._repeated.update(once)
        if busy:
            self._wait(str(busy[0][1]))
        return sorted([index for index, _ in busy] + once)

    def _wait(self, status: str) -> None:
        now = time.monotonic()
        self._give_up_at = self._give_up_at or now + BUSY_SECONDS
        if now >= self._give_up_at:
            raise DeviceBusy(self._device, status)
        time.sleep(min(self._pause, self._give_up_at - now))
        self._pause = min(self._pause * 2, BUSY_LONGEST_PAUSE)
