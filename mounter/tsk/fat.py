"""FAT12, FAT16 and FAT32 through The Sleuth Kit, with the facts that Linux' vfat makes up: root owns all, mode 0755.

In virtual machines FAT is the EFI system partition: some hundred files. All names are read when it is opened, since TSK
writes ``^`` where a short name has letters beyond ASCII, and such a volume is for the appliance. Times are those that the
guest's clock showed; like the appliance, we take them for UTC. The appliance numbers files anew at every mount: the
numbers here are TSK's, which stay.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mounter.ports import FileEntry, FileType
from mounter.tsk.image import Region
from mounter.tsk.library import Child, Run, TskVolume
from mounter.tsk.native import PIECE, Damaged
from proxy.errors import FastPathRefused

# Entries that are kept; an EFI system partition has less than a thousand. Larger volumes are for the appliance.
MOST = 20_000

_LABEL = b" (Volume Label Entry)"
_WRITABLE = 0o222


@dataclass(slots=True)
class _Directory:
    children: list[Child]
    own: Child


class Fat:
    """The port's facts of one FAT volume. Raises ``FastPathRefused`` for what is not shown here as the appliance does."""

    label = ""

    def __init__(self, region: Region, device: str) -> None:
        self.region = region
        self._device = device
        boot = region.pread(0, 512)
        sector, per_cluster = struct.unpack_from("<HB", boot, 11)
        (rooted,) = struct.unpack_from("<H", boot, 17)
        self._cluster = sector * per_cluster
        self._tsk = TskVolume(region, device, "fat")
        self.root = self._tsk.root
        self._directories: dict[int, _Directory] = {}
        self._files: dict[int, Child] = {}
        self._read_all(rooted * 32)

    def names(self, inode: int) -> Sequence[tuple[bytes, int]]:
        """As ``Native``."""
        directory = self._directories.get(inode)
        if directory is None:
            raise Damaged(f"volume {self._device}", f"{inode} is no directory")
        return [(child.name, child.inode) for child in directory.children]

    def entry(self, inode: int, path: bytes) -> FileEntry:
        """As ``Native``."""
        directory = self._directories.get(inode)
        own = directory.own if directory is not None else self._files.get(inode)
        if own is None:
            raise Damaged(f"volume {self._device}", f"there is no file {inode}")
        if directory is not None:
            links = 2 + sum(child.directory for child in directory.children)
            return FileEntry(
                path,
                FileType.DIRECTORY,
                own.size,
                0o755,
                0,
                0,
                own.mtime_ns,
                own.mtime_ns,
                inode,
                None,
                links,
                own.size,
            )
        mode = 0o755 if own.mode & _WRITABLE else 0o555
        allocated = -(-own.size // self._cluster) * self._cluster
        return FileEntry(
            path, FileType.FILE, own.size, mode, 0, 0, own.mtime_ns, own.mtime_ns, inode, None, 1, allocated
        )

    def pieces(self, inode: int, offset: int) -> Iterator[bytes]:
        """As ``Native``."""
        return self._tsk.pieces(inode, offset, PIECE)

    def content(self, inode: int, offset: int, length: int) -> bytes:
        """As ``Native``."""
        return self._tsk.content(inode, offset, length)

    def runs(self, inode: int) -> Sequence[Run]:
        """As ``Native``."""
        return self._tsk.runs(inode)

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """FAT has none."""
        return {}

    def _read_all(self, root_size: int) -> None:
        size = root_size or self._tsk.size(self.root)
        below = [Child(b"", self.root, True, size, 0, 0o777)]
        count = 0
        while below:
            own = below.pop()
            children = [
                c for c in self._tsk.children(own.inode) if own.inode != self.root or not c.name.endswith(_LABEL)
            ]
            count += len(children)
            if count > MOST:
                raise FastPathRefused("fat-large", f"{self._device} has more than {MOST} files on FAT")
            if any(b"^" in child.name or b"/" in child.name for child in children):
                raise FastPathRefused("fat-names", f"{self._device} has names that are not told exactly here")
            if own.inode in self._directories:
                raise FastPathRefused("damaged", f"a directory of {self._device} is in itself")
            self._directories[own.inode] = _Directory(children, own)
            below += [child for child in children if child.directory]
            self._files |= {child.inode: child for child in children if not child.directory}
