"""SAN transport: the LUN that a hypervisor host uses, found and read by the proxy itself. SAN.md tells how to attach one.

    host says      iqn…:hosts / LUN 3, perhaps naa.6…       (a ``LunAddress``; names as the HOST sees the array)
    proxy asks     its own targets: REPORT LUNS, then INQUIRY page 0x83 of each unit
    it is found    under a name that is unique in the world, else as LUN 3 of the target that ``presents`` iqn…:hosts
    it is read     over the proxy's own session, whose unit must carry the same names at every login

Where name and number are both known they must agree. A target for restores is read only when no backup target presents
the unit.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from proxy.closing import Closeable
from proxy.errors import (
    ChangesUnknown,
    ConfigurationError,
    DeviceBusy,
    FormatError,
    LanfreeError,
    TransportError,
    TransportRefused,
)
from proxy.extents import Extent
from proxy.model import ChangeId, DeviceAddress, FileAddress, FrozenDisk, Layer, LunAddress
from proxy.ports import BlockSource
from proxy.transport.guard import check_read
from proxy.transport.iscsi import (
    CommandFailed,
    Identity,
    Limits,
    Login,
    LoginFailed,
    Lun,
    Paths,
    ReadSession,
    read_identity,
)
from proxy.transport.iscsi.scsi import parse_luns, report_luns
from proxy.transport.iscsi.session import Command
from proxy.transport.layers import open_layers
from proxy.transport.raw import SharedFiles

MODE = "san"

RESCAN_SECONDS = 2.0
"""A unit that is not found makes us look again, unless we looked just now: several disks miss the same target at once."""

LUN_LIST_LENGTH = 8 + 8 * 4096
"""Room for 4096 units a target, more than any array presents to one initiator."""


class Access(StrEnum):
    """``BACKUP``: a read-only view for the proxy. ``RESTORE``: restores may write here, if a token names the LUN."""

    BACKUP = "backup"
    RESTORE = "restore"


class SanReason(StrEnum):
    """Why this transport refuses, beside the ``LoginReason`` words."""

    NOT_ON_SAN = "not-on-san"
    NO_TARGET = "no-target-presents-it"
    MISSING = "lun-missing"
    IDENTITY = "lun-identity"
    BUSY = "device-busy"


STALE_REASONS = frozenset({SanReason.NO_TARGET, SanReason.MISSING, SanReason.IDENTITY})
"""Refusals that may come from what is remembered, so that looking anew may help."""


@dataclass(frozen=True, slots=True)
class SanTarget:
    """How the proxy reaches one target of an array. ``portals``: ``host:port``, tried in this order.

    ``presents``: host-side targets whose LUNs this one shows under the same numbers. The CHAP secret is read from its
    file at each login, and kept nowhere else.
    """

    iqn: str
    portals: tuple[str, ...]
    initiator: str
    chap_user: str | None = None
    chap_secret_file: Path | None = None
    presents: tuple[str, ...] = ()
    access: Access = Access.BACKUP

    def login(self) -> Login:
        """The credentials as they are now. Raises ``ConfigurationError``."""
        if self.chap_user is None:
            return Login(self.iqn, self.initiator)
        if self.chap_secret_file is None:
            raise ConfigurationError(f"san.target {self.iqn}", "chap_user without chap_secret_file")
        try:
            secret = self.chap_secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"san.target {self.iqn}",
                f"chap_secret_file cannot be read: {error}",
                hint="it must hold the secret alone",
            ) from error
        return Login(self.iqn, self.initiator, self.chap_user, secret)

    def shows(self, target: str) -> bool:
        """Whether LUN numbers of the host-side ``target`` mean the same units here."""
        return target == self.iqn or target in self.presents


@dataclass(frozen=True, slots=True)
class PresentedLun:
    """A logical unit where the proxy can reach it."""

    target: SanTarget
    number: int
    identity: Identity

    def __str__(self) -> str:
        return f"LUN {self.number} of {self.target.iqn} ({self.identity.name or 'without a name'})"


@dataclass(frozen=True, slots=True)
class _Scan:
    units: Mapping[int, Identity]
    at: float


class SanFabric:
    """All targets that the proxy may log in to. Calls may come from many threads. No session outlives a call of it.

    ``scan``: how a target's units are found; ``scan_target``, unless a test says otherwise.
    """

    def __init__(
        self,
        targets: Sequence[SanTarget],
        limits: Limits | None = None,
        scan: "Callable[[SanTarget], Mapping[int, Identity]] | None" = None,
    ) -> None:
        self.targets = tuple(targets)
        self.limits = limits or Limits()
        self._scan = scan or (lambda target: scan_target(target, self.limits))
        self._scans: dict[SanTarget, _Scan] = {}
        self._failures: dict[SanTarget, tuple[float, LanfreeError]] = {}
        # One a target: a target that does not answer keeps nobody from asking another one.
        self._locks = {target: threading.Lock() for target in self.targets}

    def units(self, target: SanTarget, *, newer_than: float = 0.0) -> Mapping[int, Identity]:
        """LUN -> identity of every disk that the target shows us; remembered. Raises ``LoginFailed`` and its kin."""
        with self._locks[target]:
            scan = self._scans.get(target)
            if scan is None or scan.at < newer_than:
                scan = self._scans[target] = _Scan(self._ask(target), time.monotonic())
            return scan.units

    def seen(self) -> Iterator[tuple[str, SanTarget]]:
        """Names of units, with the targets that showed them when they were last asked; asks nobody."""
        for target, scan in list(self._scans.items()):
            yield from ((name, target) for unit in scan.units.values() for name in unit.names)

    def forget(self) -> None:
        """Ask the array anew next time."""
        self._scans.clear()
        self._failures.clear()

    def resolve(self, address: LunAddress | DeviceAddress, access: Access = Access.BACKUP) -> PresentedLun:
        """Where the unit is for us: to read it (``BACKUP``) or to write it (``RESTORE``). Raises ``TransportRefused``."""
        try:
            return self._look_up(address, access, newer_than=0.0)
        except TransportRefused as refused:
            if refused.reason not in STALE_REASONS:
                raise
            return self._look_up(address, access, newer_than=time.monotonic() - RESCAN_SECONDS)

    def open(self, address: LunAddress | DeviceAddress) -> Lun:
        """Open the unit for reading. Raises ``TransportRefused``."""
        return self.open_presented(self.resolve(address))

    def open_presented(
        self, unit: PresentedLun, connect: Callable[[str, Login, Limits], ReadSession] = ReadSession
    ) -> Lun:
        """Log in for one unit, which must be who it was when it was found. Raises ``TransportRefused``."""
        try:
            return Lun(
                unit.target.login(),
                unit.target.portals,
                unit.number,
                self.limits,
                expected=unit.identity,
                connect=connect,
            )
        except TransportRefused:
            self.forget()  # the array's mapping is not what it was: the next call looks anew
            raise
        except DeviceBusy as busy:
            raise TransportRefused(MODE, str(unit), SanReason.BUSY, busy.message, hint=busy.hint) from busy
        except LoginFailed as failed:
            raise TransportRefused(MODE, str(unit), failed.reason, failed.message, hint=failed.hint) from failed
        except (TransportError, FormatError) as error:
            raise TransportRefused(MODE, str(unit), SanReason.MISSING, error.message, hint=error.hint) from error

    def _ask(self, target: SanTarget) -> Mapping[int, Identity]:
        """Scan, unless that failed just now: a restore asks for every disk of a site, a dead target costs seconds."""
        at, error = self._failures.pop(target, (0.0, None))
        if error is None or at < time.monotonic() - RESCAN_SECONDS:
            try:
                return self._scan(target)
            except (TransportError, FormatError) as failed:
                at, error = time.monotonic(), failed
        self._failures[target] = at, error
        raise error.with_traceback(None)

    def _look_up(self, address: LunAddress | DeviceAddress, access: Access, newer_than: float) -> PresentedLun:
        problems: list[TransportRefused] = []
        # A restore target is never the second choice for reading because a backup target is out of order.
        groups = (Access.BACKUP, Access.RESTORE) if access is Access.BACKUP else (Access.RESTORE,)
        for group in groups:
            found = list(self._find(address, group, newer_than, problems))
            if found:
                return self._one_of(address, found)
            if problems:
                raise problems[0]
        raise TransportRefused(
            MODE,
            _named(address),
            SanReason.NO_TARGET,
            f"none of {len(self.targets)} configured targets shows it",
            hint="add a [[san.target]] that presents it, or map the LUN to the proxy's initiator on the array",
        )

    def _find(
        self, address: LunAddress | DeviceAddress, access: Access, newer_than: float, problems: list[TransportRefused]
    ) -> Iterator[PresentedLun]:
        for target in self.targets:
            number = address.lun if isinstance(address, LunAddress) and target.shows(address.target) else None
            if target.access is not access or (number is None and address.name is None):
                continue
            try:
                units = self.units(target, newer_than=newer_than)
            except LoginFailed as failed:
                problems.append(
                    TransportRefused(MODE, _named(address), failed.reason, failed.message, hint=failed.hint)
                )
                continue
            except (TransportError, FormatError) as error:
                problems.append(TransportRefused(MODE, _named(address), SanReason.MISSING, error.message))
                continue
            if number is not None:
                yield from self._by_number(address, target, number, units, problems)
            else:
                # Names that are not unique in the world would find another array's unit.
                yield from (PresentedLun(target, n, unit) for n, unit in units.items() if address.name in unit.names)

    def _by_number(
        self,
        address: LunAddress | DeviceAddress,
        target: SanTarget,
        number: int,
        units: Mapping[int, Identity],
        problems: list[TransportRefused],
    ) -> Iterator[PresentedLun]:
        unit = units.get(number)
        if unit is None:
            detail = f"{target.iqn} shows {', '.join(map(str, sorted(units))) or 'no disk'} and not {number}"
            hint = "map the LUN under the number that the hosts use, or correct 'presents'"
            problems.append(TransportRefused(MODE, _named(address), SanReason.MISSING, detail, hint=hint))
        elif address.name is not None and not unit.is_called(address.name):
            detail = f"LUN {number} of {target.iqn} is {unit.name or 'without a name'}, not {address.name}"
            hint = "the array maps other LUN numbers to the proxy than to the hosts: correct the mapping or 'presents'"
            raise TransportRefused(MODE, _named(address), SanReason.IDENTITY, detail, hint=hint)
        else:
            yield PresentedLun(target, number, unit)

    def _one_of(self, address: LunAddress | DeviceAddress, found: Sequence[PresentedLun]) -> PresentedLun:
        first = found[0]
        for other in found[1:]:
            if first.identity.names and other.identity.names and not first.identity.shares_name(other.identity):
                detail = f"{first} and {other} are different units"
                hint = "two targets claim to present the same host-side target: correct 'presents' of one"
                raise TransportRefused(MODE, _named(address), SanReason.IDENTITY, detail, hint=hint)
        return first


def scan_target(target: SanTarget, limits: Limits) -> dict[int, Identity]:
    """LUN -> identity of every disk that the target shows us now. Raises ``LoginFailed`` and its kin."""
    login = target.login()
    paths = Paths(target.iqn, target.portals, lambda portal: ReadSession(portal, login, limits))
    try:
        session = paths.session()
        units = {number: read_identity(session, number) for number in _reported(session, target)}
    finally:
        paths.close()
    return {number: unit for number, unit in units.items() if unit is not None}


def named_device(name: str) -> DeviceAddress:
    """A LUN that a vSphere host knows by its canonical name alone. Hosts write a T10 identifier with its padding, as
    underscores; the names of ``vpd.py`` have none."""
    return DeviceAddress(path="", name=name.rstrip("_") if name.startswith("t10.") else name)


def _reported(session: ReadSession, target: SanTarget) -> list[int]:
    for _ in range(2):  # a target may report its power-on first
        data = bytearray(LUN_LIST_LENGTH)
        outcome = session.execute(0, [Command(report_luns(len(data)), data_in=memoryview(data))])[0]
        if outcome.good:
            return parse_luns(bytes(data[: len(data) - outcome.residual]))
    raise CommandFailed(target.iqn, "REPORT LUNS", outcome)


def _named(address: LunAddress | DeviceAddress) -> str:
    if isinstance(address, LunAddress):
        return f"{address.target}/{address.lun}" + (f" ({address.name})" if address.name else "")
    return address.name or address.path


class LunSource(Closeable):
    """A ``BlockSource`` over the bytes of one LUN, whatever lies in them."""

    def __init__(self, lun: Lun, size: int | None = None) -> None:
        self._lun = lun
        self._closed = False
        self.size = lun.capacity.size if size is None else size
        self.identity = lun.name
        # Without LBPRZ a deallocated block may read as anything, so nothing may be called zero.
        self.can_report_extents = lun.capacity.thin and lun.capacity.zeroes

    def extents(self) -> Sequence[Extent]:
        """Deallocated blocks are ZERO where the array promises it, else one DATA extent."""
        whole = [Extent(0, self.size)] if self.size else []
        if not self.can_report_extents:
            return whole
        try:
            found = self._lun.extents()
        except CommandFailed:
            return whole
        return [Extent(e.start, min(e.end, self.size) - e.start, e.kind) for e in found if e.start < self.size]

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """A LUN does not know. Raises ``ChangesUnknown``."""
        raise ChangesUnknown(self.identity, "no-tracking-for-format", "a LUN itself keeps no record of changes")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises ``ReadFailed``, ``DeviceBusy``."""
        check_read(self.identity, self.size, offset, buffer.nbytes, closed=self._closed)
        self._lun.read_into(offset, buffer)

    def close(self) -> None:
        """Log out."""
        self._closed = True
        self._lun.close()


class SanTransport:
    """Mode ``san``. ``files``: directories that hosts and proxy share, where overlays of a chain may lie."""

    mode = MODE

    def __init__(self, fabric: SanFabric, files: SharedFiles | None = None) -> None:
        self._fabric = fabric
        self._files = files or SharedFiles(())

    def probe(self, disk: FrozenDisk) -> None:
        """Every layer is where we can reach it, and one of them at least is on the SAN. Raises ``TransportRefused``."""
        on_san = False
        for layer in disk.layers:
            match layer.location:
                case LunAddress() as address:
                    self._fabric.resolve(address)
                    on_san = True
                case DeviceAddress(name=str()) as address:
                    self._fabric.resolve(address)
                    on_san = True
                case FileAddress(path=path):
                    self._files.check(path, MODE, disk.key)
                case other:
                    raise TransportRefused(MODE, disk.key, SanReason.NOT_ON_SAN, f"a layer is {other}")
        if not on_san:
            raise TransportRefused(MODE, disk.key, SanReason.NOT_ON_SAN, "no layer of it lies on a LUN")

    def open(self, disk: FrozenDisk) -> BlockSource:
        """Raises ``TransportRefused`` or ``ReadFailed``."""
        self.probe(disk)
        return open_layers(disk, lambda layer: self._container(disk, layer), MODE)

    def _container(self, disk: FrozenDisk, layer: Layer) -> BlockSource:
        match layer.location:
            case LunAddress() | DeviceAddress(name=str()) as address:
                return LunSource(self._fabric.open(address))
            case FileAddress(path=path):
                return self._files.open_container(path, MODE, disk.key)
            case other:
                raise TransportRefused(MODE, disk.key, SanReason.NOT_ON_SAN, f"a layer is {other}")
