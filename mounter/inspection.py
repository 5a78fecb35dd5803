"""What a machine's volumes say about it, read inside the appliance: what ``mountpoints`` needs of them.

libguestfs' own inspection is not used: it fails as a whole when one logical volume of a machine cannot be activated, and
lists all devices anew with programs of a second each. So both readers tell the same, from the same code.

``g`` is the handle of the appliance (``libguestfs.py``, the only importer of ``guestfs``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mounter.containers import said
from mounter.guestfs_abi import Names
from mounter.mountpoints import PartitionFacts
from mounter.ports import FileType
from mounter.tsk.image import Disk
from mounter.tsk.partitions import table_of
from proxy.errors import MountFailed, ReadFailed
from proxy.extents import Extent, Kind

# By the type bits of st_mode: stat(2). What mountpoints looks for is one of these.
_KINDS = {0o040000: FileType.DIRECTORY, 0o100000: FileType.FILE, 0o120000: FileType.SYMLINK}


class MountedFiles:
    """``mountpoints.Files`` over what is mounted. ``places``: device -> directory in the appliance; ``folding``: devices
    whose file systems find names in any letter case."""

    def __init__(self, g: Any, raw: Names, places: Mapping[str, bytes], folding: frozenset[str]) -> None:
        self._g = g
        self._raw = raw
        self._places = places
        self._folding = folding

    def type(self, device: str, path: str) -> FileType | None:
        """Of the entry itself; ``None`` if there is none."""
        parent, _, name = self._full(device, path).rpartition(b"/")
        try:
            stat = self._raw.stats(parent or b"/", [name])[0]
        except OSError:
            return None
        return None if stat is None else _KINDS.get(stat.mode & 0o170000, FileType.OTHER)

    def read(self, device: str, path: str, offset: int, length: int) -> bytes:
        """Bytes of a regular file; none if it is not there."""
        pieces: list[bytes] = []
        while length > 0:
            try:
                piece = self._raw.pread(self._full(device, path), min(length, 1 << 20), offset)
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def link(self, device: str, path: str) -> str:
        """Target of a symbolic link."""
        parent, _, name = self._full(device, path).rpartition(b"/")
        return self._raw.links(parent or b"/", [name])[0].decode(errors="surrogateescape")

    def _full(self, device: str, path: str) -> bytes:
        full = self._places[device] + path.rstrip("/").encode(errors="surrogateescape")
        if device in self._folding:
            found: str = said(self._g.case_sensitive_path, "", full.decode(errors="surrogateescape"))
            return found.encode(errors="surrogateescape") or full
        return full


class Partitions(Mapping[str, PartitionFacts]):
    """Facts by device, read from the partition tables when they are first asked for: few machines need them."""

    def __init__(self, g: Any) -> None:
        self._g = g
        self._read: dict[str, PartitionFacts] | None = None

    def __getitem__(self, device: str) -> PartitionFacts:
        return self._facts()[device]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts())

    def __len__(self) -> int:
        return len(self._facts())

    def _facts(self) -> dict[str, PartitionFacts]:
        if self._read is None:
            self._read = {}
            for device in self._g.list_devices():
                try:
                    table = table_of(Disk(_Device(self._g, device)), device)
                except (MountFailed, RuntimeError):  # a table that nobody understands has no facts
                    continue
                for part in table.partitions:
                    self._read[part.device] = PartitionFacts(part.uuid, table.signature, part.region.offset)
        return self._read


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
        data: bytes = said(self._g.pread_device, b"", self._device, len(buffer), offset)
        if len(data) != len(buffer):
            raise ReadFailed(self._device, offset, len(buffer), "the appliance cannot")
        buffer[:] = data

    def close(self) -> None:
        """Nothing is held."""
