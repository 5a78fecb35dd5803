"""The way back: writing a restore to the LUN, device or file that it named. No other module of the product opens one to write.

A ``RestoreToken`` names one device. Before the first write the device is looked at, and refused (``RestoreRefused``) when
it is not the one that was named, too small, write-protected, reserved by another host, or carries somebody's data and
nobody said that these may go. For a LUN the same token opens a ``WriteSession``, which keeps all other LUNs locked.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from proxy.errors import ConfigurationError, DeviceBusy, ReadFailed, RestoreRefused, TransportError, TransportRefused
from proxy.model import DeviceAddress, FileAddress, Location, LunAddress, VmdkAddress
from proxy.ports import BlockSource, BlockTarget, DiskPlace
from proxy.transport.file_target import FileTarget
from proxy.transport.iscsi import (
    CommandFailed,
    Limits,
    Login,
    Lun,
    ReadSession,
    RestoreToken,
    WriteSession,
    is_local,
    scsi,
)
from proxy.transport.lun_target import LunTarget
from proxy.transport.raw import SharedFiles
from proxy.transport.san import Access, LunSource, PresentedLun, SanFabric, named_device
from proxy.transport.signatures import refuse_signatures

WRITE_TIMEOUT = 60
"""Seconds for a command of a restore: SYNCHRONIZE CACHE returns when all of an array's cache is on its disks, and the
session that it belongs to must not be given up for that. The Linux kernel grants it as much."""

RESERVATION_LENGTH = 256
MODE_LENGTH = 192
"""Room for the headers that are looked at; what follows them does not matter."""


class SiteTargets:
    """``RestoreTargets`` of one site: LUNs of ``restore`` targets, files in shared directories."""

    together = False

    def __init__(self, fabric: SanFabric, files: SharedFiles) -> None:
        self._fabric = fabric
        self._files = files

    def open(self, place: DiskPlace, size: int, *, overwrite: bool) -> BlockTarget:
        """Look, and open for writing. Raises ``RestoreRefused``; then nothing was written."""
        if place.path:
            return FileTarget(self._files, RestoreToken(place.path, size, overwrite))
        unit = self._find(place)
        return open_lun_target(self._fabric, unit, RestoreToken(unit.identity.name, size, overwrite))

    def holds(self, place: DiskPlace, disk: Location) -> bool:
        """Whether the disk lies on the place. Raises ``RestoreRefused`` for a LUN that restores cannot write to."""
        return self._lies_on(place, disk) is True

    def cannot_tell(self, place: DiskPlace, disk: Location) -> bool:
        """Whether nobody can tell if the disk lies on the place, so that ``holds`` is false for want of knowledge only.

        So it is for a block device without a world-wide name (``/dev/mapper/mpatha``), and for a LUN of a host-side
        target that no configured target presents. Never for files. Raises as ``holds``.
        """
        return self._lies_on(place, disk) is None

    def read_back(self, place: DiskPlace, size: int) -> BlockSource:
        """The first ``size`` bytes as the device has them now, over a session that cannot write."""
        if not place.path:
            return LunSource(self._fabric.open_presented(self._find(place)), size)
        source = self._files.open_container(place.path, "raw", place.path)
        if source.size < size:
            source.close()
            raise ReadFailed(place.path, 0, size, f"the file has {source.size} bytes")
        source.size = size
        return source

    def _lies_on(self, place: DiskPlace, disk: Location) -> bool | None:
        """``None``: nobody can tell."""
        if place.path:
            return isinstance(disk, FileAddress | DeviceAddress) and _same_file(disk.path, place.path)
        if isinstance(disk, VmdkAddress):  # on the LUNs of its datastore, with the disks of many other machines
            told = {self._lies_on(place, named_device(name)) for name in disk.devices}
            return True if True in told else None if None in told else False
        if not isinstance(disk, LunAddress | DeviceAddress):
            return False
        unit = self._find(place)
        if isinstance(disk, LunAddress) and (disk.target, disk.lun) == (place.target, place.lun):
            return True
        if disk.name in unit.identity.names:
            return True
        answers = {_same_unit(its, unit) for its in self._units(disk)}
        if True in answers:
            return True
        by_name = disk.name is not None and not is_local(disk.name) and bool(unit.identity.names)
        by_number = isinstance(disk, LunAddress) and unit.target.shows(disk.target)
        return False if False in answers or by_name or by_number else None

    def _units(self, disk: LunAddress | DeviceAddress) -> Iterator[PresentedLun]:
        """Where the proxy sees the disk, to read it and to write it: each side may know names that the other does not."""
        for access in (Access.RESTORE, Access.BACKUP):
            with suppress(TransportRefused):
                yield self._fabric.resolve(disk, access)

    def _find(self, place: DiskPlace) -> PresentedLun:
        try:
            return self._fabric.resolve(LunAddress(place.target, place.lun), Access.RESTORE)
        except TransportRefused as refused:
            hint = refused.hint or 'restores write only through a [[san.target]] with access = "restore"'
            raise RestoreRefused(
                f"{place.target}/{place.lun}", refused.detail or refused.reason, hint=hint
            ) from refused


def _same_file(one: str, other: str) -> bool:
    with suppress(OSError):
        if Path(one).samefile(other):
            return True
    return Path(one).resolve() == Path(other).resolve()


def _same_unit(one: PresentedLun, other: PresentedLun) -> bool | None:
    """By number within a target, by local names within an array (one with the same portals), by world-wide names."""
    mine, its = one.identity, other.identity
    if (one.target.iqn, one.number) == (other.target.iqn, other.number) or mine.shares_name(its):
        return True
    if not set(mine.local).isdisjoint(its.local) and not set(one.target.portals).isdisjoint(other.target.portals):
        return True
    told = one.target.iqn == other.target.iqn or (mine.names and its.names)
    return False if told else None


def open_lun_target(fabric: SanFabric, unit: PresentedLun, token: RestoreToken) -> LunTarget:
    """Open the token's LUN for writing, after every check. Raises ``RestoreRefused``."""
    if not token.device or not unit.identity.is_called(token.device):
        raise RestoreRefused(str(unit), f"the restore named {token.device or 'no device'}")
    if unit.target.access is not Access.RESTORE:
        raise RestoreRefused(
            str(unit), "its target is for backups", hint='restores need a target with access = "restore"'
        )

    def connect(portal: str, login: Login, limits: Limits) -> ReadSession:
        return WriteSession(portal, login, replace(limits, timeout=max(limits.timeout, WRITE_TIMEOUT)), token)

    try:
        lun = fabric.open_presented(unit, connect)
    except (TransportError, ConfigurationError) as error:
        raise RestoreRefused(str(unit), error.message, hint=error.hint) from error
    try:
        _inspect(lun, token)
    except (TransportError, DeviceBusy) as error:
        lun.close()
        raise RestoreRefused(lun.name, error.message, hint=error.hint) from error
    except BaseException:
        lun.close()
        raise
    return LunTarget(lun, token.size)


def _inspect(lun: Lun, token: RestoreToken) -> None:
    """Everything that is to be known before the first write."""
    if lun.capacity.size < token.size:
        hint = "enlarge the LUN on the array, or name a larger one"
        raise RestoreRefused(lun.name, f"it has {lun.capacity.size} bytes, the disk needs {token.size}", hint=hint)
    # First, because a device that is reserved answers nothing else.
    holder = _reservation(lun)
    if holder is not None:
        hint = "a host or a cluster uses it: take it away from them first"
        raise RestoreRefused(lun.name, f"somebody holds a persistent reservation ({holder})", hint=hint)
    try:
        mode = lun.ask(scsi.mode_sense(MODE_LENGTH), MODE_LENGTH, "MODE SENSE(6)")
        protected = scsi.is_write_protected(mode)
    except CommandFailed:
        protected = False  # a device without mode pages says so at the first write
    if protected:
        raise RestoreRefused(lun.name, "it is write-protected", hint="map it read-write to the proxy's restore target")

    def read(offset: int, length: int) -> bytes:
        data = bytearray(length)
        lun.read_into(offset, memoryview(data))
        return bytes(data)

    if not token.overwrite:
        refuse_signatures(lun.name, read, lun.capacity.size)


def _reservation(lun: Lun) -> str | None:
    try:
        data = lun.ask(scsi.read_reservation(RESERVATION_LENGTH), RESERVATION_LENGTH, "READ RESERVATION")
    except CommandFailed:
        return None  # a device without persistent reservations holds none
    return scsi.parse_reservation(data)


__all__ = ["FileTarget", "LunTarget", "RestoreToken", "SiteTargets", "open_lun_target"]
