"""VMFS logical volume manager, versions 5 and 6: what is written at the start of each partition. Little-endian.

Offsets from the beginning of the partition::

    0x100000   header: magic, version, extents, where data begin, UUID of the device
    + A        volume table, 512 bytes an entry; 512 KiB later (A = 512, version 6: the alignment that the header names)
               the names of devices end, 32 x 256 bytes, "naa.…:1"; and then come the
    + A + 512K maps: a bitmap, then 128 bytes for each physical extent

    version 5  an entry per 256 MiB. Each map has 8192 of them, a header up to 8 maps; beyond 16 TiB a chain of extension
               blocks goes on: magic, number of maps, first byte of its data, next extension; maps where a header has them
    version 6  an entry per contiguous run of up to 16 TiB, one map
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from proxy.transport.vmfs.lun import Metadata
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import GiB, MiB

HEADER_AT = 0x100000
MAGIC = 0xC001D00D
VERSIONS = (5, 6)

HEADER_SIZE = 512
HEADER = struct.Struct("<II")
HEADER_TOTAL_AT = 0x5E
HEADER_VOLUMES_AT = 0x66
HEADER_EXTENTS_AT = 0x6A
HEADER_DATA_AT = 0x7A
HEADER_UUID_AT = 0x82
HEADER_MAPS_AT = 0xBE
HEADER_EXTENSION_AT = 0xC2
HEADER_ALIGNMENT_AT = 0xCA

EXTENSION = struct.Struct("<IIQQ")

VOLUME_ENTRY_SIZE = 512
VOLUME_TABLE_SIZE = 512 * 1024
NAME_SIZE = 256
NAMES_SIZE = 32 * NAME_SIZE

VOLUME_SIZE_AT = 0x00
VOLUME_NAME_AT, VOLUME_NAME_END = 0x14, 0x54
VOLUME_UUID_AT = 0x54
VOLUME_EXTENTS_AT = 0x78  # first and last, u64 each
VOLUME_DEVICES_AT = 0x90

EXTENT_SIZE = 128
EXTENTS_PER_MAP = 8192
MAPS_LIMIT = 8
EXTENSIONS_LIMIT = 16
"""64 TiB, the largest volume that ESXi makes, has 3; a chain beyond this is a damaged one."""

EXTENT = np.dtype(
    {
        "names": ["used", "physical", "logical", "length"],
        "formats": ["u1", "<u8", "<u8", "<u8"],
        "offsets": [0, 9, 17, 25],
        "itemsize": EXTENT_SIZE,
    }
)

DATA_LIMIT = 1 << 62
EXTENT_UNIT = 256 * MiB
VOLUME_LIMIT = 128 * 1024 * GiB
"""Twice what ESXi makes (64 TiB); keeps every sum of offsets far from 2**63."""


@dataclass(frozen=True, slots=True)
class VolumeEntry:
    """The logical volume that a device belongs to. ``size`` in bytes, ``devices``: how many it is spread over."""

    uuid: str
    name: str
    size: int
    first: int
    last: int
    devices: int


@dataclass(frozen=True, slots=True)
class DeviceHeader:
    """One partition's header. ``data`` and ``total`` in bytes; ``extents``: entries in all of its maps together."""

    version: int
    uuid: str
    total: int
    data: int
    extents: int
    maps: int
    extension: int
    alignment: int
    names: tuple[str, ...]
    volume: VolumeEntry


@dataclass(frozen=True, slots=True)
class PhysicalRun:
    """``length`` bytes of the volume from ``logical`` lie at ``physical`` of this partition."""

    logical: int
    physical: int
    length: int


def format_uuid(raw: bytes) -> str:
    """A VMware UUID as hosts print it: ``68626f2d-90e23158-8a2e-bc2411b17e28``."""
    first, second, third = struct.unpack_from("<IIH", raw)
    return f"{first:08x}-{second:08x}-{third:04x}-{raw[10:16].hex()}"


def parse_header(metadata: Metadata, subject: Subject) -> DeviceHeader | None:
    """The header of a partition; ``None`` where there is none. Refuses what is damaged or not of a known version."""
    if metadata.size < HEADER_AT + HEADER_SIZE + VOLUME_TABLE_SIZE:
        return None
    raw = metadata.read(HEADER_AT, HEADER_SIZE, "LVM header")
    magic, version = HEADER.unpack_from(raw)
    if magic != MAGIC:
        return None
    if version not in VERSIONS:
        raise subject.refuse(VmfsReason.LVM_VERSION, f"version {version}")
    alignment = _u32(raw, HEADER_ALIGNMENT_AT) if version >= 6 else 512
    if alignment not in (512, 4096):
        raise subject.refuse(VmfsReason.LVM_DAMAGED, f"metadata aligned to {alignment} bytes")
    volumes = _u32(raw, HEADER_VOLUMES_AT)
    if volumes != 1:
        raise subject.refuse(VmfsReason.LVM_DAMAGED, f"{volumes} volumes on one device")
    table = HEADER_AT + alignment
    names = metadata.read(HEADER_AT + _maps_at(alignment) - NAMES_SIZE, NAMES_SIZE, "LVM device names")
    header = DeviceHeader(
        version=version,
        uuid=format_uuid(raw[HEADER_UUID_AT : HEADER_UUID_AT + 16]),
        total=_u64(raw, HEADER_TOTAL_AT),
        data=_u64(raw, HEADER_DATA_AT),
        extents=_u32(raw, HEADER_EXTENTS_AT),
        maps=max(1, _u32(raw, HEADER_MAPS_AT)),
        extension=_u64(raw, HEADER_EXTENSION_AT),
        alignment=alignment,
        names=tuple(filter(None, (_text(names[at : at + NAME_SIZE]) for at in range(0, NAMES_SIZE, NAME_SIZE)))),
        volume=_volume(metadata.read(table, VOLUME_ENTRY_SIZE, "LVM volume table"), subject),
    )
    _check(header, metadata.size, subject)
    return header


def physical_runs(metadata: Metadata, header: DeviceHeader, subject: Subject) -> list[PhysicalRun]:
    """Every used extent, in order of the volume, neighbours joined. Refuses what lies outside or overlaps."""
    found: list[np.ndarray[tuple[int], np.dtype[np.void]]] = []
    left = header.extents
    for at, count in _map_places(metadata, header, subject):
        wanted = min(left, count)
        raw = metadata.read(at, wanted * EXTENT_SIZE, "LVM extents")
        found.append(np.frombuffer(raw, EXTENT))
        left -= wanted
        if not left:
            break
    if left:
        raise subject.refuse(VmfsReason.LVM_DAMAGED, f"{header.extents} extents do not fit into the maps")
    entries = np.concatenate(found)
    return _joined(entries[entries["used"] != 0], header, metadata.size, subject)


def _map_places(metadata: Metadata, header: DeviceHeader, subject: Subject) -> Iterator[tuple[int, int]]:
    """(offset of the first entry, entries) of each map, along the chain of extension blocks."""
    base, maps, extension = HEADER_AT, header.maps, header.extension
    bitmap = max(header.alignment, 1024)
    for _ in range(EXTENSIONS_LIMIT):
        first = _maps_at(header.alignment)
        for number in range(maps):
            yield base + first + number * (bitmap + EXTENTS_PER_MAP * EXTENT_SIZE) + bitmap, EXTENTS_PER_MAP
        if not extension:
            return
        if extension <= base:
            raise subject.refuse(VmfsReason.LVM_DAMAGED, f"the extension at {extension} comes after {base}")
        base = extension
        magic, maps, _data, extension = EXTENSION.unpack(metadata.read(base, EXTENSION.size, "LVM extension"))
        if magic != MAGIC or not 0 < maps <= MAPS_LIMIT:
            raise subject.refuse(VmfsReason.LVM_DAMAGED, f"no extension at {base}")


def _joined(
    entries: np.ndarray[tuple[int], np.dtype[np.void]], header: DeviceHeader, available: int, subject: Subject
) -> list[PhysicalRun]:
    runs: list[PhysicalRun] = []
    end = 0
    ordered = entries[np.argsort(entries["logical"], kind="stable")]
    columns = (ordered[name].tolist() for name in ("logical", "physical", "length"))
    for logical, physical, length in zip(*columns, strict=True):
        if not length or logical + length > header.volume.size or logical < end or length % EXTENT_UNIT:
            detail = f"an extent of {length} bytes at {logical} of a volume of {header.volume.size}"
            raise subject.refuse(VmfsReason.LVM_DAMAGED, detail)
        if physical < header.data or physical + length > DATA_LIMIT:
            raise subject.refuse(VmfsReason.LVM_DAMAGED, f"an extent at {physical}, before data at {header.data}")
        if physical + length > available:
            detail = f"an extent ends at {physical + length} of a partition of {available} bytes"
            raise subject.refuse(VmfsReason.LUN_TOO_SMALL, detail, hint="was the LUN replaced or shrunk?")
        end = logical + length
        last = runs[-1] if runs else None
        if last and last.logical + last.length == logical and last.physical + last.length == physical:
            runs[-1] = PhysicalRun(last.logical, last.physical, last.length + length)
        else:
            runs.append(PhysicalRun(logical, physical, length))
    if not runs:
        raise subject.refuse(VmfsReason.LVM_DAMAGED, "the device holds no extent of its volume")
    return runs


def _volume(raw: bytes, subject: Subject) -> VolumeEntry:
    first, last = struct.unpack_from("<QQ", raw, VOLUME_EXTENTS_AT)
    volume = VolumeEntry(
        uuid=format_uuid(raw[VOLUME_UUID_AT : VOLUME_UUID_AT + 16]),
        name=_text(raw[VOLUME_NAME_AT:VOLUME_NAME_END]),
        size=_u64(raw, VOLUME_SIZE_AT),
        first=first,
        last=last,
        devices=_u32(raw, VOLUME_DEVICES_AT),
    )
    if not 0 < volume.size <= VOLUME_LIMIT or volume.size % EXTENT_UNIT or not 0 < volume.devices <= 32:
        detail = f"volume {volume.name!r} of {volume.size} bytes on {volume.devices} devices"
        raise subject.refuse(VmfsReason.LVM_DAMAGED, detail)
    return volume


def _check(header: DeviceHeader, available: int, subject: Subject) -> None:
    if header.total > available:
        detail = f"the header tells of {header.total} bytes, the partition has {available}"
        raise subject.refuse(VmfsReason.LUN_TOO_SMALL, detail, hint="was the LUN replaced or shrunk?")
    if not HEADER_AT < header.data < header.total:
        raise subject.refuse(VmfsReason.LVM_DAMAGED, f"data at {header.data} of {header.total} bytes")
    if not 0 < header.extents <= VOLUME_LIMIT // EXTENT_UNIT or header.maps > MAPS_LIMIT:
        raise subject.refuse(VmfsReason.LVM_DAMAGED, f"{header.extents} extents in {header.maps} maps")
    if header.version >= 6 and (header.maps > 1 or header.extension):
        raise subject.refuse(VmfsReason.LVM_EXTENDED, f"{header.maps} maps, extension at {header.extension}")


def _maps_at(alignment: int) -> int:
    """Where the first map begins, from the beginning of the header."""
    return alignment + VOLUME_TABLE_SIZE


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def _u32(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", raw, at)[0])


def _u64(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", raw, at)[0])
