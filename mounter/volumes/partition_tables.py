"""Partition tables of an appliance's disks, read as bytes: the appliance's own programs for them take seconds a partition.

``g`` is the handle of the appliance (``libguestfs.py``, the only importer of ``guestfs``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mounter.tsk.image import Disk
from mounter.tsk.partitions import Partition, Table, holds_files, table_of
from mounter.volumes.mountpoints import PartitionFacts
from proxy.errors import FastPathRefused, MountFailed, ReadFailed
from proxy.extents import Extent, Kind


class PartitionTables(Mapping[str, PartitionFacts]):
    """A table is read when it is first asked for. As a mapping: what is known of partitions, by device."""

    def __init__(self, g: Any, disks: Sequence[str]) -> None:
        self._g = g
        self.disks = disks
        self._tables: dict[str, Table | None] = {}
        self._dynamic: set[str] = set()

    def is_dynamic(self, disk: str) -> bool:
        """Whether it is a Windows dynamic disk: its partitions are not what is on it."""
        self._table(disk)
        return disk in self._dynamic

    def may_hold_files(self, device: str) -> bool:
        """Whether something of which no file system is known may be one that we do not know: not an extended partition, nor
        one whose type says that it holds none."""
        table = self._table(device.rstrip("0123456789")) if self._is_part(device) else None
        if table is None:
            return True
        found = [partition for partition in table.partitions if partition.device == device]
        return any(map(holds_files, found))

    def size_of(self, device: str) -> int:
        """Bytes of a device; 0 where nobody knows. Of partitions from the table, since asking is a program to start."""
        table = self._table(device.rstrip("0123456789")) if self._is_part(device) else None
        for partition in table.partitions if table is not None else ():
            if partition.device == device:
                return partition.region.size
        try:
            return int(self._g.blockdev_getsize64(device))
        except RuntimeError:
            return 0

    def __getitem__(self, device: str) -> PartitionFacts:
        table = self._table(device.rstrip("0123456789"))
        for partition in table.partitions if table is not None else ():
            if partition.device == device and table is not None:
                return _facts(table, partition)
        raise KeyError(device)

    def __iter__(self) -> Iterator[str]:
        return (p.device for disk in self.disks if (table := self._table(disk)) is not None for p in table.partitions)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _is_part(self, device: str) -> bool:
        disk = device.rstrip("0123456789")
        return device != disk and disk in self.disks

    def _table(self, disk: str) -> Table | None:
        if disk not in self._tables:
            self._tables[disk] = None  # one that nobody understands, or that cannot be read
            try:
                self._tables[disk] = table_of(Disk(_Device(self._g, disk)), disk)
            except FastPathRefused as refused:
                if refused.reason == "ldm":
                    self._dynamic.add(disk)
            except (MountFailed, RuntimeError):
                pass
        return self._tables[disk]


class _Device:
    """A disk of the appliance as ``tsk.image`` reads one."""

    def __init__(self, g: Any, device: str) -> None:
        self._g = g
        self._device = device
        self.size: int = g.blockdev_getsize64(device)

    def extents(self) -> Sequence[Extent]:
        return [Extent(0, self.size, Kind.DATA)]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the buffer or raises ``ReadFailed``."""
        try:
            data: bytes = self._g.pread_device(self._device, len(buffer), offset)
        except RuntimeError as error:
            raise ReadFailed(self._device, offset, len(buffer), str(error)) from None
        if len(data) != len(buffer):
            raise ReadFailed(self._device, offset, len(buffer), "it ends before")
        buffer[:] = data

    def close(self) -> None:
        """Nothing is held."""


def _facts(table: Table, partition: Partition) -> PartitionFacts:
    return PartitionFacts(partition.uuid, table.signature, partition.region.offset)
