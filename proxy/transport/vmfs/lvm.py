"""A logical volume out of the partitions that it is spread over.

::

    LUN 0  |hdr| extents 0 .. 7 |          volume   | 0 .. 7 | 8 .. 15 |
    LUN 1  |hdr| extents 8 .. 15 |                  LUN 0      LUN 1

A volume is read only if it is whole: a missing LUN, or two copies of one (an array's snapshot that is presented beside its
origin), is a refusal and not a hole.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from proxy.errors import TransportRefused
from proxy.transport.vmfs.lun import Lun, Metadata, Window
from proxy.transport.vmfs.lvm_format import DeviceHeader, PhysicalRun, parse_header, physical_runs
from proxy.transport.vmfs.partitions import vmfs_partitions
from proxy.transport.vmfs.reasons import Subject, VmfsReason

METADATA_PAGES = 64
"""The headers of one device; they are read once."""


class Place(NamedTuple):
    """Bytes of a LUN: its index in the list that was given, first byte and length."""

    lun: int
    offset: int
    length: int


class Segment(NamedTuple):
    """Bytes ``[start, end)`` of a volume lie in a row on LUN ``lun`` from ``offset``."""

    start: int
    end: int
    lun: int
    offset: int


@dataclass(frozen=True)
class PhysicalVolume:
    """One VMFS partition: which LUN, where on it, and what its header says."""

    lun: int
    partition: int
    window: Window
    header: DeviceHeader
    runs: Sequence[PhysicalRun]


class LogicalVolume:
    """A whole volume as one range of bytes; itself a ``Lun``. Reads may come from many threads at once.

    ``devices``: the names of its partitions as hosts wrote them down (``naa.…:1``), where they did. ``uuid`` is empty for
    a file system without a volume manager.
    """

    def __init__(
        self, uuid: str, size: int, runs: Sequence[tuple[int, Window, PhysicalRun]], devices: Sequence[str] = ()
    ) -> None:
        self.uuid = uuid
        self.size = size
        self.devices = tuple(devices)
        self._runs = sorted(runs, key=lambda item: item[2].logical)
        self._starts = [run.logical for _lun, _window, run in self._runs]

    def pieces(self, offset: int, length: int) -> list[Place]:
        """Where ``[offset, offset + length)`` of the volume lies, in order. The range must lie within the volume."""
        return [Place(lun, window.start + at, part) for lun, window, at, part in self._split(offset, length)]

    def segment(self, offset: int) -> Segment:
        """The contiguous part of a LUN that holds a byte of the volume. ``offset`` must lie within the volume."""
        lun, window, run = self._runs[bisect_right(self._starts, offset) - 1]
        return Segment(run.logical, run.logical + run.length, lun, window.start + run.physical)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As ``Lun``."""
        done = 0
        for _lun, window, physical, part in self._split(offset, len(buffer)):
            window.read_into(physical, buffer[done : done + part])
            done += part

    def _split(self, offset: int, length: int) -> list[tuple[int, Window, int, int]]:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} of a volume of {self.size}")
        parts: list[tuple[int, Window, int, int]] = []
        index = bisect_right(self._starts, offset) - 1
        while length:
            lun, window, run = self._runs[index]
            skip = offset - run.logical
            part = min(length, run.length - skip)
            parts.append((lun, window, run.physical + skip, part))
            offset += part
            length -= part
            index += 1
        return parts


def scan(luns: Sequence[Lun], subject: Subject) -> list[PhysicalVolume]:
    """Every VMFS partition with an LVM header on the LUNs. Refuses damaged tables and headers; raises ``ReadFailed``."""
    found: list[PhysicalVolume] = []
    for index, lun in enumerate(luns):
        for partition in vmfs_partitions(lun, subject):
            window = Window(lun, partition.start, partition.size)
            metadata = Metadata(window, subject, METADATA_PAGES)
            header = parse_header(metadata, subject)
            if header is not None:
                runs = physical_runs(metadata, header, subject)
                found.append(PhysicalVolume(index, partition.number, window, header, runs))
    return found


def assemble(devices: Sequence[PhysicalVolume], subject: Subject) -> list[LogicalVolume | TransportRefused]:
    """The volumes that the devices make up, in the order in which they were found; a refusal for one that is not whole."""
    groups: dict[str, list[PhysicalVolume]] = {}
    for device in devices:
        groups.setdefault(device.header.volume.uuid, []).append(device)
    return [_whole(members, subject) for members in groups.values()]


def bare_volumes(luns: Sequence[Lun], subject: Subject) -> list[LogicalVolume]:
    """Each VMFS partition as a volume of its own, for file systems that were made without a volume manager."""
    return [
        LogicalVolume("", part.size, [(index, Window(lun, part.start, part.size), PhysicalRun(0, 0, part.size))])
        for index, lun in enumerate(luns)
        for part in vmfs_partitions(lun, subject)
    ]


def _whole(members: Sequence[PhysicalVolume], subject: Subject) -> LogicalVolume | TransportRefused:
    try:
        _check_whole(members, subject)
    except TransportRefused as refusal:
        return refusal
    volume = members[0].header.volume
    runs = [(member.lun, member.window, run) for member in members for run in member.runs]
    names = max((member.header.names for member in members), key=len)
    return LogicalVolume(volume.uuid, volume.size, runs, names)


def _check_whole(members: Sequence[PhysicalVolume], subject: Subject) -> None:
    volume = members[0].header.volume
    if len({member.header.uuid for member in members}) != len(members):
        detail = f"two LUNs carry the same part of volume {volume.uuid}"
        raise subject.refuse(VmfsReason.SPAN_AMBIGUOUS, detail, hint="is an array's snapshot presented too?")
    if any(
        (m.header.volume.name, m.header.volume.size, m.header.volume.devices)
        != (volume.name, volume.size, volume.devices)
        for m in members
    ):
        raise subject.refuse(VmfsReason.SPAN_AMBIGUOUS, f"the LUNs tell different things of volume {volume.uuid}")
    if len(members) != volume.devices:
        detail = f"volume {volume.uuid} lies on {volume.devices} LUNs, {len(members)} of them are here"
        raise subject.refuse(VmfsReason.SPAN_MISSING, detail, hint="present all extents of the datastore to the proxy")
    position = 0
    for run in sorted((run for member in members for run in member.runs), key=lambda r: r.logical):
        if run.logical != position:
            detail = f"volume {volume.uuid}: the extents leave a gap or overlap at {min(position, run.logical)}"
            raise subject.refuse(VmfsReason.SPAN_MISSING, detail)
        position += run.length
    if position != volume.size:
        detail = f"volume {volume.uuid}: the extents end at {position} of {volume.size} bytes"
        raise subject.refuse(VmfsReason.SPAN_MISSING, detail)
