"""A VMFS 6 volume with machines' disks on it, and the places that the simulator needs for being their host."""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.units import GiB, MiB
from tests.unit.transport.vmdk_builder import descriptor
from tests.unit.transport.vmfs_builder import BLOCK, DATA, HOLE, ZEROED, Disk, VmfsBuilder
from tests.unit.transport.vmfs_lun_builder import DATA_AT, EXTENT, LVM_AT, VolumeOnLuns

DELTA_ROOM = 16 * MiB
"""Of a file that waits for a snapshot's delta: 15 MiB of changed grains fit."""
DESCRIPTOR_ROOM = 1024
BASE_CID = 0xFEED0001
"""Deltas count up from it, on the simulator's side too."""
NAMES_AT = LVM_AT + 4096 + 512 * 1024 - 32 * 256
"""Offset in the partition of the devices' names, VMFS 6."""
FILE_SYSTEM_AT = 0x200000


class LabBuilder(VmfsBuilder):
    """The fixture writer, with pointer blocks where there are only holes too: a host fills them in later."""

    def _upper(self, pointers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        step = self.geometry.pointers_per_table
        return np.array([self._table(pointers[at : at + step]) for at in range(0, len(pointers), step)], np.uint64)

    @property
    def free(self) -> tuple[int, int]:
        """Blocks that nobody uses: the first, and one past the last."""
        return self._next_block, self.volume.size // BLOCK

    def slots(self, path: str, blocks: int) -> list[tuple[int, int, int]]:
        """Where the pointers of a flat disk lie, with those that it does not need yet: (first block, number, volume offset of
        the first pointer)."""
        g = self.geometry
        own = self.at[path] + g.pointers_at
        if blocks <= g.pointers:
            return [(0, g.pointers, own)]
        step = g.pointers_per_table
        tables = -(-blocks // step)
        assert tables <= g.pointers, "two levels of pointer blocks: more than the lab's host does"
        per_cluster = self._sub_blocks.per_cluster
        found = []
        for index, pointer in enumerate(np.frombuffer(self.volume.read(own, tables * 8), "<u8").tolist()):
            number = (pointer >> 6 & 0xFFFFFFFFF) * per_cluster + (pointer >> 56)
            found.append((index * step, step, self._sub_blocks.offset(number)))
        return found

    def delta(self, path: str, size: int, parent: str, number: int) -> dict[str, Any]:
        """Files that wait for a delta, ``path`` being the base's descriptor: full of room, and in nobody's chain yet."""
        stem = path.removesuffix(".vmdk")
        name = f"{stem}-{number:06}.vmdk"
        first = self._next_block
        room = [DATA] * (DELTA_ROOM // BLOCK)
        self.disk(f"{stem}-{number:06}-sesparse.vmdk", DELTA_ROOM, room, scattered=False, content=False)
        text = b"# waits for a snapshot\n".ljust(DESCRIPTOR_ROOM, b"\n")
        at = self.file(name, text) + self.geometry.resident_at
        return {"File": name, "Descriptor": at, "Room": DESCRIPTOR_ROOM, "First": first, "Blocks": len(room)}


@dataclass
class Laid:
    """A disk that lies on the volume: what the fixture writer wrote, and its place for the simulator."""

    written: Disk
    place: dict[str, Any]


@dataclass
class LabVolume:
    """One datastore. ``extents``: how many 256 MiB on each of its LUNs."""

    extents: tuple[int, ...] = (2,)
    label: str = "san1"
    data_at: int = DATA_AT
    extent: int = EXTENT
    volume: VolumeOnLuns = field(init=False)
    builder: LabBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.volume = VolumeOnLuns(self.extents)
        self.builder = LabBuilder(self.volume, label=self.label)
        self._directories: set[str] = set()

    def lay(self, path: str, size: int, kinds: NDArray[np.uint8], *, deltas: int) -> Laid:
        """A flat disk with its descriptor at ``path`` and room for so many snapshots' deltas."""
        directory, _, name = path.rpartition("/")
        if directory and directory not in self._directories:
            self._directories.add(directory)
            self.builder.directory(directory)
        flat = f"{path.removesuffix('.vmdk')}-flat.vmdk"
        text = descriptor(size, "VMFS", flat.rpartition("/")[2], cid=BASE_CID).ljust(DESCRIPTOR_ROOM, b"\n")
        at = self.builder.file(path, text)
        written = self.builder.disk(flat, size, kinds)
        blocks = -(-size // BLOCK)
        place = {
            "Descriptor": at + self.builder.geometry.resident_at,
            "Room": DESCRIPTOR_ROOM,
            "Facts": self.builder.at[flat] + self.builder.geometry.facts_at,
            "Slots": self.builder.slots(flat, blocks),
            "Deltas": [self.builder.delta(path, size, name, number) for number in range(1, deltas + 1)],
        }
        return Laid(written, place)

    def name_devices(self, names: list[str]) -> None:
        """Write the LUNs' canonical names into the volume manager's header, as hosts do."""
        table = b"".join(f"{name}:1".encode().ljust(256, b"\0") for name in names)
        self.volume.luns[0].write(self.volume.start + NAMES_AT, table)

    def identify(self, uuid: str) -> None:
        """Give the file system another UUID, written as vSphere does: ``5831e290-2d6f6268-8a2e-bc2411b17e28``."""
        first, second, third, last = uuid.split("-")
        raw = struct.pack("<IIH", int(first, 16), int(second, 16), int(third, 16)) + bytes.fromhex(last)
        self.volume.write(FILE_SYSTEM_AT + 9, raw)


def kinds_of(layout: str, size: int) -> NDArray[np.uint8]:
    """Classes of a disk's blocks: "thin" (one in three is data), "thick", "lazy" (half to be zeroed), "empty"."""
    assert size <= 64 * GiB
    count = -(-size // BLOCK)
    chance = np.random.default_rng(count)
    choices = {"thin": [HOLE, HOLE, DATA], "thick": [DATA], "lazy": [DATA, ZEROED], "empty": [HOLE]}[layout]
    kinds = chance.choice(choices, count).astype(np.uint8)
    if layout != "empty":
        kinds[0] = DATA
    return kinds
