"""A datastore with one machine's disk on LUNs in memory, as a hypervisor would name it; the truth beside it.

::

    vm/vm.vmdk  vm/vm-flat.vmdk      thin, scattered      [ vm/vm-000001.vmdk  …-sesparse.vmdk ]   deltas, oldest first
"""

import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from proxy.closing import Closeable
from proxy.errors import ReadFailed, TransportRefused
from proxy.model import Format, FrozenDisk, Layer, VmdkAddress
from proxy.transport.raw import FileSource
from proxy.transport.san import SanFabric
from proxy.transport.vmfs.fs_format import Layout, parse_descriptor
from proxy.transport.vmfs.reasons import Subject
from proxy.transport.vmfs_san import AllocatedOracle, Qualification, VmfsTransport
from proxy.transport.vmfs_san.luns import SourceLun
from proxy.units import MiB
from tests.unit.transport.vmdk_builder import Written, build_chain, descriptor
from tests.unit.transport.vmfs_builder import DATA, HOLE, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import EXTENT, SparseLun, VolumeOnLuns, lun_name

KEY = "scsi0:0"


class MemoryLun(Closeable):
    """A LUN in memory. ``batches``: the (offset, length) of each ``read_pieces``. ``broken``: every read fails;
    ``replaced``: another unit answers under its number."""

    def __init__(self, lun: SparseLun, name: str) -> None:
        self.name, self.size = name, lun.size
        self.batches: list[list[tuple[int, int]]] = []
        self.broken = self.replaced = False
        self.closed = 0
        self._lun = lun
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._read(offset, buffer)

    def read_pieces(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        with self._lock:
            self.batches.append([(offset, len(buffer)) for offset, buffer in pieces])
        for offset, buffer in pieces:
            self._read(offset, buffer)

    def recognise(self) -> None:
        if self.replaced:
            raise TransportRefused("san", self.name, "lun-identity")

    def close(self) -> None:
        self.closed += 1

    def _read(self, offset: int, buffer: memoryview) -> None:
        if self.broken:
            raise ReadFailed(self.name, offset, len(buffer), "the array is gone")
        self._lun.read_into(offset, buffer)


@dataclass
class MemoryLuns:
    """A fabric of them. ``opened``: everything that ``open`` returned."""

    luns: dict[str, SparseLun]
    opened: list[MemoryLun] = field(default_factory=list)

    def find(self, name: str) -> None:
        if name not in self.luns:
            raise TransportRefused("san", name, "no-target-presents-it")

    def open(self, name: str) -> MemoryLun:
        self.find(name)
        self.opened.append(MemoryLun(self.luns[name], name))
        return self.opened[-1]


@dataclass
class FileLuns:
    """LUNs as files of their names in a directory."""

    directory: Path

    def find(self, name: str) -> None:
        if not (self.directory / name).exists():
            raise TransportRefused("san", name, "no-target-presents-it")

    def open(self, name: str) -> SourceLun:
        self.find(name)
        return SourceLun(FileSource(os.open(self.directory / name, os.O_RDONLY), name), name)


@dataclass
class Site:
    """``path``: of the frozen descriptor. ``truth``: what the disk reads as."""

    made: VmfsBuilder
    path: str
    truth: bytes
    names: tuple[str, ...]

    @property
    def volume(self) -> VolumeOnLuns:
        return self.made.volume

    @property
    def uuid(self) -> str:
        return parse_descriptor(self.volume.read(0x200000, 512), Subject("test", "x")).uuid

    def luns(self) -> MemoryLuns:
        return MemoryLuns(dict(zip(self.names, self.volume.luns, strict=True)))

    def address(self, **changes: object) -> VmdkAddress:
        address = VmdkAddress("ds", self.path, volume=self.uuid, devices=self.names, machine="vm-1", snapshot="s-1")
        return replace(address, **changes)  # type: ignore[arg-type]

    def disk(self, **changes: object) -> FrozenDisk:
        return FrozenDisk(KEY, len(self.truth), (Layer(self.address(**changes), Format.VMDK),))

    def transport(
        self,
        luns: MemoryLuns | None = None,
        oracle: AllocatedOracle | None = None,
        qualification: Qualification | None = None,
    ) -> VmfsTransport:
        return VmfsTransport(SanFabric([]), oracle, qualification, luns=luns or self.luns())


def site(
    base: bytes,
    deltas: Sequence[tuple[str, Written]] = (),
    *,
    version: int = 6,
    extents: Sequence[int] = (1,),
    names: Sequence[str] = (),
) -> Site:
    """A machine with these bytes, and these deltas above them (see ``build_chain``)."""
    volume = VolumeOnLuns(tuple(extents), version=version, names=names)
    made = VmfsBuilder(volume, version=version)
    made.directory("vm")
    files, path, truth = build_chain(base, deltas)
    for name, content in files.content.items():
        blocks = Layout.BLOCKS if len(content) >= MiB else None
        made.file(name, content, layout=blocks)
    made.finish()
    return Site(made, path, truth, tuple(names) or tuple(lun_name(n) for n in range(len(extents))))


def thin_site(
    classes: Sequence[int], *, version: int = 6, extents: Sequence[int] = (1,), names: Sequence[str] = ()
) -> Site:
    """A thin disk of one block of 1 MiB for each class, in scattered places; on several LUNs at the border of the first."""
    volume = VolumeOnLuns(tuple(extents), version=version, names=names)
    made = VmfsBuilder(volume, version=version)
    made.directory("vm")
    size = len(classes) * MiB
    if len(extents) > 1:
        made._next_block = extents[0] * EXTENT // MiB - list(classes).count(DATA) // 2
    disk = made.disk("vm/vm-flat.vmdk", size, list(classes))
    made.file("vm/vm.vmdk", descriptor(size, "VMFS", "vm-flat.vmdk"))
    made.finish()
    blocks = (disk.expected(n * MiB, MiB) if kind != HOLE else bytes(MiB) for n, kind in enumerate(disk.classes))
    return Site(made, "vm/vm.vmdk", b"".join(blocks), tuple(names) or tuple(lun_name(n) for n in range(len(extents))))


def some_bytes(size: int, seed: int = 1) -> bytes:
    """Random bytes and zeroes in turn, in runs of odd lengths."""
    chance = random.Random(seed)
    data = bytearray()
    while len(data) < size:
        data += chance.randbytes(chance.randrange(1, 80_000)) + bytes(chance.randrange(1, 80_000))
    return bytes(data[:size])
